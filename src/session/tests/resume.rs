//! Joins, and requests to resume: accepted and refused forms, and their answers.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::claim::{ResumeRequest, ResumeStream};
use crate::id::MAX_SAFE_INTEGER;
use crate::message::{Epoch, Position};

fn lobby() -> Room {
    Room::parse("lobby").unwrap()
}

fn at(offset: u64, id: i64) -> Position {
    Position { epoch: Epoch::parse("k3v9x0ab").unwrap(), offset, id }
}

/// Binds with these data and returns the facts of the bind.
fn facts(data: &[(&str, &str)]) -> Facts {
    let mut session = Client::new();
    on(&mut session, sent("client_bind", data));
    match on(&mut session, Input::Admitted(Ok(admission("1")))).pop() {
        Some(Action::Bind(_, facts)) => facts,
        other => panic!("expected a bind, got {other:?}"),
    }
}

/// The streams that a `resume` asks for.
fn streams(resume: &str) -> Vec<(ResumeStream, Option<Position>)> {
    facts(&[("resume", resume)]).resume.unwrap().streams
}

#[test]
fn rooms_are_joined_and_left_with_an_answer() {
    let mut session = bound_as("1");
    let actions = on(&mut session, sent("room_join", &[("code", "x"), ("room", "lobby")]));
    let expected = [Action::Join(lobby(), entries(&[("code", "x")]), None)];
    assert_eq!(actions, expected, "with what the client sent beside the room");
    let reply = only_reply(on(&mut session, Input::Joined(Ok(join(true)))));
    assert_eq!(reply.data, entries(&[("room", "lobby"), ("changed", "true")]));
    on(&mut session, sent("room_join", &[("room", "lobby")]));
    let reply = only_reply(on(&mut session, Input::Joined(Err(Refusal::new(Code::TOO_MANY, "room: too many")))));
    assert_eq!((reply.key.as_str(), reply.code.as_str()), ("room_join", "429"));
    assert_eq!(on(&mut session, sent("room_leave", &[("room", "lobby")])), [Action::Leave(lobby())]);
    let reply = only_reply(on(&mut session, Input::Left(false)));
    assert_eq!((reply.code.as_str(), reply.data.get("changed")), ("200", Some("false")));
}

#[test]
fn join_with_a_position_asks_for_a_replay_and_hides_it_from_plugins() {
    let since = |position| JoinReplay { since: Some(position), latest: false };
    let latest = JoinReplay { since: None, latest: true };
    let unknown = Position { epoch: Epoch::new(0), offset: 0, id: 0 };
    type Row<'a> = (&'a [(&'a str, &'a str)], Option<JoinReplay>);
    let table: &[Row<'_>] = &[
        (&[], None),
        (&[("since", "")], Some(since(None))),
        (&[("since", "k3v9x0ab:41:-9")], Some(since(Some(at(41, -9))))),
        (&[("since", "k3v9x0ab:0:9223372036854776000")], Some(since(Some(at(0, i64::MAX))))),
        (&[("since", ":0:0")], Some(since(Some(unknown)))),
        (&[("latest", "1")], Some(latest)),
        (&[("latest", "true"), ("since", "")], Some(JoinReplay { since: Some(None), latest: true })),
        (&[("latest", "0")], None),
        (&[("latest", "")], None),
    ];
    for (data, expected) in table {
        let mut session = bound_as("1");
        let data = [&[("room", "lobby"), ("code", "x")][..], data].concat();
        let actions = on(&mut session, sent("room_join", &data));
        assert_eq!(actions, [Action::Join(lobby(), entries(&[("code", "x")]), *expected)], "{data:?}");
    }
}

#[test]
fn join_reply_has_the_result_of_the_replay_last() {
    let mut session = bound_as("1");
    on(&mut session, sent("room_join", &[("room", "lobby"), ("since", "")]));
    let resume = r#"[["r:lobby",true,"k3v9x0ab",57,9217,0]]"#;
    let outcome = JoinOutcome { changed: true, resume: Some(resume.to_owned()) };
    let reply = only_reply(on(&mut session, Input::Joined(Ok(outcome))));
    assert_eq!(reply.data, entries(&[("room", "lobby"), ("changed", "true"), ("resume", resume)]));
}

#[test]
fn join_with_a_bad_position_is_refused_with_its_field() {
    let since = "since: expected epoch:offset:id or an empty text, got ";
    let table = [
        ("since", "k3v9x0ab", format!("{since}\"k3v9x0ab\"")),
        ("since", "K3v9x0ab:1:1", format!("{since}\"K3v9x0ab:1:1\"")),
        ("since", "k3v9x0ab:-1:1", format!("{since}\"k3v9x0ab:-1:1\"")),
        ("since", "k3v9x0ab:9007199254740992:1", format!("{since}\"k3v9x0ab:9007199254740992:1\"")),
        ("since", "k3v9x0ab:1:1.5", format!("{since}\"k3v9x0ab:1:1.5\"")),
        ("latest", "yes", "latest: expected 1 or 0, got \"yes\"".to_owned()),
    ];
    for (field, value, words) in table {
        let mut session = bound_as("1");
        let reply = only_reply(on(&mut session, sent("room_join", &[("room", "lobby"), (field, value)])));
        assert_eq!((reply.key.as_str(), reply.code.as_str(), reply.message), ("room_join", "400", words));
    }
}

#[test]
fn bind_with_resume_asks_for_its_streams_and_hides_them_from_plugins() {
    let mut session = Client::new();
    let resume = r#"[["u","k3v9x0ab",41,9001],["all"],["r:lobby","k3v9x0ab",0,"-7"]]"#;
    let data = [("token", "t"), ("resume", resume), ("cid", "77"), ("sso", "x")];
    let shown = Claim { token: Some("t".into()), data: entries(&[("sso", "x")]), ..Claim::default() };
    assert_eq!(on(&mut session, sent("client_bind", &data)), [Action::Admit(Box::new(shown))]);
    let request = ResumeRequest {
        streams: vec![
            (ResumeStream::Own, Some(at(41, 9001))),
            (ResumeStream::Everyone, None),
            (ResumeStream::Room(lobby()), Some(at(0, -7))),
        ],
        former: ConnectionId::new(77),
    };
    let facts = Facts { resume: Some(request), ..Facts::default() };
    assert_eq!(on(&mut session, Input::Admitted(Ok(admission("1")))), [Action::Bind(admission("1"), facts)]);
}

#[test]
fn bind_reply_has_the_result_of_the_resume_last() {
    let mut session = Client::new();
    on(&mut session, sent("client_bind", &[("token", "t"), ("resume", "[]")]));
    on(&mut session, Input::Admitted(Ok(admission("1"))));
    let resume = r#"[["u",true,"k3v9x0ab",57,9217,16],["all",true,"k3v9x0ab",0,0,0]]"#;
    let location =
        ClientLocation { next: Some("10.0.0.2:8080".to_owned()), resume: Some(resume.to_owned()), ..place() };
    let reply = only_reply(on(&mut session, Input::Bound(Ok(location))));
    let keys: Vec<&str> = reply.data.iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["uid", "expires", "cid", "sid", "address", "next", "resume"]);
    assert_eq!(reply.data.get("resume"), Some(resume));
}

#[test]
fn bind_without_resume_ignores_cid_and_asks_for_nothing() {
    for data in [&[("token", "t")][..], &[("token", "t"), ("cid", "no number")], &[("token", "t"), ("resume", "")]] {
        assert_eq!(facts(data), Facts::default(), "{data:?}");
    }
}

#[test]
fn empty_resume_asks_for_the_positions_of_own_and_all() {
    assert_eq!(streams("[]"), [(ResumeStream::Own, None), (ResumeStream::Everyone, None)]);
}

#[test]
fn resume_with_128_entries_is_accepted_and_with_129_refused() {
    let list = |entries: usize| json!((0..entries).map(|n| [format!("r:{n}")]).collect::<Vec<_>>()).to_string();
    assert_eq!(streams(&list(128)).len(), 128);
    let reply = only_reply(on(&mut Client::new(), sent("client_bind", &[("resume", &list(129))])));
    assert_eq!((&*reply.code, &*reply.message), ("400", "resume: expected at most 128 entries, got 129"));
}

#[test]
fn stream_of_an_unknown_kind_is_answered_with_its_reason() {
    let unknown = r#"["tag:\"a\"",false,"",0,0,0,"unknown"],["u:1",false,"",0,0,0,"unknown"]"#;
    let known = r#"["all",true,"k3v9x0ab",57,9217,0]"#;
    let table = [
        (r#"[["tag:\"a\"",1,2],["all"],["u:1"]]"#, 1, Some(format!("[{known}]")), format!("[{known},{unknown}]")),
        (r#"[["tag:\"a\""],["u:1"]]"#, 0, Some("[]".to_owned()), format!("[{unknown}]")),
        (r#"[["tag:\"a\""],["u:1"]]"#, 0, None, format!("[{unknown}]")),
    ];
    for (resume, count, found, expected) in table {
        assert_eq!(streams(resume).len(), count, "{resume}");
        let mut session = Client::new();
        on(&mut session, sent("client_bind", &[("resume", resume)]));
        on(&mut session, Input::Admitted(Ok(admission("1"))));
        let reply = only_reply(on(&mut session, Input::Bound(Ok(ClientLocation { resume: found, ..place() }))));
        assert_eq!(reply.data.get("resume"), Some(&*expected));
        assert!(serde_json::from_str::<serde_json::Value>(&expected).is_ok());
    }
}

#[test]
fn positions_are_read_as_javascript_writes_them() {
    let id = |id: &str| streams(&format!(r#"[["u","k3v9x0ab",1,{id}]]"#))[0].1.unwrap().id;
    for (text, expected) in [
        ("9217", 9217),
        ("9217.0", 9217),
        ("\"9223372036854775807\"", i64::MAX),
        ("9223372036854776000", i64::MAX),
        ("\"9223372036854776000\"", i64::MAX),
        ("-9223372036854776000", i64::MIN),
        ("1e3", 1000),
    ] {
        assert_eq!(id(text), expected, "{text}");
    }
    let offset = |offset: &str| streams(&format!(r#"[["u","k3v9x0ab",{offset},1]]"#))[0].1.unwrap().offset;
    assert_eq!((offset("41"), offset("\"41\"")), (41, 41));
    let unknown = streams(r#"[["u","",0,0]]"#)[0].1.unwrap();
    assert_eq!(unknown, Position { epoch: Epoch::new(0), offset: 0, id: 0 }, "an epoch of no stream");
}

#[test]
fn malformed_resume_refuses_the_bind_and_keeps_the_connection() {
    let entry = "expected [stream] or [stream, epoch, offset, id], got";
    let name = "x".repeat(129);
    let table = [
        ("nonsense".to_owned(), "resume: expected a JSON array of streams, got \"nonsense\"".to_owned()),
        ("{}".to_owned(), "resume: expected a JSON array of streams, got \"{}\"".to_owned()),
        ("[1]".to_owned(), format!("resume[0]: {entry} 1")),
        ("[[\"u\"],[]]".to_owned(), format!("resume[1]: {entry} []")),
        ("[[\"u\",\"k3v9x0ab\"]]".to_owned(), format!("resume[0]: {entry} [\"u\",\"k3v9x0ab\"]")),
        ("[[\"u\",7,1,1]]".to_owned(), "resume[0][1]: expected 8 characters of [0-9a-z], got 7".to_owned()),
        ("[[\"u\",\"K\",1,1]]".to_owned(), "resume[0][1]: expected 8 characters of [0-9a-z], got \"K\"".to_owned()),
        (
            "[[\"u\",\"k3v9x0ab\",-1,1]]".to_owned(),
            "resume[0][2]: expected a whole number from 0 to 9007199254740991, got -1".to_owned(),
        ),
        ("[[\"u\",\"k3v9x0ab\",1,1.5]]".to_owned(), "resume[0][3]: expected an integer of 64 bits, got 1.5".to_owned()),
        ("[[\"r:a,b\"]]".to_owned(), "resume[0][0]: expected no comma or control character, got \"a,b\"".to_owned()),
        (json!([[format!("r:{name}")]]).to_string(), "resume[0][0]: expected at most 128 bytes, got 129".to_owned()),
        ("[[\"all\"],[\"all\"]]".to_owned(), "resume[1]: expected each stream once, got all twice".to_owned()),
        (" ".repeat(16_385), "resume: expected at most 16384 bytes, got 16385".to_owned()),
    ];
    for (resume, words) in table {
        let mut session = Client::new();
        let reply = only_reply(on(&mut session, sent("client_bind", &[("token", "t"), ("resume", &resume)])));
        assert_eq!((reply.key.as_str(), reply.code.as_str(), reply.message), ("client_bind", "400", words));
        let actions = on(&mut session, sent("client_bind", &[("token", "t")]));
        assert!(matches!(actions[..], [Action::Admit(_)]), "and it goes on");
    }
    let data = [("resume", "[]"), ("cid", "0")];
    let reply = only_reply(on(&mut Client::new(), sent("client_bind", &data)));
    assert_eq!(reply.message, "cid: expected a whole number from 1 to 9007199254740991, got \"0\"");
}

#[test]
fn handshake_with_token_resumes_by_its_query() {
    let claim = |resume: &str| {
        let data = entries(&[("resume", resume), ("cid", "77")]);
        Input::Opened(Some(Box::new(Claim { token: Some("t".into()), data, ..Claim::default() })))
    };
    let mut session = Client::new();
    let shown = Claim { token: Some("t".into()), ..Claim::default() };
    assert_eq!(on(&mut session, claim("[[\"u\"],[\"x\"]]")), [Action::Admit(Box::new(shown))]);
    let request = ResumeRequest { streams: vec![(ResumeStream::Own, None)], former: ConnectionId::new(77) };
    let facts = Facts { resume: Some(request), ..Facts::default() };
    assert_eq!(on(&mut session, Input::Admitted(Ok(admission("1")))), [Action::Bind(admission("1"), facts)]);
    let reply = only_reply(on(&mut session, Input::Bound(Ok(place()))));
    assert_eq!(reply.data.get("resume"), Some(r#"[["x",false,"",0,0,0,"unknown"]]"#));

    let long = " ".repeat(4_097);
    for (resume, words) in [
        ("[", "resume: expected a JSON array of streams, got \"[\""),
        (&*long, "resume: expected at most 4096 bytes, got 4097"),
    ] {
        let mut session = Client::new();
        let reply = only_reply(on(&mut session, claim(resume)));
        assert_eq!((&*reply.key, &*reply.code, &*reply.message), ("client_bind", "400", words));
        let actions = on(&mut session, sent("client_bind", &[("token", "t")]));
        assert!(matches!(actions[..], [Action::Admit(_)]), "the client binds with a frame");
    }
}

#[test]
fn bound_client_that_resumes_passes_its_request_to_the_node() {
    let mut session = bound_as("1");
    let request = ResumeRequest { streams: vec![(ResumeStream::Own, None)], former: None };
    let facts = Facts { resume: Some(request), ..Facts::default() };
    let actions = on(&mut session, sent("client_bind", &[("resume", "[[\"u\"],[\"x\"]]")]));
    assert_eq!(actions, [Action::Rebind(facts)]);
    let refused = r#"[["u",false,"k3v9x0ab",57,9217,0,"already_bound"]]"#;
    let location = ClientLocation { resume: Some(refused.to_owned()), ..place() };
    let reply = only_reply(on(&mut session, Input::Bound(Ok(location))));
    let expected = r#"[["u",false,"k3v9x0ab",57,9217,0,"already_bound"],["x",false,"",0,0,0,"unknown"]]"#;
    assert_eq!(reply.data.get("resume"), Some(expected));
}

#[test]
fn connection_starts_at_most_128_replays_in_ten_seconds() {
    let start = |session: &mut Client, now| {
        let actions = session.on(sent("room_join", &[("room", "lobby"), ("since", "")]), now, &RULES);
        if matches!(actions[..], [Action::Join(..)]) {
            on(session, Input::Joined(Ok(join(true))));
            return None;
        }
        Some(only_reply(actions))
    };
    let mut session = bound_as("1");
    for number in 0..128 {
        assert_eq!(start(&mut session, NOW + number), None, "replay {number}");
    }
    let refused = start(&mut session, NOW + 9_999).unwrap();
    assert_eq!((refused.code.as_str(), refused.key.as_str()), ("429", "room_join"));
    assert_eq!(refused.message, "resume: expected at most 128 replays in 10 s, got 129");
    assert_eq!(on(&mut session, sent("room_join", &[("room", "lobby")])).len(), 1, "a join without a replay is free");
    on(&mut session, Input::Joined(Ok(join(true))));
    assert_eq!(start(&mut session, NOW + 10_000), None, "the first replay began ten seconds ago");
    assert!(start(&mut session, NOW + 10_000).is_some());
    assert_eq!(start(&mut session, NOW - 60_000), None, "a clock that was set back locks nobody out");
}

#[test]
fn streams_of_a_bind_count_as_replays() {
    let resume = serde_json::Value::from_iter((0..100).map(|room| json!([format!("r:{room}")]))).to_string();
    let mut session = bound_as("1");
    assert_eq!(on(&mut session, sent("client_bind", &[("resume", &resume)])).len(), 1);
    on(&mut session, Input::Bound(Ok(place())));
    let refused = only_reply(on(&mut session, sent("client_bind", &[("resume", &resume)])));
    assert_eq!((refused.code.as_str(), refused.key.as_str()), ("429", "client_bind"));
    assert_eq!(refused.message, "resume: expected at most 128 replays in 10 s, got 200");
    assert!(!session.is_closing());
}

#[test]
fn busy_node_tells_when_to_come_back_and_closes_an_unbound_client_only() {
    let busy = || Refusal { retry: Some(Duration::from_millis(1_234)), ..Refusal::new(Code::UNAVAILABLE, "busy") };
    let mut session = Client::new();
    on(&mut session, sent("client_bind", &[("token", "t"), ("resume", "[]")]));
    on(&mut session, Input::Admitted(Ok(admission("1"))));
    let mut actions = on(&mut session, Input::Bound(Err(busy())));
    assert_eq!(actions.pop(), Some(Action::Close(Disconnect::BUSY)));
    let told = only_reply(actions);
    assert_eq!((told.key.as_str(), told.code.as_str()), ("client_handshake", "503"));
    assert_eq!(told.data, entries(&[("retry", "1234")]));

    let mut session = bound_as("1");
    on(&mut session, sent("room_join", &[("room", "lobby"), ("since", "")]));
    let told = only_reply(on(&mut session, Input::Joined(Err(busy()))));
    assert_eq!((told.key.as_str(), told.code.as_str()), ("room_join", "503"));
    assert_eq!(told.data, entries(&[("retry", "1234")]));
}

fn any_stream() -> impl Strategy<Value = ResumeStream> {
    prop_oneof![
        Just(ResumeStream::Own),
        Just(ResumeStream::Everyone),
        "[a-z\"云:]{1,20}".prop_map(|name| ResumeStream::Room(Room::parse(&name).unwrap())),
    ]
}

prop_compose! {
    fn any_position()(epoch in any::<u64>(), offset in 0..=MAX_SAFE_INTEGER, id in any::<i64>()) -> Position {
        Position { epoch: Epoch::new(epoch), offset, id }
    }
}

proptest! {
    #[test]
    fn any_resume_and_since_are_read_or_refused(resume in any::<String>(), like in "[\\[\\]\",:a-z0-9-]{0,40}") {
        for text in [&resume, &like] {
            for (key, field) in [("client_bind", "resume"), ("room_join", "since")] {
                let mut session = bound_as("1");
                let actions = on(&mut session, sent(key, &[("room", "lobby"), (field, text)]));
                prop_assert_eq!(actions.len(), 1);
            }
        }
    }

    #[test]
    fn written_positions_are_read(
        wanted in proptest::collection::vec((any_stream(), proptest::option::of(any_position())), 1..6),
    ) {
        let mut unique: Vec<(ResumeStream, Option<Position>)> = Vec::new();
        for one in wanted {
            if !unique.iter().any(|(stream, _)| *stream == one.0) {
                unique.push(one);
            }
        }
        let entries = unique.iter().map(|(stream, position)| match position {
            None => json!([stream.to_string()]),
            Some(at) => json!([stream.to_string(), at.epoch.as_str(), at.offset, at.id.to_string()]),
        });
        prop_assert_eq!(&streams(&serde_json::Value::from_iter(entries).to_string()), &unique);

        let since = unique[0].1.map_or_else(String::new, |at| at.to_string());
        let mut session = bound_as("1");
        let actions = on(&mut session, sent("room_join", &[("room", "lobby"), ("since", &since)]));
        let replay = JoinReplay { since: Some(unique[0].1), latest: false };
        prop_assert_eq!(actions, [Action::Join(lobby(), Entries::new(), Some(replay))]);
    }
}
