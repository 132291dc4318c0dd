//! A trap, an endless loop, a memory hog and a deep recursion in every role: the time is bounded, the caller gets the
//! declared failure answer, and the next call is served.

use std::time::{Duration, Instant};

use super::guests::{self, ADMIT, ALLOW, DEEP, FINE, HOG, LOOP, TRAP};
use super::{Bench, passed, rejected};

/// More than every default budget on a machine that is ten times too slow.
const BOUND: Duration = Duration::from_secs(100);
const HOSTILE: [(&str, &str); 4] = [("trap", TRAP), ("loop", LOOP), ("hog", HOG), ("deep", DEEP)];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_filter_rejects_and_the_next_call_is_served() {
    for (name, body) in HOSTILE {
        let begun = Instant::now();
        let bench = Bench::with(&[("f.wasm", &guests::filter(body))]).await;
        for _ in 0..3 {
            assert_eq!(rejected(&bench.judge().await), Some("503"), "{name}");
        }
        assert_eq!(bench.status("f").failures, 3, "{name}");
        bench.put("f.wasm", &guests::filter(ALLOW)).await;
        assert_eq!(bench.judge().await, passed(), "{name}");
        assert!(begun.elapsed() < BOUND, "{name} took {:?}", begun.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_filter_with_on_failure_allow_passes_messages() {
    for (name, body) in HOSTILE {
        let manifest: &[u8] = b"on_failure = \"allow\"";
        let bench = Bench::with(&[("f.wasm", &guests::filter(body)), ("f.toml", manifest)]).await;
        assert_eq!(bench.judge().await, passed(), "{name}");
        assert_eq!(bench.status("f").failures, 1, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_auth_plugin_refuses() {
    for (name, body) in HOSTILE {
        let bench = Bench::with(&[("a.wasm", &guests::auth(body))]).await;
        for _ in 0..2 {
            assert_eq!(bench.admit().await, "503", "{name}");
        }
        bench.put("a.wasm", &guests::auth(ADMIT)).await;
        assert_eq!(bench.admit().await, "200", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_handler_answers_503() {
    for (name, body) in HOSTILE {
        let bench = Bench::with(&[("h.wasm", &guests::handler("ask", "", "", body))]).await;
        for _ in 0..2 {
            let (code, message) = bench.handle("ask").await;
            assert_eq!(code, "503", "{name}");
            assert_ne!(message, crate::plugin::UNAVAILABLE, "the log has a reason");
        }
        bench.put("h.wasm", &guests::handler("ask", "", "", FINE)).await;
        assert_eq!(bench.handle("ask").await, ("200".into(), "fine".into()), "{name}");
    }
}

#[tokio::test]
async fn one_worker_serves_others_while_a_guest_spins() {
    let manifest: &[u8] = b"[limits]\ncpu = \"500ms\"\nwall = \"10s\"";
    let bench = Bench::with(&[
        ("spin.wasm", &guests::handler("spin", "", "", LOOP)),
        ("spin.toml", manifest),
        ("fine.wasm", &guests::handler("fine", "", "", FINE)),
    ])
    .await;
    let spinning = tokio::spawn({
        let host = std::sync::Arc::clone(&bench.host);
        async move { super::PluginHost::handle(&*host, super::call("spin")).await }
    });
    // On the only thread of this test, each call is served between two ticks of the spinning guest.
    let mut served = 0;
    while !spinning.is_finished() {
        assert_eq!(bench.handle("fine").await.0, "200");
        served += 1;
        tokio::task::yield_now().await;
    }
    assert!(served > 5, "{served}");
    let answer = spinning.await.unwrap().unwrap();
    assert_eq!((answer.code.as_str(), bench.status("spin").outcomes.get("cpu")), ("503", Some(&1)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hostile_start_refuses_the_file_in_bounded_time() {
    let sorry = "(i32.const 1152)";
    for (body, words) in [(TRAP, "unreachable"), (LOOP, "CPU time"), (HOG, "memory"), (sorry, "start: sorry")] {
        let bench = Bench::with(&[("f.wasm", &guests::stamp(451))]).await;
        bench.put("f.wasm", &guests::starting(body)).await;
        let status = bench.status("f");
        let reason = status.rejected.unwrap().reason;
        assert!(reason.contains(words), "{reason}");
        assert_eq!((status.state.as_str(), status.version), ("live", 1));
        assert_eq!(rejected(&bench.judge().await), Some("451"));
    }
}

#[tokio::test]
async fn manifest_raises_the_memory_limit_of_a_plugin() {
    let grow = "(if (i32.eq (memory.grow (i32.const 400)) (i32.const -1)) (then unreachable)) (i32.const 0)";
    let bench = Bench::with(&[("f.wasm", &guests::filter(grow))]).await;
    assert_eq!(rejected(&bench.judge().await), Some("503"), "16 MiB are not enough for 400 pages more");
    bench.put("f.toml", b"[limits]\nmemory = \"64MiB\"").await;
    assert_eq!(bench.judge().await, passed());
}
