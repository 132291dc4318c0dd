//! Bytes of frames with stream and position, in all six forms, and the limit of TCP.

use std::sync::Arc;

use bytes::Bytes;

use crate::id::{MAX_SAFE_INTEGER, Room, Uid};
use crate::message::{Epoch, Message, Position, StreamName};
use crate::protocol::{Dialect, Form, FrameTail, Frames, MAX_TCP_BODY, ServerFrame, encode, kept_frames};

fn lobby() -> StreamName {
    StreamName::Room(Room::parse("lobby").unwrap())
}

fn alice() -> StreamName {
    StreamName::User(Uid::parse("alice").unwrap())
}

fn at(offset: u64) -> Position {
    Position { epoch: Epoch::parse("k3v9x0ab").unwrap(), offset, id: 1 }
}

fn message() -> Message {
    Message { id: 1, action: "a".to_owned(), timestamp: 5, ..Message::default() }
}

/// The run of `count` equal messages.
fn frames(count: usize, stream: Option<&StreamName>, first: Option<Position>) -> Frames {
    Frames::of_stream((0..count).map(|_| Arc::new(message())).collect(), stream, first)
}

fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}

/// Head and payload of a frame in each form: yunque.pb, yunque.json, yunque.tcp, cim.pb, cim.json, cim.tcp.
type Expected<'a> = [(&'a [u8], &'a [u8]); Form::COUNT];

#[track_caller]
fn assert_forms(frames: &Frames, expected: Expected<'_>) {
    for (form, (head, payload)) in Form::ALL.into_iter().zip(expected) {
        assert_eq!(shown(frames.bytes(form)), shown(&[head, payload].concat()), "{form}");
    }
}

#[test]
fn kept_room_message_ends_with_offset_epoch_and_stream() {
    let yunque = b"\x08\x01\x12\x01a\x40\x05\x78\x29\x82\x01\x08k3v9x0ab\x8a\x01\x07r:lobby";
    let cim = b"\x08\x01\x12\x01a\x48\x05\x78\x29\x82\x01\x08k3v9x0ab\x8a\x01\x07r:lobby";
    let tail = r#"5,\"offset\":41,\"epoch\":\"k3v9x0ab\",\"stream\":\"r:lobby\"}"}"#;
    let yunque_json = [r#"{"type":2,"content":"{\"id\":1,\"action\":\"a\",\"sendTime\":"#, tail].concat();
    let cim_json = [r#"{"type":2,"content":"{\"id\":1,\"action\":\"a\",\"timestamp\":"#, tail].concat();
    assert_forms(
        &frames(1, Some(&lobby()), Some(at(41))),
        [
            (b"\x82\x1f\x02", yunque),
            (b"\x81\x7d", yunque_json.as_bytes()),
            (b"\x02\x1e\0", yunque),
            (b"\x82\x1f\x02", cim),
            (b"\x81\x7e\0\x7e", cim_json.as_bytes()),
            (b"\x02\x1e\0", cim),
        ],
    );
}

#[test]
fn kept_message_of_own_stream_ends_with_offset_and_epoch() {
    let yunque = b"\x08\x01\x12\x01a\x40\x05\x78\x29\x82\x01\x08k3v9x0ab";
    let cim = b"\x08\x01\x12\x01a\x48\x05\x78\x29\x82\x01\x08k3v9x0ab";
    let tail = r#"5,\"offset\":41,\"epoch\":\"k3v9x0ab\"}"}"#;
    let yunque_json = [r#"{"type":2,"content":"{\"id\":1,\"action\":\"a\",\"sendTime\":"#, tail].concat();
    let cim_json = [r#"{"type":2,"content":"{\"id\":1,\"action\":\"a\",\"timestamp\":"#, tail].concat();
    let expected: Expected<'_> = [
        (b"\x82\x15\x02", yunque),
        (b"\x81\x66", yunque_json.as_bytes()),
        (b"\x02\x14\0", yunque),
        (b"\x82\x15\x02", cim),
        (b"\x81\x67", cim_json.as_bytes()),
        (b"\x02\x14\0", cim),
    ];
    assert_forms(&frames(1, Some(&alice()), Some(at(41))), expected);
    assert_forms(&frames(1, None, Some(at(41))), expected);
}

#[test]
fn message_to_everyone_that_is_not_kept_ends_with_stream() {
    let yunque = b"\x08\x01\x12\x01a\x40\x05\x8a\x01\x03all";
    let cim = b"\x08\x01\x12\x01a\x48\x05\x8a\x01\x03all";
    let yunque_json = br#"{"type":2,"content":"{\"id\":1,\"action\":\"a\",\"sendTime\":5,\"stream\":\"all\"}"}"#;
    let cim_json = br#"{"type":2,"content":"{\"id\":1,\"action\":\"a\",\"timestamp\":5,\"stream\":\"all\"}"}"#;
    assert_forms(
        &frames(1, Some(&StreamName::Everyone), None),
        [
            (b"\x82\x0e\x02", yunque),
            (b"\x81\x54", yunque_json),
            (b"\x02\x0d\0", yunque),
            (b"\x82\x0e\x02", cim),
            (b"\x81\x55", cim_json),
            (b"\x02\x0d\0", cim),
        ],
    );
}

#[test]
fn message_to_a_user_that_is_not_kept_has_no_tail() {
    for form in Form::ALL {
        let plain = encode(form, ServerFrame::Message(&message())).unwrap();
        for frames in [frames(1, None, None), frames(1, Some(&alice()), None)] {
            assert_eq!(frames.bytes(form), &plain, "{form}");
        }
    }
}

#[test]
fn each_message_of_a_run_has_the_next_offset() {
    let run = frames(3, Some(&lobby()), Some(at(41)));
    for form in Form::ALL {
        let one_by_one: Vec<Bytes> = (41..44).map(|offset| one(form, &message(), &lobby(), offset)).collect();
        assert_eq!(&run.bytes(form)[..], one_by_one.concat(), "{form}");
    }
}

/// The frame of one kept message.
fn one(form: Form, message: &Message, stream: &StreamName, offset: u64) -> Bytes {
    kept_frames(form, &[(offset, message)], stream, at(offset).epoch)
}

#[test]
fn room_name_with_quotes_is_escaped_in_json() {
    let room = StreamName::Room(Room::parse(r#"a"b\"#).unwrap());
    let frame = one(Form::ALL[1], &Message::default(), &room, 9);
    let expected = r#"{"type":2,"content":"{\"offset\":9,\"epoch\":\"k3v9x0ab\",\"stream\":\"r:a\\\"b\\\\\"}"}"#;
    assert_eq!(std::str::from_utf8(&frame[2..]).unwrap(), expected);
}

/// A tail has at most 20 bytes, and 154 with the longest room name.
#[test]
fn tail_that_does_not_fit_a_tcp_frame_is_omitted() {
    let longest = StreamName::Room(Room::parse(&"r".repeat(128)).unwrap());
    for (stream, tail) in [(alice(), 20), (longest, 154)] {
        let title = |bytes| Message { title: "x".repeat(bytes), ..Message::default() };
        // Tag and length of the title take four bytes.
        let (fits, over) = (title(MAX_TCP_BODY - 4 - tail), title(MAX_TCP_BODY - 3 - tail));
        for dialect in [Dialect::Yunque, Dialect::Cim] {
            let tcp = |message| one(Form::tcp(dialect), message, &stream, MAX_SAFE_INTEGER);
            let plain = |message| encode(Form::tcp(dialect), ServerFrame::Message(message)).unwrap();
            assert_eq!(tcp(&fits)[..3], [2, 0xff, 0xff]);
            assert_eq!(tcp(&fits).len(), plain(&fits).len() + tail);
            assert_eq!(tcp(&over), plain(&over));
        }
        let tail = FrameTail { stream: Some(&stream), position: Some((at(1).epoch, MAX_SAFE_INTEGER)) };
        let whole = encode(Form::ALL[0], ServerFrame::StreamMessage(&over, tail)).unwrap();
        assert_eq!(one(Form::ALL[0], &over, &stream, MAX_SAFE_INTEGER), whole, "WebSocket has no such limit");
    }
}
