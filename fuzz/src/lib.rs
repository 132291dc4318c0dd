//! Entry functions of the fuzz targets. Each takes any bytes and panics if a promise is broken.
//!
//! `tests/it/fuzz.rs` runs the same functions over the corpus and over seeded mutations of it.

use skylark::claim::{Admission, Claim, ResumeRequest};
use skylark::id::{MAX_SAFE_INTEGER, Uid};
use skylark::message::{Entries, Position};
use skylark::protocol::push::{self, FieldFault, PushLimits};
use skylark::protocol::{Reply, SendBody};
use skylark::session::{Action, BoundUser, Input, Rules, Session};
use std::time::Duration;

const NOW: i64 = 1_700_000_000_000;
const RULES: Rules = Rules { publish: true, unbound: Duration::from_secs(45), unbound_max: Duration::from_secs(300) };
const LIMITS: PushLimits = PushLimits { bytes: 1 << 20, messages: 256, uids: 10_000 };

/// `resume` of a bind, by a frame and by the query of a handshake: it asks for at most 128 different streams, or it is
/// refused with 400 and its field. The connection stays open, and no auth plugin sees the text.
pub fn resume(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let token = || Some("t".to_owned());
    let by_query = Claim { token: token(), data: entries("resume", &text), ..Claim::default() };
    let mut by_frame = entries("resume", &text);
    by_frame.insert("token", "t");
    for input in [Input::Opened(Some(Box::new(by_query))), sent("client_bind", by_frame)] {
        let mut session = Session::new(NOW);
        match &session.on(input, None, NOW, &RULES)[..] {
            [Action::Reply(reply)] => is_refused(reply, &["resume"]),
            [Action::Admit(claim)] => {
                assert_eq!(claim.data.get("resume"), None);
                let admitted = Input::Admitted(Ok(Box::new(admission())));
                match &session.on(admitted, None, NOW, &RULES)[..] {
                    [Action::Bind(_, facts)] => facts.resume.iter().for_each(is_bounded),
                    other => panic!("expected a bind, got {other:?}"),
                }
            }
            other => panic!("expected a claim or a refusal, got {other:?}"),
        }
        assert!(!session.is_closing());
    }
}

/// `since` and `latest` of a join: a position within its bounds, or a refusal with 400 and the field.
pub fn since(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let uid = user();
    for field in ["since", "latest"] {
        let mut request = entries(field, &text);
        request.insert("room", "lobby");
        let mut session = Session::new(NOW);
        let bound = Some(BoundUser { uid: &uid, expires: None });
        match &session.on(sent("room_join", request), bound, NOW, &RULES)[..] {
            [Action::Reply(reply)] => is_refused(reply, &[field]),
            [Action::Join(_, rest, replay)] => {
                assert_eq!(rest.iter().count(), 0, "plugins see neither");
                let position = replay.and_then(|replay| replay.since).flatten();
                position.iter().for_each(is_in_range);
            }
            other => panic!("expected a join or a refusal, got {other:?}"),
        }
    }
}

/// Bodies of the push API and of intakes: read, or refused with words.
pub fn push(data: &[u8]) {
    let faults: [Option<FieldFault>; 11] = [
        push::send(data, &LIMITS).err(),
        push::send_all(data, &LIMITS).err(),
        push::send_list(data, &LIMITS).err(),
        push::send_to_uids(data, &LIMITS).err(),
        push::send_other(data, &LIMITS).err(),
        push::send_room(data, &LIMITS).err(),
        push::send_device(data, &LIMITS).err(),
        push::send_connection(data, &LIMITS).err(),
        push::forget(data, &LIMITS).err(),
        push::envelope_json(data, &LIMITS).err(),
        push::envelope_protobuf(data, &LIMITS).err(),
    ];
    assert!(faults.iter().flatten().all(|fault| !fault.to_string().is_empty()));
}

fn sent(key: &str, data: Entries) -> Input {
    Input::Sent(SendBody { key: key.to_owned(), timestamp: 1, data })
}

fn entries(key: &str, value: &str) -> Entries {
    [(key, value)].into_iter().collect()
}

fn user() -> Uid {
    Uid::parse("1074").expect("a valid user")
}

fn admission() -> Admission {
    Admission { uid: user(), device: None, rooms: Vec::new(), expires: None, claims: Entries::new() }
}

fn is_refused(reply: &Reply, fields: &[&str]) {
    assert_eq!(reply.code, "400", "{reply:?}");
    assert!(fields.iter().any(|field| reply.message.starts_with(field)), "{reply:?}");
    assert!(reply.message.len() < 1_024, "the answer does not repeat its input: {reply:?}");
}

fn is_bounded(request: &ResumeRequest) {
    let streams = &request.streams;
    assert!(streams.len() <= 128);
    for (at, (stream, position)) in streams.iter().enumerate() {
        assert!(streams[..at].iter().all(|(other, _)| other != stream), "{stream} twice");
        position.iter().for_each(is_in_range);
    }
}

fn is_in_range(position: &Position) {
    assert!(position.offset <= MAX_SAFE_INTEGER, "{position}");
}
