//! Each limit holds, as seen by the caller and the store. Instances are replaced when they should be.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::guests::{self, FINE};
use super::{Bench, call, config, rejected};
use crate::plugin::host::WasmHost;
use crate::plugin::kv::{Commit, Found, KvError, MemoryStore, Share, Store};
use crate::plugin::{Options, PluginHost};
use crate::telemetry::Metrics;

/// A filter that runs `first`, and rejects with 100 plus the number of its instance's calls.
fn counting(first: &str) -> Vec<u8> {
    guests::component(
        "export skylark:plugin/filter@0.1.1;",
        &format!(
            r#"(global $calls (mut i32) (i32.const 48))
            (func (export "skylark:plugin/filter@0.1.1#judge") (result i32)
                {first}
                (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
                (i32.store8 (i32.const 2050) (global.get $calls))
                (i32.const 1024))
            (data (i32.const 1024) "\02\00\00\00\00\00\00\00\00\08\00\00\03\00\00\00\03\08\00\00\02\00\00\00")
            (data (i32.const 2048) "100no")"#
        ),
    )
}

/// The codes of `count` publishes, one after the other.
async fn codes(bench: &Bench, count: usize) -> Vec<String> {
    let mut codes = Vec::new();
    for _ in 0..count {
        codes.push(rejected(&bench.judge().await).unwrap().to_owned());
    }
    codes
}

#[tokio::test]
async fn instance_is_replaced_after_its_number_of_calls() {
    let bench = Bench::with(&[("f.wasm", &counting("")), ("f.toml", b"[limits]\nrecycle = 3\ninstances = 1")]).await;
    let expected: Vec<String> = [1, 2, 3].repeat(4).iter().map(|n| format!("10{n}")).collect();
    assert_eq!(codes(&bench, 12).await, expected);
    assert_eq!(bench.status("f").failures, 0);
}

#[tokio::test]
async fn an_instance_over_three_quarters_of_its_memory_is_replaced() {
    // Two pages at the start and four more per call, of 16: the third call leaves it with 14.
    let grow = "(if (i32.eq (memory.grow (i32.const 4)) (i32.const -1)) (then unreachable))";
    let manifest: &[u8] = b"[limits]\nmemory = \"1MiB\"\ninstances = 1";
    let bench = Bench::with(&[("f.wasm", &counting(grow)), ("f.toml", manifest)]).await;
    let expected: Vec<String> = [1, 2, 3].repeat(3).iter().map(|n| format!("10{n}")).collect();
    assert_eq!(codes(&bench, 9).await, expected);
    assert_eq!(bench.status("f").failures, 0);
}

#[tokio::test]
async fn an_instance_that_failed_never_serves_again() {
    let trap_at_second = "(if (i32.eq (global.get $calls) (i32.const 49)) (then unreachable))";
    let bench = Bench::with(&[("f.wasm", &counting(trap_at_second)), ("f.toml", b"[limits]\ninstances = 1")]).await;
    assert_eq!(codes(&bench, 4).await, ["101", "503", "101", "503"]);
}

/// A store that can be made to hold its answers, and records the shares that it was given.
#[derive(Default)]
struct Slow {
    store: MemoryStore,
    holds_reads: AtomicBool,
    holds_commits: AtomicBool,
    asked: Notify,
    go: Notify,
    shares: Mutex<Vec<Share>>,
}

impl Slow {
    async fn wait(&self, holds: &AtomicBool) {
        if holds.load(Ordering::SeqCst) {
            self.asked.notify_one();
            self.go.notified().await;
        }
    }
}

impl Store for Slow {
    fn get<'a>(&'a self, space: &'a str, key: &'a str) -> BoxFuture<'a, Result<Found, KvError>> {
        async move {
            self.wait(&self.holds_reads).await;
            self.store.get(space, key).await
        }
        .boxed()
    }

    fn fits<'a>(&'a self, space: &'a str, commit: &'a Commit, share: Share) -> BoxFuture<'a, bool> {
        self.store.fits(space, commit, share)
    }

    fn commit<'a>(&'a self, space: &'a str, commit: Commit, share: Share) -> BoxFuture<'a, Result<(), KvError>> {
        self.shares.lock().push(share);
        async move {
            self.wait(&self.holds_commits).await;
            self.store.commit(space, commit, share).await
        }
        .boxed()
    }
}

const KV: &str = r#"
    (import "skylark:plugin/kv@0.1.1" "get" (func $get (param i32 i32 i32)))
    (import "skylark:plugin/kv@0.1.1" "set" (func $set (param i32 i32 i32 i32 i32 i32 i32)))"#;
const GET: &str = "(call $get (i32.const 2080) (i32.const 5) (i32.const 512))";
const SET: &str = "(call $set (i32.const 2080) (i32.const 5) (i32.const 600) (i32.const 60) (i32.const 0) (i32.const 0) (i32.const 672))";

fn with_kv(body: &str) -> Vec<u8> {
    guests::handler("ask", "import skylark:plugin/kv@0.1.1;", KV, body)
}

/// A host with a handler that owns `ask`, over this store.
async fn asking(body: &str, limits: &str, store: &Arc<Slow>) -> Bench {
    asking_of("h", body, limits, store, 64).await
}

/// The same for a plugin of this name, on a node with this many instances.
async fn asking_of(name: &str, body: &str, limits: &str, store: &Arc<Slow>, instances: u32) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join(format!("{name}.wasm")), with_kv(body)).unwrap();
    std::fs::write(dir.path().join(format!("{name}.toml")), format!("grants = [\"kv\"]\n[limits]\n{limits}")).unwrap();
    let kv = Arc::clone(store) as Arc<dyn Store>;
    let options = Options { kv, ..Options::default() };
    let config = crate::config::Plugins { instances, ..config(dir.path()) };
    let (host, tasks) = WasmHost::load(&config, options).await.unwrap();
    Bench { dir, host: Arc::new(host), source: 0.into(), _tasks: tasks }
}

#[tokio::test]
async fn a_hung_host_call_ends_with_the_wall_time() {
    let store = Arc::new(Slow::default());
    let bench = asking(&format!("{GET} {FINE}"), "wall = \"60ms\"", &store).await;
    store.holds_reads.store(true, Ordering::SeqCst);
    let (code, words) = bench.handle("ask").await;
    assert_eq!((code.as_str(), words.contains("wall time of 60ms")), ("503", true), "{words}");
    store.holds_reads.store(false, Ordering::SeqCst);
    assert_eq!(bench.handle("ask").await.0, "200");
}

#[tokio::test]
async fn a_hung_commit_ends_with_the_wall_time() {
    let store = Arc::new(Slow::default());
    let bench = asking(&format!("{SET} {FINE}"), "wall = \"60ms\"", &store).await;
    store.holds_commits.store(true, Ordering::SeqCst);
    let (code, words) = bench.handle("ask").await;
    assert_eq!((code.as_str(), words.contains("wall time of 60ms")), ("503", true), "{words}");
}

/// While the guest waits for the host, its thread works for others. That time is not charged to the guest.
#[tokio::test]
async fn a_wait_for_the_host_costs_no_cpu_budget() {
    let store = Arc::new(Slow::default());
    let bench = asking(&format!("{GET} {FINE}"), "cpu = \"5ms\"", &store).await;
    store.holds_reads.store(true, Ordering::SeqCst);
    let host = Arc::clone(&bench.host);
    let asked = tokio::spawn(async move { host.handle(call("ask")).await.unwrap() });
    store.asked.notified().await;
    let (begun, mut turns) = (Instant::now(), 0_u64);
    while begun.elapsed() < Duration::from_millis(50) {
        turns = std::hint::black_box(turns + 1);
    }
    store.go.notify_one();
    let answer = asked.await.unwrap();
    assert_eq!(answer.code, "200", "{}", answer.message);
}

/// Ten times more threads than cores want to run. A call that needs a few milliseconds of CPU gets them late, and does
/// not fail for it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_starved_core_costs_no_cpu_budget() {
    let work = "(local.set $count (i32.const 5000000)) (loop $on (br_if $on (local.tee $count (i32.sub (local.get $count) (i32.const 1)))))";
    let handler = guests::handler("ask", "", "", &format!("{work} {FINE}"));
    let limits: &[u8] = b"[limits]\ncpu = \"250ms\"\nwall = \"30s\"";
    let bench = Bench::with(&[("h.wasm", &handler), ("h.toml", limits)]).await;
    let over = Arc::new(AtomicBool::new(false));
    let cores = std::thread::available_parallelism().map_or(1, Into::into);
    let rivals: Vec<_> = (0..10 * cores)
        .map(|_| {
            let over = Arc::clone(&over);
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        })
        .collect();
    let answer = bench.handle("ask").await;
    over.store(true, Ordering::Relaxed);
    for rival in rivals {
        rival.join().unwrap();
    }
    assert_eq!(answer.0, "200", "{}", answer.1);
}

#[tokio::test]
async fn calls_beyond_the_instances_are_refused_at_once_and_served_when_one_is_free() {
    let store = Arc::new(Slow::default());
    let bench = asking(&format!("{GET} {FINE}"), "instances = 1", &store).await;
    store.holds_reads.store(true, Ordering::SeqCst);
    let host = Arc::clone(&bench.host);
    let first = tokio::spawn(async move { host.handle(call("ask")).await.unwrap() });
    store.asked.notified().await;
    let (code, words) = bench.handle("ask").await;
    assert_eq!((code.as_str(), words.contains("limits.instances")), ("503", true), "{words}");
    store.holds_reads.store(false, Ordering::SeqCst);
    store.go.notify_one();
    assert_eq!(first.await.unwrap().code, "200");
    assert_eq!(bench.handle("ask").await.0, "200");
    assert_eq!(bench.status("h").failures, 1);
}

#[tokio::test]
async fn call_beyond_the_nodes_instances_is_refused() {
    let store = Arc::new(Slow::default());
    let bench = asking_of("h", &format!("{GET} {FINE}"), "", &store, 1).await;
    store.holds_reads.store(true, Ordering::SeqCst);
    let host = Arc::clone(&bench.host);
    let first = tokio::spawn(async move { host.handle(call("ask")).await.unwrap() });
    store.asked.notified().await;
    let (code, words) = bench.handle("ask").await;
    assert_eq!((code.as_str(), words.contains("(plugins.instances)")), ("503", true), "{words}");
    store.go.notify_one();
    assert_eq!(first.await.unwrap().code, "200");
    let status = bench.status("h");
    assert_eq!((status.outcomes.get("full"), status.circuit), (Some(&1), Some("closed")), "no fault of the guest");
}

/// A call without a warm instance is served by one that is made for it. Only calls beyond `instances` are refused. Both
/// are counted.
#[tokio::test]
async fn overflow_goes_to_instances_made_for_one_call_and_then_to_the_failure_answer() {
    let metrics = Metrics::install();
    let warm = std::thread::available_parallelism().map_or(1, Into::into);
    let store = Arc::new(Slow::default());
    let limits = format!("instances = {}", warm + 2);
    let bench = asking_of("overflowing", &format!("{GET} {FINE}"), &limits, &store, 64).await;
    store.holds_reads.store(true, Ordering::SeqCst);
    let mut served = Vec::new();
    for _ in 0..warm + 2 {
        let host = Arc::clone(&bench.host);
        served.push(tokio::spawn(async move { host.handle(call("ask")).await.unwrap() }));
        store.asked.notified().await;
    }
    assert!(bench.handle("ask").await.1.contains("limits.instances"));
    for call in served {
        store.go.notify_one();
        assert_eq!(call.await.unwrap().code, "200");
    }
    let told = metrics.render();
    for line in [
        r#"skylark_plugin_one_shots_total{plugin="overflowing"} 2"#,
        r#"skylark_plugin_calls_total{plugin="overflowing",role="handler",outcome="full",cause="host"} 1"#,
    ] {
        assert!(told.contains(line), "{line} is not in\n{told}");
    }
}

#[tokio::test]
async fn store_share_is_limited_by_the_manifest() {
    let store = Arc::new(Slow::default());
    let told = format!("{SET} (if (i32.load8_u (i32.const 672)) (then unreachable)) {FINE}");
    let bench = asking(&told, "kv_bytes = \"65B\"\nkv_keys = 1", &store).await;
    assert_eq!(bench.handle("ask").await.0, "200", "a key of five bytes and a value of sixty");
    assert_eq!(*store.shares.lock(), [Share { bytes: 65, keys: 1 }]);
    for limits in ["kv_bytes = \"64B\"", "kv_keys = 0"] {
        let bench = asking(&told, limits, &Arc::default()).await;
        let (code, words) = bench.handle("ask").await;
        assert_eq!((code.as_str(), words.contains("unreachable")), ("503", true), "{limits}: {words}");
    }
}

#[tokio::test]
async fn host_bytes_limit_counts_all_host_calls_of_a_call() {
    let store = Arc::new(Slow::default());
    let twice = format!("{SET} {SET} {FINE}");
    let bench = asking(&twice, "host_bytes = \"200B\"", &store).await;
    assert_eq!(bench.handle("ask").await.0, "200");
    let bench = asking(&twice, "host_bytes = \"100B\"", &Arc::default()).await;
    let (code, words) = bench.handle("ask").await;
    assert_eq!((code.as_str(), words.contains("handed over")), ("503", true), "{words}");
}

const JOIN: &str = r#"(import "skylark:plugin/outbox@0.1.1" "join" (func $join (param i32 i32 i32 i32 i32)))"#;

#[tokio::test]
async fn effects_beyond_the_limit_are_refused_to_the_guest() {
    let join = "(call $join (i32.const 2096) (i32.const 2) (i32.const 2098) (i32.const 5) (i32.const 512))";
    let third_is_refused = format!(
        "{join} {join} (if (i32.load8_u (i32.const 512)) (then unreachable))
         {join} (if (i32.eqz (i32.load8_u (i32.const 512))) (then unreachable)) {FINE}"
    );
    let handler = guests::handler("ask", "import skylark:plugin/outbox@0.1.1;", JOIN, &third_is_refused);
    let manifest: &[u8] = b"grants = [\"outbox\"]\n[limits]\npushes = 2";
    let bench = Bench::with(&[("h.wasm", &handler), ("h.toml", manifest)]).await;
    assert_eq!(bench.handle("ask").await, ("200".to_owned(), "fine".to_owned()));
}

#[tokio::test]
async fn default_limit_above_the_operators_cap_is_lowered() {
    let dir = tempfile::tempdir().unwrap();
    // 20 more pages are 1.3 MB: within a filter's 16 MiB, over this operator's cap.
    let grow = "(if (i32.eq (memory.grow (i32.const 20)) (i32.const -1)) (then unreachable)) (i32.const 0)";
    std::fs::write(dir.path().join("f.wasm"), guests::filter(grow)).unwrap();
    let mut config = config(dir.path());
    config.caps.memory = 1 << 20;
    let (host, tasks) = WasmHost::load(&config, Options::default()).await.unwrap();
    let bench = Bench { dir, host: Arc::new(host), source: 0.into(), _tasks: tasks };
    assert_eq!(rejected(&bench.judge().await), Some("503"));
    bench.put("f.toml", b"[limits]\nmemory = \"2MiB\"").await;
    let reason = bench.status("f").rejected.unwrap().reason;
    assert!(reason.ends_with("(1MiB): ask for less, or raise plugins.caps.memory"), "{reason}");
}
