//! The words between a client and those who judge it: [`Claim`], [`Admission`], [`Refusal`], [`Facts`], [`Answer`].
//!
//! Session, plugins and node mean the same by them. Knows no token format and no rule.

use std::fmt;

use crate::id::{Device, Room, Uid};
use crate::message::Entries;

/// What a client shows to be let in. Nothing in it is a fact.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Claim {
    /// Token from header, query, cookie, subprotocol or bind data.
    pub token: Option<String>,
    /// The uid that it typed.
    pub uid: Option<String>,
    /// Its `deviceId`.
    pub device: Option<String>,
    /// web, android, ios, windows, mac.
    pub channel: Option<String>,
    /// All else that `client_bind` carried.
    pub data: Entries,
}

/// Shows everything but the token and what may hold one.
impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("uid", &self.uid).field("device", &self.device).finish_non_exhaustive()
    }
}

/// Who a client really is, by the auth plugins' word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// Its user.
    pub uid: Uid,
    /// Overrides the claimed device.
    pub device: Option<Device>,
    /// Rooms to join at once.
    pub rooms: Vec<Room>,
    /// Seconds since 1970 at which the admission ends.
    pub expires: Option<u64>,
    /// Kept with the connection.
    pub claims: Entries,
}

/// A no, whoever says it: a plugin, the host in its place, the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Three digits, e.g. `"401"`.
    pub code: String,
    /// In plain words.
    pub reason: String,
}

impl Refusal {
    /// A no with its code and reason.
    #[must_use]
    pub fn new(code: &str, reason: impl Into<String>) -> Self {
        Self { code: code.to_owned(), reason: reason.into() }
    }

    /// Whether it is the node that cannot, so that the client may try again.
    #[must_use]
    pub fn is_ours(&self) -> bool {
        self.code.starts_with('5')
    }
}

/// What a client says of itself when it binds, besides its token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// `deviceId`, as claimed.
    pub device: Option<String>,
    /// web, android, ios, windows, mac.
    pub channel: Option<String>,
    /// deviceName, appVersion, osVersion, packageName, language: those that it named.
    pub rest: Entries,
}

/// A handler's answer to a SendBody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Three digits: `"200"` is success.
    pub code: String,
    /// In plain words.
    pub message: String,
    /// What the client needs.
    pub data: Entries,
}
