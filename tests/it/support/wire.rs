//! The tests' own codec: converts protobuf and JSON bodies to and from plain JSON values. Shares no code with the node.
//!
//! A body is a `Value` with the field names of the documents. Fields that are absent on the wire are absent here, so
//! one expectation covers every dialect and coding.

use serde_json::{Map, Value, json};

/// Dialect and coding of a test client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    YunquePb,
    YunqueJson,
    CimPb,
    CimJson,
    CimTcp,
}

impl Form {
    pub const ALL: [Self; 5] = [Self::YunquePb, Self::YunqueJson, Self::CimPb, Self::CimJson, Self::CimTcp];

    pub fn subprotocol(self) -> &'static str {
        match self {
            Self::YunquePb => "yunque.pb",
            Self::YunqueJson => "yunque.json",
            Self::CimPb | Self::CimTcp => "cim.pb",
            Self::CimJson => "cim.json",
        }
    }

    pub fn is_json(self) -> bool {
        matches!(self, Self::YunqueJson | Self::CimJson)
    }

    pub fn is_cim(self) -> bool {
        !matches!(self, Self::YunquePb | Self::YunqueJson)
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Text,
    Integer,
    Map,
}

type Layout = &'static [(u32, &'static str, Kind)];

const SEND_BODY: Layout = &[(1, "key", Kind::Text), (2, "timestamp", Kind::Integer), (3, "data", Kind::Map)];
const REPLY: Layout = &[
    (1, "key", Kind::Text),
    (2, "code", Kind::Text),
    (3, "message", Kind::Text),
    (4, "timestamp", Kind::Integer),
    (5, "data", Kind::Map),
];
const YUNQUE: Layout = &[
    (1, "id", Kind::Integer),
    (2, "action", Kind::Text),
    (3, "content", Kind::Map),
    (4, "sender", Kind::Text),
    (5, "receiver", Kind::Text),
    (6, "extra", Kind::Map),
    (7, "title", Kind::Text),
    (8, "sendTime", Kind::Integer),
    (9, "image", Kind::Text),
    (15, "offset", Kind::Integer),
    (16, "epoch", Kind::Text),
    (17, "stream", Kind::Text),
];
const CIM: Layout = &[
    (1, "id", Kind::Integer),
    (2, "action", Kind::Text),
    (3, "content", Kind::Text),
    (4, "sender", Kind::Text),
    (5, "receiver", Kind::Text),
    (6, "extra", Kind::Text),
    (7, "title", Kind::Text),
    (8, "format", Kind::Text),
    (9, "timestamp", Kind::Integer),
    (15, "offset", Kind::Integer),
    (16, "epoch", Kind::Text),
    (17, "stream", Kind::Text),
];

/// A decoded frame from the node.
#[derive(Debug, Clone, PartialEq)]
pub enum Frame {
    Ping,
    Message(Value),
    Reply(Value),
}

/// Type byte and body of a protobuf frame from the node.
pub fn read_binary(form: Form, payload: &[u8]) -> Frame {
    let (kind, body) = payload.split_first().expect("a frame has a type byte");
    match kind {
        1 => {
            assert!(body.is_empty() || body == b"PING", "expected an empty PING, got {body:?}");
            Frame::Ping
        }
        2 => Frame::Message(read_fields(if form.is_cim() { CIM } else { YUNQUE }, body)),
        4 => Frame::Reply(read_fields(REPLY, body)),
        other => panic!("the node sent a frame of type {other}"),
    }
}

/// A JSON frame from the node.
pub fn read_text(text: &str) -> Frame {
    let frame: Map<String, Value> = serde_json::from_str(text).expect("a text frame is a JSON object");
    let body = || {
        let content = frame["content"].as_str().expect("content is a string that holds JSON");
        let body: Value = serde_json::from_str(content).expect("content holds JSON");
        assert!(!content.contains(":null"), "expected no null field, got {content}");
        body
    };
    match frame["type"].as_i64() {
        Some(1) => Frame::Ping,
        Some(2) => Frame::Message(body()),
        Some(4) => Frame::Reply(body()),
        _ => panic!("expected a known frame type, the node sent {text}"),
    }
}

/// The type byte and protobuf body of a SENT frame.
pub fn sent_binary(body: &Value) -> Vec<u8> {
    let mut out = vec![3];
    write_fields(SEND_BODY, body, &mut out);
    out
}

/// A SENT frame as JSON text.
pub fn sent_text(body: &Value) -> String {
    json!({"type": 3, "content": body.to_string()}).to_string()
}

/// The broker envelope `MessagesPub` as protobuf.
pub fn messages_pub(envelope: &Value) -> Vec<u8> {
    const HEAD: Layout = &[(1, "Uid", Kind::Text), (2, "Sid", Kind::Text), (3, "Cid", Kind::Integer)];
    let mut out = Vec::new();
    write_fields(HEAD, envelope, &mut out);
    for message in envelope["msg"].as_array().into_iter().flatten() {
        let mut body = Vec::new();
        write_fields(YUNQUE, message, &mut body);
        write_bytes(4, &body, &mut out);
    }
    // `act` has presence: an explicit zero is written.
    for (number, name) in [(5_u32, "act"), (6, "type")] {
        if let Some(value) = envelope.get(name).and_then(Value::as_u64) {
            write_varint(u64::from(number << 3), &mut out);
            write_varint(value, &mut out);
        }
    }
    write_fields(&[(7, "device", Kind::Text)], envelope, &mut out);
    out
}

fn write_fields(layout: Layout, body: &Value, out: &mut Vec<u8>) {
    for (number, name, kind) in layout {
        let Some(value) = body.get(*name) else { continue };
        match kind {
            Kind::Text => write_bytes(*number, value.as_str().expect("the value is a string").as_bytes(), out),
            Kind::Integer => {
                write_varint(u64::from(number << 3), out);
                write_varint(value.as_i64().expect("the value is an integer").cast_unsigned(), out);
            }
            Kind::Map => {
                for (key, value) in value.as_object().expect("the value is an object") {
                    let mut entry = Vec::new();
                    write_bytes(1, key.as_bytes(), &mut entry);
                    write_bytes(2, value.as_str().expect("the value is a string").as_bytes(), &mut entry);
                    write_bytes(*number, &entry, out);
                }
            }
        }
    }
}

fn write_bytes(number: u32, bytes: &[u8], out: &mut Vec<u8>) {
    write_varint(u64::from(number << 3 | 2), out);
    write_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn write_varint(mut value: u64, out: &mut Vec<u8>) {
    loop {
        let low = value.to_le_bytes()[0] & 0x7f;
        value >>= 7;
        if value == 0 {
            return out.push(low);
        }
        out.push(low | 0x80);
    }
}

/// Fields with numbers from 15 on are extensions and skipped, as in both SDK families.
fn read_fields(layout: Layout, mut body: &[u8]) -> Value {
    let mut fields = Map::new();
    while !body.is_empty() {
        let tag = read_varint(&mut body);
        let number = u32::try_from(tag >> 3).expect("the field number fits u32");
        let field = layout.iter().find(|(n, _, _)| *n == number);
        match (tag & 7, field) {
            (0, Some((_, name, Kind::Integer))) => {
                fields.insert((*name).into(), read_varint(&mut body).cast_signed().into());
            }
            (2, Some((_, name, Kind::Text))) => {
                fields.insert((*name).into(), text(read_bytes(&mut body)).into());
            }
            (2, Some((_, name, Kind::Map))) => {
                let (key, value) = read_entry(read_bytes(&mut body));
                let map = fields.entry(*name).or_insert_with(|| json!({}));
                map.as_object_mut().unwrap().insert(key, value.into());
            }
            (0, None) if number >= 15 => drop(read_varint(&mut body)),
            (2, None) if number >= 15 => drop(read_bytes(&mut body)),
            (wire, _) => panic!("field {number} has wire type {wire}"),
        }
    }
    Value::Object(fields)
}

fn read_entry(mut entry: &[u8]) -> (String, String) {
    let (mut key, mut value) = (String::new(), String::new());
    while !entry.is_empty() {
        match read_varint(&mut entry) {
            10 => key = text(read_bytes(&mut entry)),
            18 => value = text(read_bytes(&mut entry)),
            tag => panic!("a map entry has tag {tag}"),
        }
    }
    (key, value)
}

fn text(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).expect("the text is UTF-8").to_owned()
}

fn read_bytes<'a>(body: &mut &'a [u8]) -> &'a [u8] {
    let length = usize::try_from(read_varint(body)).unwrap();
    let (bytes, rest) = body.split_at(length);
    *body = rest;
    bytes
}

fn read_varint(body: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..70).step_by(7) {
        let (byte, rest) = body.split_first().expect("a varint ends before the body does");
        *body = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return value;
        }
    }
    panic!("expected a varint of at most ten bytes");
}
