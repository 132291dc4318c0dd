//! Encoding of one envelope and of the target that the envelopes of a record share. Unset fields take no byte.

use std::sync::Arc;

use super::reader::{Reader, put_number, put_text};
use super::{MAX_OFFLINE, RecordError, malformed};
use crate::id::{ConnectionId, NodeId, Uid};
use crate::message::{Envelope, Message, Origin, Publisher, RecordIdentity, Retention, Target};
use crate::protocol::{put_canonical, read_canonical};

/// Appends an envelope without its target, which belongs to the record.
pub fn put_envelope(out: &mut Vec<u8>, envelope: &Envelope) {
    let Envelope {
        id,
        message,
        target: _,
        no_echo,
        from,
        back_end: _,
        origin,
        hops,
        nodes,
        key,
        history,
        identity,
        receipts,
        sent_at,
    } = envelope;
    let has_own_id = message.id.cast_unsigned() != *id;
    let has_own_time = message.timestamp != *sent_at;
    let flags = [
        (OWN_ID, has_own_id),
        (OWN_TIME, has_own_time),
        (NO_ECHO, no_echo.is_some()),
        (FROM, from.is_some()),
        (HOPS, *hops != 0),
        (NODES, !nodes.is_empty()),
        (KEY, key.is_some()),
        (IDENTITY, identity.is_some()),
        (RECEIPTS, *receipts),
        (NO_HISTORY, *history == Retention::No),
        (TTL, matches!(history, Retention::Ttl(_))),
        (FORMAT, !message.format.is_empty()),
    ];
    let flags = flags.iter().filter(|(_, is_set)| *is_set).fold(origin_code(*origin), |flags, (bit, _)| flags | bit);
    put_number(out, flags);
    if has_own_id {
        put_number(out, *id);
    }
    if has_own_time {
        put_number(out, sent_at.cast_unsigned());
    }
    no_echo.iter().for_each(|cid| put_number(out, cid.as_u64()));
    if let Some(Publisher { uid, cid }) = from {
        put_text(out, uid.as_str());
        put_number(out, cid.as_u64());
    }
    if *hops != 0 {
        put_number(out, u64::from(*hops));
    }
    if !nodes.is_empty() {
        put_names(out, nodes.iter().map(NodeId::as_str));
    }
    key.iter().for_each(|key| put_text(out, key));
    if let Some(RecordIdentity { partition, offset, index }) = identity {
        put_text(out, partition);
        put_number(out, *offset);
        put_number(out, u64::from(*index));
    }
    if let Retention::Ttl(seconds) = history {
        put_number(out, u64::from(*seconds));
    }
    if !message.format.is_empty() {
        put_text(out, &message.format);
    }
    put_body(out, message);
}

/// Appends a message: its format as a text, and its body with the length.
pub(in crate::broker) fn put_message(out: &mut Vec<u8>, message: &Message) {
    put_text(out, &message.format);
    put_body(out, message);
}

/// Reads a message written by [`put_message`].
pub(in crate::broker) fn read_message(reader: &mut Reader<'_>) -> Result<Message, RecordError> {
    let format = reader.text()?.to_owned();
    let message = read_canonical(reader.bytes()?).map_err(|error| RecordError::Malformed(error.to_string()))?;
    Ok(Message { format, ..message })
}

/// Writes the body first and rotates its length in front. Moving the length by a byte or two is cheaper than measuring
/// the body first.
fn put_body(out: &mut Vec<u8>, message: &Message) {
    let start = out.len();
    put_canonical(message, out);
    let end = out.len();
    put_number(out, u64::try_from(end - start).expect("64 bits hold a length"));
    let head = out.len() - end;
    out[start..].rotate_right(head);
}

pub(super) fn read_envelope(reader: &mut Reader<'_>, target: &Target) -> Result<Envelope, RecordError> {
    let flags = reader.number()?;
    if flags >= FIRST_UNKNOWN {
        return Err(malformed(&format!("an envelope with unknown flags {flags:#x}")));
    }
    let has = |bit| flags & bit != 0;
    let own_id = has(OWN_ID).then(|| reader.number()).transpose()?;
    let own_time = has(OWN_TIME).then(|| reader.number()).transpose()?;
    let no_echo = has(NO_ECHO).then(|| read_cid(reader)).transpose()?;
    let from = has(FROM).then(|| Ok(Publisher { uid: reader.name()?, cid: read_cid(reader)? })).transpose()?;
    let hops = has(HOPS).then(|| small(reader)).transpose()?.unwrap_or_default();
    let nodes = has(NODES).then(|| read_names(reader)).transpose()?.unwrap_or_default();
    let key = has(KEY).then(|| reader.text().map(Into::into)).transpose()?;
    let identity = has(IDENTITY)
        .then(|| {
            Ok(RecordIdentity { partition: reader.text()?.into(), offset: reader.number()?, index: small(reader)? })
        })
        .transpose()?;
    let history = match (has(NO_HISTORY), has(TTL)) {
        (true, _) => Retention::No,
        (_, true) => Retention::Ttl(small(reader)?),
        _ => Retention::Configured,
    };
    let format = has(FORMAT).then(|| reader.text().map(str::to_owned)).transpose()?.unwrap_or_default();
    let message = read_canonical(reader.bytes()?).map_err(|error| RecordError::Malformed(error.to_string()))?;
    Ok(Envelope {
        id: own_id.unwrap_or(message.id.cast_unsigned()),
        sent_at: own_time.map_or(message.timestamp, u64::cast_signed),
        message: Arc::new(Message { format, ..message }),
        target: target.clone(),
        no_echo,
        from,
        back_end: None,
        origin: origin_of(flags),
        hops,
        nodes,
        key,
        history,
        identity,
        receipts: has(RECEIPTS),
    })
}

pub(super) fn put_target(out: &mut Vec<u8>, target: &Target) {
    match target {
        Target::Connection(cid) => {
            out.push(CONNECTION);
            put_number(out, cid.as_u64());
        }
        Target::ConnectionOf(uid, cid) => {
            out.push(CONNECTION_OF);
            put_text(out, uid.as_str());
            put_number(out, cid.as_u64());
        }
        Target::Device(uid, device) => {
            out.push(DEVICE);
            put_text(out, uid.as_str());
            put_text(out, device.as_str());
        }
        Target::User(uid) => {
            out.push(USER);
            put_text(out, uid.as_str());
        }
        Target::Users(uids) => {
            out.push(USERS);
            put_names(out, uids.iter().map(Uid::as_str));
        }
        Target::Room(room) => {
            out.push(ROOM);
            put_text(out, room.as_str());
        }
        Target::Everyone => out.push(EVERYONE),
        Target::EveryoneBut(uids) => {
            out.push(EVERYONE_BUT);
            put_names(out, uids.iter().map(Uid::as_str));
        }
    }
}

pub(super) fn read_target(reader: &mut Reader<'_>) -> Result<Target, RecordError> {
    Ok(match reader.byte()? {
        CONNECTION => Target::Connection(read_cid(reader)?),
        CONNECTION_OF => Target::ConnectionOf(reader.name()?, read_cid(reader)?),
        DEVICE => Target::Device(reader.name()?, reader.name()?),
        USER => Target::User(reader.name()?),
        USERS => Target::Users(read_names(reader)?),
        ROOM => Target::Room(reader.name()?),
        EVERYONE => Target::Everyone,
        EVERYONE_BUT => Target::EveryoneBut(read_names(reader)?),
        other => return Err(malformed(&format!("the unknown target kind {other}"))),
    })
}

pub(in crate::broker) fn put_names<'a>(out: &mut Vec<u8>, names: impl ExactSizeIterator<Item = &'a str>) {
    put_number(out, u64::try_from(names.len()).expect("64 bits hold a count"));
    names.for_each(|name| put_text(out, name));
}

pub(in crate::broker) fn read_names<T: std::str::FromStr<Err: std::fmt::Display>>(
    reader: &mut Reader<'_>,
) -> Result<Arc<[T]>, RecordError> {
    let count = reader.count(MAX_OFFLINE)?;
    (0..count).map(|_| reader.name()).collect()
}

pub(in crate::broker) fn read_cid(reader: &mut Reader<'_>) -> Result<ConnectionId, RecordError> {
    let number = reader.number()?;
    ConnectionId::new(number).ok_or_else(|| malformed(&format!("the invalid connection id {number}")))
}

fn small<T: TryFrom<u64>>(reader: &mut Reader<'_>) -> Result<T, RecordError> {
    let number = reader.number()?;
    T::try_from(number).map_err(|_| malformed(&format!("the number {number}, which is out of range")))
}

const fn origin_code(origin: Origin) -> u64 {
    match origin {
        Origin::Client => 0,
        Origin::Http => 1,
        Origin::Broker => 2,
        Origin::Plugin => 3,
    }
}

const fn origin_of(flags: u64) -> Origin {
    match flags & 3 {
        0 => Origin::Client,
        1 => Origin::Http,
        2 => Origin::Broker,
        _ => Origin::Plugin,
    }
}

// The two lowest bits are the origin. The most common flags come first, so that one byte usually holds all of them.
const RECEIPTS: u64 = 1 << 2;
const NO_ECHO: u64 = 1 << 3;
const FROM: u64 = 1 << 4;
const OWN_ID: u64 = 1 << 5;
const OWN_TIME: u64 = 1 << 6;
const HOPS: u64 = 1 << 7;
const NODES: u64 = 1 << 8;
const KEY: u64 = 1 << 9;
const IDENTITY: u64 = 1 << 10;
const NO_HISTORY: u64 = 1 << 11;
const TTL: u64 = 1 << 12;
const FORMAT: u64 = 1 << 13;
const FIRST_UNKNOWN: u64 = 1 << 14;

const CONNECTION: u8 = 1;
const DEVICE: u8 = 2;
const USER: u8 = 3;
const USERS: u8 = 4;
const ROOM: u8 = 5;
const EVERYONE: u8 = 6;
const EVERYONE_BUT: u8 = 7;
const CONNECTION_OF: u8 = 8;
