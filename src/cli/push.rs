//! `skylark push`: sends one message to one target through a running node.

use std::io::Read as _;

use anyhow::{Context as _, bail};
use hyper::Method;
use serde_json::{Value, json};

use super::http::NodeArgs;
use super::{ConfigSource, block_on, print};
use crate::config::Scope;
use crate::id::{ConnectionId, Device, Room, Uid};

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("target").required(true), group = clap::ArgGroup::new("what").required(true))]
pub(super) struct Push {
    /// One user.
    #[arg(long, group = "target", value_name = "UID")]
    user: Option<Uid>,
    /// Several users, separated by commas.
    #[arg(long, group = "target", value_delimiter = ',', value_name = "UID,…")]
    users: Vec<Uid>,
    /// All connections in a room.
    #[arg(long, group = "target")]
    room: Option<Room>,
    /// One device of a user.
    #[arg(long, group = "target", value_name = "UID/DEVICE", value_parser = device_of)]
    device: Option<(Uid, Device)>,
    /// One connection.
    #[arg(long, group = "target", value_name = "CID", value_parser = connection_id)]
    connection: Option<ConnectionId>,
    /// All online users.
    #[arg(long, group = "target")]
    all: bool,
    /// All online users except these, separated by commas.
    #[arg(long, group = "target", value_delimiter = ',', value_name = "UID,…")]
    all_but: Vec<Uid>,

    /// The message, e.g. {"action":"chat","content":{"text":"hi"}}; `-` reads it from standard input.
    #[arg(group = "what", value_name = "JSON")]
    message: Option<String>,
    /// Short form of a message with action chat and this text.
    #[arg(long, group = "what")]
    text: Option<String>,

    #[command(flatten)]
    node: NodeArgs,
}

impl Push {
    pub(super) fn run(self, source: &ConfigSource) -> anyhow::Result<()> {
        let message = self.message()?;
        let (path, body) = self.request(message);
        let node = self.node.node(source, &[Scope::Push])?;
        let answer = block_on(node.request(Method::POST, path, Some(&body)))?;
        print(&answer)
    }

    pub(super) fn message(&self) -> anyhow::Result<Value> {
        if let Some(text) = &self.text {
            return Ok(json!({ "action": "chat", "content": { "text": text } }));
        }
        let mut text = self.message.clone().unwrap_or_default();
        if text == "-" {
            text.clear();
            std::io::stdin().read_to_string(&mut text).context("cannot read the message from standard input")?;
        }
        let message: Value = serde_json::from_str(&text).context("expected the message to be JSON")?;
        if !message.is_object() {
            bail!("expected the message to be a JSON object, got {message}");
        }
        Ok(message)
    }

    /// Path and body of the request that reaches the target.
    pub(super) fn request(&self, mut message: Value) -> (&'static str, Value) {
        let names = |uids: &[Uid]| uids.iter().map(|uid| uid.as_str().to_owned()).collect::<Vec<_>>();
        if let Some(uid) = &self.user {
            message["receiver"] = uid.as_str().into();
            return ("/send", message);
        }
        if !self.users.is_empty() {
            return ("/send/toUids", json!({ "message": message, "uids": names(&self.users) }));
        }
        if let Some(room) = &self.room {
            return ("/send/room", json!({ "message": message, "room": room.as_str() }));
        }
        if let Some((uid, device)) = &self.device {
            let body = json!({ "message": message, "uid": uid.as_str(), "device": device.as_str() });
            return ("/send/device", body);
        }
        if let Some(cid) = self.connection {
            return ("/send/connection", json!({ "message": message, "cid": cid.as_u64() }));
        }
        if !self.all_but.is_empty() {
            return ("/send/other", json!({ "message": message, "uids": names(&self.all_but) }));
        }
        ("/send/all", message)
    }
}

fn device_of(text: &str) -> Result<(Uid, Device), String> {
    let (uid, device) = text.split_once('/').ok_or("expected a user and a device as UID/DEVICE")?;
    let fault = |error: crate::id::InvalidName| error.to_string();
    Ok((Uid::parse(uid).map_err(fault)?, Device::parse(device).map_err(fault)?))
}

fn connection_id(text: &str) -> Result<ConnectionId, String> {
    let number = text.parse().ok().and_then(ConnectionId::new);
    number.ok_or_else(|| "expected the number of a connection".to_owned())
}
