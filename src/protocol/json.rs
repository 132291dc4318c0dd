//! The JSON coding: text `{"type":n,"content":"<JSON text of the body>"}`.
//!
//! `content` is a string that contains JSON, because CIM's SDK throws on an object. Absent, zero and empty fields are
//! omitted.

use serde::de::MapAccess;

use super::fault::Mismatch;
use super::push::entries::Map;
use super::reader::{Raw, Reader, Shape, read, read_text};
use super::sink::{Escape, Sink, put_integer, put_text};
use super::{ClientFrame, Dialect, FrameError, FrameTail, PONG, Reply, SendBody, ServerFrame, check_type};
use crate::id::is_safe_integer;
use crate::message::{Entries, Message};

/// A whole frame.
pub(super) fn put_frame(sink: &mut impl Sink, dialect: Dialect, frame: ServerFrame<'_>) {
    sink.put(b"{\"type\":");
    put_integer(sink, frame.type_code().into());
    match frame {
        ServerFrame::Ping => return sink.put(b"}"),
        ServerFrame::Message(message) => {
            sink.put(CONTENT);
            put_message(&mut Escape(sink), dialect, message, FrameTail::default());
        }
        ServerFrame::StreamMessage(message, tail) => {
            sink.put(CONTENT);
            put_message(&mut Escape(sink), dialect, message, tail);
        }
        ServerFrame::Reply(reply) => {
            sink.put(CONTENT);
            put_reply(&mut Escape(sink), reply);
        }
    }
    sink.put(b"\"}");
}

fn put_message(sink: &mut impl Sink, dialect: Dialect, message: &Message, tail: FrameTail<'_>) {
    let mut body = Body::open(sink);
    body.integer("id", message.id);
    body.text("action", &message.action);
    match dialect {
        Dialect::Yunque => body.object("content", &message.content),
        Dialect::Cim => match plain_text(&message.content) {
            Some(text) => body.text("content", text),
            None => body.object_text("content", &message.content),
        },
    }
    body.text("sender", &message.sender);
    body.text("receiver", &message.receiver);
    match dialect {
        Dialect::Yunque => {
            body.object("extra", &message.extra);
            body.text("title", &message.title);
            body.integer("sendTime", message.timestamp);
            body.text("image", &message.image);
        }
        Dialect::Cim => {
            body.object_text("extra", &message.extra);
            body.text("title", &message.title);
            body.text("format", &message.format);
            body.integer("timestamp", message.timestamp);
        }
    }
    if let Some((epoch, offset)) = tail.position {
        body.integer("offset", offset.cast_signed());
        body.text("epoch", epoch.as_str());
    }
    if let Some((kind, name)) = tail.stream_text() {
        body.joined("stream", kind, name);
    }
    body.close();
}

fn put_reply(sink: &mut impl Sink, reply: &Reply) {
    let mut body = Body::open(sink);
    body.text("key", &reply.key);
    body.text("code", &reply.code);
    body.text("message", &reply.message);
    body.integer("timestamp", reply.timestamp);
    body.object("data", &reply.data);
    body.close();
}

/// An integer as a number, or as a string of digits if JavaScript would round the number.
fn put_number(sink: &mut impl Sink, number: i64) {
    if is_safe_integer(number) {
        return put_integer(sink, number);
    }
    sink.put(b"\"");
    put_integer(sink, number);
    sink.put(b"\"");
}

/// Entries as a JSON object.
pub(super) fn put_entries(sink: &mut impl Sink, entries: &Entries) {
    for (at, (key, value)) in entries.iter().enumerate() {
        sink.put(if at == 0 { b"{" } else { b"," });
        put_text(sink, key);
        sink.put(b":");
        put_text(sink, value);
    }
    sink.put(if entries.is_empty() { b"{}" } else { b"}" });
}

/// The text of a content map whose only key is `text`. A cim client receives it as plain text.
pub(super) fn plain_text(content: &Entries) -> Option<&str> {
    (content.len() == 1).then(|| content.get("text")).flatten()
}

/// Decodes a client's frame.
pub(super) fn decode(payload: &[u8]) -> Result<ClientFrame, FrameError> {
    if payload.is_empty() {
        return Err(FrameError::Empty);
    }
    let (code, content) = read("", payload, FrameShape).map_err(FrameError::Json)?;
    check_type(code)?;
    if code == i64::from(PONG) {
        return Ok(ClientFrame::Pong);
    }
    let content = content
        .ok_or_else(|| Mismatch::missing(JSON_TEXT))
        .and_then(|raw| raw.text().map_err(|_| raw.mismatch(JSON_TEXT)));
    let content = content.map_err(|mismatch| FrameError::Json(mismatch.at("content")))?;
    read_text("content", &content, SentShape).map(ClientFrame::Sent).map_err(FrameError::Json)
}

/// Writes the present fields of an object, separated by commas.
struct Body<'a, S> {
    sink: &'a mut S,
    next: &'static [u8],
}

impl<'a, S: Sink> Body<'a, S> {
    fn open(sink: &'a mut S) -> Self {
        Self { sink, next: b"{\"" }
    }

    fn key(&mut self, key: &str) {
        self.sink.put(self.next);
        self.sink.put(key.as_bytes());
        self.sink.put(b"\":");
        self.next = b",\"";
    }

    fn integer(&mut self, key: &str, number: i64) {
        if number != 0 {
            self.key(key);
            put_number(self.sink, number);
        }
    }

    fn text(&mut self, key: &str, text: &str) {
        if !text.is_empty() {
            self.key(key);
            put_text(self.sink, text);
        }
    }

    /// Writes a string of two parts.
    fn joined(&mut self, key: &str, first: &str, second: &str) {
        self.key(key);
        self.sink.put(b"\"");
        for part in [first, second] {
            Escape(self.sink).put(part.as_bytes());
        }
        self.sink.put(b"\"");
    }

    fn object(&mut self, key: &str, entries: &Entries) {
        if !entries.is_empty() {
            self.key(key);
            put_entries(self.sink, entries);
        }
    }

    /// Writes a string that contains the entries as JSON text.
    fn object_text(&mut self, key: &str, entries: &Entries) {
        if !entries.is_empty() {
            self.key(key);
            self.sink.put(b"\"");
            put_entries(&mut Escape(self.sink), entries);
            self.sink.put(b"\"");
        }
    }

    fn close(self) {
        self.sink.put(if self.next == b"{\"" { b"{}" } else { b"}" });
    }
}

/// Shape of a frame: `type` and `content`.
struct FrameShape;

impl<'de> Shape<'de> for FrameShape {
    type Out = (i64, Option<Raw<'de>>);
    const EXPECTED: &'static str = "an object";

    fn object<A: MapAccess<'de>>(self, at: &mut Reader, mut map: A) -> Result<Self::Out, A::Error> {
        let (mut code, mut content) = (None, None);
        while let Some(key) = at.key(&mut map)? {
            let field = match &*key {
                "type" => &mut code,
                "content" => &mut content,
                _ => {
                    at.skip(&key, &mut map)?;
                    continue;
                }
            };
            if field.replace(at.raw(&mut map)?).is_some() {
                return Err(at.fail_duplicate(&key));
            }
        }
        let code = code.ok_or_else(|| Mismatch::missing("an integer")).and_then(Raw::integer);
        Ok((code.map_err(|mismatch| at.fail_at("type", mismatch))?, content.filter(|raw| !raw.is_null())))
    }
}

/// Shape of a SendBody.
struct SentShape;

impl<'de> Shape<'de> for SentShape {
    type Out = SendBody;
    const EXPECTED: &'static str = "an object";

    fn object<A: MapAccess<'de>>(self, at: &mut Reader, mut map: A) -> Result<SendBody, A::Error> {
        let (mut sent, mut seen) = (SendBody::default(), Vec::with_capacity(3));
        while let Some(key) = at.key(&mut map)? {
            match &*key {
                "key" => sent.key = text_or_nothing(at, &key, &mut map)?,
                // The timestamp is never used, so an invalid one is not a fault.
                "timestamp" => sent.timestamp = at.raw(&mut map)?.integer().unwrap_or_default(),
                "data" => sent.data = at.value("data", &mut map, Map)?,
                _ => {
                    at.skip(&key, &mut map)?;
                    continue;
                }
            }
            if seen.contains(&key) {
                return Err(at.fail_duplicate(&key));
            }
            seen.push(key);
        }
        Ok(sent)
    }
}

fn text_or_nothing<'de, A: MapAccess<'de>>(at: &mut Reader, key: &str, map: &mut A) -> Result<String, A::Error> {
    let raw = at.raw(map)?;
    if raw.is_null() {
        return Ok(String::new());
    }
    raw.text().map(Into::into).map_err(|mismatch| at.fail_at(key, mismatch))
}

const CONTENT: &[u8] = b",\"content\":\"";
const JSON_TEXT: &str = "a string that holds a JSON object";
