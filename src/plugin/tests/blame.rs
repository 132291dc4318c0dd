//! Blame for a failed call: one client's input, an unavailable store, a missing file, or the guest.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::swap::until;
use super::{Bench, call, config, envelope, passed};
use crate::id::{ConnectionId, Uid};
use crate::message::{Envelope, Publisher};
use crate::plugin::host::WasmHost;
use crate::plugin::kv::{Commit, Found, KvError, Share, Store};
use crate::plugin::{Call, Claim, Judgement, Options, PluginCommand, PluginHost, Refusal, Transport, Unjudged};

fn guest(name: &str) -> Vec<u8> {
    let dist = concat!(env!("CARGO_MANIFEST_DIR"), "/plugins/testing/dist");
    std::fs::read(format!("{dist}/{name}.wasm")).unwrap()
}

async fn admit(bench: &Bench, address: &str, token: &str) -> Result<Uid, Refusal> {
    let transport = Transport { remote: address.to_owned(), ..Transport::default() };
    let claim = Claim { token: Some(token.to_owned()), ..Claim::default() };
    bench.host.admit(transport, claim).await.map(|admission| admission.uid)
}

/// Judgement of a client's message with this action.
async fn says(bench: &Bench, user: &str, action: &str) -> Judgement {
    let from = Publisher { uid: Uid::parse(user).unwrap(), cid: ConnectionId::new(1).unwrap() };
    let mut batch = [Envelope { from: Some(from), ..envelope(action) }];
    bench.host.judge(&mut batch).await.remove(0)
}

fn is_unjudged(judgement: &Judgement, is_general: bool) -> bool {
    matches!(judgement, Judgement::Unjudged(unjudged) if unjudged.is_general == is_general)
}

#[tokio::test]
async fn a_token_with_an_invalid_name_is_refused_with_403_and_nobody_else_notices() {
    let bench = Bench::with(&[("a.wasm", &guest("fault-auth"))]).await;
    for token in ["Last, First", "u@Last, First"] {
        for _ in 0..20 {
            let refusal = admit(&bench, "192.0.2.1", token).await.unwrap_err();
            let field = if token.starts_with('u') { "device" } else { "uid" };
            let words = format!("{field}: expected no comma or control character, got \"Last, First\"");
            assert_eq!((refusal.code.as_str(), refusal.reason), ("403", words));
            assert_eq!(admit(&bench, "192.0.2.1", "bob").await.unwrap().as_str(), "bob");
        }
    }
    let long = admit(&bench, "192.0.2.1", &"x".repeat(129)).await.unwrap_err();
    assert_eq!((long.code.as_str(), long.reason.as_str()), ("403", "uid: expected at most 128 bytes, got 129"));
    let status = bench.status("a");
    assert_eq!((status.circuit, status.failures, status.set_apart.times), (Some("closed"), 0, 0));
    assert_eq!(status.outcomes.get("input"), Some(&41));
    assert!(bench.host.faults().is_empty());
}

#[tokio::test]
async fn client_that_makes_a_filter_fail_is_set_apart_alone() {
    let bench = Bench::with(&[("f.wasm", &guest("fault-filter"))]).await;
    for n in 0..20 {
        assert!(is_unjudged(&says(&bench, "mallory", "trap").await, false));
        assert_eq!(says(&bench, &format!("user {n}"), "chat").await, passed());
        assert_eq!(bench.judge().await, passed(), "back ends");
    }
    let status = bench.status("f");
    assert_eq!((status.circuit, status.circuits_opened, status.set_apart.now), (Some("closed"), 0, 1));
    assert_eq!(status.set_apart.sources[0].source, "user mallory");
    assert!(is_unjudged(&says(&bench, "mallory", "chat").await, false), "whatever he sends");
    let status = bench.host.execute("f", PluginCommand::Readmit).await.unwrap();
    assert_eq!((status.set_apart.now, says(&bench, "mallory", "chat").await), (0, passed()));
}

#[tokio::test]
async fn failure_of_both_versions_causes_no_rollback() {
    let bench = Bench::with(&[("f.wasm", &guest("fault-filter"))]).await;
    bench.put("f.toml", b"order = 1").await;
    assert!(bench.status("f").probation);
    for n in 0..12 {
        assert!(matches!(says(&bench, &format!("mallory {n}"), "trap").await, Judgement::Unjudged(_)));
    }
    let status = bench.status("f");
    assert_eq!((status.circuit, status.version), (Some("open"), 2));
    bench.host.wait_for_extra_calls().await;
    bench.host.scan().await;
    assert_eq!((bench.status("f").version, bench.status("f").rejected), (2, None));
}

#[tokio::test]
async fn a_version_that_fails_where_the_one_before_answers_is_rolled_back() {
    let bench = Bench::with(&[("f.wasm", &guest("noop"))]).await;
    bench.put("f.wasm", &guest("fault-filter")).await;
    assert_eq!(says(&bench, "user 0", "chat").await, passed(), "it has answered somebody");
    for n in 0..12 {
        says(&bench, &format!("user {n}"), "trap").await;
    }
    let status = until(&bench, "f", |status| status.version == 1).await;
    assert!(status.rejected.unwrap().reason.starts_with("rolled back: it failed on probation"));
}

#[tokio::test]
async fn version_without_any_answer_is_rolled_back_by_one_source() {
    let bench =
        Bench::configured(&[("f.wasm", &guest("noop"))], |config| config.breaker.rest = std::time::Duration::ZERO)
            .await;
    bench.put("f.wasm", &guest("fault-filter")).await;
    for _ in 0..4 {
        says(&bench, "only", "trap").await;
    }
    until(&bench, "f", |status| status.version == 1).await;
}

/// A store that is unavailable.
struct Away;

impl Store for Away {
    fn get<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<Found, KvError>> {
        std::future::ready(Err(KvError::Unavailable("connection refused".to_owned()))).boxed()
    }

    fn fits<'a>(&'a self, _: &'a str, _: &'a Commit, _: Share) -> BoxFuture<'a, bool> {
        std::future::ready(true).boxed()
    }

    fn commit<'a>(&'a self, _: &'a str, _: Commit, _: Share) -> BoxFuture<'a, Result<(), KvError>> {
        std::future::ready(Err(KvError::Unavailable("connection refused".to_owned()))).boxed()
    }
}

#[tokio::test]
async fn store_outage_opens_no_circuit() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("h.wasm"), guest("fault-handler")).unwrap();
    std::fs::write(dir.path().join("h.toml"), "grants = [\"outbox\", \"kv\", \"directory\"]").unwrap();
    let options = Options { kv: Arc::new(Away), ..Options::default() };
    let (host, tasks) = WasmHost::load(&config(dir.path()), options).await.unwrap();
    let bench = Bench { dir, host: Arc::new(host), source: 0.into(), _tasks: tasks };
    for what in ["get", "set"] {
        for n in 0..12 {
            let data = [(what, "x")].into_iter().collect();
            let asked = Call { data, remote: format!("192.0.2.{n}"), ..call("fault_none") };
            let answer = bench.host.handle(asked).await.unwrap();
            assert_eq!((answer.code.as_str(), answer.message.contains("connection")), ("503", false));
        }
    }
    let status = bench.status("h");
    assert_eq!((status.circuit, status.set_apart.times, status.outcomes.get("kv")), (Some("closed"), 0, Some(&24)));
}

#[tokio::test]
async fn missing_filter_or_open_circuit_leaves_unjudged_and_intakes_wait() {
    let bench = Bench::with(&[("f.wasm", &guest("fault-filter"))]).await;
    for n in 0..12 {
        says(&bench, &format!("user {n}"), "trap").await;
    }
    assert!(is_unjudged(&says(&bench, "other", "chat").await, true));
    bench.delete("f.wasm").await;
    let Judgement::Unjudged(Unjudged { plugin, reason, is_general }) = says(&bench, "other", "chat").await else {
        panic!("it is judged")
    };
    assert_eq!((&*plugin, reason.as_str(), is_general), ("f", "plugin f: its file is missing or refused", true));
}
