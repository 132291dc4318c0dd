//! A message as a JSON object, with yunque's field names and cim's alternatives.

use serde::de::{MapAccess, SeqAccess};

use super::entries::{Content, Map};
use crate::id::Uid;
use crate::message::Message;
use crate::protocol::fault::{Mismatch, NON_EMPTY};
use crate::protocol::reader::{Raw, Reader, Shape};

/// Requirement for the receiver of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Receiver {
    /// The receiver routes the message, so it must be a valid user.
    Required,
    /// The receiver is passed on without a check.
    Optional,
}

/// One message, with its receiver as a user if required.
pub(super) struct One(pub(super) Receiver);

impl<'de> Shape<'de> for One {
    type Out = (Message, Option<Uid>);
    const EXPECTED: &'static str = "an object";

    fn object<A: MapAccess<'de>>(self, at: &mut Reader, mut map: A) -> Result<Self::Out, A::Error> {
        let mut message = Message::default();
        let mut receiver = None;
        let mut seen = 0_u16;
        while let Some(key) = at.key(&mut map)? {
            let Some(field) = Field::of(&key) else {
                at.skip(&key, &mut map)?;
                continue;
            };
            if seen & field.bit() != 0 {
                return Err(at.fail_duplicate(&key));
            }
            seen |= field.bit();
            match field {
                Field::Content => message.content = at.value("content", &mut map, Content)?,
                Field::Extra => message.extra = at.value("extra", &mut map, Map)?,
                leaf => {
                    let raw = at.raw(&mut map)?;
                    if leaf == Field::Receiver {
                        receiver = Some(raw);
                    }
                    if !raw.is_null() {
                        set(&mut message, leaf, raw).map_err(|mismatch| at.fail_at(&key, mismatch))?;
                    }
                }
            }
        }
        let uid = match self.0 {
            Receiver::Optional => None,
            Receiver::Required => {
                let uid = receiver.ok_or_else(|| Mismatch::missing(NON_EMPTY)).and_then(Raw::name);
                Some(uid.map_err(|mismatch| at.fail_at("receiver", mismatch))?)
            }
        };
        Ok((message, uid))
    }
}

/// A list of messages, at least one and at most `limit`.
pub(super) struct List {
    pub(super) receiver: Receiver,
    pub(super) limit: usize,
}

impl<'de> Shape<'de> for List {
    type Out = Vec<(Message, Option<Uid>)>;
    const EXPECTED: &'static str = "an array of messages";

    fn list<A: SeqAccess<'de>>(self, at: &mut Reader, mut list: A) -> Result<Self::Out, A::Error> {
        let mut messages = Vec::with_capacity(list.size_hint().unwrap_or_default().min(self.limit));
        while let Some(message) = at.element(messages.len(), &mut list, One(self.receiver))? {
            if messages.len() == self.limit {
                return Err(at.fail(Mismatch::over(self.limit, "messages", "more")));
            }
            messages.push(message);
        }
        if messages.is_empty() {
            return Err(at.fail(Mismatch::new("at least one message", "an empty array")));
        }
        Ok(messages)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Id,
    Action,
    Content,
    Sender,
    Receiver,
    Extra,
    Title,
    Image,
    Format,
    SendTime,
    Timestamp,
}

impl Field {
    fn of(key: &str) -> Option<Self> {
        Some(match key {
            "id" => Self::Id,
            "action" => Self::Action,
            "content" => Self::Content,
            "sender" => Self::Sender,
            "receiver" => Self::Receiver,
            "extra" => Self::Extra,
            "title" => Self::Title,
            "image" => Self::Image,
            "format" => Self::Format,
            "sendTime" => Self::SendTime,
            "timestamp" => Self::Timestamp,
            _ => return None,
        })
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

fn set(message: &mut Message, field: Field, raw: Raw<'_>) -> Result<(), Mismatch> {
    match field {
        Field::Id => message.id = raw.integer()?,
        Field::SendTime | Field::Timestamp => message.timestamp = raw.integer()?,
        Field::Sender => message.sender = raw.name_text()?.into(),
        Field::Receiver => message.receiver = raw.name_text()?.into(),
        Field::Action => message.action = raw.text()?.into(),
        Field::Title => message.title = raw.text()?.into(),
        Field::Image => message.image = raw.text()?.into(),
        Field::Format => message.format = raw.text()?.into(),
        Field::Content | Field::Extra => unreachable!("content and extra are not leaves"),
    }
    Ok(())
}
