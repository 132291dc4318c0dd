//! Converts between node types and the cluster messages on the bus.
//!
//! Every received name is parsed again. A message that this version does not understand is refused as a whole, with the
//! name of the field. Independent of brokers.

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;

use super::change::{Change, RefusedJoin};
use crate::claim::{Admission, Refusal};
use crate::code::Code;
use crate::config::DevicePolicy;
use crate::hub::Binding;
use crate::id::{ConnectionId, Device, InvalidName, Room, Uid};
use crate::message::{Entries, Target};
use crate::node::devices::matrix::BoundDevice;
use crate::node::query::{Counts, Filter, Names, SeenConnection, SeenUser};
use crate::plugin::Account;
use crate::protocol::Form;
use crate::protocol::cluster::{self as wire, cluster_message::Kind, cluster_reply::Reply, cluster_request::Request};

/// A cluster message for this node to act on.
pub(super) enum IncomingMessage {
    Request(wire::ClusterRequest),
    Bind(wire::BindAnnouncement),
}

/// Reason why a message is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::node) enum Unreadable {
    /// The message is of an unknown kind or of a later version.
    #[error("expected a cluster message that this version knows, got {0}")]
    Unknown(&'static str),
    /// The message is not protobuf.
    #[error("expected a cluster message, got {0}")]
    Decode(String),
    /// A name in the message is invalid.
    #[error("{0}")]
    Name(#[from] InvalidName),
    /// A number in the message is not a valid connection id.
    #[error("cid: expected 1 to 2^53 - 1, got {0}")]
    Cid(u64),
}

pub(super) fn decode(bytes: &Bytes) -> Result<Kind, Unreadable> {
    let message = wire::ClusterMessage::decode(&**bytes).map_err(|error| Unreadable::Decode(error.to_string()))?;
    message.kind.ok_or(Unreadable::Unknown("an empty message"))
}

pub(super) fn request(number: u64, request: Request) -> Bytes {
    encode(Kind::Request(wire::ClusterRequest { number, request: Some(request) }))
}

pub(super) fn reply(number: u64, reply: Reply) -> Bytes {
    encode(Kind::Reply(wire::ClusterReply { number, reply: Some(reply) }))
}

pub(in crate::node) fn bind_announcement(uid: &Uid, policy: DevicePolicy, bound: &BoundDevice) -> Bytes {
    let BoundDevice { number, device, channel, name } = bound.clone();
    encode(Kind::Bind(wire::BindAnnouncement {
        uid: uid.to_string(),
        number,
        device: device.map(|device| device.to_string()).unwrap_or_default(),
        channel: channel.unwrap_or_default(),
        name,
        policy: policy.as_str().to_owned(),
    }))
}

fn encode(kind: Kind) -> Bytes {
    wire::ClusterMessage { kind: Some(kind) }.encode_to_vec().into()
}

pub(in crate::node) fn read_bind_announcement(
    announcement: wire::BindAnnouncement,
) -> Result<(Uid, DevicePolicy, BoundDevice), Unreadable> {
    let uid = Uid::parse(&announcement.uid)?;
    let policies = [DevicePolicy::AllowAll, DevicePolicy::Cim];
    let policy = policies.into_iter().find(|policy| policy.as_str() == announcement.policy);
    let bound = BoundDevice {
        number: announcement.number,
        device: Some(announcement.device).filter(|d| !d.is_empty()).map(|d| Device::parse(&d)).transpose()?,
        channel: Some(announcement.channel).filter(|c| !c.is_empty()),
        name: announcement.name,
    };
    Ok((uid, policy.ok_or(Unreadable::Unknown("an unknown device policy"))?, bound))
}

impl From<&Filter> for wire::Filter {
    fn from(filter: &Filter) -> Self {
        Self {
            uid: filter.uid.as_ref().map(ToString::to_string),
            room: filter.room.as_ref().map(ToString::to_string),
            device: filter.device.as_ref().map(ToString::to_string),
            channel: filter.channel.clone(),
        }
    }
}

pub(super) fn read_filter(filter: wire::Filter) -> Result<Filter, Unreadable> {
    Ok(Filter {
        uid: filter.uid.as_deref().map(Uid::parse).transpose()?,
        room: filter.room.as_deref().map(Room::parse).transpose()?,
        device: filter.device.as_deref().map(Device::parse).transpose()?,
        channel: filter.channel,
    })
}

impl From<Counts> for wire::Counts {
    fn from(counts: Counts) -> Self {
        Self { users: counts.users as u64, connections: counts.connections as u64 }
    }
}

impl From<wire::Counts> for Counts {
    fn from(counts: wire::Counts) -> Self {
        let clamp = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
        Self { users: clamp(counts.users), connections: clamp(counts.connections) }
    }
}

impl From<&SeenConnection> for wire::Row {
    fn from(seen: &SeenConnection) -> Self {
        let binding = &seen.binding;
        Self {
            cid: seen.cid.as_u64(),
            uid: binding.uid.to_string(),
            device: binding.device.as_ref().map(ToString::to_string),
            channel: binding.channel.as_deref().map(str::to_owned),
            since: binding.since,
            expires: binding.expires,
            rooms: seen.rooms.iter().map(ToString::to_string).collect(),
            tag: seen.tag.clone(),
            form: seen.form.map(|form| form.as_str().to_owned()),
            facts: entries(&binding.facts),
            claims: entries(&binding.claims),
        }
    }
}

pub(super) fn read_connection(row: wire::Row) -> Result<SeenConnection, Unreadable> {
    Ok(SeenConnection {
        cid: cid(row.cid)?,
        binding: Arc::new(Binding {
            is_device_admitted: false,
            number: 0,
            uid: Uid::parse(&row.uid)?,
            device: row.device.as_deref().map(Device::parse).transpose()?,
            channel: row.channel.map(String::into_boxed_str),
            since: row.since,
            expires: row.expires,
            facts: read_entries(row.facts),
            claims: read_entries(row.claims),
        }),
        rooms: rooms(&row.rooms)?,
        tag: row.tag,
        form: row.form.and_then(|name| Form::ALL.into_iter().find(|form| form.as_str() == name)),
    })
}

impl From<&SeenUser> for wire::UserRow {
    fn from(user: &SeenUser) -> Self {
        Self {
            uid: user.uid.to_string(),
            connections: u32::try_from(user.connections).unwrap_or(u32::MAX),
            rows: user.devices.iter().map(Into::into).collect(),
        }
    }
}

pub(super) fn read_user(user: wire::UserRow) -> Result<SeenUser, Unreadable> {
    Ok(SeenUser {
        uid: Uid::parse(&user.uid)?,
        connections: user.connections as usize,
        devices: user.rows.into_iter().map(read_connection).collect::<Result<_, _>>()?,
    })
}

pub(super) fn names(names: &Names, after: &str, limit: usize) -> wire::Names {
    let room = match names {
        Names::Rooms => None,
        Names::Members(room) => Some(room.to_string()),
    };
    wire::Names { room, after: after.to_owned(), limit: u32::try_from(limit).unwrap_or(u32::MAX) }
}

pub(super) fn read_names(names: &wire::Names) -> Result<Names, Unreadable> {
    Ok(match &names.room {
        Some(room) => Names::Members(Room::parse(room)?),
        None => Names::Rooms,
    })
}

/// Encodes a target that names connections. Other targets become empty.
pub(super) fn target(target: &Target) -> wire::Target {
    let mut encoded = wire::Target::default();
    match target {
        Target::Connection(cid) => encoded.cid = Some(cid.as_u64()),
        Target::ConnectionOf(uid, cid) => {
            encoded.uids.push(uid.to_string());
            encoded.cid = Some(cid.as_u64());
        }
        Target::Device(uid, device) => {
            encoded.uids.push(uid.to_string());
            encoded.device = Some(device.to_string());
        }
        Target::User(uid) => encoded.uids.push(uid.to_string()),
        Target::Users(uids) => encoded.uids.extend(uids.iter().map(ToString::to_string)),
        Target::Room(_) | Target::Everyone | Target::EveryoneBut(_) => {}
    }
    encoded
}

pub(super) fn read_target(target: Option<wire::Target>) -> Result<Target, Unreadable> {
    let target = target.ok_or(Unreadable::Unknown("a message without its target"))?;
    if let Some(number) = target.cid {
        let cid = cid(number)?;
        return Ok(match target.uids.first() {
            Some(uid) => Target::ConnectionOf(Uid::parse(uid)?, cid),
            None => Target::Connection(cid),
        });
    }
    let uids = target.uids.iter().map(|uid| Uid::parse(uid)).collect::<Result<Vec<_>, _>>()?;
    Ok(match (target.device, <[Uid; 1]>::try_from(uids)) {
        (Some(device), Ok([uid])) => Target::Device(uid, Device::parse(&device)?),
        (None, Ok([uid])) => Target::User(uid),
        (_, Err(uids)) => Target::Users(uids.into()),
    })
}

pub(super) fn change(change: &Change, hops: u8) -> wire::Change {
    wire::Change {
        leave: change.leave,
        room: change.room.to_string(),
        target: Some(target(&change.target)),
        hops: hops.into(),
    }
}

pub(super) fn read_change(change: wire::Change) -> Result<(Change, u8), Unreadable> {
    let room = Room::parse(&change.room)?;
    let target = read_target(change.target)?;
    Ok((Change { leave: change.leave, room, target }, hops(change.hops)))
}

pub(super) fn refused(refused: &RefusedJoin) -> wire::Refused {
    let Refusal { code, reason, .. } = refused.refusal.clone();
    wire::Refused { cid: refused.cid.as_u64(), code: code.to_string(), reason }
}

pub(super) fn read_refused(refused: wire::Refused) -> Result<RefusedJoin, Unreadable> {
    let code = Code::parse(&refused.code).ok_or(Unreadable::Unknown("a code without three digits"))?;
    let refusal = Refusal::new(code, refused.reason);
    Ok(RefusedJoin { cid: cid(refused.cid)?, refusal })
}

pub(super) fn login(cid: ConnectionId, account: &Account, hops: u8) -> wire::Login {
    let Admission { uid, device, rooms, expires, claims } = &account.admission;
    wire::Login {
        cid: cid.as_u64(),
        uid: uid.to_string(),
        device: device.as_ref().map(ToString::to_string),
        channel: account.channel.clone(),
        rooms: rooms.iter().map(ToString::to_string).collect(),
        expires: *expires,
        claims: entries(claims),
        hops: hops.into(),
    }
}

pub(super) fn read_login(login: wire::Login) -> Result<(ConnectionId, Account, u8), Unreadable> {
    let admission = Admission {
        uid: Uid::parse(&login.uid)?,
        device: login.device.as_deref().map(Device::parse).transpose()?,
        rooms: rooms(&login.rooms)?,
        expires: login.expires,
        claims: read_entries(login.claims),
    };
    Ok((cid(login.cid)?, Account { admission, channel: login.channel }, hops(login.hops)))
}

pub(super) fn cid(number: u64) -> Result<ConnectionId, Unreadable> {
    ConnectionId::new(number).ok_or(Unreadable::Cid(number))
}

fn rooms(names: &[String]) -> Result<Vec<Room>, Unreadable> {
    Ok(names.iter().map(|room| Room::parse(room)).collect::<Result<_, _>>()?)
}

/// Values out of range count as too many hops.
fn hops(hops: u32) -> u8 {
    u8::try_from(hops).unwrap_or(u8::MAX)
}

fn entries(entries: &Entries) -> Vec<wire::Entry> {
    entries.iter().map(|(key, value)| wire::Entry { key: key.to_owned(), value: value.to_owned() }).collect()
}

fn read_entries(list: Vec<wire::Entry>) -> Entries {
    list.into_iter().map(|entry| (entry.key, entry.value)).collect()
}
