//! Round trips through independent implementations (prost, serde_json), in both directions.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;
use prost::Message as _;
use serde_json::{Value, json};

use crate::id::{MAX_SAFE_INTEGER, Room, Uid};
use crate::message::{Entries, Epoch, MAX_ENTRIES, Message, Position, StreamName};
use crate::protocol::push::{PushLimits, envelope_protobuf, send_all};
use crate::protocol::{
    ClientFrame, Coding, Dialect, Form, FrameError, Frames, Framing, Reply, SendBody, ServerFrame, decode, encode,
    kept_frames, proto, tcp,
};

fn entries() -> impl Strategy<Value = Entries> {
    let text = || prop_oneof![any::<String>(), "[\u{0}-\u{7f}]{0,12}", Just("text".to_owned())];
    proptest::collection::btree_map(text(), text(), 0..4).prop_map(|map| map.into_iter().collect())
}

prop_compose! {
    fn messages()(
        id in prop_oneof![Just(0), any::<i64>()],
        timestamp in prop_oneof![Just(0), any::<i64>()],
        content in entries(),
        extra in entries(),
        texts in proptest::collection::vec(prop_oneof![Just(String::new()), any::<String>(), "x{200,300}"], 6),
    ) -> Message {
        let [action, sender, receiver, title, image, format] = texts.try_into().unwrap();
        Message { id, action, content, sender, receiver, extra, title, image, format, timestamp }
    }
}

fn streams() -> impl Strategy<Value = Option<StreamName>> {
    prop_oneof![
        Just(None),
        Just(Some(StreamName::User(Uid::parse("1074").unwrap()))),
        Just(Some(StreamName::Everyone)),
        "[a-z\"\\\\云 ]{1,32}".prop_map(|name| Some(StreamName::Room(Room::parse(&name).unwrap()))),
    ]
}

prop_compose! {
    fn bodies()(key in any::<String>(), timestamp in any::<i64>(), data in entries()) -> SendBody {
        SendBody { key, timestamp, data }
    }
}

proptest! {
    #[test]
    fn a_message_means_the_same_in_every_form(message in messages()) {
        for form in Form::ALL {
            let frame = encode(form, ServerFrame::Message(&message)).unwrap();
            prop_assert_eq!(read_message(form, body_of(form, &frame, 2)), as_dialect(form.dialect, &message), "{}", form);
        }
    }

    #[test]
    fn a_reply_means_the_same_in_every_form(body in bodies(), code in "[0-9]{3}", message in any::<String>()) {
        let reply = Reply { key: body.key, code, message, timestamp: body.timestamp, data: body.data };
        for form in Form::ALL {
            let frame = encode(form, ServerFrame::Reply(&reply)).unwrap();
            let body = body_of(form, &frame, 4);
            let read = if form.coding == Coding::Json { reply_by_serde(body) } else { reply_by_prost(body) };
            prop_assert_eq!(read, reply.clone());
        }
    }

    #[test]
    fn send_body_round_trips_in_every_coding(body in bodies()) {
        let map = body.data.iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let sent = proto::SendBody { key: body.key.clone(), timestamp: body.timestamp, data: map };
        let mut payload = vec![3];
        sent.encode(&mut payload).unwrap();
        prop_assert_eq!(decode(Coding::Protobuf, &payload), Ok(ClientFrame::Sent(body.clone())));

        let inner = json!({"key": sent.key, "timestamp": sent.timestamp, "data": sent.data});
        let text = json!({"type": 3, "content": inner.to_string()}).to_string();
        prop_assert_eq!(decode(Coding::Json, text.as_bytes()), Ok(ClientFrame::Sent(body)));
    }

    #[test]
    fn a_published_message_is_read_as_prost_wrote_it(message in messages()) {
        let frame = encode(Form::websocket(Dialect::Yunque, Coding::Protobuf), ServerFrame::Message(&message)).unwrap();
        let written = proto::Message::decode(body_of(Form::ALL[0], &frame, 2)).unwrap();
        let envelope = proto::MessagesPub { msg: vec![written.clone(), written], ..Default::default() };
        let read = envelope_protobuf(&envelope.encode_to_vec(), &PushLimits::default()).unwrap();
        prop_assert_eq!(read.pushes.len(), 2);
        prop_assert_eq!(&*read.pushes[1].message, &Message { format: String::new(), ..message });
    }

    #[test]
    fn a_run_is_its_frames_one_after_another(run in proptest::collection::vec(messages(), 0..5)) {
        let run: Vec<_> = run.into_iter().map(Arc::new).collect();
        let frames = Frames::new(run.clone().into());
        for form in Form::ALL {
            let one_by_one: Vec<u8> =
                run.iter().flat_map(|message| encode(form, ServerFrame::Message(message)).unwrap()).collect();
            prop_assert_eq!(&frames.bytes(form)[..], one_by_one);
            prop_assert_eq!(frames.bytes(form).as_ptr(), frames.bytes(form).as_ptr(), "encoded once");
        }
        prop_assert_eq!((frames.count(), frames.messages()), (run.len(), &run[..]));
    }

    #[test]
    fn frame_tail_is_ignored_by_older_readers_and_read_by_newer_ones(
        message in prop_oneof![Just(Message::default()), messages()],
        position in proptest::option::of((any::<u64>(), 1..=MAX_SAFE_INTEGER)),
        stream in streams(),
    ) {
        let position = position.map(|(epoch, offset)| Position { epoch: Epoch::new(epoch), offset, id: message.id });
        let frames = Frames::of_stream([Arc::new(message.clone())].into_iter().collect(), stream.as_ref(), position);
        let (offset, epoch) = position.map_or((0, String::new()), |at| (at.offset, at.epoch.to_string()));
        let name = match &stream {
            None | Some(StreamName::User(_)) => String::new(),
            Some(named) => named.to_string(),
        };
        for form in Form::ALL {
            let body = body_of(form, frames.bytes(form), 2);
            prop_assert_eq!(read_message(form, body), as_dialect(form.dialect, &message), "{}", form);
            prop_assert_eq!(read_tail(form, body), (offset, epoch.clone(), name.clone()), "{}", form);
        }
    }

    #[test]
    fn replay_page_has_the_bytes_of_live_frames(
        run in proptest::collection::vec(messages(), 0..4),
        (epoch, first) in (any::<u64>(), 1..MAX_SAFE_INTEGER - 4),
        stream in streams(),
    ) {
        let Some(stream) = stream else { return Ok(()) };
        let run: Vec<_> = run.into_iter().map(Arc::new).collect();
        let position = Position { epoch: Epoch::new(epoch), offset: first, id: 0 };
        let live = Frames::of_stream(run.clone().into(), Some(&stream), Some(position));
        let page: Vec<(u64, &Message)> = (first..).zip(run.iter().map(|message| &**message)).collect();
        for form in Form::ALL {
            let one_by_one: Vec<u8> =
                page.iter().flat_map(|one| kept_frames(form, &[*one], &stream, position.epoch)).collect();
            let whole = kept_frames(form, &page, &stream, position.epoch);
            prop_assert_eq!(&whole[..], &one_by_one[..]);
            prop_assert_eq!(&live.bytes(form)[..], &one_by_one[..]);
        }
    }

    #[test]
    fn garbage_never_panics_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..64), text in any::<String>()) {
        for coding in [Coding::Protobuf, Coding::Json] {
            let _ = decode(coding, &bytes);
            let _ = decode(coding, &[&[3], &bytes[..]].concat());
            let _ = decode(coding, json!({"type": 3, "content": text}).to_string().as_bytes());
        }
        let _ = envelope_protobuf(&bytes, &PushLimits::default());
        let _ = tcp::split_tcp_frame(&mut BytesMut::from(&bytes[..]), 64);
    }
}

/// Checks the head of a frame and returns the JSON text or protobuf of its body.
fn body_of(form: Form, frame: &Bytes, code: u8) -> &'static [u8] {
    let payload = match (form.framing, frame[1]) {
        (Framing::Tcp, _) => {
            assert_eq!((frame[0], usize::from(u16::from_le_bytes([frame[1], frame[2]]))), (code, frame.len() - 3));
            return frame[3..].to_vec().leak();
        }
        (_, 126) => {
            assert_eq!(usize::from(u16::from_be_bytes([frame[2], frame[3]])), frame.len() - 4);
            &frame[4..]
        }
        (_, 127) => {
            assert_eq!(frame[2..10], u64::try_from(frame.len() - 10).unwrap().to_be_bytes());
            &frame[10..]
        }
        (_, length) => {
            assert_eq!(usize::from(length), frame.len() - 2);
            &frame[2..]
        }
    };
    match form.coding {
        Coding::Protobuf => {
            assert_eq!((frame[0], payload[0]), (0x82, code));
            payload[1..].to_vec().leak()
        }
        Coding::Json => {
            let value: Value = serde_json::from_slice(payload).unwrap();
            assert_eq!((frame[0], &value["type"]), (0x81, &json!(code)));
            value["content"].as_str().unwrap().as_bytes().to_vec().leak()
        }
    }
}

/// Decodes a body with an independent decoder that ignores fields from 15 on.
fn read_message(form: Form, body: &[u8]) -> Message {
    match (form.coding, form.dialect) {
        (Coding::Protobuf, Dialect::Yunque) => {
            let m = old::Yunque::decode(body).unwrap();
            let (content, extra) = (m.content.into_iter().collect(), m.extra.into_iter().collect());
            Message {
                id: m.id,
                action: m.action,
                content,
                sender: m.sender,
                receiver: m.receiver,
                extra,
                title: m.title,
                image: m.image,
                format: String::new(),
                timestamp: m.send_time,
            }
        }
        (Coding::Protobuf, Dialect::Cim) => {
            let m = old::Cim::decode(body).unwrap();
            Message {
                id: m.id,
                action: m.action,
                content: cim_entries(&m.content, true),
                sender: m.sender,
                receiver: m.receiver,
                extra: cim_entries(&m.extra, false),
                title: m.title,
                image: String::new(),
                format: m.format,
                timestamp: m.timestamp,
            }
        }
        (Coding::Json, dialect) => {
            let mut value: Value = serde_json::from_slice(body).unwrap();
            let object = value.as_object_mut().unwrap();
            for key in ["offset", "epoch", "stream"] {
                object.remove(key);
            }
            if dialect == Dialect::Cim {
                for key in ["content", "extra"] {
                    let text = object.get(key).map_or("", |value| value.as_str().unwrap());
                    let entries = cim_entries(text, key == "content");
                    object.insert(key.into(), entries.iter().map(|(k, v)| (k.to_owned(), json!(v))).collect());
                }
            }
            (*send_all(value.to_string().as_bytes(), &PushLimits::default()).unwrap().message).clone()
        }
    }
}

/// Offset, epoch and stream of a body; 0 and empty where absent.
fn read_tail(form: Form, body: &[u8]) -> (u64, String, String) {
    match (form.coding, form.dialect) {
        (Coding::Protobuf, Dialect::Yunque) => {
            let m = proto::Message::decode(body).unwrap();
            (m.offset, m.epoch, m.stream)
        }
        (Coding::Protobuf, Dialect::Cim) => {
            let m = proto::cim::Message::decode(body).unwrap();
            (m.offset, m.epoch, m.stream)
        }
        (Coding::Json, _) => {
            let value: Value = serde_json::from_slice(body).unwrap();
            let text = |key: &str| value.get(key).map_or("", |value| value.as_str().unwrap()).to_owned();
            let offset = value.get("offset").map_or(0, |offset| offset.as_u64().unwrap());
            (offset, text("epoch"), text("stream"))
        }
    }
}

/// Converts a cim string back to its map. An object and a lone text with the same JSON are indistinguishable, so the
/// strategies generate no lone text that is itself an object.
fn cim_entries(text: &str, content: bool) -> Entries {
    match serde_json::from_str::<std::collections::BTreeMap<String, String>>(text) {
        Ok(map) => map.into_iter().collect(),
        Err(_) if text.is_empty() => Entries::new(),
        Err(_) => {
            assert!(content, "extra is always an object");
            [("text", text)].into_iter().collect()
        }
    }
}

/// The part of a message that the dialect transmits.
fn as_dialect(dialect: Dialect, message: &Message) -> Message {
    let mut message = message.clone();
    match dialect {
        Dialect::Yunque => message.format.clear(),
        Dialect::Cim => {
            message.image.clear();
            if message.content.len() == 1 && message.content.get("text") == Some("") {
                message.content = Entries::new();
            }
        }
    }
    message
}

fn reply_by_prost(body: &[u8]) -> Reply {
    let r = proto::ReplyBody::decode(body).unwrap();
    Reply { key: r.key, code: r.code, message: r.message, timestamp: r.timestamp, data: r.data.into_iter().collect() }
}

fn reply_by_serde(body: &[u8]) -> Reply {
    let value: Value = serde_json::from_slice(body).unwrap();
    let text = |key: &str| value.get(key).map_or("", |value| value.as_str().unwrap()).to_owned();
    let data = value.get("data").map(|data| data.as_object().unwrap().clone()).unwrap_or_default();
    Reply {
        key: text("key"),
        code: text("code"),
        message: text("message"),
        timestamp: value.get("timestamp").map_or(0, |number| match number {
            Value::String(digits) => digits.parse().unwrap(),
            number => number.as_i64().unwrap(),
        }),
        data: data.into_iter().map(|(key, value)| (key, value.as_str().unwrap().to_owned())).collect(),
    }
}

/// The layouts of clients built before tails existed.
mod old {
    use std::collections::BTreeMap;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Yunque {
        #[prost(int64, tag = "1")]
        pub(super) id: i64,
        #[prost(string, tag = "2")]
        pub(super) action: String,
        #[prost(btree_map = "string, string", tag = "3")]
        pub(super) content: BTreeMap<String, String>,
        #[prost(string, tag = "4")]
        pub(super) sender: String,
        #[prost(string, tag = "5")]
        pub(super) receiver: String,
        #[prost(btree_map = "string, string", tag = "6")]
        pub(super) extra: BTreeMap<String, String>,
        #[prost(string, tag = "7")]
        pub(super) title: String,
        #[prost(int64, tag = "8")]
        pub(super) send_time: i64,
        #[prost(string, tag = "9")]
        pub(super) image: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Cim {
        #[prost(int64, tag = "1")]
        pub(super) id: i64,
        #[prost(string, tag = "2")]
        pub(super) action: String,
        #[prost(string, tag = "3")]
        pub(super) content: String,
        #[prost(string, tag = "4")]
        pub(super) sender: String,
        #[prost(string, tag = "5")]
        pub(super) receiver: String,
        #[prost(string, tag = "6")]
        pub(super) extra: String,
        #[prost(string, tag = "7")]
        pub(super) title: String,
        #[prost(string, tag = "8")]
        pub(super) format: String,
        #[prost(int64, tag = "9")]
        pub(super) timestamp: i64,
    }
}

#[test]
fn pong_payload_is_ignored() {
    for payload in [&b"\x00"[..], b"\x00PONG", b"\x00PON\0", b"\x00\xff\xff"] {
        assert_eq!(decode(Coding::Protobuf, payload), Ok(ClientFrame::Pong));
    }
    for payload in [r#"{"type":0}"#, r#"{"type":0.0,"content":"PONG"}"#, r#"{"content":{"a":[]},"type":0}"#] {
        assert_eq!(decode(Coding::Json, payload.as_bytes()), Ok(ClientFrame::Pong));
    }
}

#[test]
fn client_json_with_odd_types_is_accepted() {
    let inner =
        r#"{"key":"k","timestamp":"soon","x":[1],"data":{"n":1.10,"b":true,"o":{ "a": [ 1, "2 3" ] },"z":null}}"#;
    let text = json!({"type": 3.0, "content": inner, "more": null}).to_string();
    let ClientFrame::Sent(sent) = decode(Coding::Json, text.as_bytes()).unwrap() else { panic!("a SENT") };
    assert_eq!(sent.timestamp, 0);
    assert_eq!(sent.data.iter().collect::<Vec<_>>(), [("n", "1.10"), ("b", "true"), ("o", r#"{"a":[1,"2 3"]}"#)]);
    let bare = decode(Coding::Json, br#"{"type":3,"content":"{\"key\":null,\"data\":null}"}"#);
    assert_eq!(bare, Ok(ClientFrame::Sent(SendBody::default())));
}

#[test]
fn json_of_clients_is_refused_with_a_reason() {
    for (text, words) in [
        ("", "expected a type byte, got nothing"),
        (" ", "body: expected JSON, got nothing"),
        ("[]", "body: expected an object, got an array"),
        ("{}", "type: expected an integer, got nothing"),
        (r#"{"type":"x"}"#, "type: expected an integer, got \"x\""),
        (r#"{"type":9}"#, "expected PONG (0) or SENT (3), got unknown type 9"),
        (r#"{"type":-1}"#, "expected PONG (0) or SENT (3), got unknown type -1"),
        (
            r#"{"type":4,"content":"{}"}"#,
            "expected PONG (0) or SENT (3), got REPLY (4), which is not legal from a client",
        ),
        (r#"{"type":0,"type":3}"#, "type: expected the key once, got it twice"),
        (r#"{"type":3}"#, "content: expected a string that holds a JSON object, got nothing"),
        (r#"{"type":3,"content":{"key":"a"}}"#, "content: expected a string that holds a JSON object, got an object"),
        (r#"{"type":3,"content":"[]"}"#, "content: expected an object, got an array"),
        (r#"{"type":3,"content":"{\"key\":1}"}"#, "content.key: expected a string, got 1"),
        (r#"{"type":3,"content":"{\"data\":[]}"}"#, "content.data: expected an object, got an array"),
        (r#"{"type":3,"content":"{\"key\":\"\",\"key\":\"\"}"}"#, "content.key: expected the key once, got it twice"),
        (r#"{"type":3,"content":"{"}"#, "content: expected whole JSON, got an early end at line 1 column 1"),
    ] {
        assert_eq!(decode(Coding::Json, text.as_bytes()).unwrap_err().to_string(), words, "{text}");
    }
    assert_eq!(
        decode(Coding::Json, b"{\"type\":\xff}").unwrap_err().to_string(),
        "body: expected UTF-8, got byte 0xff at offset 8"
    );
}

#[test]
fn frame_with_too_many_entries_or_levels_is_refused_unexpanded() {
    let entry = [0x1a, 5, 0x0a, 1, b'a', 0x12, 0];
    let body = |entries: usize| [&[3_u8][..], &entry.repeat(entries)].concat();
    assert!(decode(Coding::Protobuf, &body(MAX_ENTRIES)).is_ok());
    assert_eq!(
        decode(Coding::Protobuf, &body(MAX_ENTRIES + 1)),
        Err(FrameError::TooManyEntries { field: "data", entries: 257, limit: 256 })
    );
    // An unterminated group.
    let group = decode(Coding::Protobuf, &[&[3_u8][..], &[0x7b; 1000]].concat()).unwrap_err();
    assert_eq!(group.to_string(), "expected a protobuf body, got wire type 3");

    let deep = "[".repeat(40_000);
    for content in [format!(r#"{{"data":{{"a":{deep}}}}}"#), format!(r#"{{"x":{deep}}}"#), deep.clone()] {
        assert!(decode(Coding::Json, json!({"type": 3, "content": content}).to_string().as_bytes()).is_err());
    }
    let closed = format!(r#"{{"data":{{"a":{}{}}}}}"#, "[".repeat(40), "]".repeat(40));
    let error = decode(Coding::Json, json!({"type": 3, "content": closed}).to_string().as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "content.data.a: expected at most 32 levels of nesting, got more");
    let wide: Value = (0..=MAX_ENTRIES).map(|n| (n.to_string(), json!(n))).collect::<serde_json::Map<_, _>>().into();
    let text = json!({"type": 3, "content": json!({"data": wide}).to_string()}).to_string();
    let error = decode(Coding::Json, text.as_bytes()).unwrap_err();
    assert_eq!(error.to_string(), "content.data: expected at most 256 entries, got more");
}
