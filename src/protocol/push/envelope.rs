//! MessagesPub, the envelope of brokers and of `POST /publish`, in JSON and protobuf.

use std::str::FromStr;
use std::sync::Arc;

use prost::Message as _;
use serde::de::IgnoredAny;

use super::body::{CID, Fields, cid};
use super::{Push, PushLimits, checked, without_duplicates};
use crate::id::{ConnectionId, InvalidName, NodeId, Uid};
use crate::message::{Message, Target};
use crate::protocol::FrameError;
use crate::protocol::bounds;
use crate::protocol::fault::{FieldFault, Mismatch, NON_EMPTY, quoted};
use crate::protocol::proto::{self, SendAct};
use crate::protocol::protobuf::error_text;
use crate::protocol::reader::{BODY, Raw};

/// A decoded envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PubEnvelope {
    /// The messages in order, each with its target.
    pub pushes: Vec<Push>,
    /// Only these nodes deliver; empty = all.
    pub nodes: Arc<[NodeId]>,
}

/// Decodes the envelope. The first bytes reveal the coding, because brokers carry no content type.
///
/// # Errors
/// [`FieldFault`] names the field.
pub fn envelope(body: &[u8], limits: &PushLimits) -> Result<PubEnvelope, FieldFault> {
    let body = checked(body, limits)?;
    if is_json(body) { envelope_json(body, limits) } else { envelope_protobuf(body, limits) }
}

/// Decides the coding by the first bytes. A bracket or brace is never a valid protobuf start (it would be a group), so
/// such a body is JSON and gets JSON faults. A line feed is also the tag of Uid, a quote that of msg, a digit that of
/// another field. In these cases a body is JSON only if all of it parses as JSON; protobuf fails within its first
/// bytes.
fn is_json(body: &[u8]) -> bool {
    match body.first() {
        Some(b'{' | b'[') => true,
        Some(b' ' | b'\t' | b'\r') => matches!(body.trim_ascii_start().first(), Some(b'{' | b'[' | b'"')),
        _ => serde_json::from_slice::<IgnoredAny>(body).is_ok(),
    }
}

/// Decodes the envelope from JSON: {"act": number or name, "type", "Uid", "Sid", "Cid", "device", "msg": […]}.
///
/// # Errors
/// [`FieldFault`] names the field.
pub fn envelope_json(body: &[u8], limits: &PushLimits) -> Result<PubEnvelope, FieldFault> {
    let mut fields = Fields::read(body, &["act", "type", "Uid", "Sid", "Cid", "device", "msg"], limits)?;
    let act = fields.find("act").map(act_of).transpose().map_err(|mismatch| mismatch.at("act"))?;
    if let Some(raw) = fields.find("type") {
        check_type(raw).map_err(|mismatch| mismatch.at("type"))?;
    }
    let text = |key: &'static str| match fields.find(key) {
        Some(raw) => raw.name_text().map(Into::into).map_err(|mismatch| mismatch.at(key)),
        None => Ok(String::new()),
    };
    let (uid, sid, device) = (text("Uid")?, text("Sid")?, text("device")?);
    let cid = if reads_cid(act) {
        fields.find("Cid").filter(|raw| raw.integer() != Ok(0)).map(cid).transpose().map_err(|m| m.at("Cid"))?
    } else {
        None
    };
    Parts { act, uid, sid, cid, device, messages: fields.messages()? }.resolve(limits)
}

/// Decodes the envelope from protobuf. Messages and entries are counted before anything is decoded.
///
/// # Errors
/// [`FieldFault`] names the field.
pub fn envelope_protobuf(body: &[u8], limits: &PushLimits) -> Result<PubEnvelope, FieldFault> {
    let body = checked(body, limits)?;
    check_counts(body, limits)?;
    let envelope =
        proto::MessagesPub::decode(body).map_err(|error| Mismatch::new(PROTOBUF, error_text(&error)).at(BODY))?;
    let act = envelope.act.map(|act| SendAct::try_from(act).map_err(|_| Mismatch::new(ACT, act.to_string()).at("act")));
    let act = act.transpose()?;
    if let Some(kind) = envelope.r#type
        && kind != proto::DataType::Message as i32
    {
        return Err(Mismatch::new(TYPE, kind.to_string()).at("type"));
    }
    let cid = match envelope.cid {
        number if number != 0 && reads_cid(act) => {
            let cid = u64::try_from(number).ok().and_then(ConnectionId::new);
            Some(cid.ok_or_else(|| Mismatch::new(CID, number.to_string()).at("Cid"))?)
        }
        _ => None,
    };
    let messages: Vec<_> = envelope.msg.into_iter().map(from_proto).collect();
    if messages.is_empty() {
        return Err(Mismatch::missing("at least one message").at("msg"));
    }
    Parts { act, uid: envelope.uid, sid: envelope.sid, cid, device: envelope.device, messages }.resolve(limits)
}

/// The typed fields of the envelope, independent of the coding.
struct Parts {
    act: Option<SendAct>,
    uid: String,
    sid: String,
    cid: Option<ConnectionId>,
    device: String,
    messages: Vec<Message>,
}

impl Parts {
    fn resolve(self, limits: &PushLimits) -> Result<PubEnvelope, FieldFault> {
        let nodes = names::<NodeId>("Sid", &self.sid, limits)?.into();
        if self.act == Some(SendAct::Sendlist) {
            let pushes = self.messages.into_iter().enumerate().map(|(index, message)| to_receiver(index, message));
            return Ok(PubEnvelope { pushes: pushes.collect::<Result<_, _>>()?, nodes });
        }
        let target = self.target(limits)?;
        let push = |message| Push { message: Arc::new(message), target: target.clone() };
        Ok(PubEnvelope { pushes: self.messages.into_iter().map(push).collect(), nodes })
    }

    /// The common target of all messages, for every act except SENDLIST.
    fn target(&self, limits: &PushLimits) -> Result<Target, FieldFault> {
        Ok(match self.act {
            // A push with Uid set is never broadcast, even if another field is missing.
            None if self.uid.is_empty() => Target::Everyone,
            None | Some(SendAct::Senduids | SendAct::Senduid) => self.users(limits)?,
            Some(SendAct::Sendall) => Target::Everyone,
            Some(SendAct::Senduiddid) if !self.device.is_empty() => {
                Target::Device(self.uid()?, self.device.parse().map_err(|invalid| fault("device", invalid))?)
            }
            Some(SendAct::Senduiddid) => {
                let uid = self.uid()?;
                let cid = self.cid.ok_or_else(|| Mismatch::missing("a device, or a Cid").at("device"))?;
                Target::ConnectionOf(uid, cid)
            }
            Some(SendAct::Senddid) => {
                let cid = self.cid.ok_or_else(|| Mismatch::missing(CID).at("Cid"))?;
                // If the publisher also gives a user, the connection must belong to that user.
                if self.uid.is_empty() { Target::Connection(cid) } else { Target::ConnectionOf(self.uid()?, cid) }
            }
            Some(SendAct::Sendother) => {
                Target::EveryoneBut(without_duplicates(names("Uid", &self.uid, limits)?).into())
            }
            Some(SendAct::Sendroom) => Target::Room(self.uid.parse().map_err(|invalid| fault("Uid", invalid))?),
            Some(SendAct::Sendlist) => unreachable!("each message has a target of its own"),
        })
    }

    fn uid(&self) -> Result<Uid, FieldFault> {
        self.uid.parse().map_err(|invalid| fault("Uid", invalid))
    }

    fn users(&self, limits: &PushLimits) -> Result<Target, FieldFault> {
        let mut uids = without_duplicates(names("Uid", &self.uid, limits)?);
        match uids.len() {
            0 => Err(Mismatch::new("at least one user", quoted(&self.uid)).at("Uid")),
            1 => Ok(Target::User(uids.remove(0))),
            _ => Ok(Target::Users(uids.into())),
        }
    }
}

fn to_receiver(index: usize, message: Message) -> Result<Push, FieldFault> {
    let path = || format!("msg[{index}].receiver");
    if message.receiver.is_empty() {
        return Err(Mismatch::missing(NON_EMPTY).at(path()));
    }
    let uid = message.receiver.parse().map_err(|invalid| Mismatch::from(invalid).at(path()))?;
    Ok(Push { message: Arc::new(message), target: Target::User(uid) })
}

/// Splits a comma-separated list of names. Surrounding spaces and empty items are ignored.
fn names<N: FromStr<Err = InvalidName>>(
    key: &'static str,
    list: &str,
    limits: &PushLimits,
) -> Result<Vec<N>, FieldFault> {
    let mut names = Vec::new();
    for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if names.len() == limits.uids {
            return Err(Mismatch::over(limits.uids, "names", "more").at(key));
        }
        names.push(name.parse().map_err(|invalid| fault(key, invalid))?);
    }
    Ok(names)
}

fn fault(key: &'static str, invalid: InvalidName) -> FieldFault {
    Mismatch::from(invalid).at(key)
}

/// Only these acts read Cid. In other acts it may hold a leftover value from the publisher's loop.
const fn reads_cid(act: Option<SendAct>) -> bool {
    matches!(act, Some(SendAct::Senduiddid | SendAct::Senddid))
}

fn act_of(raw: Raw<'_>) -> Result<SendAct, Mismatch> {
    let by_number = raw.integer().ok().and_then(|number| SendAct::try_from(i32::try_from(number).ok()?).ok());
    let by_name = || raw.text().ok().and_then(|name| SendAct::from_str_name(&name.to_ascii_uppercase()));
    by_number.or_else(by_name).ok_or_else(|| raw.mismatch(ACT))
}

fn check_type(raw: Raw<'_>) -> Result<(), Mismatch> {
    let is_name = raw.text().is_ok_and(|name| name.eq_ignore_ascii_case("MESSAGE"));
    if is_name || raw.integer() == Ok(i64::from(proto::DataType::Message as i32)) {
        return Ok(());
    }
    Err(raw.mismatch(TYPE))
}

fn check_counts(body: &[u8], limits: &PushLimits) -> Result<(), FieldFault> {
    let mut messages = 0;
    for field in bounds::Fields::of(body) {
        let (number, field) = field.map_err(|error| to_fault(BODY.to_owned(), error))?;
        if number != 4 {
            continue;
        }
        if messages == limits.messages {
            return Err(Mismatch::over(limits.messages, "messages", "more").at("msg"));
        }
        let maps = &[(3, "content"), (6, "extra")];
        bounds::check_entries(field.bytes().unwrap_or_default(), maps)
            .map_err(|error| to_fault(format!("msg[{messages}]"), error))?;
        messages += 1;
    }
    Ok(())
}

fn to_fault(path: String, error: FrameError) -> FieldFault {
    match error {
        FrameError::TooManyEntries { field, entries, limit } => {
            Mismatch::over(limit, "entries", entries.to_string()).at(format!("{path}.{field}"))
        }
        FrameError::Protobuf(words) => Mismatch::new(PROTOBUF, words).at(path),
        other => Mismatch::new(PROTOBUF, other.to_string()).at(path),
    }
}

fn from_proto(message: proto::Message) -> Message {
    Message {
        id: message.id,
        action: message.action,
        content: message.content.into_iter().collect(),
        sender: message.sender,
        receiver: message.receiver,
        extra: message.extra.into_iter().collect(),
        title: message.title,
        image: message.image,
        format: String::new(),
        timestamp: message.send_time,
    }
}

const ACT: &str = "a SendAct (0–7, or its name)";
const TYPE: &str = "2 (MESSAGE)";
const PROTOBUF: &str = "a protobuf MessagesPub";
