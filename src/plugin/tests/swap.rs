//! Stages of a new version: circuit, probation, rollback, canary, and operator commands.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::guests::{self, ADMIT, ALLOW, REJECT, TRAP};
use super::{Bench, call, envelope, passed, rejected};
use crate::message::{Envelope, Message};
use crate::plugin::guest::manifest::share::Share;
use crate::plugin::{Judgement, PluginCommand, PluginCommandFault, PluginHost, Status};

/// A handler of the keys `ask` and `boom`; it traps on the longer one.
fn moody() -> Vec<u8> {
    guests::component(
        "export skylark:plugin/handler@0.1.0;",
        r#"
        (func (export "skylark:plugin/handler@0.1.0#keys") (result i32) (i32.const 1040))
        (func (export "skylark:plugin/handler@0.1.0#handle")
            (param i32 i32 i32 i32 i32 i32 i32 i64 i32 i32 i32 i32 i32 i32 i64) (result i32)
            (if (i32.eq (local.get 1) (i32.const 4)) (then unreachable))
            (i32.const 1088))
        (data (i32.const 1040) "\20\04\00\00\02\00\00\00")
        (data (i32.const 1056) "\00\08\00\00\03\00\00\00\03\08\00\00\04\00\00\00")
        (data (i32.const 1088) "\00\00\00\00\10\08\00\00\03\00\00\00\13\08\00\00\04\00\00\00")
        (data (i32.const 2048) "askboom")
        (data (i32.const 2064) "200fine")"#,
    )
}

#[tokio::test]
async fn repeated_failures_open_the_circuit_of_a_plugin() {
    let bench = Bench::with(&[("h.wasm", &moody())]).await;
    assert_eq!(bench.handle("ask").await.0, "200");
    for _ in 0..10 {
        assert_eq!(bench.handle("boom").await.0, "503");
    }
    let (code, message) = bench.handle("ask").await;
    assert_eq!((code.as_str(), message.as_str()), ("503", crate::plugin::UNAVAILABLE));
    let status = bench.status("h");
    assert_eq!((status.circuit, status.calls, status.failures), (Some("open"), 11, 10));
    let outcomes: Vec<_> = status.outcomes.into_iter().collect();
    assert_eq!(outcomes, [("done", 1), ("open", 1), ("trap", 10)]);
}

/// While a circuit is open, each role gives its declared answer: here a filter that passes, one that does not, and
/// auth.
#[tokio::test]
async fn an_open_circuit_is_answered_as_the_role_declares() {
    let files: [(&str, &[u8]); 5] = [
        ("a.wasm", &guests::auth(TRAP)),
        ("f.wasm", &guests::filter(guests::LOOP)),
        ("f.toml", b"on_failure = \"allow\"\n[limits]\ncpu = \"1ms\"\nwall = \"10s\"\n[match]\nactions = [\"chat\"]"),
        ("g.wasm", &guests::filter(TRAP)),
        ("g.toml", b"[match]\nactions = [\"other\"]"),
    ];
    let bench = Bench::configured(&files, |config| config.breaker.rest = Duration::from_secs(3_600)).await;
    for _ in 0..12 {
        assert_eq!((bench.judge().await, bench.admit().await.as_str()), (passed(), "503"));
        let other = Envelope { back_end: Some(bench.next_source().into()), ..envelope("other") };
        assert_eq!(rejected(&bench.host.judge(&mut [other]).await[0]), Some("503"));
    }
    for (name, failed) in [("a", "trap"), ("f", "cpu"), ("g", "trap")] {
        let status = bench.status(name);
        assert_eq!(status.circuit, Some("open"), "{name}: {status:?}");
        assert_eq!((status.outcomes.get(failed), status.outcomes.get("open")), (Some(&10), Some(&2)), "{name}");
    }
}

#[tokio::test]
async fn a_canary_call_closes_the_circuit() {
    let bench = Bench::configured(&[("h.wasm", &moody())], |config| config.breaker.rest = Duration::ZERO).await;
    for _ in 0..12 {
        assert_eq!(bench.handle("boom").await.0, "503");
    }
    assert_eq!(bench.status("h").circuit, Some("open"), "canaries that trap leave it open");
    assert_eq!(bench.handle("ask").await.0, "200");
    let status = bench.status("h");
    assert_eq!((status.circuit, status.circuits_opened), (Some("closed"), 1));
}

/// Waits until the loader has acted on its own.
pub(super) async fn until(bench: &Bench, name: &str, what: impl Fn(&Status) -> bool) -> Status {
    let seen = async {
        loop {
            let status = bench.status(name);
            if what(&status) {
                return status;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), seen).await.unwrap_or_else(|_| panic!("{:?}", bench.status(name)))
}

#[tokio::test]
async fn a_version_that_opens_its_circuit_is_rolled_back_and_not_tried_again() {
    let (good, bad) = (guests::stamp(451), guests::filter(TRAP));
    let bench = Bench::with(&[("f.wasm", &good)]).await;
    let first = bench.status("f");
    bench.put("f.wasm", &bad).await;
    let status = bench.status("f");
    assert_eq!((status.version, status.probation, status.previous.as_ref()), (2, true, Some(&first.hash)));
    let second = status.hash;
    for _ in 0..10 {
        assert!(matches!(rejected(&bench.judge().await), Some("503" | "451")), "the version before may serve again");
    }
    let status = until(&bench, "f", |status| status.version == 1).await;
    let refused = status.rejected.unwrap();
    assert_eq!((status.hash, status.state.as_str(), status.previous), (first.hash, "live", None));
    assert!(refused.hash == second && refused.reason.starts_with("rolled back: it failed on probation within "));
    assert_eq!(rejected(&bench.judge().await), Some("451"));
    bench.put("f.wasm", &bad).await;
    assert_eq!((bench.status("f").version, rejected(&bench.judge().await)), (1, Some("451")), "the same file again");
    let tried = bench.host.execute("f", PluginCommand::Reload).await.unwrap();
    assert_eq!((tried.version, tried.hash), (3, second), "the operator says so");
    bench.put("f.wasm", &guests::stamp(452)).await;
    assert_eq!(rejected(&bench.judge().await), Some("452"));
}

#[tokio::test]
async fn after_its_probation_a_version_stays_and_the_operator_may_go_back() {
    let bench = Bench::configured(&[("f.wasm", &guests::stamp(451))], |config| {
        (config.probation.calls, config.probation.time) = (0, Duration::ZERO);
    })
    .await;
    bench.put("f.wasm", &guests::filter(TRAP)).await;
    bench.host.scan().await;
    assert!(!bench.status("f").probation);
    for _ in 0..11 {
        assert_eq!(rejected(&bench.judge().await), Some("503"));
    }
    bench.host.scan().await;
    let status = bench.status("f");
    assert_eq!((status.version, status.circuit, status.rejected), (2, Some("open"), None));
    let status = bench.host.execute("f", PluginCommand::RollBack).await.unwrap();
    assert_eq!((status.version, status.rejected.unwrap().reason.as_str()), (1, "rolled back by the operator"));
    assert_eq!(rejected(&bench.judge().await), Some("451"));
    let fault = bench.host.execute("f", PluginCommand::RollBack).await.unwrap_err();
    assert_eq!(fault, PluginCommandFault::NotPossible("there is no earlier version to restore".into()));
}

async fn judged(bench: &Bench, sender: &str) -> Judgement {
    let mut one = envelope("chat");
    one.message = Arc::new(Message { sender: sender.to_owned(), ..Message::default() });
    bench.host.judge(&mut [one]).await.remove(0)
}

pub(super) async fn codes(bench: &Bench) -> Vec<String> {
    let mut codes = Vec::new();
    for sender in 0..200 {
        let judgement = judged(bench, &sender.to_string()).await;
        codes.push(rejected(&judgement).unwrap_or("passed").to_owned());
    }
    codes
}

#[tokio::test]
async fn canary_serves_its_share_and_all_calls_after_its_probation() {
    let files: [(&str, &[u8]); 2] = [("f.wasm", &guests::stamp(451)), ("f.toml", b"canary = \"30%\"")];
    let bench = Bench::configured(&files, |config| {
        (config.probation.calls, config.probation.time) = (170, Duration::ZERO);
    })
    .await;
    assert!(codes(&bench).await.iter().all(|code| code == "451"), "the first version has nothing to share with");
    bench.put("f.wasm", &guests::stamp(452)).await;
    let before = codes(&bench).await;
    let share = before.iter().filter(|code| *code == "452").count();
    assert!((43..85).contains(&share) && before.iter().all(|code| code == "451" || code == "452"), "{share} of 200");
    assert_eq!(codes(&bench).await, before, "a sender keeps its version");
    assert_eq!(rejected(&bench.judge().await), Some("451"), "nobody's push is no trial's");
    let status = bench.status("f");
    let canary = status.canary.unwrap();
    assert_eq!((status.version, canary.version, canary.share.as_str()), (1, 2, "30%"));
    assert_eq!(canary.calls, 2 * share as u64);
    while bench.status("f").canary.is_some_and(|canary| canary.calls < 170) {
        assert_eq!(codes(&bench).await.len(), before.len());
    }
    bench.host.scan().await;
    let status = bench.status("f");
    assert_eq!((status.version, status.canary, status.probation), (2, None, true));
    assert!(codes(&bench).await.iter().all(|code| code == "452"));
}

#[tokio::test]
async fn a_canary_that_fails_is_taken_back_and_harms_its_share_only() {
    let files: [(&str, &[u8]); 2] = [("f.wasm", &guests::stamp(451)), ("f.toml", b"canary = \"30%\"")];
    let bench = Bench::with(&files).await;
    bench.put("f.wasm", &guests::filter(TRAP)).await;
    let share = Share::parse("30%").unwrap();
    let mut failed = 0;
    for (sender, code) in codes(&bench).await.iter().enumerate() {
        assert!(code == "451" || share.contains("f", &sender.to_string()), "sender {sender} got {code}");
        failed += usize::from(code == "503");
    }
    // The previous version answers in the background. Its third answer takes the canary back, so at least three failed.
    assert!(failed >= 3, "{failed}");
    let status = until(&bench, "f", |status| status.canary.is_none()).await;
    assert!(status.version == 1 && status.rejected.unwrap().reason.starts_with("rolled back"));
    assert!(codes(&bench).await.iter().all(|code| code == "451"));
}

#[tokio::test]
async fn disabled_filter_passes_messages_and_disabled_only_auth_refuses_clients() {
    let files: [(&str, &[u8]); 2] = [("a.wasm", &guests::auth(ADMIT)), ("f.wasm", &guests::filter(REJECT))];
    let bench = Bench::with(&files).await;
    for name in ["a", "f"] {
        let status = bench.host.execute(name, PluginCommand::Disable).await.unwrap();
        assert_eq!((status.state.as_str(), status.version), ("disabled", 0));
        bench.host.execute(name, PluginCommand::Disable).await.unwrap();
    }
    assert_eq!((bench.admit().await.as_str(), bench.judge().await), ("503", passed()));
    bench.put("f.wasm", &guests::stamp(452)).await;
    assert_eq!(
        (bench.status("f").state.as_str(), bench.judge().await),
        ("disabled", passed()),
        "a new file changes nothing"
    );
    assert!(matches!(bench.host.execute("f", PluginCommand::Reload).await, Err(PluginCommandFault::NotPossible(_))));
    for name in ["a", "f"] {
        assert_eq!(bench.host.execute(name, PluginCommand::Enable).await.unwrap().state.as_str(), "live");
        bench.host.execute(name, PluginCommand::Enable).await.unwrap();
    }
    assert_eq!(bench.admit().await, "200");
    assert_eq!(rejected(&bench.judge().await), Some("452"), "what came meanwhile is taken");
    assert_eq!(bench.host.execute("nobody", PluginCommand::Disable).await, Err(PluginCommandFault::Unknown));
}

/// A start that takes a while, so that an operator's command can overtake it.
const SLOW: &str = "(local $turns i32)
    (loop $on
        (local.set $turns (i32.add (local.get $turns) (i32.const 1)))
        (br_if $on (i32.lt_u (local.get $turns) (i32.const 50000000))))
    (i32.const 0)";

#[tokio::test]
async fn plugin_disabled_during_a_load_stays_disabled() {
    let bench = Bench::with(&[("f.wasm", &guests::stamp(451))]).await;
    let aside = bench.dir.path().join(".f");
    std::fs::write(&aside, guests::starting(SLOW)).unwrap();
    std::fs::rename(aside, bench.dir.path().join("f.wasm")).unwrap();
    let disabled = async {
        let told = bench.host.execute("f", PluginCommand::Disable).await.unwrap();
        (told.state.as_str(), bench.judge().await)
    };
    let ((), told) = tokio::join!(bench.host.scan(), disabled);
    assert_eq!(told, ("disabled", passed()));
    assert_eq!((bench.status("f").state.as_str(), bench.judge().await), ("disabled", passed()));
    let status = bench.host.execute("f", PluginCommand::Enable).await.unwrap();
    assert_eq!((status.state.as_str(), status.version), ("live", 2), "{status:?}");
}

#[tokio::test]
async fn the_operator_removes_a_missing_guard_by_disabling_it() {
    let bench = Bench::with(&[("f.wasm", &guests::stamp(451))]).await;
    bench.delete("f.wasm").await;
    assert_eq!(rejected(&bench.judge().await), Some("503"));
    bench.host.execute("f", PluginCommand::Disable).await.unwrap();
    assert_eq!(bench.judge().await, passed());
    assert_eq!(bench.host.execute("f", PluginCommand::Enable).await.unwrap().state.as_str(), "missing");
    assert_eq!(rejected(&bench.judge().await), Some("503"));
}

#[tokio::test]
async fn enable_command_is_refused_while_the_manifest_disables() {
    let bench = Bench::with(&[("f.wasm", &guests::filter(ALLOW)), ("f.toml", b"enabled = false")]).await;
    let fault = bench.host.execute("f", PluginCommand::Enable).await.unwrap_err();
    assert_eq!(fault, PluginCommandFault::NotPossible("f.toml says enabled = false: change it there".into()));
    bench.put("f.toml", b"enabled = true").await;
    assert_eq!(bench.status("f").state.as_str(), "live");
    bench.put("f.wasm", b"garbage").await;
    let fault = bench.host.execute("f", PluginCommand::Reload).await.unwrap_err();
    assert!(fault.to_string().starts_with("its file is refused: this is not WebAssembly"), "{fault}");
    assert_eq!(bench.host.handle(call("ask")).await, None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_that_settle_together_are_swapped_together() {
    const NAMES: [&str; 2] = ["one.wasm", "two.wasm"];
    let bench = Bench::with(&[]).await;
    let dir = bench.dir.path();
    // Both files are behind one link, so that both change at one moment on any machine.
    let put = |round: u32| {
        let (data, aside) = (dir.join(format!(".v{round}")), dir.join(".aside"));
        std::fs::create_dir(&data).unwrap();
        for name in NAMES {
            std::fs::write(data.join(name), guests::stamp(200 + round)).unwrap();
        }
        std::os::unix::fs::symlink(&data, &aside).unwrap();
        std::fs::rename(aside, dir.join(".data")).unwrap();
    };
    put(0);
    for name in NAMES {
        std::os::unix::fs::symlink(Path::new(".data").join(name), dir.join(name)).unwrap();
    }
    bench.host.scan().await;
    assert_eq!([bench.status("one").version, bench.status("two").version], [1, 1]);
    let over = Arc::new(AtomicBool::new(false));
    let watcher = tokio::spawn({
        let (host, over) = (Arc::clone(&bench.host), Arc::clone(&over));
        async move {
            let mut looks = 0_u64;
            while !over.load(Ordering::Relaxed) {
                let versions: Vec<u64> = host.status().iter().map(|status| status.version).collect();
                assert!(versions[0] == versions[1], "half of a change was seen: {versions:?}");
                looks += 1;
                tokio::task::yield_now().await;
            }
            looks
        }
    });
    for round in 1..8 {
        put(round);
        bench.host.scan().await;
        assert_eq!(bench.status("two").version, u64::from(round) + 1);
    }
    over.store(true, Ordering::Relaxed);
    assert!(watcher.await.unwrap() > 0);
}
