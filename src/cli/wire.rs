//! The client side of the protocol, for `skylark connect`: encodes SENT and PONG, decodes frames of a node as JSON.
//!
//! Shares no code with `protocol`, the node's side, so that an error in one shows against the other.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use bytes::Bytes;
use prost::Message as _;
use serde::Serialize;
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

/// Dialect and coding of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Dialect {
    #[value(name = "yunque.pb")]
    YunquePb,
    #[value(name = "yunque.json")]
    YunqueJson,
    #[value(name = "cim.pb")]
    CimPb,
    #[value(name = "cim.json")]
    CimJson,
}

/// A frame in a WebSocket message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Payload {
    Text(String),
    Binary(Bytes),
}

/// A frame from a node. Bodies are JSON; fields have the names and order of the dialect, absent ones are omitted.
#[derive(Debug)]
pub(super) enum Frame {
    Ping,
    Message(Box<RawValue>),
    Reply(Box<RawValue>),
}

const PONG: u8 = 0;
const PING: u8 = 1;
const MESSAGE: u8 = 2;
const SENT: u8 = 3;
const REPLY: u8 = 4;

impl Dialect {
    /// The WebSocket subprotocol.
    pub(super) const fn subprotocol(self) -> &'static str {
        match self {
            Self::YunquePb => "yunque.pb",
            Self::YunqueJson => "yunque.json",
            Self::CimPb => "cim.pb",
            Self::CimJson => "cim.json",
        }
    }

    const fn is_json(self) -> bool {
        matches!(self, Self::YunqueJson | Self::CimJson)
    }

    /// Encodes the answer to a PING.
    pub(super) fn pong(self) -> Payload {
        if self.is_json() {
            return Payload::Text(json!({ "type": PONG, "content": "PONG" }).to_string());
        }
        Payload::Binary(Bytes::from_static(b"\0PONG"))
    }

    /// Encodes a SendBody.
    pub(super) fn sent(self, key: &str, timestamp: i64, data: BTreeMap<String, String>) -> Payload {
        if self.is_json() {
            let body = json!({ "key": key, "timestamp": timestamp, "data": data });
            return Payload::Text(json!({ "type": SENT, "content": body.to_string() }).to_string());
        }
        let body = SendBody { key: key.to_owned(), timestamp, data };
        let mut frame = vec![SENT];
        body.encode(&mut frame).expect("writing to a Vec does not fail");
        Payload::Binary(frame.into())
    }

    /// Decodes a frame from the node.
    pub(super) fn read(self, payload: &Payload) -> anyhow::Result<Frame> {
        match payload {
            Payload::Text(text) => read_json(text),
            Payload::Binary(bytes) => self.read_protobuf(bytes),
        }
    }

    fn read_protobuf(self, frame: &[u8]) -> anyhow::Result<Frame> {
        let (kind, body) = frame.split_first().context("expected a frame, got an empty one")?;
        Ok(match (*kind, self) {
            (PING, _) => Frame::Ping,
            (MESSAGE, Self::CimPb | Self::CimJson) => Frame::Message(to_raw_value(&CimMessage::decode(body)?)?),
            (MESSAGE, _) => Frame::Message(to_raw_value(&YunqueMessage::decode(body)?)?),
            (REPLY, _) => Frame::Reply(to_raw_value(&ReplyBody::decode(body)?)?),
            (other, _) => bail!("expected a frame of type 1, 2 or 4, got {other}"),
        })
    }
}

/// Formats the frame as one line of JSON.
impl std::fmt::Display for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ping => f.write_str(r#"{"type":"ping"}"#),
            Self::Message(body) => write!(f, r#"{{"type":"message","message":{body}}}"#),
            Self::Reply(body) => write!(f, r#"{{"type":"reply","reply":{body}}}"#),
        }
    }
}

fn read_json(text: &str) -> anyhow::Result<Frame> {
    let frame: JsonFrame = serde_json::from_str(text).context("expected a frame in JSON")?;
    let body = || -> anyhow::Result<Box<RawValue>> {
        let text = frame.content.as_deref().context("expected content")?;
        let body: Box<RawValue> = serde_json::from_str(text).context("expected JSON in the content")?;
        // A line break between tokens would break the output line.
        let is_one_line = !body.get().contains(['\n', '\r']);
        Ok(if is_one_line { body } else { to_raw_value(&serde_json::from_str::<serde_json::Value>(text)?)? })
    };
    Ok(match frame.kind {
        PING => Frame::Ping,
        MESSAGE => Frame::Message(body()?),
        REPLY => Frame::Reply(body()?),
        other => bail!("expected a frame of type 1, 2 or 4, got {other}"),
    })
}

#[derive(serde::Deserialize)]
struct JsonFrame {
    #[serde(rename = "type")]
    kind: u8,
    content: Option<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SendBody {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(int64, tag = "2")]
    timestamp: i64,
    #[prost(btree_map = "string, string", tag = "3")]
    data: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message, Serialize)]
struct ReplyBody {
    #[prost(string, tag = "1")]
    #[serde(skip_serializing_if = "String::is_empty")]
    key: String,
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "String::is_empty")]
    code: String,
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "String::is_empty")]
    message: String,
    #[prost(int64, tag = "4")]
    #[serde(skip_serializing_if = "is_zero")]
    timestamp: i64,
    #[prost(btree_map = "string, string", tag = "5")]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    data: BTreeMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message, Serialize)]
struct YunqueMessage {
    #[prost(int64, tag = "1")]
    #[serde(skip_serializing_if = "is_zero")]
    id: i64,
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "String::is_empty")]
    action: String,
    #[prost(btree_map = "string, string", tag = "3")]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    content: BTreeMap<String, String>,
    #[prost(string, tag = "4")]
    #[serde(skip_serializing_if = "String::is_empty")]
    sender: String,
    #[prost(string, tag = "5")]
    #[serde(skip_serializing_if = "String::is_empty")]
    receiver: String,
    #[prost(btree_map = "string, string", tag = "6")]
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    extra: BTreeMap<String, String>,
    #[prost(string, tag = "7")]
    #[serde(skip_serializing_if = "String::is_empty")]
    title: String,
    #[prost(int64, tag = "8")]
    #[serde(rename = "sendTime", skip_serializing_if = "is_zero")]
    send_time: i64,
    #[prost(string, tag = "9")]
    #[serde(skip_serializing_if = "String::is_empty")]
    image: String,
    #[prost(uint64, tag = "15")]
    #[serde(skip_serializing_if = "is_nothing")]
    offset: u64,
    #[prost(string, tag = "16")]
    #[serde(skip_serializing_if = "String::is_empty")]
    epoch: String,
    #[prost(string, tag = "17")]
    #[serde(skip_serializing_if = "String::is_empty")]
    stream: String,
}

#[derive(Clone, PartialEq, prost::Message, Serialize)]
struct CimMessage {
    #[prost(int64, tag = "1")]
    #[serde(skip_serializing_if = "is_zero")]
    id: i64,
    #[prost(string, tag = "2")]
    #[serde(skip_serializing_if = "String::is_empty")]
    action: String,
    #[prost(string, tag = "3")]
    #[serde(skip_serializing_if = "String::is_empty")]
    content: String,
    #[prost(string, tag = "4")]
    #[serde(skip_serializing_if = "String::is_empty")]
    sender: String,
    #[prost(string, tag = "5")]
    #[serde(skip_serializing_if = "String::is_empty")]
    receiver: String,
    #[prost(string, tag = "6")]
    #[serde(skip_serializing_if = "String::is_empty")]
    extra: String,
    #[prost(string, tag = "7")]
    #[serde(skip_serializing_if = "String::is_empty")]
    title: String,
    #[prost(string, tag = "8")]
    #[serde(skip_serializing_if = "String::is_empty")]
    format: String,
    #[prost(int64, tag = "9")]
    #[serde(skip_serializing_if = "is_zero")]
    timestamp: i64,
    #[prost(uint64, tag = "15")]
    #[serde(skip_serializing_if = "is_nothing")]
    offset: u64,
    #[prost(string, tag = "16")]
    #[serde(skip_serializing_if = "String::is_empty")]
    epoch: String,
    #[prost(string, tag = "17")]
    #[serde(skip_serializing_if = "String::is_empty")]
    stream: String,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// Offsets begin at 1.
fn is_nothing(offset: &u64) -> bool {
    *offset == 0
}
