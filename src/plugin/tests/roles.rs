//! Answers of each role, and the effects of staged work.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::guests::{self, ABSTAIN, ADMIT, ALLOW, DROP, FINE, REFUSE, REJECT, SORRY};
use super::{Bench, envelope, passed, rejected};
use crate::id::{ConnectionId, Device, Room, Uid};
use crate::message::StreamName;
use crate::plugin::{
    Effect, Event, Identity, Judgement, PluginHost, Presence, ResumedStream, Services, UndeliveredCause,
};

/// Records commits, and lets a test wait for one.
#[derive(Default)]
pub(super) struct Node {
    committed: Mutex<Vec<Effect>>,
    news: tokio::sync::Notify,
}

impl Node {
    /// Effects committed since the last look.
    pub(super) fn take(&self) -> Vec<Effect> {
        std::mem::take(&mut *self.committed.lock())
    }

    /// Waits for a commit, and returns the effects committed since the last look.
    pub(super) async fn next(&self) -> Vec<Effect> {
        loop {
            let effects = self.take();
            if !effects.is_empty() {
                return effects;
            }
            self.news.notified().await;
        }
    }
}

impl Services for Node {
    fn is_online<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, bool> {
        std::future::ready(uid == "u7").boxed()
    }

    /// Only `u7` is online, with three connections.
    fn connections<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Vec<Presence>> {
        let presence = |cid, device: &str, rooms: &[&str]| Presence {
            cid: ConnectionId::new(cid).unwrap(),
            device: Device::parse(device).ok(),
            channel: None,
            rooms: rooms.iter().map(|room| Room::parse(room).unwrap()).collect(),
        };
        let found =
            [presence(1, "phone", &["quiet", "lobby"]), presence(2, "desk", &["lobby"]), presence(3, "desk", &[])];
        std::future::ready(if uid == "u7" { found.into() } else { Vec::new() }).boxed()
    }

    /// Only the room `lobby` has members: 1 500.
    fn members<'a>(&'a self, room: &'a str, offset: u32, limit: u32) -> BoxFuture<'a, Vec<Uid>> {
        let all = (0..1_500).filter(|_| room == "lobby").map(|n| Uid::parse(&format!("u{n}")).unwrap());
        std::future::ready(all.skip(offset as usize).take(limit as usize).collect()).boxed()
    }

    fn is_connected(&self, cid: ConnectionId) -> BoxFuture<'_, bool> {
        std::future::ready(cid.as_u64() < 100).boxed()
    }

    fn commit(&self, effects: Vec<Effect>, _: u8) -> BoxFuture<'_, ()> {
        self.committed.lock().extend(effects);
        self.news.notify_one();
        std::future::ready(()).boxed()
    }
}

fn join() -> Effect {
    Effect::Join(Uid::parse("u7").unwrap(), Room::parse("lobby").unwrap())
}

#[tokio::test]
async fn filters_run_in_order_until_the_first_rejection() {
    let bench = Bench::with(&[
        ("a.wasm", &guests::filter(ALLOW)),
        ("b.wasm", &guests::filter(REJECT)),
        ("c.wasm", &guests::filter(DROP)),
    ])
    .await;
    assert_eq!(rejected(&bench.judge().await), Some("451"));
    assert_eq!(bench.status("c").calls, 0, "nobody asks after a no");
    bench.put("c.toml", b"order = 1").await;
    assert_eq!(bench.judge().await, Judgement::Drop { plugin: "c".into() });
    bench.put("c.toml", b"enabled = false").await;
    bench.put("b.toml", b"[match]\nactions = [\"other\"]").await;
    let calls = bench.status("b").calls;
    assert_eq!(bench.judge().await, passed());
    assert_eq!(bench.status("b").calls, calls, "a message that does not match never enters it");
    assert_eq!(bench.status("c").state.as_str(), "disabled");
}

#[tokio::test]
async fn each_message_of_a_batch_has_its_own_judgement() {
    let bench = Bench::with(&[("b.wasm", &guests::filter(REJECT)), ("b.toml", b"[match]\nactions = [\"bad*\"]")]).await;
    let mut batch = [envelope("good"), envelope("bad1"), envelope("good"), envelope("bad2")];
    let judged = bench.host.judge(&mut batch).await;
    let codes: Vec<_> = judged.iter().map(rejected).collect();
    assert_eq!(codes, [None, Some("451"), None, Some("451")]);
}

/// Reads the action through `publication` and rejects actions that begin with `b`.
const PICKY: &str = r#"
    (import "skylark:plugin/publication@0.1.0" "action" (func $action (param i32)))
    (func (export "skylark:plugin/filter@0.1.0#judge") (result i32)
        (call $action (i32.const 512))
        (if (result i32) (i32.eq (i32.load8_u (i32.load (i32.const 512))) (i32.const 98))
            (then (i32.const 1024)) (else (i32.const 0))))
    (data (i32.const 1024) "\02\00\00\00\00\00\00\00\00\08\00\00\03\00\00\00\03\08\00\00\02\00\00\00")
    (data (i32.const 2048) "451no")"#;

/// Returns the message that it got, with a new title.
const TITLED: &str = r#"
    (import "skylark:plugin/publication@0.1.0" "message" (func $message (param i32)))
    (func (export "skylark:plugin/filter@0.1.0#judge") (result i32)
        (call $message (i32.const 520))
        (i32.store8 (i32.const 512) (i32.const 1))
        ;; id 8, then action, content, sender, receiver, extra of 8 each, then title
        (i32.store (i32.const 568) (i32.const 2048))
        (i32.store (i32.const 572) (i32.const 3))
        (i32.const 512))
    (data (i32.const 2048) "new")"#;

#[tokio::test]
async fn a_filter_reads_and_replaces_what_it_judges() {
    let world = "import skylark:plugin/publication@0.1.0; export skylark:plugin/filter@0.1.0;";
    let bench = Bench::with(&[
        ("picky.wasm", &guests::component(world, PICKY)),
        ("titled.wasm", &guests::component(world, TITLED)),
    ])
    .await;
    let mut batch = [envelope("chat"), envelope("bark")];
    let judged = bench.host.judge(&mut batch).await;
    assert_eq!(judged[0], Judgement::Pass { replaced_by: vec!["titled".into()] });
    assert_eq!((batch[0].message.title.as_str(), batch[0].message.action.as_str()), ("new", "chat"));
    assert_eq!(rejected(&judged[1]), Some("451"));
}

#[tokio::test]
async fn one_file_may_carry_several_roles() {
    let world = "export skylark:plugin/filter@0.1.0; export skylark:plugin/handler@0.1.0;";
    let core = r#"
        (func (export "skylark:plugin/filter@0.1.0#judge") (result i32) (i32.const 0))
        (func (export "skylark:plugin/handler@0.1.0#keys") (result i32) (i32.const 1040))
        (func (export "skylark:plugin/handler@0.1.0#handle")
            (param i32 i32 i32 i32 i32 i32 i32 i64 i32 i32 i32 i32 i32 i32 i64) (result i32) unreachable)
        (data (i32.const 1040) "\20\04\00\00\01\00\00\00")
        (data (i32.const 1056) "\00\08\00\00\03\00\00\00")
        (data (i32.const 2048) "ask")"#;
    let bench = Bench::with(&[("both.wasm", &guests::component(world, core))]).await;
    assert_eq!(bench.status("both").roles, ["filter", "handler"]);
    assert_eq!(bench.judge().await, passed());
    assert_eq!(bench.handle("ask").await.0, "503");
    assert_eq!(bench.judge().await, passed(), "what one role broke is replaced for the other");
}

#[tokio::test]
async fn the_first_auth_plugin_that_decides_decides() {
    let bench = Bench::with(&[]).await;
    assert_eq!(bench.admit().await, "503", "nobody is there to admit");
    bench.put("a.wasm", &guests::auth(ABSTAIN)).await;
    assert_eq!(bench.admit().await, "401");
    bench.put("b.wasm", &guests::auth(ADMIT)).await;
    assert_eq!(bench.admit().await, "200");
    bench.put("c.wasm", &guests::auth(REFUSE)).await;
    assert_eq!(bench.admit().await, "200");
    bench.put("c.toml", b"order = -1").await;
    assert_eq!(bench.admit().await, "403");
}

const OUTBOX: &str = r#"(import "skylark:plugin/outbox@0.1.0" "join" (func $join (param i32 i32 i32 i32 i32)))"#;
const JOIN: &str =
    "(call $join (i32.const 2096) (i32.const 2) (i32.const 2098) (i32.const 5) (i32.const 512)) drop_none";

fn joining(then: &str) -> Vec<u8> {
    let body = JOIN.replace("drop_none", then);
    guests::handler("ask", "import skylark:plugin/outbox@0.1.0;", OUTBOX, &body)
}

#[tokio::test]
async fn effects_are_committed_with_the_answer_or_not_at_all() {
    let grant: &[u8] = b"grants = [\"outbox\"]";
    let bench = Bench::with(&[("h.wasm", &joining(FINE)), ("h.toml", grant)]).await;
    let node = Arc::new(Node::default());
    bench.host.set_services(Arc::clone(&node) as Arc<dyn Services>);
    assert_eq!(bench.handle("ask").await.0, "200");
    assert_eq!(std::mem::take(&mut *node.committed.lock()), [join()]);
    for failing in [SORRY, guests::TRAP] {
        bench.put("h.wasm", &joining(failing)).await;
        assert_eq!(bench.handle("ask").await.0, "503");
        assert!(node.committed.lock().is_empty());
    }
    assert_eq!(bench.host.handle(super::call("other")).await, None);
}

#[tokio::test]
async fn events_reach_their_plugin_later() {
    let world = "import skylark:plugin/outbox@0.1.0;";
    let body = JOIN.replace("drop_none", "(i32.const 0)");
    let bench =
        Bench::with(&[("e.wasm", &guests::events(world, OUTBOX, &body)), ("e.toml", b"grants = [\"outbox\"]")]).await;
    let node = Arc::new(Node::default());
    bench.host.set_services(Arc::clone(&node) as Arc<dyn Services>);
    let cid = ConnectionId::new(1).unwrap();
    let who = Identity { uid: Uid::parse("1").unwrap(), cid, device: None, channel: None };
    bench.host.notify(Event::Online(who), 0);
    node.news.notified().await;
    assert_eq!(*node.committed.lock(), [join()]);
}

const KV: &str = r#"
    (import "skylark:plugin/kv@0.1.0" "get" (func $get (param i32 i32 i32)))
    (import "skylark:plugin/kv@0.1.0" "set" (func $set (param i32 i32 i32 i32 i32 i32 i32)))"#;
/// Adds one to the byte that `count` holds, and answers with code 1xx, where xx is the new value.
const COUNT: &str = r#"
    (call $get (i32.const 2080) (i32.const 5) (i32.const 512))
    (if (i32.load8_u (i32.const 512)) (then (local.set $count (i32.load8_u (i32.load (i32.const 516))))))
    (local.set $count (i32.add (local.get $count) (i32.const 1)))
    (i32.store8 (i32.const 600) (local.get $count))
    (call $set (i32.const 2080) (i32.const 5) (i32.const 600) (i32.const 1) (i32.const 0) (i32.const 0) (i32.const 640))
    (i32.store8 (i32.const 2064) (i32.const 49))
    (i32.store8 (i32.const 2065) (i32.add (i32.const 48) (i32.div_u (local.get $count) (i32.const 10))))
    (i32.store8 (i32.const 2066) (i32.add (i32.const 48) (i32.rem_u (local.get $count) (i32.const 10))))
    "#;

fn counting(then: &str) -> Vec<u8> {
    guests::handler("count", "import skylark:plugin/kv@0.1.0;", KV, &format!("{COUNT} {then}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_writes_commit_with_the_answer_and_survive_a_reload() {
    let grant: &[u8] = b"grants = [\"kv\"]";
    let bench = Bench::with(&[("h.wasm", &counting(FINE)), ("h.toml", grant)]).await;
    assert_eq!(bench.handle("count").await.0, "101");
    bench.put("h.wasm", &counting(SORRY)).await;
    assert_eq!(bench.handle("count").await.0, "503", "staged, then taken back");
    bench.put("h.wasm", &counting(FINE)).await;
    let calls = (0..20).map(|_| {
        let host = Arc::clone(&bench.host);
        tokio::spawn(async move { host.handle(super::call("count")).await.unwrap().code })
    });
    let mut codes = Vec::new();
    for call in calls.collect::<Vec<_>>() {
        codes.push(call.await.unwrap());
    }
    let counted = codes.iter().filter(|code| *code != "503").count();
    let last = bench.handle("count").await.0;
    assert_eq!(last, format!("1{:02}", 2 + counted), "each answer stands for one write: {codes:?}");
}

#[tokio::test]
async fn import_without_a_grant_is_refused_with_the_line_to_add() {
    let bench = Bench::with(&[("h.wasm", &counting(FINE))]).await;
    let reason = bench.status("h").rejected.unwrap().reason;
    assert!(reason.contains("put this line into h.toml: grants = [\"kv\"]"), "{reason}");
    bench.put("h.toml", b"grants = [\"kv\"]").await;
    let status = bench.status("h");
    assert_eq!((status.state.as_str(), status.rejected, status.keys), ("live", None, vec!["count".to_owned()]));
}

#[tokio::test]
async fn filter_that_imports_an_effect_is_refused() {
    let world = "import skylark:plugin/outbox@0.1.0; export skylark:plugin/filter@0.1.0;";
    let core = format!(
        r#"{OUTBOX} (func (export "skylark:plugin/filter@0.1.0#judge") (result i32)
        (call $join (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 512)) (i32.const 0))"#
    );
    let bench =
        Bench::with(&[("f.wasm", &guests::component(world, &core)), ("f.toml", b"grants = [\"outbox\"]")]).await;
    let reason = bench.status("f").rejected.unwrap().reason;
    assert!(reason.contains("imports skylark:plugin/outbox, which the role filter may not use"), "{reason}");
    assert_eq!(rejected(&bench.judge().await), Some("503"), "what would stand guard keeps the gate shut at the start");
}

/// An events plugin that exports `receipts`, too. Each receipt joins the user of the event to a room: `resumed` to
/// `lobby`, `undelivered` to `u7lobby`.
fn receiver() -> Vec<u8> {
    let world =
        "import skylark:plugin/outbox@0.1.3; export skylark:plugin/events@0.1.3; export skylark:plugin/receipts@0.1.3;";
    let join = |from: u32, length: u32| {
        format!(
            "(call $join (local.get 0) (local.get 1) (i32.const {from}) (i32.const {length}) (i32.const 512))
             (if (i32.load8_u (i32.const 512)) (then unreachable))"
        )
    };
    guests::component(
        world,
        &format!(
            r#"(import "skylark:plugin/outbox@0.1.3" "join" (func $join (param i32 i32 i32 i32 i32)))
            (func (export "skylark:plugin/events@0.1.3#on-event")
                (param i32 i32 i32 i64 i32 i32 i32 i32 i32 i32 i32 i32))
            ;; uid (2), cid, device (3), channel (3), streams (2)
            (func (export "skylark:plugin/receipts@0.1.3#resumed")
                (param i32 i32 i64 i32 i32 i32 i32 i32 i32 i32 i32)
                (if (i32.ne (local.get 10) (i32.const 2)) (then unreachable))
                {})
            ;; uid (2), id, cause
            (func (export "skylark:plugin/receipts@0.1.3#undelivered") (param i32 i32 i64 i32)
                (if (i64.ne (local.get 2) (i64.const -7)) (then unreachable))
                (if (i32.ne (local.get 3) (i32.const 1)) (then unreachable))
                {})
            (data (i32.const 2096) "u7lobby")"#,
            join(2_098, 5),
            join(2_096, 7)
        ),
    )
}

#[tokio::test]
async fn receipts_go_to_events_plugins_that_export_them() {
    let deaf = guests::events("", "", ALLOW);
    let bench = Bench::with(&[("d.wasm", &deaf)]).await;
    assert!(!bench.host.wants_receipts());
    bench.put("r.wasm", &receiver()).await;
    bench.put("r.toml", b"grants = [\"outbox\"]").await;
    assert!(bench.host.wants_receipts());
    assert_eq!(bench.status("r").roles, ["events", "receipts"]);
    let node = Arc::new(Node::default());
    bench.host.set_services(Arc::clone(&node) as Arc<dyn Services>);
    let uid = Uid::parse("u7").unwrap();
    let who = Identity { uid: uid.clone(), cid: ConnectionId::new(1).unwrap(), device: None, channel: None };
    let stream = |name| ResumedStream { name, recovered: true, count: Some(2) };
    let streams = vec![stream(StreamName::Everyone), stream(StreamName::User(uid.clone()))];
    bench.host.notify(Event::Resumed(who, streams), 0);
    assert_eq!(node.next().await, [join()]);
    bench.host.notify(Event::Undelivered(uid.clone(), -7, UndeliveredCause::Unacknowledged), 0);
    assert_eq!(node.next().await, [Effect::Join(uid, Room::parse("u7lobby").unwrap())]);
    let (receiver, deaf) = (bench.status("r"), bench.status("d"));
    assert_eq!((receiver.outcomes.get("receipt"), receiver.failures), (Some(&2), 0));
    assert_eq!(deaf.calls, 0, "a plugin without the export is not called");
    bench.delete("r.wasm").await;
    assert!(!bench.host.wants_receipts());
}
