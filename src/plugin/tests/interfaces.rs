//! Host functions since 0.1.1, called by a guest of a real toolchain (`plugins/testing/probe`) and by small guests.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use super::roles::Node;
use super::{Bench, call, guests, rejected};
use crate::id::{Room, Uid};
use crate::message::{Entries, Message, StreamName, Target};
use crate::plugin::harness::{GivenHistory, GivenMessage};
use crate::plugin::history::HistoryReader;
use crate::plugin::{Answer, Call, Effect, Options, PluginHost, Services};

const GRANTS: &[u8] = b"grants = [\"directory\", \"outbox\", \"timers\", \"login\", \"kv\", \"counters\", \"http\"]";

fn probe() -> Vec<u8> {
    std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/testing/dist/probe.wasm")).unwrap()
}

async fn bench() -> Bench {
    Bench::with(&[("probe.wasm", &probe()), ("probe.toml", GRANTS)]).await
}

fn asked(key: &str, data: &[(&str, &str)]) -> Call {
    Call { data: data.iter().copied().collect::<Entries>(), ..call(&format!("probe_{key}")) }
}

async fn ask(bench: &Bench, key: &str, data: &[(&str, &str)]) -> Answer {
    bench.host.handle(asked(key, data)).await.unwrap()
}

fn value(answer: &Answer) -> &str {
    answer.data.get("value").unwrap_or(&answer.message)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_adds_return_distinct_sums() {
    let bench = bench().await;
    assert_eq!(value(&ask(&bench, "add", &[("key", "n"), ("amount", "-5")]).await), "-5");
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let host = Arc::clone(&bench.host);
            tokio::spawn(async move { host.handle(asked("add", &[("key", "n"), ("amount", "1")])).await.unwrap() })
        })
        .collect();
    let (mut sums, mut added) = (BTreeSet::new(), 0);
    for call in calls {
        let answer = call.await.unwrap();
        // A call that conflicts with others four times in a row gets 503, and has added nothing.
        if answer.code == "200" {
            sums.insert(value(&answer).to_owned());
            added += 1;
        }
    }
    assert_eq!((sums.len(), added >= 1), (added, true), "{sums:?}");
    let last = ask(&bench, "add", &[("key", "n"), ("amount", "0")]).await;
    assert_eq!(value(&last), (i64::try_from(added).unwrap() - 5).to_string());
    let most = i64::MAX.to_string();
    ask(&bench, "add", &[("key", "most"), ("amount", &most)]).await;
    let over = ask(&bench, "add", &[("key", "most"), ("amount", "1")]).await;
    assert!(over.code == "503" && over.message.contains("NotANumber"), "{over:?}");
}

#[tokio::test]
async fn counters_survive_a_reload_and_belong_to_their_plugin() {
    let bench = bench().await;
    let count = [("name", "u1"), ("window", "3600"), ("amount", "2")];
    assert_eq!(value(&ask(&bench, "count", &count).await), "2");
    bench.put("probe.toml", &[GRANTS, b"\norder = 5"].concat()).await;
    assert_eq!(bench.status("probe").version, 2);
    assert_eq!(value(&ask(&bench, "count", &count).await), "4");
    let mut other = GRANTS.to_vec();
    other.extend(b"\n[match]\nkeys = [\"none\"]");
    bench.put("probe.toml", &other).await;
    bench.put("other.wasm", &probe()).await;
    bench.put("other.toml", GRANTS).await;
    assert_eq!(value(&ask(&bench, "count", &count).await), "2", "another plugin's counter of that name");
}

#[tokio::test]
async fn crypto_calls_are_answered_by_the_host() {
    let bench = bench().await;
    let answer = ask(&bench, "crypto", &[("text", "abc")]).await;
    assert_eq!(value(&answer), "true false");
    let digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_eq!(answer.data.get("digest"), Some(digest));
    let hmac = "9c196e32dc0175f86f4b1cb89289d6619de6bee699e4c378e68309ed97a1a6ab";
    assert_eq!(answer.data.get("hmac"), Some(hmac));
    let random = answer.data.get("random").unwrap();
    assert_eq!(random.len(), 32);
    assert_ne!(ask(&bench, "crypto", &[("text", "abc")]).await.data.get("random"), Some(random));
}

#[tokio::test]
async fn directory_lists_each_device_and_room_once() {
    let bench = bench().await;
    bench.host.set_services(Arc::new(Node::default()) as Arc<dyn Services>);
    let answer = ask(&bench, "directory", &[("uid", "u7")]).await;
    assert_eq!((answer.data.get("devices"), answer.data.get("rooms")), (Some("desk,phone"), Some("lobby,quiet")));
    let nobody = ask(&bench, "directory", &[("uid", "u8")]).await;
    assert_eq!((nobody.data.get("devices"), nobody.data.get("rooms")), (Some(""), Some("")));
}

/// A page has at most a thousand members, regardless of the guest's request.
#[tokio::test]
async fn members_of_a_room_come_in_pages() {
    let import = r#"(import "skylark:plugin/directory@0.1.1" "members" (func $members (param i32 i32 i32 i32 i32)))"#;
    let page = |offset: u32, limit: i32, found: u32| {
        format!(
            "(call $members (i32.const 2098) (i32.const 5) (i32.const {offset}) (i32.const {limit}) (i32.const 512))
             (if (i32.ne (i32.load (i32.const 516)) (i32.const {found})) (then unreachable))"
        )
    };
    let pages = [page(0, 3, 3), page(400, -1, 1_000), page(1_000, -1, 500), page(1_499, 10, 1), page(1_500, 10, 0)];
    let body = pages.concat() + guests::FINE;
    let handler = guests::handler("ask", "import skylark:plugin/directory@0.1.1;", import, &body);
    let bench = Bench::with(&[("h.wasm", &handler), ("h.toml", b"grants = [\"directory\"]")]).await;
    bench.host.set_services(Arc::new(Node::default()) as Arc<dyn Services>);
    assert_eq!(bench.handle("ask").await, ("200".to_owned(), "fine".to_owned()));
}

#[tokio::test]
async fn a_login_is_staged_for_a_connection_that_is_there() {
    let bench = bench().await;
    let node = Arc::new(Node::default());
    bench.host.set_services(Arc::clone(&node) as Arc<dyn Services>);
    let asked = [("cid", "7"), ("uid", "u9"), ("channel", "web"), ("room", "lobby")];
    assert_eq!(ask(&bench, "login", &asked).await.code, "200");
    let effects = node.take();
    let [Effect::Login(cid, account)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((cid.as_u64(), account.admission.uid.as_str(), account.channel.as_deref()), (7, "u9", Some("web")));
    for (cid, uid, why) in [("100", "u9", "Gone"), ("0", "u9", "Invalid"), ("7", "a,b", "Invalid")] {
        let refused = ask(&bench, "login", &[("cid", cid), ("uid", uid)]).await;
        assert!(refused.code == "404" && refused.message.contains(why), "{refused:?}");
    }
    assert!(node.take().is_empty());
}

#[tokio::test]
async fn a_timer_rings_once_and_survives_a_reload() {
    let bench = bench().await;
    let node = Arc::new(Node::default());
    bench.host.set_services(Arc::clone(&node) as Arc<dyn Services>);
    let lost = [("name", "lost"), ("after", "1"), ("to", "u1"), ("fail", "1")];
    assert_eq!(ask(&bench, "timer", &lost).await.code, "503", "what a failed call set is not set");
    for (name, after) in [("never", "1000"), ("tea", "1500")] {
        assert_eq!(ask(&bench, "timer", &[("name", name), ("after", after), ("to", "u2")]).await.code, "200");
    }
    assert_eq!(ask(&bench, "timer", &[("name", "never"), ("cancel", "1")]).await.code, "200");
    bench.put("probe.toml", &[GRANTS, b"\norder = 5"].concat()).await;
    assert_eq!(bench.status("probe").version, 2);
    let effects = node.next().await;
    let [Effect::Push(push)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(push.message.content.get("text"), Some("tea"));
    assert_eq!(push.target, Target::User(Uid::parse("u2").unwrap()));
    let far = ask(&bench, "timer", &[("name", "far"), ("after", "604800001")]).await;
    assert!(far.code == "429" && far.message.contains("after-ms"), "{far:?}");
    assert!(node.take().is_empty());
}

/// A handler that reads the history as `body` says. The result of a read is at 512: the tag, at 520 the number of an
/// error, at 524 the number of messages.
fn reader(body: &str) -> Vec<u8> {
    let import = r#"(import "skylark:plugin/history@0.1.3" "latest" (func $latest (param i32 i32 i32 i32 i32)))"#;
    guests::handler("ask", "import skylark:plugin/history@0.1.3;", import, &(body.to_owned() + guests::FINE))
}

async fn reading(body: &str, history: GivenHistory) -> Bench {
    let history = (history != GivenHistory::Off).then(|| Arc::new(history) as Arc<dyn HistoryReader>);
    let options = Options { history, ..Options::default() };
    let handler = reader(body);
    Bench::optioned(&[("h.wasm", &handler), ("h.toml", b"grants = [\"history\"]")], options).await
}

fn lobby(count: usize) -> GivenHistory {
    let kept = GivenMessage { message: Message::default(), device: None, except: Vec::new() };
    GivenHistory::Kept(vec![(StreamName::Room(Room::parse("lobby").unwrap()), vec![kept; count])])
}

/// Reads the newest messages of the room `lobby`.
fn read_lobby(limit: i32) -> String {
    format!("(call $latest (i32.const 1) (i32.const 2098) (i32.const 5) (i32.const {limit}) (i32.const 512))")
}

fn expect(at: u32, value: u32) -> String {
    format!("(if (i32.ne (i32.load8_u (i32.const {at})) (i32.const {value})) (then unreachable))")
}

#[tokio::test]
async fn history_needs_its_grant_and_a_page_has_at_most_100_messages() {
    let pages =
        [(0, 0), (3, 3), (-1, 100)].map(|(limit, found)| read_lobby(limit) + &expect(512, 0) + &expect(524, found));
    let bench = reading(&pages.concat(), lobby(150)).await;
    assert_eq!(bench.handle("ask").await, ("200".to_owned(), "fine".to_owned()));
    bench.put("h.toml", b"order = 5").await;
    let reason = bench.status("h").rejected.unwrap().reason;
    assert!(reason.contains("put this line into h.toml: grants = [\"history\"]"), "{reason}");
}

#[tokio::test]
async fn node_without_a_history_and_an_invalid_name_are_errors_of_the_read() {
    let off = read_lobby(1) + &expect(512, 1) + &expect(520, 0);
    let bench = reading(&off, GivenHistory::Off).await;
    assert_eq!(bench.handle("ask").await, ("200".to_owned(), "fine".to_owned()));
    let no_user = "(call $latest (i32.const 0) (i32.const 2096) (i32.const 0) (i32.const 1) (i32.const 512))";
    let invalid = no_user.to_owned() + &expect(512, 1) + &expect(520, 1);
    let bench = reading(&invalid, lobby(0)).await;
    assert_eq!(bench.handle("ask").await, ("200".to_owned(), "fine".to_owned()));
}

#[tokio::test]
async fn history_that_does_not_answer_is_the_hosts_failure() {
    let bench = reading(&read_lobby(1), GivenHistory::Away).await;
    for _ in 0..30 {
        let (code, failure) = bench.handle("ask").await;
        assert_eq!((code.as_str(), failure.as_str()), ("503", "the history is unavailable: away by the case"));
    }
    let status = bench.status("h");
    assert_eq!((status.outcomes.get("history"), status.circuit), (Some(&30), Some("closed")));
}

#[tokio::test]
async fn a_call_reads_the_history_64_times_at_most() {
    let read = |times: u32| {
        format!(
            "(local.set $count (i32.const {times}))
             (loop $again {} (local.set $count (i32.sub (local.get $count) (i32.const 1)))
                 (br_if $again (local.get $count)))",
            read_lobby(1)
        )
    };
    let bench = reading(&read(64), lobby(1)).await;
    assert_eq!(bench.handle("ask").await.0, "200");
    let bench = reading(&read(65), lobby(1)).await;
    let (code, failure) = bench.handle("ask").await;
    assert_eq!((code.as_str(), failure.as_str()), ("503", "read the history more than 64 times in one call"));
}

/// Lets three publishes pass, then none, by the counter's answer.
const RATE: &str = r#"
    (import "skylark:plugin/counters@0.1.1" "add-and-read" (func $count (param i32 i32 i32 i32) (result i64)))
    (func (export "skylark:plugin/filter@0.1.1#judge") (result i32)
        (if (result i32) (i64.gt_u (call $count (i32.const 2048) (i32.const 3) (i32.const 3600) (i32.const 1)) (i64.const 3))
            (then (i32.const 1024)) (else (i32.const 0))))
    (data (i32.const 1024) "\02\00\00\00\00\00\00\00\00\08\00\00\03\00\00\00\03\08\00\00\02\00\00\00")
    (data (i32.const 2048) "429no")"#;

#[tokio::test]
async fn filter_with_the_grant_counters_can_count() {
    let world = "import skylark:plugin/counters@0.1.1; export skylark:plugin/filter@0.1.1;";
    let bench = Bench::with(&[("rate.wasm", &guests::component(world, RATE))]).await;
    let reason = bench.status("rate").rejected.unwrap().reason;
    assert!(reason.contains("put this line into rate.toml: grants = [\"counters\"]"), "{reason}");
    bench.put("rate.toml", b"grants = [\"counters\"]").await;
    for _ in 0..3 {
        assert_eq!(bench.judge().await, super::passed());
    }
    assert_eq!(rejected(&bench.judge().await), Some("429"));
}
