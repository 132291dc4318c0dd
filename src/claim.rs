//! Values of authentication: [`Claim`], [`Admission`], [`Refusal`], [`Facts`], [`ResumeRequest`], [`Answer`].
//!
//! Session, plugins and node share these types. Independent of token formats and of admission rules.

use std::fmt;
use std::time::Duration;

use crate::code::Code;
use crate::id::{ConnectionId, Device, Room, Uid};
use crate::message::{Entries, Position};

/// Credentials and data that a client presents at connect. Nothing in it is verified.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Claim {
    /// Token from header, query, cookie, subprotocol or bind data.
    pub token: Option<String>,
    /// The uid that the client typed.
    pub uid: Option<String>,
    /// The client's `deviceId`.
    pub device: Option<String>,
    /// web, android, ios, windows, mac.
    pub channel: Option<String>,
    /// The other fields of `client_bind`.
    pub data: Entries,
}

/// Omits the token and `data`, which may hold one.
impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("uid", &self.uid).field("device", &self.device).finish_non_exhaustive()
    }
}

/// The verified identity of a client, as the auth plugins returned it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admission {
    /// The user.
    pub uid: Uid,
    /// Overrides the claimed device.
    pub device: Option<Device>,
    /// Rooms to join at once.
    pub rooms: Vec<Room>,
    /// Seconds since 1970 at which the admission ends.
    pub expires: Option<u64>,
    /// Stored with the connection.
    pub claims: Entries,
}

/// A refusal by a plugin, by the host on behalf of a plugin, or by the node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Kind of the refusal.
    pub code: Code,
    /// Readable explanation.
    pub reason: String,
    /// Time after which the caller may try again, if the node is too busy now.
    pub retry: Option<Duration>,
}

impl Refusal {
    /// Creates a refusal.
    #[must_use]
    pub fn new(code: Code, reason: impl Into<String>) -> Self {
        Self { code, reason: reason.into(), retry: None }
    }
}

/// Unverified data that a client sends about itself when it binds, besides its token.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// `deviceId`, as claimed.
    pub device: Option<String>,
    /// web, android, ios, windows, mac.
    pub channel: Option<String>,
    /// Those of deviceName, appVersion, osVersion, packageName and language that the client sent.
    pub rest: Entries,
    /// The streams to resume, if the client asks for it.
    pub resume: Option<ResumeRequest>,
}

/// Streams that a client resumes at a bind. Each stream occurs once; at most 128.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResumeRequest {
    /// The streams with the client's positions. Without a position the client is new in the stream: it receives the
    /// present position and no message.
    pub streams: Vec<(ResumeStream, Option<Position>)>,
    /// The client's former connection. The replay omits the messages that the client published there.
    pub former: Option<ConnectionId>,
}

/// A stream, as clients name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResumeStream {
    /// The stream of the client's user.
    Own,
    /// The stream of messages to everyone.
    Everyone,
    /// The stream of a room.
    Room(Room),
}

/// `u`, `all` or `r:ROOM`.
impl fmt::Display for ResumeStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own => f.write_str("u"),
            Self::Everyone => f.write_str("all"),
            Self::Room(room) => write!(f, "r:{room}"),
        }
    }
}

/// A handler's answer to a SendBody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Result of the call.
    pub code: Code,
    /// Readable explanation.
    pub message: String,
    /// Data for the client.
    pub data: Entries,
}
