//! Every rule of the session as inputs and expected actions.

mod random;
mod resume;

use super::*;
use crate::fate::{Fate, Unjudged};
use crate::message::Receipt;
use crate::protocol::SendBody;

const NOW: i64 = 1_700_000_000_000;
const RULES: Rules = Rules { publish: true, unbound: Duration::from_secs(45), unbound_max: Duration::from_secs(300) };

fn entries(pairs: &[(&str, &str)]) -> Entries {
    pairs.iter().copied().collect()
}

fn sent(key: &str, pairs: &[(&str, &str)]) -> Input {
    Input::Sent(SendBody { key: key.to_owned(), timestamp: 1, data: entries(pairs) })
}

fn admission(uid: &str) -> Box<Admission> {
    Box::new(Admission {
        uid: Uid::parse(uid).unwrap(),
        device: None,
        rooms: vec![Room::parse("lobby").unwrap()],
        expires: Some(1_800_000_000),
        claims: entries(&[("role", "admin")]),
    })
}

fn place() -> ClientLocation {
    ClientLocation {
        cid: ConnectionId::new(7).unwrap(),
        node: NodeId::parse("n1").unwrap(),
        address: "10.0.0.1:8080".to_owned(),
        next: None,
        resume: None,
    }
}

/// A session with the binding that its node keeps.
struct Client {
    session: Session,
    bound_user: Option<(Uid, Option<u64>)>,
    /// User of the running bind.
    pending: Option<(Uid, Option<u64>)>,
}

impl Client {
    fn new() -> Self {
        Self { session: Session::new(NOW), bound_user: None, pending: None }
    }

    fn uid(&self) -> Option<&Uid> {
        self.bound_user.as_ref().map(|(uid, _)| uid)
    }

    fn is_closing(&self) -> bool {
        self.session.is_closing()
    }

    /// Binds the connection as a plugin's login does.
    fn give(&mut self, admission: &Admission) {
        self.bound_user = Some((admission.uid.clone(), admission.expires));
    }

    fn on(&mut self, input: Input, now: i64, rules: &Rules) -> Vec<Action> {
        if matches!(input, Input::Bound(Ok(_))) {
            self.bound_user = self.pending.take().or(self.bound_user.take());
        }
        let bound_user = self.bound_user.as_ref().map(|(uid, expires)| BoundUser { uid, expires: *expires });
        let actions = self.session.on(input, bound_user, now, rules);
        if let [Action::Bind(admission, _)] = &actions[..] {
            self.pending = Some((admission.uid.clone(), admission.expires));
        }
        actions
    }
}

fn on(client: &mut Client, input: Input) -> Vec<Action> {
    client.on(input, NOW, &RULES)
}

fn bound_as(uid: &str) -> Client {
    let mut session = Client::new();
    on(&mut session, sent("client_bind", &[("token", "t")]));
    on(&mut session, Input::Admitted(Ok(admission(uid))));
    on(&mut session, Input::Bound(Ok(place())));
    assert_eq!(session.uid().unwrap().as_str(), uid);
    session
}

#[test]
fn bind_reply_has_next_only_for_another_node() {
    let uid = Uid::parse("1074").unwrap();
    assert_eq!(bind_reply(&uid, None, &place(), NOW).data.get("next"), None);
    let elsewhere = ClientLocation { next: Some("10.0.0.2:8080".to_owned()), ..place() };
    assert_eq!(bind_reply(&uid, None, &elsewhere, NOW).data.get("next"), Some("10.0.0.2:8080"));
}

#[test]
fn user_set_by_a_plugin_replaces_the_user_of_the_session() {
    let mut session = Client::new();
    session.give(&admission("1"));
    let first = said(on(&mut session, sent("message", &[("to", "user:3"), ("content", "{}")])));
    assert_eq!(first.message.sender, "1");
    on(&mut session, Input::Published(Ok(dropped(1))));
    session.give(&admission("2"));
    let said = said(on(&mut session, sent("message", &[("to", "user:3"), ("content", "{}")])));
    assert_eq!(said.message.sender, "2");
    on(&mut session, Input::Published(Ok(dropped(1))));
    on(&mut session, sent("client_bind", &[("token", "t")]));
    let denied = only_reply(on(&mut session, Input::Admitted(Ok(admission("1")))));
    assert_eq!(denied.code, "403", "a token of another user changes nothing");
}

fn ended(id: i64, fate: Fate) -> Published {
    Published { id, replaced_by: Vec::new(), fate }
}

fn dropped(id: i64) -> Published {
    ended(id, Fate::Dropped { plugin: "quiet".into() })
}

fn accepted(id: i64, receipt: Option<Receipt>) -> Published {
    ended(
        id,
        Fate::Accepted { positions: Vec::new(), is_unkept: false, receipt, nodes: None, unknown_nodes: Vec::new() },
    )
}

fn join(changed: bool) -> JoinOutcome {
    JoinOutcome { changed, resume: None }
}

fn only_reply(actions: Vec<Action>) -> Reply {
    match <[Action; 1]>::try_from(actions) {
        Ok([Action::Reply(reply)]) => reply,
        other => panic!("expected one reply, got {other:?}"),
    }
}

fn said(actions: Vec<Action>) -> ClientMessage {
    match <[Action; 1]>::try_from(actions) {
        Ok([Action::Publish(said)]) => *said,
        other => panic!("expected one publish, got {other:?}"),
    }
}

#[test]
fn token_of_the_transport_binds_at_once_with_a_reply() {
    let mut session = Client::new();
    let shown = Box::new(Claim {
        token: Some("t".into()),
        device: Some("d".into()),
        channel: Some("web".into()),
        ..Claim::default()
    });
    assert_eq!(on(&mut session, Input::Opened(Some(shown.clone()))), [Action::Admit(shown)]);
    let facts = Facts { device: Some("d".into()), channel: Some("web".into()), ..Facts::default() };
    assert_eq!(on(&mut session, Input::Admitted(Ok(admission("1074")))), [Action::Bind(admission("1074"), facts)]);
    assert_eq!(session.uid(), None, "bound only once the node says so");
    let reply = only_reply(on(&mut session, Input::Bound(Ok(place()))));
    let expected = Reply {
        key: "client_bind".into(),
        code: "200".into(),
        message: String::new(),
        timestamp: NOW,
        data: entries(&[
            ("uid", "1074"),
            ("expires", "1800000000"),
            ("cid", "7"),
            ("sid", "n1"),
            ("address", "10.0.0.1:8080"),
        ]),
    };
    assert_eq!(reply, expected);
    assert_eq!(session.uid().unwrap().as_str(), "1074");
}

#[test]
fn opening_without_token_calls_no_auth_plugin() {
    let mut session = Client::new();
    assert_eq!(on(&mut session, Input::Opened(None)), []);
    let typed = Box::new(Claim { uid: Some("1074".into()), ..Claim::default() });
    assert_eq!(on(&mut session, Input::Opened(Some(typed))), []);
}

#[test]
fn bind_data_reaches_the_auth_plugins_whole_and_the_connection_checked() {
    let mut session = Client::new();
    let data = [
        ("uid", "1074"),
        ("token", "t"),
        ("deviceId", "d"),
        ("channel", "ios"),
        ("deviceName", "Phone"),
        ("osVersion", "17"),
        ("sso", "x"),
    ];
    let expected = Box::new(Claim {
        token: Some("t".into()),
        uid: Some("1074".into()),
        device: Some("d".into()),
        channel: Some("ios".into()),
        data: entries(&[("deviceName", "Phone"), ("osVersion", "17"), ("sso", "x")]),
    });
    assert_eq!(on(&mut session, sent("client_bind", &data)), [Action::Admit(expected)]);
    let facts = Facts {
        device: Some("d".into()),
        channel: Some("ios".into()),
        rest: entries(&[("deviceName", "Phone"), ("osVersion", "17")]),
        resume: None,
    };
    assert_eq!(on(&mut session, Input::Admitted(Ok(admission("9")))), [Action::Bind(admission("9"), facts)]);
}

#[test]
fn refused_bind_is_answered_in_band_and_closes() {
    let handshake = |code: &str, words: &str| {
        Action::Reply(Reply {
            key: "client_handshake".into(),
            code: code.into(),
            message: words.into(),
            timestamp: NOW,
            data: Entries::new(),
        })
    };
    let table = [
        (Refusal::new(Code::UNAUTHORIZED, "no"), "401", Disconnect::UNAUTHORIZED),
        (Refusal::new(Code::FORBIDDEN, "no"), "401", Disconnect::UNAUTHORIZED),
        // A failure of the node: the SDK must not set its stop flag.
        (Refusal::new(Code::UNAVAILABLE, "no"), "503", Disconnect::INTERNAL),
    ];
    for (refusal, code, why) in table {
        let mut session = Client::new();
        on(&mut session, sent("client_bind", &[("uid", "1")]));
        assert_eq!(on(&mut session, Input::Admitted(Err(refusal))), [handshake(code, "no"), Action::Close(why)]);
        assert!(session.is_closing());
        assert_eq!(on(&mut session, sent("client_bind", &[("uid", "1")])), [], "nothing follows a close");
    }
    let mut session = Client::new();
    let origin = Input::Refused(Disconnect::ORIGIN_REFUSED, Refusal::new(Code::FORBIDDEN, "not your page"));
    assert_eq!(
        on(&mut session, origin),
        [handshake("401", "not your page"), Action::Close(Disconnect::ORIGIN_REFUSED)]
    );
}

#[test]
fn bind_refused_by_the_node_closes_the_connection() {
    let mut session = Client::new();
    on(&mut session, sent("client_bind", &[("token", "t")]));
    on(&mut session, Input::Admitted(Ok(admission("1"))));
    let actions = on(&mut session, Input::Bound(Err(Refusal::new(Code::BAD_REQUEST, "deviceId: bad"))));
    assert_eq!(actions.last(), Some(&Action::Close(Disconnect::UNAUTHORIZED)));
    assert_eq!(session.uid(), None);
}

#[test]
fn second_bind_adds_facts_and_keeps_the_user() {
    let mut session = bound_as("1074");
    let facts = Facts { device: Some("d".into()), ..Facts::default() };
    let actions = on(&mut session, sent("client_bind", &[("uid", "1"), ("deviceId", "d")]));
    assert_eq!(actions, [Action::Rebind(facts)]);
    let reply = only_reply(on(&mut session, Input::Bound(Ok(place()))));
    assert_eq!((reply.code.as_str(), reply.data.get("uid")), ("200", Some("1074")));

    // A bind with a token asks the auth plugins, which must return the same user.
    let actions = on(&mut session, sent("client_bind", &[("token", "other")]));
    assert!(matches!(&actions[..], [Action::Admit(c)] if c.token.as_deref() == Some("other")));
    let reply = only_reply(on(&mut session, Input::Admitted(Ok(admission("1")))));
    assert_eq!((reply.key.as_str(), reply.code.as_str()), ("client_bind", "403"));
    assert_eq!(session.uid().unwrap().as_str(), "1074");
    on(&mut session, sent("client_bind", &[("token", "bad")]));
    let reply = only_reply(on(&mut session, Input::Admitted(Err(Refusal::new(Code::UNAUTHORIZED, "expired")))));
    assert_eq!((reply.code.as_str(), reply.message.as_str()), ("401", "expired"));
    assert!(!session.is_closing(), "a bad second token does not cost the connection");
}

#[test]
fn a_refresh_extends_for_the_same_user_only() {
    let mut session = bound_as("1074");
    let shown = Box::new(Claim { token: Some("t2".into()), ..Claim::default() });
    assert_eq!(on(&mut session, sent("client_refresh", &[("token", "t2")])), [Action::Admit(shown)]);
    let later = Admission { expires: Some(1_900_000_000), ..*admission("1074") };
    let expected = Box::new(Admission { rooms: Vec::new(), ..later.clone() });
    assert_eq!(
        on(&mut session, Input::Admitted(Ok(Box::new(later)))),
        [Action::Bind(expected, Facts::default())],
        "rooms of the new token are not joined anew"
    );
    let reply = only_reply(on(&mut session, Input::Bound(Ok(place()))));
    assert_eq!((reply.key.as_str(), reply.data.get("expires")), ("client_refresh", Some("1900000000")));

    on(&mut session, sent("client_refresh", &[("token", "t3")]));
    let reply = only_reply(on(&mut session, Input::Admitted(Ok(admission("1078")))));
    assert_eq!((reply.key.as_str(), reply.code.as_str()), ("client_refresh", "403"));
    assert_eq!(session.uid().unwrap().as_str(), "1074");
}

#[test]
fn tags_are_set_and_removed() {
    let mut session = bound_as("1");
    let actions = on(&mut session, sent("client_set_tag", &[("tag", "busy")]));
    assert_eq!(actions[0], Action::SetTag(Some("busy".into())));
    assert!(matches!(&actions[1], Action::Reply(r) if r.code == "200" && r.key == "client_set_tag"));
    let actions = on(&mut session, sent("client_remove_tag", &[]));
    assert_eq!(actions[0], Action::SetTag(None));
    assert!(matches!(&actions[1], Action::Reply(r) if r.code == "200" && r.key == "client_remove_tag"));
}

#[test]
fn message_is_published_with_the_bound_user_as_sender() {
    let mut session = bound_as("1078");
    let data = [
        ("to", "user:1074"),
        ("sender", "1"),
        ("action", "900"),
        ("content", r#"{"text":"好吗","n":1}"#),
        ("extra", r#"{"nickname":"毛"}"#),
        ("title", "标题"),
        ("id", "748"),
        ("image", "u.jpg"),
    ];
    let ClientMessage { message, target } = said(on(&mut session, sent("message", &data)));
    assert_eq!(target, Target::User(Uid::parse("1074").unwrap()));
    assert_eq!(
        message,
        Message {
            id: 748,
            action: "900".into(),
            content: entries(&[("text", "好吗"), ("n", "1")]),
            sender: "1078".into(),
            receiver: "1074".into(),
            extra: entries(&[("nickname", "毛")]),
            title: "标题".into(),
            image: "u.jpg".into(),
            ..Message::default()
        }
    );
    let offline = vec![Uid::parse("1074").unwrap()];
    let receipt = Some(Receipt { offline, ..Receipt::default() });
    let reply = only_reply(on(&mut session, Input::Published(Ok(accepted(748, receipt)))));
    assert_eq!(reply.data, entries(&[("id", "748"), ("delivered", "0"), ("offline", "1074")]));

    let rejected = Fate::Rejected { plugin: "guard".into(), refusal: Refusal::new(Code::new(451), "word") };
    let plain = said(on(&mut session, sent("message", &[("to", "room:a:b"), ("content", "hi")])));
    assert_eq!(plain.target, Target::Room(Room::parse("a:b").unwrap()));
    assert_eq!((plain.message.action.as_str(), plain.message.content), ("chat", entries(&[("text", "hi")])));
    let reply = only_reply(on(&mut session, Input::Published(Ok(ended(9, rejected)))));
    assert_eq!((reply.code.as_str(), reply.message.as_str()), ("451", "word"));
    said(on(&mut session, sent("message", &[("to", "user:1")])));
    let reply = only_reply(on(&mut session, Input::Published(Ok(dropped(9)))));
    assert_eq!((reply.code.as_str(), reply.message.as_str()), ("200", "dropped"));
}

#[test]
fn a_message_that_was_not_published_is_answered_with_its_fate() {
    let mut session = bound_as("1078");
    let unjudged = Unjudged { plugin: "guard".into(), reason: "used up its CPU time".into(), is_general: false };
    let rows = [
        (Fate::TooManyHops, "508", "message: expected at most 4 hops between plugins, got more"),
        (
            Fate::TooLargeForBroker { bytes: 9, most: 8 },
            "413",
            "message: expected at most 8 bytes in a record of the broker, got 9",
        ),
        (
            Fate::Unjudged(unjudged),
            "503",
            "message: plugin guard could not judge the message, so it was not sent: try again later",
        ),
        (Fate::Unavailable, "503", "message: the broker did not confirm the message in time: it may still arrive"),
    ];
    for (fate, code, message) in rows {
        said(on(&mut session, sent("message", &[("to", "user:1")])));
        let reply = only_reply(on(&mut session, Input::Published(Ok(ended(9, fate)))));
        assert_eq!((reply.code.as_str(), reply.message.as_str(), reply.data), (code, message, Entries::new()));
    }
    said(on(&mut session, sent("message", &[("to", "room:hall")])));
    let refusal = Refusal::new(Code::FORBIDDEN, "to: expected a joined room, got hall");
    let reply = only_reply(on(&mut session, Input::Published(Err(refusal))));
    assert_eq!((reply.code.as_str(), reply.message.as_str()), ("403", "to: expected a joined room, got hall"));
}

#[test]
fn other_keys_go_to_plugins_bound_or_not() {
    for mut session in [Client::new(), bound_as("1")] {
        let expected = Action::Handle { key: "call_invite".into(), data: entries(&[("callee", "2")]) };
        assert_eq!(on(&mut session, sent("call_invite", &[("callee", "2")])), [expected]);
        let reply = only_reply(on(&mut session, Input::Handled(None)));
        assert_eq!((reply.key.as_str(), reply.code.as_str()), ("call_invite", "404"));
        on(&mut session, sent("call_invite", &[]));
        let busy = Answer { code: Code::new(486), message: "busy".into(), data: entries(&[("a", "b")]) };
        let reply = only_reply(on(&mut session, Input::Handled(Some(busy))));
        assert_eq!((reply.code.as_str(), reply.message.as_str(), reply.data.get("a")), ("486", "busy", Some("b")));
    }
}

#[test]
fn handler_answer_extends_the_unbound_time_within_its_bound() {
    let ok = || Input::Handled(Some(Answer { code: Code::OK, message: String::new(), data: Entries::new() }));
    let table = [(10, Some(45)), (270, Some(30)), (300, None), (900, None)];
    for (after, expected) in table {
        let mut session = Client::new();
        on(&mut session, sent("qr_login", &[]));
        let actions = session.on(ok(), NOW + after * 1000, &RULES);
        let extended = actions.iter().find_map(|a| if let Action::Extend(d) = a { Some(d.as_secs()) } else { None });
        assert_eq!(extended, expected, "after {after} s");
    }
    let mut session = bound_as("1");
    on(&mut session, sent("qr_login", &[]));
    only_reply(on(&mut session, ok()));
}

#[test]
fn a_handler_that_logs_its_caller_in_extends_no_unbound_time() {
    let mut client = Client::new();
    on(&mut client, sent("qr_login", &[]));
    client.give(&admission("1"));
    let ok = Answer { code: Code::OK, message: String::new(), data: Entries::new() };
    let reply = only_reply(on(&mut client, Input::Handled(Some(ok))));
    assert_eq!((reply.key.as_str(), reply.code.as_str()), ("qr_login", "200"), "a bound client has no time to bind");
}

#[test]
fn request_that_needs_a_user_is_401_without_one() {
    for key in ["client_refresh", "client_set_tag", "client_remove_tag", "room_join", "room_leave", "message"] {
        let mut session = Client::new();
        let reply = only_reply(on(&mut session, sent(key, &[])));
        assert_eq!((reply.key.as_str(), reply.code.as_str()), (key, "401"));
        assert!(!session.is_closing());
    }
}

#[test]
fn bad_data_is_answered_with_its_field() {
    let long = "x".repeat(300);
    let many = format!("{{{}}}", (0..300).map(|i| format!("\"{i}\":1")).collect::<Vec<_>>().join(","));
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, &'a str);
    let table: &[Row<'_>] = &[
        ("client_refresh", &[], "400", "token: expected a non-empty string, got nothing"),
        ("client_set_tag", &[("tag", "")], "400", "tag: expected a non-empty string, got \"\""),
        ("client_set_tag", &[("tag", &long)], "400", "tag: expected at most 256 bytes, got 300"),
        ("client_bind", &[("deviceId", "a,b")], "400", "deviceId: expected no comma or control character, got \"a,b\""),
        ("client_bind", &[("osVersion", &long)], "400", "osVersion: expected at most 256 bytes, got 300"),
        ("client_bind", &[("channel", &long)], "400", "channel: expected at most 256 bytes, got 300"),
        ("room_join", &[], "400", "room: expected a non-empty string, got nothing"),
        ("room_join", &[("room", &long)], "400", "room: expected at most 128 bytes, got 300"),
        ("room_leave", &[("room", "")], "400", "room: expected a non-empty string, got \"\""),
        ("message", &[], "400", "to: expected a non-empty string, got nothing"),
        ("message", &[("to", "1074")], "400", "to: expected user:<uid> or room:<name>, got \"1074\""),
        ("message", &[("to", "user:")], "400", "to: expected a non-empty string, got \"\""),
        ("message", &[("to", "user:a,b")], "400", "to: expected no comma or control character, got \"a,b\""),
        ("message", &[("to", "room:r"), ("action", "999")], "403", "action: 999 is reserved for the node"),
        (
            "message",
            &[("to", "user:1"), ("id", "-1")],
            "400",
            "id: expected a whole number from 0 to 9007199254740991, got \"-1\"",
        ),
        ("message", &[("to", "user:1"), ("extra", "[]")], "400", "extra: "),
        ("message", &[("to", "user:1"), ("content", &many)], "400", "content: expected at most 256 entries"),
    ];
    for (key, data, code, words) in table {
        let mut session = bound_as("1");
        let reply = only_reply(on(&mut session, sent(key, data)));
        assert_eq!((reply.key.as_str(), reply.code.as_str()), (*key, *code), "{data:?}");
        assert!(reply.message.starts_with(words), "{words:?} against {:?}", reply.message);
        assert_eq!(on(&mut session, sent("client_remove_tag", &[])).len(), 2, "and it goes on");
    }
}

#[test]
fn message_is_403_while_publishing_is_off() {
    let mut session = bound_as("1");
    let rules = Rules { publish: false, ..RULES };
    let reply = only_reply(session.on(sent("message", &[("to", "user:2")]), NOW, &rules));
    assert_eq!((&*reply.code, &*reply.message), ("403", "clients may not publish: clients.publish is off"));
}

#[test]
fn unexpected_answers_are_ignored() {
    let mut session = bound_as("1");
    assert_eq!(on(&mut session, Input::Left(true)), []);
    on(&mut session, sent("room_join", &[("room", "r")]));
    assert_eq!(on(&mut session, Input::Handled(None)), []);
    assert_eq!(only_reply(on(&mut session, Input::Joined(Ok(join(true))))).key, "room_join");
}

#[test]
fn a_token_shows_in_no_debug_text() {
    let mut session = Client::new();
    let actions = on(&mut session, sent("client_bind", &[("token", "canary"), ("password", "canary")]));
    assert!(!format!("{actions:?} {:?}", session.session).contains("canary"));
}
