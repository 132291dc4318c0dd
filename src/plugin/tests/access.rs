//! The role access: decisions, failures, and the host functions that such a plugin may call.

use super::guests::{self, ABSTAIN, ALLOW, REFUSE, UNTIL};
use super::{Bench, call};
use crate::code::Code;
use crate::id::{ConnectionId, Room, Uid};
use crate::message::Entries;
use crate::plugin::{Access, Identity, JoinRequest, PluginHost, Refusal};

fn plugin(answer: &str) -> Vec<u8> {
    guests::access("", "", answer)
}

async fn join(bench: &Bench) -> Access {
    let cid = ConnectionId::new(1).unwrap();
    let who = Identity { uid: Uid::parse("u7").unwrap(), cid, device: None, channel: None };
    let room = Room::parse("lobby").unwrap();
    bench.host.join(JoinRequest { who, claims: Entries::new(), room, data: Entries::new() }).await
}

#[tokio::test]
async fn the_first_access_plugin_that_decides_decides() {
    let bench = Bench::with(&[]).await;
    assert_eq!(join(&bench).await, Access::Abstain, "without a plugin nobody decides");
    bench.put("a.wasm", &plugin(ABSTAIN)).await;
    assert_eq!(join(&bench).await, Access::Abstain);
    bench.put("b.wasm", &plugin(UNTIL)).await;
    assert_eq!(join(&bench).await, Access::Allow(Some(5_000_000_000)));
    bench.put("c.wasm", &plugin(REFUSE)).await;
    bench.put("c.toml", b"order = -1").await;
    assert_eq!(join(&bench).await, Access::Refuse(Refusal::new(Code::FORBIDDEN, "no")));
    bench.put("d.wasm", &plugin(ALLOW)).await;
    bench.put("d.toml", b"order = -2").await;
    assert_eq!(join(&bench).await, Access::Allow(None));
    let status = bench.status("d");
    assert_eq!((status.roles, status.outcomes), (vec!["access"], [("allow", 1)].into()));
}

#[tokio::test]
async fn join_is_unavailable_while_an_access_plugin_fails_or_is_missing() {
    let bench = Bench::with(&[("a.wasm", &plugin(guests::TRAP)), ("b.wasm", &plugin(ALLOW))]).await;
    assert_eq!(join(&bench).await, Access::Unavailable);
    assert_eq!(bench.status("b").calls, 0, "nobody is asked after a failure");
    bench.put("a.wasm", &plugin(ABSTAIN)).await;
    assert_eq!(join(&bench).await, Access::Allow(None));
    bench.delete("a.wasm").await;
    assert_eq!((join(&bench).await, bench.status("a").state.as_str()), (Access::Unavailable, "missing"));
    bench.host.allow_remove(vec!["a".into()]).await;
    assert_eq!(join(&bench).await, Access::Allow(None));
}

#[tokio::test]
async fn an_access_plugin_is_asked_about_the_rooms_of_its_match_rules() {
    let rooms = |rooms: &str| format!("[match]\nrooms = [{rooms}]").into_bytes();
    let bench = Bench::with(&[("a.wasm", &plugin(REFUSE)), ("a.toml", &rooms("\"news:*\""))]).await;
    assert_eq!((join(&bench).await, bench.status("a").calls), (Access::Abstain, 0));
    bench.put("a.toml", &rooms("\"news:*\", \"lob*\"")).await;
    assert_eq!(join(&bench).await, Access::Refuse(Refusal::new(Code::FORBIDDEN, "no")));
    bench.put("a.toml", &rooms("\"news:*\"")).await;
    bench.delete("a.wasm").await;
    assert_eq!(join(&bench).await, Access::Abstain, "a missing plugin shuts the rooms that it would have seen");
}

#[tokio::test]
async fn access_plugin_cannot_push_or_write() {
    let outbox = r#"(import "skylark:plugin/outbox@0.1.2" "join" (func $join (param i32 i32 i32 i32 i32)))"#;
    let body =
        "(call $join (i32.const 2048) (i32.const 2) (i32.const 2048) (i32.const 2) (i32.const 512)) (i32.const 0)";
    let pushing = guests::access("import skylark:plugin/outbox@0.1.2;", outbox, body);
    let bench = Bench::with(&[("a.wasm", &pushing), ("a.toml", b"grants = [\"outbox\"]")]).await;
    let reason = bench.status("a").rejected.unwrap().reason;
    assert!(reason.contains("imports skylark:plugin/outbox, which the role access may not use"), "{reason}");

    let kv = r#"(import "skylark:plugin/kv@0.1.2" "set" (func $set (param i32 i32 i32 i32 i32 i32 i32)))"#;
    let set = "(call $set (i32.const 2048) (i32.const 2) (i32.const 2048) (i32.const 2) (i32.const 0) (i32.const 0) (i32.const 640))";
    // result: err(read-only) is a 1 and then the number of the case.
    let body = format!(
        "{set} (if (result i32) (i32.and (i32.eq (i32.load8_u (i32.const 640)) (i32.const 1))
            (i32.eq (i32.load8_u (i32.const 641)) (i32.const 1))) (then {UNTIL}) (else {REFUSE}))"
    );
    let writing = guests::access("import skylark:plugin/kv@0.1.2;", kv, &body);
    let bench = Bench::with(&[("a.wasm", &writing), ("a.toml", b"grants = [\"kv\"]")]).await;
    assert_eq!(join(&bench).await, Access::Allow(Some(5_000_000_000)), "kv says that the role may not write");
}

#[tokio::test]
async fn a_plugin_of_another_role_is_not_asked_about_joins() {
    let bench = Bench::with(&[("h.wasm", &guests::handler("ask", "", "", guests::FINE))]).await;
    assert_eq!(join(&bench).await, Access::Abstain);
    assert_eq!(bench.host.handle(call("ask")).await.unwrap().code, "200");
}
