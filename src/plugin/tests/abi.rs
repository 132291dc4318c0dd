//! Components built against 0.1.0, 0.1.1 and 0.1.2 load and behave the same forever: components and WIT of each release, never
//! rebuilt.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::roles::Node;
use super::{Bench, call, config, envelope};
use crate::id::{ConnectionId, Room, Uid};
use crate::message::{Entries, Target};
use crate::plugin::check::check_dir;
use crate::plugin::{
    Access, Call, Claim, Effect, Event, Identity, JoinRequest, Judgement, PluginHost, Services, Transport,
};

fn release(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/abi-{version}"))
}

fn fixture(name: &str) -> Vec<u8> {
    std::fs::read(release("0.1.0").join(name)).unwrap()
}

fn who(uid: &str) -> Identity {
    let cid = ConnectionId::new(1).unwrap();
    Identity { uid: Uid::parse(uid).unwrap(), cid, device: None, channel: None }
}

fn asked(key: &str, data: &[(&str, &str)]) -> Call {
    Call { data: data.iter().copied().collect::<Entries>(), caller: Some(who("u1")), ..call(key) }
}

#[tokio::test]
async fn components_of_0_1_0_still_report_roles_and_faults() {
    let reports = check_dir(&config(&release("0.1.0"))).await.unwrap();
    let told = |name: &str| reports.iter().find(|report| report.name == name).unwrap();
    assert_eq!(reports.len(), 6);
    for (name, role) in [("fault-auth", "auth"), ("stamp-v1", "filter"), ("noop", "filter")] {
        assert_eq!((told(name).roles.as_slice(), told(name).faults.as_slice()), (&[role][..], &[][..]), "{name}");
    }
    let video_call = told("video-call");
    assert_eq!((video_call.faults.len(), video_call.keys.len()), (0, 5), "{:?}", video_call.faults);
    assert!(
        told("fault-handler").faults[0]
            .contains("put this line into fault-handler.toml: grants = [\"outbox\", \"kv\"]")
    );
}

#[tokio::test]
async fn auth_and_filter_of_0_1_0_answer() {
    let bench = Bench::with(&[("a.wasm", &fixture("fault-auth.wasm")), ("s.wasm", &fixture("stamp-v1.wasm"))]).await;
    let claim = Claim { token: Some("u7@phone#lobby".to_owned()), ..Claim::default() };
    let admission = bench.host.admit(Transport::default(), claim).await.unwrap();
    assert_eq!((admission.uid.as_str(), admission.rooms[0].as_str()), ("u7", "lobby"));
    let mut batch = [envelope("chat")];
    let judged = bench.host.judge(&mut batch).await;
    assert_eq!(judged, [Judgement::Pass { replaced_by: vec!["s".into()] }]);
    assert_eq!(batch[0].message.extra.get("version"), Some("v1"));
}

#[tokio::test]
async fn handler_and_events_of_0_1_0_have_their_effects() {
    let bench = Bench::with(&[
        ("h.wasm", &fixture("fault-handler.wasm")),
        ("h.toml", b"grants = [\"outbox\", \"kv\"]"),
        ("e.wasm", &fixture("fault-events.wasm")),
        ("e.toml", b"grants = [\"outbox\"]\n[settings]\nannounce = \"lobby\""),
    ])
    .await;
    let node = Arc::new(Node::default());
    bench.host.set_services(Arc::clone(&node) as Arc<dyn Services>);
    let answer = bench.host.handle(asked("fault_none", &[("push", "u2"), ("set", "kept"), ("join", "room")])).await;
    assert_eq!(answer.unwrap().code, "200");
    let effects = node.take();
    assert!(matches!(&effects[0], Effect::Push(push) if push.target == Target::User(Uid::parse("u2").unwrap())));
    assert!(matches!(&effects[1], Effect::Join(..)) && effects.len() == 2, "{effects:?}");
    let answer = bench.host.handle(asked("fault_none", &[("get", "1"), ("count", "1")])).await.unwrap();
    assert_eq!((answer.data.get("value"), answer.data.get("count")), (Some("kept"), Some("1")));
    assert_eq!(bench.host.handle(asked("fault_trap", &[("push", "u2")])).await.unwrap().code, "503");
    bench.host.notify(Event::Online(who("u3")), 0);
    assert!(matches!(&node.next().await[..], [Effect::Push(push)] if matches!(push.target, Target::Room(_))));
}

#[tokio::test]
async fn components_of_0_1_1_load_and_answer() {
    let fixture = |name: &str| std::fs::read(release("0.1.1").join(name)).unwrap();
    let grants: &[u8] = b"grants = [\"directory\", \"outbox\", \"timers\", \"login\", \"kv\", \"counters\", \"http\"]";
    let bench = Bench::with(&[
        ("a.wasm", &fixture("fault-auth.wasm")),
        ("f.wasm", &fixture("fault-filter.wasm")),
        ("p.wasm", &fixture("probe.wasm")),
        ("p.toml", grants),
    ])
    .await;
    let claim = Claim { token: Some("u7@phone#lobby".to_owned()), ..Claim::default() };
    let admission = bench.host.admit(Transport::default(), claim).await.unwrap();
    assert_eq!((admission.uid.as_str(), admission.rooms[0].as_str()), ("u7", "lobby"));
    assert_eq!(bench.judge().await, super::passed());
    for (key, data, value) in [
        ("probe_add", [("key", "n"), ("amount", "2")], "2"),
        ("probe_count", [("name", "n"), ("amount", "3")], "3"),
        ("probe_crypto", [("text", "abc"), ("", "")], "true false"),
    ] {
        let answer = bench.host.handle(asked(key, &data)).await.unwrap();
        assert_eq!((answer.code.as_str(), answer.data.get("value")), ("200", Some(value)), "{key}");
    }
    assert_eq!(bench.status("p").roles, ["handler"]);
}

#[tokio::test]
async fn component_of_0_1_2_answers_joins() {
    let component = std::fs::read(release("0.1.2").join("token-auth.wasm")).unwrap();
    let manifest: &[u8] = b"[[settings.keys]]\nid = \"dev\"\nsecret = \"a secret of the tests, 32 bytes at least\"";
    let bench = Bench::with(&[("t.wasm", &component), ("t.toml", manifest)]).await;
    assert_eq!(bench.status("t").roles, ["auth", "access"]);
    let claims: Entries = [("join", "news")].into_iter().collect();
    let request = |room: &str| JoinRequest {
        who: who("u1"),
        claims: claims.clone(),
        room: Room::parse(room).unwrap(),
        data: Entries::new(),
    };
    assert!(matches!(bench.host.join(request("news")).await, Access::Allow(_)));
    assert_eq!(bench.host.join(request("lobby")).await, Access::Abstain);
}
