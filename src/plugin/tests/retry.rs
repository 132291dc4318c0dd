//! A call that ran out of time is repeated once, and only if it had no visible effect.
//!
//! A store that has an answer from the second read on stands for a slow machine: the guest loops while there is none.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::guests::{self, ADMIT, ALLOW, LOOP};
use super::{Bench, config, passed, rejected};
use crate::plugin::Options;
use crate::plugin::fetch::{Fetch, FetchError, FetchRequest, FetchResponse};
use crate::plugin::host::WasmHost;
use crate::plugin::kv::{Commit, Found, KvError, MemoryStore, Share, Store};

/// Finds nothing at the first read, and five bytes from then on.
#[derive(Default)]
struct Late {
    reads: AtomicUsize,
    store: MemoryStore,
}

impl Store for Late {
    fn get<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<Found, KvError>> {
        let is_first = self.reads.fetch_add(1, Ordering::SeqCst) == 0;
        let value = (!is_first).then(|| b"there".as_slice().into());
        std::future::ready(Ok(Found { value, ..Found::default() })).boxed()
    }

    fn fits<'a>(&'a self, space: &'a str, commit: &'a Commit, share: Share) -> BoxFuture<'a, bool> {
        self.store.fits(space, commit, share)
    }

    fn commit<'a>(&'a self, space: &'a str, commit: Commit, share: Share) -> BoxFuture<'a, Result<(), KvError>> {
        self.store.commit(space, commit, share)
    }
}

/// Answers each request at once.
struct Network;

impl Fetch for Network {
    fn fetch(&self, _: FetchRequest) -> BoxFuture<'_, Result<FetchResponse, FetchError>> {
        std::future::ready(Ok(FetchResponse { status: 204, headers: Vec::new(), body: Vec::new() })).boxed()
    }
}

const IMPORTS: &str = r#"
    (import "skylark:plugin/kv@0.1.1" "get" (func $get (param i32 i32 i32)))
    (import "skylark:plugin/kv@0.1.1" "set" (func $set (param i32 i32 i32 i32 i32 i32 i32)))
    (import "skylark:plugin/counters@0.1.1" "add-and-read" (func $add (param i32 i32 i32 i32) (result i64)))
    (import "skylark:plugin/http@0.1.1" "send" (func $send (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))"#;
const WORLD: &str =
    "import skylark:plugin/kv@0.1.1; import skylark:plugin/counters@0.1.1; import skylark:plugin/http@0.1.1;";
/// Loops forever if the store has no answer.
const FIRST_LOOPS: &str = "(call $get (i32.const 2080) (i32.const 5) (i32.const 512))
    (if (i32.eqz (i32.load8_u (i32.const 512))) (then (loop $for_ever (br $for_ever))))";
/// Sets another key than the one that is read.
const SET: &str = "(call $set (i32.const 2081) (i32.const 4) (i32.const 600) (i32.const 5) (i32.const 0) (i32.const 0) (i32.const 672))";
/// Sends a GET without headers, body and time-out.
const SEND: &str =
    "(call $send (i32.const 1792) (i32.const 3) (i32.const 1795) (i32.const 18) (i32.const 0) (i32.const 0)
    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 512))";
/// Adds one to a counter; traps unless the sum is one.
const COUNT_ONE: &str =
    "(if (i64.ne (call $add (i32.const 2080) (i32.const 5) (i32.const 60) (i32.const 1)) (i64.const 1))
    (then unreachable))";

async fn bench(files: &[(&str, &[u8])], store: &Arc<Late>) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    let options =
        Options { kv: Arc::clone(store) as Arc<dyn Store>, fetch: Some(Arc::new(Network)), ..Options::default() };
    let (host, tasks) = WasmHost::load(&config(dir.path()), options).await.unwrap();
    Bench { dir, host: Arc::new(host), source: 0.into(), _tasks: tasks }
}

/// A filter has no store, so a second counter records that it was asked before.
const FIRST_LOOPS_BY_COUNTER: &str = "
    (if (i64.eqz (call $add (i32.const 2081) (i32.const 4) (i32.const 60) (i32.const 0))) (then
        (drop (call $add (i32.const 2081) (i32.const 4) (i32.const 60) (i32.const 1)))
        (loop $for_ever (br $for_ever))))";

fn filter(body: &str) -> Vec<u8> {
    let imports: String = IMPORTS.lines().filter(|line| line.contains("counters@")).collect();
    guests::component(
        "import skylark:plugin/counters@0.1.1; export skylark:plugin/filter@0.1.1;",
        &format!(
            r#"{imports} (func (export "skylark:plugin/filter@0.1.1#judge") (result i32) {body})
            (data (i32.const 2080) "count")"#
        ),
    )
}

const GRANTS: &[u8] = b"grants = [\"kv\", \"counters\", \"http\"]\n[http]\nallow = [\"https://a.example\"]";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_that_overran_is_asked_once_more_and_its_answer_counts() {
    let wasm = filter(&format!("{COUNT_ONE} {FIRST_LOOPS_BY_COUNTER} {ALLOW}"));
    let bench = Bench::with(&[("f.wasm", &wasm), ("f.toml", b"grants = [\"counters\"]")]).await;
    assert_eq!(bench.judge().await, passed());
    let status = bench.status("f");
    assert_eq!(
        (status.failures, status.calls),
        (0, 1),
        "what was answered has not failed, and nothing was counted twice"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_filter_that_overruns_twice_has_failed_once() {
    let bench = Bench::with(&[("f.wasm", &guests::filter(LOOP))]).await;
    let judged = bench.judge().await;
    assert_eq!(rejected(&judged), Some("503"));
    assert_eq!(bench.status("f").failures, 1);
}

/// Overruns at the first try of each publish: then one counter is ahead of the other.
const FIRST_TRY_LOOPS: &str = "
    (if (i64.eq (call $add (i32.const 2081) (i32.const 4) (i32.const 60) (i32.const 0))
                (call $add (i32.const 2082) (i32.const 3) (i32.const 60) (i32.const 0))) (then
        (drop (call $add (i32.const 2081) (i32.const 4) (i32.const 60) (i32.const 1)))
        (loop $for_ever (br $for_ever))))
    (drop (call $add (i32.const 2082) (i32.const 3) (i32.const 60) (i32.const 1)))";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn source_has_one_retry_in_each_rest_of_the_breaker() {
    let wasm = filter(&format!("{FIRST_TRY_LOOPS} {ALLOW}"));
    let bench = Bench::with(&[("f.wasm", &wasm), ("f.toml", b"grants = [\"counters\"]")]).await;
    assert_eq!(bench.judge_for("shop").await, passed());
    assert_eq!(rejected(&bench.judge_for("shop").await), Some("503"), "the second overrun of this key in 5 s");
    assert_eq!(bench.judge_for("bank").await, passed(), "the counters are apart: it answers at once");
    assert_eq!(bench.judge_for("bank").await, passed(), "it overran and was retried");
    assert_eq!(bench.status("f").failures, 1);
}

fn auth(body: &str) -> Vec<u8> {
    let world = format!("{WORLD} export skylark:plugin/auth@0.1.1;");
    guests::component(
        &world,
        &format!(
            r#"{IMPORTS}
            (func (export "skylark:plugin/auth@0.1.1#admit") (param i32) (result i32) {body})
            (data (i32.const 1024) "\00\00\00\00\00\00\00\00\00\0a\00\00\02\00\00\00")
            (data (i32.const 1792) "GEThttps://a.example/")
            (data (i32.const 2080) "count")
            (data (i32.const 2560) "u7")"#
        ),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_auth_plugin_that_overran_is_asked_once_more() {
    let store = Arc::new(Late::default());
    let wasm = auth(&format!("{COUNT_ONE} {FIRST_LOOPS} {ADMIT}"));
    let bench = bench(&[("a.wasm", &wasm), ("a.toml", GRANTS)], &store).await;
    assert_eq!(bench.admit().await, "200");
    assert_eq!((store.reads.load(Ordering::SeqCst), bench.status("a").failures), (2, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_auth_plugin_that_asked_the_network_or_wrote_keys_is_not_asked_again() {
    for first in [SEND, SET] {
        let store = Arc::new(Late::default());
        let wasm = auth(&format!("{first} {FIRST_LOOPS} {ADMIT}"));
        let bench = bench(&[("a.wasm", &wasm), ("a.toml", GRANTS)], &store).await;
        assert_eq!(bench.admit().await, "503", "{first}");
        assert_eq!((store.reads.load(Ordering::SeqCst), bench.status("a").failures), (1, 1), "{first}");
    }
}
