//! The in-memory host for plugin tests behaves like the real one.

use skylark_plugin::{
    Call, Event, Handler, Identity, Message, NoSettings, Plugin, Publish, Reply, Target, TargetKind, clock, counters,
    crypto, directory, kv, log, outbox, testing,
};

#[test]
fn entries_end_with_their_time() {
    kv::set("a", b"1", Some(2)).unwrap();
    kv::set("b", b"2", None).unwrap();
    testing::advance(1_999);
    assert_eq!(kv::get("a").as_deref(), Some(&b"1"[..]));
    testing::advance(1);
    assert_eq!(kv::get("a"), None);
    assert_eq!(kv::get("b").as_deref(), Some(&b"2"[..]));
    kv::delete("b").unwrap();
    assert_eq!(kv::get("b"), None);
}

#[test]
fn a_swap_needs_the_value_that_is_there() {
    assert!(kv::compare_and_swap("k", None, b"1", Some(1)).unwrap());
    assert!(!kv::compare_and_swap("k", None, b"2", None).unwrap());
    assert!(!kv::compare_and_swap("k", Some(b"2"), b"3", None).unwrap());
    assert!(kv::compare_and_swap("k", Some(b"1"), b"2", Some(1)).unwrap());
    testing::advance(1_000);
    assert!(kv::compare_and_swap("k", None, b"4", None).unwrap(), "an entry whose time is over is absent");
}

#[test]
fn numbers_are_added_and_windows_slide() {
    assert_eq!((kv::add("n", 2, None).unwrap(), kv::add("n", -5, None).unwrap()), (2, -3));
    kv::set("text", b"x", None).unwrap();
    assert_eq!(kv::add("text", 1, None), Err(kv::AddError::NotANumber));
    assert_eq!((counters::add_and_read("a", 10, 2), counters::add_and_read("a", 10, 1)), (2, 3));
    testing::advance(10_000);
    assert_eq!((counters::add_and_read("a", 10, 0), counters::add_and_read("b", 10, 1)), (0, 1));
}

#[test]
fn crypto_is_the_same_in_each_run() {
    let key = crypto::PublicKey::Ed25519(vec![1; 32]);
    assert!(!crypto::verify(&key, b"data", b"signature").unwrap());
    testing::with(|host| host.signatures.push((key.clone(), b"data".to_vec(), b"signature".to_vec())));
    assert!(crypto::verify(&key, b"data", b"signature").unwrap());
    let (one, two) = (crypto::random(40), crypto::random(40));
    assert!(one.len() == 40 && one != two);
    assert!(crypto::hmac_sha256_verify(b"k", b"d", &crypto::hmac_sha256(b"k", b"d")));
}

#[test]
fn effects_and_lines_are_kept_in_order() {
    outbox::join("1", "lobby").unwrap();
    outbox::push(Target::room("lobby"), Message::text("chat", "hi")).unwrap();
    outbox::leave("1", "lobby").unwrap();
    outbox::kick(Target::device("1", "pixel"), "bye").unwrap();
    log::warn("odd");
    assert_eq!(testing::with(|host| host.effects.len()), 4);
    assert_eq!(testing::with(|host| host.lines.clone()), [(log::Level::Warn, "odd".to_owned())]);
    assert_eq!(testing::take_pushes(), [(Target::room("lobby"), Message::text("chat", "hi"))]);
}

#[test]
fn directory_lists_the_users_that_the_test_connected() {
    testing::connect("1", 11);
    testing::with(|host| host.online.get_mut("1").unwrap()[0].rooms.push("lobby".to_owned()));
    assert!(directory::online("1") && !directory::online("2"));
    assert_eq!(directory::connections("1")[0].cid, 11);
    assert_eq!(directory::members("lobby", 0, 10), ["1"]);
    assert_eq!(directory::members("lobby", 1, 10), Vec::<String>::new());
    assert_eq!((directory::rooms("1"), directory::devices("1")), (vec!["lobby".to_owned()], Vec::new()));
}

#[test]
fn a_publish_is_made_from_a_message() {
    let message = Message::text("chat", "hi").between("1078", "1074").with_extra("a", "b").with_extra("a", "c");
    let publish = Publish::of(message.clone());
    assert_eq!((publish.target_kind(), publish.target_uids(0, 9)), (TargetKind::User, vec!["1074".to_owned()]));
    assert_eq!((publish.message(), publish.publisher()), (message.clone(), None));
    assert_eq!(publish.extra(), [("a".to_owned(), "c".to_owned())]);
    let room = Publish::of(message.clone()).by("1078").to_room("lobby");
    assert_eq!((room.target_room().as_deref(), room.target_count()), (Some("lobby"), 0));
    let many = Publish::of(message).to_users(["1", "2", "3"]);
    assert_eq!((many.target_count(), many.target_uids(1, 1)), (3, vec!["2".to_owned()]));
}

/// Counts its calls; the state lives as long as the instance.
struct Counter(u32);

impl Plugin for Counter {
    type Settings = NoSettings;

    fn start(_: NoSettings) -> Result<Self, String> {
        Ok(Self(0))
    }
}

impl Handler for Counter {
    fn keys(&self) -> Vec<String> {
        vec!["count".to_owned()]
    }

    fn handle(&mut self, call: &Call) -> Result<Reply, String> {
        self.0 += 1;
        Ok(Reply::ok().with("calls", self.0.to_string()).with("said", call.get("say").unwrap_or_default()))
    }
}

impl skylark_plugin::Events for Counter {
    fn on_event(&mut self, _: &Event) {
        self.0 += 1;
    }
}

skylark_plugin::export!(Counter: handler, events);

#[test]
fn the_plugin_is_built_once_from_its_settings() {
    use skylark_plugin::glue;
    let who = Identity { uid: "1".to_owned(), cid: 11, device: None, channel: None };
    let call = Call {
        key: "count".to_owned(),
        data: vec![("say".to_owned(), "hi".to_owned())],
        caller: Some(who.clone()),
        cid: who.cid,
    };
    glue::start::<Counter>().unwrap();
    glue::with::<Counter, _>(|counter| skylark_plugin::Events::on_event(counter, &Event::Online(who)));
    let reply = glue::with::<Counter, _>(|counter| counter.handle(&call)).unwrap();
    assert_eq!((reply.get("calls"), reply.get("said")), (Some("2"), Some("hi")));
    testing::with(|host| host.settings = r#"{"surplus": 1}"#.to_owned());
    let refused = glue::start::<Counter>().unwrap_err();
    assert!(refused.starts_with("settings: unknown field `surplus`"), "{refused}");
    assert!(clock::now() > 0 && clock::monotonic() < clock::monotonic());
}
