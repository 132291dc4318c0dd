//! Bodies of back ends: HTTP API requests and the MessagesPub envelope; also the maps of client publishes.
//!
//! Bytes → a message with its target, or a [`FieldFault`] that names the field. Pure; independent of HTTP and of the node.

mod body;
pub(super) mod entries;
mod envelope;
mod message;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::fault::Mismatch;
use super::reader::{BODY, read, read_text};
use crate::id::{Room, Uid};
use crate::message::{Entries, Message, StreamName, Target};
use body::{Fields, Uids};
use entries::Map;
use message::{List, One, Receiver};

pub use super::fault::FieldFault;
pub use envelope::{PubEnvelope, envelope, envelope_json, envelope_protobuf};

/// PushLimits on one body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PushLimits {
    /// Maximum bytes of the whole body.
    pub bytes: usize,
    /// Maximum number of messages.
    pub messages: usize,
    /// Maximum number of users.
    pub uids: usize,
}

/// For tests only; a node takes its limits from the configuration.
#[cfg(test)]
impl Default for PushLimits {
    fn default() -> Self {
        Self { bytes: 1 << 20, messages: 256, uids: 10_000 }
    }
}

/// One message with its target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Push {
    /// The message.
    pub message: Arc<Message>,
    /// The receivers.
    pub target: Target,
}

/// A request to join or leave a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoomChange {
    /// The room.
    pub room: Room,
    /// A user, users, or one connection.
    pub target: Target,
}

/// A request to close connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kick {
    /// A user, one device of a user, or one connection.
    pub target: Target,
    /// Reason as the caller wrote it; may be empty.
    pub reason: String,
}

/// `POST /send`: a message, to its own receiver.
///
/// # Errors
/// [`FieldFault`], as for all functions here: the body is not such JSON, a field has a wrong type, or a limit is exceeded.
pub fn send(body: &[u8], limits: &PushLimits) -> Result<Push, FieldFault> {
    let body = checked(body, limits)?;
    read("", body, One(Receiver::Required)).map(addressed)
}

/// `POST /send/all`: a message, to all bound connections.
///
/// # Errors
/// As [`send`].
pub fn send_all(body: &[u8], limits: &PushLimits) -> Result<Push, FieldFault> {
    let body = checked(body, limits)?;
    let (message, _) = read("", body, One(Receiver::Optional))?;
    Ok(Push { message: Arc::new(message), target: Target::Everyone })
}

/// `POST /send/sendList`: messages, each to its own receiver.
///
/// # Errors
/// As [`send`]; an empty list is a fault too.
pub fn send_list(body: &[u8], limits: &PushLimits) -> Result<Vec<Push>, FieldFault> {
    let body = checked(body, limits)?;
    let messages = read("", body, List { receiver: Receiver::Required, limit: limits.messages })?;
    Ok(messages.into_iter().map(addressed).collect())
}

/// `POST /send/toUids`: {"message", "uids"}. A user listed twice occurs once in the target.
///
/// # Errors
/// As [`send`]; an empty list is a fault too.
pub fn send_to_uids(body: &[u8], limits: &PushLimits) -> Result<Push, FieldFault> {
    let mut fields = Fields::read(body, &["message", "uids"], limits)?;
    Ok(Push { message: fields.message()?, target: users(uids(&fields, "uids", limits)?)? })
}

/// `POST /send/other`: {"message", "uids"}, to everyone except these users. The list may be empty.
///
/// # Errors
/// As [`send`].
pub fn send_other(body: &[u8], limits: &PushLimits) -> Result<Push, FieldFault> {
    let mut fields = Fields::read(body, &["message", "uids"], limits)?;
    Ok(Push { message: fields.message()?, target: Target::EveryoneBut(uids(&fields, "uids", limits)?.into()) })
}

/// `POST /send/room`: {"message", "room"}.
///
/// # Errors
/// As [`send`].
pub fn send_room(body: &[u8], limits: &PushLimits) -> Result<Push, FieldFault> {
    let mut fields = Fields::read(body, &["message", "room"], limits)?;
    Ok(Push { message: fields.message()?, target: Target::Room(fields.name("room")?) })
}

/// `POST /send/device`: {"message", "uid", "device"}.
///
/// # Errors
/// As [`send`].
pub fn send_device(body: &[u8], limits: &PushLimits) -> Result<Push, FieldFault> {
    let mut fields = Fields::read(body, &["message", "uid", "device"], limits)?;
    Ok(Push { message: fields.message()?, target: Target::Device(fields.name("uid")?, fields.name("device")?) })
}

/// `POST /send/connection`: {"message", "cid" [, "uid"]}. With a uid, the connection must belong to that user.
///
/// # Errors
/// As [`send`].
pub fn send_connection(body: &[u8], limits: &PushLimits) -> Result<Push, FieldFault> {
    let mut fields = Fields::read(body, &["message", "cid", "uid"], limits)?;
    let cid = fields.cid("cid")?;
    let target =
        if fields.has("uid") { Target::ConnectionOf(fields.name("uid")?, cid) } else { Target::Connection(cid) };
    Ok(Push { message: fields.message()?, target })
}

/// `POST /room/join` and `/room/leave`: {"room", "uid" | "uids" | "cid"}.
///
/// # Errors
/// As [`send`]; exactly one of the three must be present.
pub fn room_change(body: &[u8], limits: &PushLimits) -> Result<RoomChange, FieldFault> {
    let fields = Fields::read(body, &["room", "uid", "uids", "cid"], limits)?;
    let room = fields.name("room")?;
    let target = match fields.one_of(&["uid", "uids", "cid"])? {
        "uid" => Target::User(fields.name("uid")?),
        "uids" => users(uids(&fields, "uids", limits)?)?,
        _ => Target::Connection(fields.cid("cid")?),
    };
    Ok(RoomChange { room, target })
}

/// `POST /kick`: {"uid" [, "device"] | "cid", "reason"}.
///
/// # Errors
/// As [`send`]; either a user or a connection must be given, not both.
pub fn kick(body: &[u8], limits: &PushLimits) -> Result<Kick, FieldFault> {
    let fields = Fields::read(body, &["uid", "device", "cid", "reason"], limits)?;
    let target = match fields.one_of(&["uid", "cid"])? {
        "uid" if fields.has("device") => Target::Device(fields.name("uid")?, fields.name("device")?),
        "uid" => Target::User(fields.name("uid")?),
        _ => Target::Connection(fields.cid("cid")?),
    };
    Ok(Kick { target, reason: fields.text("reason")? })
}

/// `POST /history/forget`: {"stream"}.
///
/// # Errors
/// As [`send`].
pub fn forget(body: &[u8], limits: &PushLimits) -> Result<StreamName, FieldFault> {
    let fields = Fields::read(body, &["stream"], limits)?;
    let raw = fields.require("stream", STREAM)?;
    let name = raw.text().ok().and_then(|text| text.parse().ok());
    name.ok_or_else(|| raw.mismatch(STREAM).at("stream"))
}

/// Parses a client's `content`, which a SendBody carries as text: JSON text of an object is the map; other text becomes
/// the entry `text`.
///
/// # Errors
/// As [`send`].
pub fn content_of(text: &str) -> Result<Entries, FieldFault> {
    let is_object = text.trim_start().starts_with('{') && serde_json::from_str::<&RawValue>(text).is_ok();
    if is_object { read_text("content", text, Map) } else { Ok(entries::plain(text)) }
}

/// Parses a client's `extra`: JSON text of an object, or empty.
///
/// # Errors
/// As [`send`].
pub fn extra_of(text: &str) -> Result<Entries, FieldFault> {
    if text.is_empty() { Ok(Entries::new()) } else { read_text("extra", text, Map) }
}

/// Builds the push of a message with a mandatory receiver.
fn addressed((message, receiver): (Message, Option<Uid>)) -> Push {
    Push { message: Arc::new(message), target: Target::User(receiver.expect("the receiver was required")) }
}

fn uids(fields: &Fields<'_>, key: &'static str, limits: &PushLimits) -> Result<Vec<Uid>, FieldFault> {
    let raw = fields.require(key, Uids::EXPECTED_LIST)?;
    read_text(key, raw.as_str(), Uids { limit: limits.uids }).map(without_duplicates)
}

fn users(uids: Vec<Uid>) -> Result<Target, FieldFault> {
    match <[Uid; 1]>::try_from(uids) {
        Ok([uid]) => Ok(Target::User(uid)),
        Err(uids) if uids.is_empty() => Err(Mismatch::new("at least one user", "an empty array").at("uids")),
        Err(uids) => Ok(Target::Users(uids.into())),
    }
}

/// Removes duplicate users. The first occurrence keeps its position.
fn without_duplicates(mut uids: Vec<Uid>) -> Vec<Uid> {
    let mut seen = HashSet::with_capacity(uids.len());
    uids.retain(|uid| seen.insert(uid.clone()));
    uids
}

/// Checks the length of the body and strips a byte order mark, which some editors and libraries put before JSON. The
/// mark cannot start a protobuf body: its bytes are a tag of a wire type that does not exist.
fn checked<'b>(body: &'b [u8], limits: &PushLimits) -> Result<&'b [u8], FieldFault> {
    if body.len() > limits.bytes {
        return Err(Mismatch::over(limits.bytes, "bytes", body.len().to_string()).at(BODY));
    }
    Ok(body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body))
}

/// Expected form of the name of a stream.
const STREAM: &str = "u:UID, r:ROOM or all";
/// U+FEFF in UTF-8.
pub const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
