//! Changes of the directory during calls: versions that serve, files that are refused and shown, gates that stay shut.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::guests::{self, ABSTAIN, ADMIT, ALLOW, FINE, TRAP};
use super::{Bench, config, envelope, passed, rejected};
use crate::plugin::check::{check_dir, check_file};
use crate::plugin::host::WasmHost;
use crate::plugin::{Judgement, LoadError, Options, PluginHost};

#[tokio::test]
async fn a_broken_file_leaves_the_last_good_version_serving() {
    let bench = Bench::with(&[("f.wasm", &guests::stamp(451))]).await;
    let good = bench.status("f");
    let half = &guests::stamp(452)[..200];
    let core = wat::parse_str("(module)").unwrap();
    let other = guests::component(
        "export skylark:plugin/lifecycle@0.1.0;",
        r#"
        (func (export "skylark:plugin/lifecycle@0.1.0#start") (result i32) (i32.const 0))"#,
    );
    let waiting = wat::parse_str(ASYNC).unwrap();
    let broken: [(&[u8], &str); 6] = [
        (half, ""),
        (b"garbage", "not WebAssembly"),
        (b"", "empty"),
        (&core, "core module"),
        (&other, "no role"),
        (&waiting, "rebuild with --sync"),
    ];
    for (bytes, words) in broken {
        bench.put("f.wasm", bytes).await;
        let status = bench.status("f");
        assert_eq!((status.state.as_str(), status.version, &status.hash), ("live", 1, &good.hash));
        let rejection = status.rejected.unwrap();
        assert!(rejection.reason.contains(words), "{}", rejection.reason);
        assert_eq!(rejected(&bench.judge().await), Some("451"));
    }
    bench.put("f.wasm", &guests::stamp(452)).await;
    let status = bench.status("f");
    assert_eq!((status.version, status.rejected), (2, None));
    assert_eq!(rejected(&bench.judge().await), Some("452"));
}

/// Lifts a function in the way that needs component-model-async.
const ASYNC: &str = r#"(component
    (core module $m
        (func (export "f") (result i32) (i32.const 0))
        (func (export "again") (param i32 i32 i32) (result i32) (i32.const 0)))
    (core instance $i (instantiate $m))
    (func (export "f") async (canon lift (core func $i "f") async (callback (core func $i "again")))))"#;

#[tokio::test]
async fn a_broken_manifest_changes_nothing_and_tells_everything() {
    let bench = Bench::with(&[("f.wasm", &guests::stamp(451))]).await;
    bench.put("f.toml", b"ordr = 1\nenabled = 1").await;
    let status = bench.status("f");
    let reason = status.rejected.unwrap().reason;
    assert!(reason.contains("unknown key ordr") && reason.contains("enabled: expected"), "{reason}");
    assert_eq!(rejected(&bench.judge().await), Some("451"));
}

#[tokio::test]
async fn a_manifest_that_is_gone_or_empty_changes_nothing() {
    let rules: &[u8] = b"order = 5\n[match]\nactions = [\"chat\"]";
    let bench = Bench::with(&[("f.wasm", &guests::stamp(451)), ("f.toml", rules)]).await;
    let serves = |bench: &Bench, why: Option<&str>| {
        let status = bench.status("f");
        assert_eq!((status.state.as_str(), status.version), ("live", 1));
        let reason = status.rejected.map(|rejected| rejected.reason);
        assert!(
            reason.as_deref().map_or(why.is_none(), |reason| why.is_some_and(|why| reason.contains(why))),
            "{reason:?}"
        );
    };
    for text in [b"".as_slice(), b" \n"] {
        bench.put("f.toml", text).await;
        serves(&bench, Some("f.toml is empty"));
    }
    bench.delete("f.toml").await;
    serves(&bench, Some("f.toml is gone"));
    // The pin in the manifest is gone with it, so no other component takes its place.
    bench.put("f.wasm", &guests::filter(ALLOW)).await;
    serves(&bench, Some("f.toml is gone"));
    assert_eq!(rejected(&bench.judge().await), Some("451"));
    bench.host.allow_remove(vec!["f".into()]).await;
    bench.host.scan().await;
    assert_eq!((bench.status("f").version, bench.status("f").rejected), (2, None), "by the operator's word");
}

#[tokio::test]
async fn disabled_plugin_stays_disabled_after_manifest_deletion() {
    let bench = Bench::with(&[("f.wasm", &guests::stamp(451)), ("f.toml", b"enabled = false")]).await;
    bench.delete("f.toml").await;
    bench.put("f.wasm", &guests::stamp(452)).await;
    assert_eq!((bench.status("f").state.as_str(), bench.judge().await), ("rejected", passed()));
    bench.put("f.toml", b"# on").await;
    assert_eq!((bench.status("f").state.as_str(), rejected(&bench.judge().await)), ("live", Some("452")));
}

#[tokio::test]
async fn deleted_auth_or_filter_plugin_keeps_blocking() {
    let bench = Bench::with(&[("a.wasm", &guests::auth(ADMIT)), ("f.wasm", &guests::filter(ALLOW))]).await;
    assert_eq!((bench.admit().await.as_str(), bench.judge().await), ("200", passed()));
    bench.delete("a.wasm").await;
    bench.delete("f.wasm").await;
    assert_eq!(bench.admit().await, "503");
    assert_eq!(rejected(&bench.judge().await), Some("503"));
    assert_eq!((bench.status("a").state.as_str(), bench.status("f").state.as_str()), ("missing", "missing"));
    bench.put("b.wasm", &guests::auth(ADMIT)).await;
    assert_eq!(bench.admit().await, "503", "another auth plugin does not stand in for the missing one");
    bench.host.allow_remove(vec!["a".into(), "f".into()]).await;
    assert_eq!((bench.admit().await.as_str(), bench.judge().await), ("200", passed()));
    assert_eq!(bench.host.status().len(), 1);
}

#[tokio::test]
async fn restored_auth_plugin_serves_again() {
    let bench = Bench::with(&[("a.wasm", &guests::auth(ADMIT))]).await;
    bench.delete("a.wasm").await;
    bench.put("a.wasm", &guests::auth(ADMIT)).await;
    assert_eq!(bench.admit().await, "200");
    assert_eq!((bench.status("a").state.as_str(), bench.status("a").version), ("live", 2));
    bench.put("a.wasm", &guests::filter(ALLOW)).await;
    let reason = bench.status("a").rejected.unwrap().reason;
    assert!(reason.contains("does not export the role auth"), "{reason}");
    assert_eq!(bench.admit().await, "200");
}

#[tokio::test]
async fn deletion_of_handler_or_fail_open_filter_removes_it() {
    let files: [(&str, &[u8]); 3] = [
        ("f.wasm", &guests::filter(TRAP)),
        ("f.toml", b"on_failure = \"allow\""),
        ("h.wasm", &guests::handler("ask", "", "", FINE)),
    ];
    let bench = Bench::with(&files).await;
    bench.delete("f.wasm").await;
    bench.delete("h.wasm").await;
    assert_eq!(bench.judge().await, passed());
    assert_eq!(bench.host.handle(super::call("ask")).await, None);
    assert!(bench.host.status().is_empty());
}

#[tokio::test]
async fn owned_key_passes_to_the_next_handler_after_deletion() {
    let (one, two) = (guests::handler("ask", "", "", FINE), guests::handler("ask", "", "", guests::SORRY));
    let bench = Bench::with(&[("one.wasm", &one), ("two.wasm", &two)]).await;
    assert_eq!(bench.handle("ask").await.0, "200");
    let reason = bench.status("two").rejected.unwrap().reason;
    assert_eq!(reason, "it owns the key \"ask\", which plugin one owns already");
    bench.delete("one.wasm").await;
    assert_eq!(bench.status("two").state.as_str(), "live");
    assert_eq!(bench.handle("ask").await.0, "503");
}

/// Rejects with the code in its settings.
const SETTLED: &str = r#"
    (import "skylark:plugin/settings@0.1.0" "get" (func $get (param i32 i32 i32)))
    (func (export "skylark:plugin/filter@0.1.0#judge") (result i32)
        (call $get (i32.const 2064) (i32.const 4) (i32.const 512))
        (i32.store (i32.const 1032) (i32.load (i32.const 516)))
        (i32.store (i32.const 1036) (i32.load (i32.const 520)))
        (i32.const 1024))
    (data (i32.const 1024) "\02\00\00\00\00\00\00\00\00\08\00\00\03\00\00\00\03\08\00\00\02\00\00\00")
    (data (i32.const 2048) "451no")
    (data (i32.const 2064) "code")"#;

#[tokio::test]
async fn new_settings_take_effect_without_a_new_file() {
    let world = "import skylark:plugin/settings@0.1.0; export skylark:plugin/filter@0.1.0;";
    let filter = guests::component(world, SETTLED);
    let bench = Bench::with(&[("f.wasm", &filter), ("f.toml", b"[settings]\ncode = \"460\"")]).await;
    assert_eq!(rejected(&bench.judge().await), Some("460"));
    bench.put("f.toml", b"[settings]\ncode = \"461\"").await;
    assert_eq!(rejected(&bench.judge().await), Some("461"));
    assert_eq!(bench.status("f").version, 2);
    bench.put("f.toml", b"[settings]\ncode = \"461\"").await;
    assert_eq!(bench.status("f").version, 2, "the same text again is no change");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn swaps_under_load_lose_no_call_and_never_return_to_an_old_version() {
    let bench = Bench::with(&[("f.wasm", &guests::stamp(100))]).await;
    let over = Arc::new(AtomicBool::new(false));
    let producers: Vec<_> = (0..4)
        .map(|_| {
            let (host, over) = (Arc::clone(&bench.host), Arc::clone(&over));
            tokio::spawn(async move {
                let (mut last, mut calls) = (100, 0_u32);
                while !over.load(Ordering::Relaxed) {
                    let mut batch = [envelope("chat"), envelope("chat")];
                    for judgement in host.judge(&mut batch).await {
                        let Judgement::Reject { refusal, .. } = judgement else { panic!("lost: {judgement:?}") };
                        let version = u32::from(refusal.code.number());
                        assert!((last..500).contains(&version), "{version} after {last}: {}", refusal.reason);
                        (last, calls) = (version, calls + 1);
                    }
                    tokio::task::yield_now().await;
                }
                (last, calls)
            })
        })
        .collect();
    for round in 0..30_u32 {
        match round % 3 {
            0 => bench.put("f.wasm", b"half a file").await,
            1 => bench.put("f.wasm", &guests::starting(TRAP)).await,
            _ => bench.put("f.wasm", &guests::stamp(100 + round)).await,
        }
    }
    over.store(true, Ordering::Relaxed);
    for producer in producers {
        let (last, calls) = producer.await.unwrap();
        assert!(calls > 0 && last <= 129);
    }
    assert_eq!(bench.status("f").failures, 0);
    assert_eq!(rejected(&bench.judge().await), Some("129"));
}

#[tokio::test]
async fn watcher_loads_a_new_file_without_a_request() {
    let bench = Bench::with(&[]).await;
    let aside = bench.dir.path().join(".a");
    std::fs::write(&aside, guests::auth(ADMIT)).unwrap();
    std::fs::rename(aside, bench.dir.path().join("a.wasm")).unwrap();
    let seen = async {
        while bench.host.status().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), seen).await.unwrap();
    assert_eq!(bench.admit().await, "200");
}

#[tokio::test]
async fn missing_plugin_directory_fails_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let missing = config(&dir.path().join("nowhere"));
    assert!(matches!(WasmHost::load(&missing, Options::default()).await, Err(LoadError::Dir { .. })));
}

#[tokio::test]
async fn compiled_files_are_kept_and_used() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f.wasm"), guests::stamp(451)).unwrap();
    let cache = dir.path().join("cache");
    let config = crate::config::Plugins { cache: cache.clone(), ..config(dir.path()) };
    for _ in 0..2 {
        let (host, tasks) = WasmHost::load(&config, Options::default()).await.unwrap();
        assert_eq!(rejected(&host.judge(&mut [envelope("chat")]).await[0]), Some("451"));
        tasks.stop().await;
    }
    let files = std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path());
    let kept: Vec<_> = files.filter(|path| path.extension().is_some()).collect();
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(std::fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
}

#[tokio::test]
async fn check_reports_the_faults_of_loading() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    put("a.wasm", &guests::handler("ask", "", "", FINE));
    put("b.wasm", &guests::handler("ask", "", "", FINE));
    put("c.wasm", &guests::auth(ABSTAIN));
    put("c.toml", b"ordr = 1");
    put("d.wasm", b"garbage");
    let config = config(dir.path());
    let reports = check_dir(&config).await.unwrap();
    let faults: Vec<_> = reports.iter().map(|report| report.faults.join("; ")).collect();
    assert_eq!(faults[0], "");
    assert_eq!(faults[1], "it owns the key \"ask\", which plugin a owns already");
    assert!(faults[2].starts_with("c.toml: unknown key ordr"), "{}", faults[2]);
    assert_eq!(faults[3], "this is not WebAssembly");
    assert_eq!(
        (reports[0].roles.as_slice(), reports[2].roles.as_slice()),
        (["handler"].as_slice(), ["auth"].as_slice())
    );
    let one = check_file(&dir.path().join("a.wasm"), &config).await.unwrap();
    assert_eq!((one.faults, one.keys), (Vec::new(), vec!["ask".to_owned()]));
}
