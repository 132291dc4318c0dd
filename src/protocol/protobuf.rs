//! Protobuf bodies: encoded by hand from our types without copying strings, decoded by prost.
//!
//! Independent of framing. `tests` compares the encoders with prost and with the golden frames.

use prost::Message as _;

use super::bounds;
use super::sink::{Sink, measured, put_varint};
use super::{Dialect, FrameError, FrameTail, Reply, SendBody, json, proto};
use crate::message::{Entries, Message};

/// Writes a message in the layout of `dialect`.
pub(super) fn put_message(sink: &mut impl Sink, dialect: Dialect, message: &Message) {
    match dialect {
        Dialect::Yunque => put_yunque(sink, message),
        Dialect::Cim => put_cim(sink, message),
    }
}

fn put_yunque(sink: &mut impl Sink, message: &Message) {
    put_int64(sink, 1, message.id);
    put_string(sink, 2, &message.action);
    put_entries(sink, 3, &message.content);
    put_string(sink, 4, &message.sender);
    put_string(sink, 5, &message.receiver);
    put_entries(sink, 6, &message.extra);
    put_string(sink, 7, &message.title);
    put_int64(sink, 8, message.timestamp);
    put_string(sink, 9, &message.image);
}

fn put_cim(sink: &mut impl Sink, message: &Message) {
    put_int64(sink, 1, message.id);
    put_string(sink, 2, &message.action);
    match json::plain_text(&message.content) {
        Some(text) => put_string(sink, 3, text),
        None => put_json(sink, 3, &message.content),
    }
    put_string(sink, 4, &message.sender);
    put_string(sink, 5, &message.receiver);
    put_json(sink, 6, &message.extra);
    put_string(sink, 7, &message.title);
    put_string(sink, 8, &message.format);
    put_int64(sink, 9, message.timestamp);
}

/// Writes the last fields of a message, which are the same in both dialects.
pub(super) fn put_tail(sink: &mut impl Sink, tail: FrameTail<'_>) {
    if let Some((epoch, offset)) = tail.position {
        put_uint64(sink, 15, offset);
        put_string(sink, 16, epoch.as_str());
    }
    if let Some((kind, name)) = tail.stream_text() {
        put_head(sink, 17, kind.len() + name.len());
        sink.put(kind.as_bytes());
        sink.put(name.as_bytes());
    }
}

/// Writes a ReplyBody, which is the same in both dialects.
pub(super) fn put_reply(sink: &mut impl Sink, reply: &Reply) {
    put_string(sink, 1, &reply.key);
    put_string(sink, 2, &reply.code);
    put_string(sink, 3, &reply.message);
    put_int64(sink, 4, reply.timestamp);
    put_entries(sink, 5, &reply.data);
}

/// Decodes a SendBody after counting its entries.
pub(super) fn decode_sent(body: &[u8]) -> Result<SendBody, FrameError> {
    bounds::check_entries(body, &[(3, "data")])?;
    let sent = proto::SendBody::decode(body).map_err(|error| FrameError::Protobuf(error_text(&error)))?;
    Ok(SendBody { key: sent.key, timestamp: sent.timestamp, data: sent.data.into_iter().collect() })
}

/// The text of a prost error without its preamble.
pub(super) fn error_text(error: &prost::DecodeError) -> String {
    let text = error.to_string();
    text.strip_prefix("failed to decode Protobuf message: ").unwrap_or(&text).to_owned()
}

/// A varint field; 0 is omitted.
fn put_uint64(sink: &mut impl Sink, field: u32, number: u64) {
    if number != 0 {
        put_varint(sink, u64::from(field << 3));
        put_varint(sink, number);
    }
}

/// A text field; the empty text is omitted.
fn put_string(sink: &mut impl Sink, field: u32, text: &str) {
    if !text.is_empty() {
        put_head(sink, field, text.len());
        sink.put(text.as_bytes());
    }
}

fn put_int64(sink: &mut impl Sink, field: u32, number: i64) {
    put_uint64(sink, field, number.cast_unsigned());
}

/// A map field. Key and value are always written, as Google's own encoders do.
fn put_entries(sink: &mut impl Sink, field: u32, entries: &Entries) {
    for (key, value) in entries.iter() {
        let (key_length, value_length) = (varint_length(key.len()), varint_length(value.len()));
        put_head(sink, field, 2 + key_length + key.len() + value_length + value.len());
        put_head(sink, 1, key.len());
        sink.put(key.as_bytes());
        put_head(sink, 2, value.len());
        sink.put(value.as_bytes());
    }
}

/// A text field that contains the entries as JSON text; omitted if there is no entry.
fn put_json(sink: &mut impl Sink, field: u32, entries: &Entries) {
    if !entries.is_empty() {
        put_head(sink, field, measured(|count| json::put_entries(count, entries)));
        json::put_entries(sink, entries);
    }
}

/// Tag and length of a length-delimited field.
fn put_head(sink: &mut impl Sink, field: u32, length: usize) {
    put_varint(sink, u64::from(field << 3 | LENGTH_DELIMITED));
    put_varint(sink, u64::try_from(length).expect("64 bits hold a length"));
}

fn varint_length(number: usize) -> usize {
    measured(|count| put_varint(count, u64::try_from(number).expect("64 bits hold a length")))
}

const LENGTH_DELIMITED: u32 = 2;
