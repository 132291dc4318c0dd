//! Rows of users, connections and rooms in lists. Unknown fields are omitted.

use std::fmt::Display;
use std::sync::Arc;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::id::{Room, Uid, is_safe_integer};
use crate::message::Entries;
use crate::node::{Binding, SeenConnection, SeenUser};
use crate::protocol::{Form, Framing};

/// A user with devices.
#[derive(Serialize)]
pub(super) struct UserRow {
    #[serde(serialize_with = "text")]
    uid: Uid,
    connections: usize,
    devices: Vec<DeviceRow>,
}

impl UserRow {
    pub(super) fn new(user: &SeenUser) -> Self {
        let devices = user.devices.iter().map(DeviceRow::new).collect();
        Self { uid: user.uid.clone(), connections: user.connections, devices }
    }
}

/// One connection of a user.
#[derive(Serialize)]
pub(super) struct DeviceRow {
    cid: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channel: Option<String>,
    since: i64,
    #[serde(serialize_with = "texts")]
    rooms: Vec<Room>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tag: Option<String>,
}

impl DeviceRow {
    fn new(seen: &SeenConnection) -> Self {
        let binding = &seen.binding;
        Self {
            cid: seen.cid.as_u64(),
            device: binding.device.as_ref().map(ToString::to_string),
            channel: binding.channel.as_deref().map(str::to_owned),
            since: binding.since,
            rooms: seen.rooms.clone(),
            tag: seen.tag.clone(),
        }
    }
}

/// A connection with all known details.
#[derive(Serialize)]
pub(super) struct ConnectionRow {
    #[serde(serialize_with = "text")]
    uid: Uid,
    #[serde(flatten)]
    device: DeviceRow,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dialect: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    transport: Option<&'static str>,
    #[serde(serialize_with = "facts")]
    facts: Arc<Binding>,
    #[serde(serialize_with = "claims")]
    claims: Arc<Binding>,
}

impl ConnectionRow {
    pub(super) fn new(seen: SeenConnection) -> Self {
        Self {
            uid: seen.binding.uid.clone(),
            device: DeviceRow::new(&seen),
            expires: seen.binding.expires,
            // The framing is a separate field; on TCP, layout and coding are the same.
            dialect: seen.form.map(|form| Form::websocket(form.dialect, form.coding).as_str()),
            transport: seen.form.map(|form| match form.framing {
                Framing::WebSocket => "websocket",
                Framing::Tcp => "tcp",
            }),
            facts: Arc::clone(&seen.binding),
            claims: seen.binding,
        }
    }
}

/// A room with its size.
#[derive(Serialize)]
pub(super) struct RoomRow {
    #[serde(serialize_with = "text")]
    pub(super) room: Room,
    pub(super) connections: usize,
}

/// A message id: a number, or a string of digits if JavaScript would round the number.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
pub(super) fn number<S: Serializer>(id: &i64, serializer: S) -> Result<S::Ok, S::Error> {
    if is_safe_integer(*id) { serializer.serialize_i64(*id) } else { serializer.collect_str(id) }
}

/// A name as text.
pub(super) fn text<S: Serializer>(name: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(name)
}

/// Names as texts.
pub(super) fn texts<T: Display, S: Serializer>(names: &[T], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(names.iter().map(|n| Text(n)))
}

fn facts<S: Serializer>(binding: &Arc<Binding>, serializer: S) -> Result<S::Ok, S::Error> {
    entries(&binding.facts, serializer)
}

fn claims<S: Serializer>(binding: &Arc<Binding>, serializer: S) -> Result<S::Ok, S::Error> {
    entries(&binding.claims, serializer)
}

/// Entries as an object of texts.
pub(super) fn entries<S: Serializer>(entries: &Entries, serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(entries.len()))?;
    for (key, value) in entries.iter() {
        map.serialize_entry(key, value)?;
    }
    map.end()
}

struct Text<'a, T>(&'a T);

impl<T: Display> Serialize for Text<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self.0)
    }
}
