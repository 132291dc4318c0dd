//! Bodies that are an object with a message and its target: fields are collected first and checked afterwards.

use std::str::FromStr;
use std::sync::Arc;

use serde::de::{MapAccess, SeqAccess};

use super::message::{List, One, Receiver};
use super::{PushLimits, checked};
use crate::id::{ConnectionId, InvalidName, Uid};
use crate::message::Message;
use crate::protocol::fault::{FieldFault, Mismatch, NON_EMPTY};
use crate::protocol::reader::{BODY, Raw, Reader, Shape, read};

/// The fields of an object that the caller asks for. Other fields are ignored. Names match case-insensitively, because
/// an overlooked `uid` would turn a push to some users into a push to all.
#[derive(Debug, Default)]
pub(super) struct Fields<'de> {
    message: Option<Message>,
    messages: Option<Vec<Message>>,
    others: Vec<(&'static str, Raw<'de>)>,
}

impl<'de> Fields<'de> {
    /// Reads `message` as one message and `msg` as a list; keeps all other names of `wanted` raw.
    pub(super) fn read(body: &'de [u8], wanted: &[&'static str], limits: &PushLimits) -> Result<Self, FieldFault> {
        let body = checked(body, limits)?;
        read("", body, Wanted { names: wanted, limit: limits.messages })
    }

    /// Takes the mandatory message.
    pub(super) fn message(&mut self) -> Result<Arc<Message>, FieldFault> {
        self.message.take().map(Arc::new).ok_or_else(|| Mismatch::missing("an object").at("message"))
    }

    /// Takes the mandatory list of messages.
    pub(super) fn messages(&mut self) -> Result<Vec<Message>, FieldFault> {
        self.messages.take().ok_or_else(|| Mismatch::missing("an array of messages").at("msg"))
    }

    /// Returns a field that is present and not null.
    pub(super) fn find(&self, key: &str) -> Option<Raw<'de>> {
        self.others.iter().find(|(name, raw)| *name == key && !raw.is_null()).map(|(_, raw)| *raw)
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.find(key).is_some()
    }

    /// Returns a mandatory field. Null counts as present; its reader rejects it.
    pub(super) fn require(&self, key: &'static str, expected: &'static str) -> Result<Raw<'de>, FieldFault> {
        let found = self.others.iter().find(|(name, _)| *name == key);
        found.map(|(_, raw)| *raw).ok_or_else(|| Mismatch::missing(expected).at(key))
    }

    /// Reads the name of a user, device or room.
    pub(super) fn name<N: FromStr<Err = InvalidName>>(&self, key: &'static str) -> Result<N, FieldFault> {
        self.require(key, NON_EMPTY)?.name().map_err(|mismatch| mismatch.at(key))
    }

    /// Reads a connection id.
    pub(super) fn cid(&self, key: &'static str) -> Result<ConnectionId, FieldFault> {
        cid(self.require(key, CID)?).map_err(|mismatch| mismatch.at(key))
    }

    /// Reads a text; absent and null are empty.
    pub(super) fn text(&self, key: &'static str) -> Result<String, FieldFault> {
        let text = self.find(key).map(Raw::text).transpose().map_err(|mismatch| mismatch.at(key))?;
        Ok(text.unwrap_or_default().into())
    }

    /// Returns the name of the only field of `keys` that is present.
    pub(super) fn one_of(&self, keys: &[&'static str]) -> Result<&'static str, FieldFault> {
        let found: Vec<_> = keys.iter().copied().filter(|key| self.has(key)).collect();
        match found[..] {
            [key] => Ok(key),
            [] => Err(Mismatch::new(format!("one of {}", keys.join(", ")), "none").at(BODY)),
            _ => Err(Mismatch::new(format!("one of {}", keys.join(", ")), found.join(" and ")).at(BODY)),
        }
    }
}

/// A connection id as a number or digits.
pub(super) fn cid(raw: Raw<'_>) -> Result<ConnectionId, Mismatch> {
    let number = raw.integer().ok().and_then(|number| u64::try_from(number).ok());
    number.and_then(ConnectionId::new).ok_or_else(|| raw.mismatch(CID))
}

/// A list of users, at most `limit`.
pub(super) struct Uids {
    pub(super) limit: usize,
}

impl Uids {
    pub(super) const EXPECTED_LIST: &'static str = "an array of users";
}

impl<'de> Shape<'de> for Uids {
    type Out = Vec<Uid>;
    const EXPECTED: &'static str = Self::EXPECTED_LIST;

    fn list<A: SeqAccess<'de>>(self, at: &mut Reader, mut list: A) -> Result<Vec<Uid>, A::Error> {
        let mut uids = Vec::new();
        while let Some(raw) = at.raw_element(&mut list)? {
            if uids.len() == self.limit {
                return Err(at.fail(Mismatch::over(self.limit, "users", "more")));
            }
            uids.push(raw.name().map_err(|mismatch| at.fail_in(uids.len(), mismatch))?);
        }
        Ok(uids)
    }
}

struct Wanted<'n> {
    names: &'n [&'static str],
    limit: usize,
}

impl<'de> Shape<'de> for Wanted<'_> {
    type Out = Fields<'de>;
    const EXPECTED: &'static str = "an object";

    fn object<A: MapAccess<'de>>(self, at: &mut Reader, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields::default();
        while let Some(key) = at.key(&mut map)? {
            let twice = match self.names.iter().find(|name| name.eq_ignore_ascii_case(&key)).copied() {
                None => {
                    at.skip(&key, &mut map)?;
                    false
                }
                Some("message") => {
                    let (message, _) = at.value("message", &mut map, One(Receiver::Optional))?;
                    fields.message.replace(message).is_some()
                }
                Some("msg") => {
                    let shape = List { receiver: Receiver::Optional, limit: self.limit };
                    let messages = at.value("msg", &mut map, shape)?;
                    fields.messages.replace(messages.into_iter().map(|(message, _)| message).collect()).is_some()
                }
                Some(name) => {
                    let twice = fields.others.iter().any(|(other, _)| *other == name);
                    fields.others.push((name, at.raw(&mut map)?));
                    twice
                }
            };
            if twice {
                return Err(at.fail_duplicate(&key));
            }
        }
        Ok(fields)
    }
}

pub(super) const CID: &str = "an integer from 1 to 9007199254740991";
