//! Frames ↔ bytes, for both dialects, all codings and framings. Pure: no I/O, no clock, no state.
//!
//! The wire for users: `docs/protocol.md`; golden frames: `tests/vectors/frames.json`. What back ends push is in [`push`].

mod bounds;
mod canonical;
mod fault;
mod frames;
mod json;
mod proto;
mod protobuf;
pub mod push;
mod reader;
mod sink;
mod size;
pub mod tail;
pub mod tcp;
#[cfg(test)]
mod tests;
pub mod websocket;

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use crate::message::{Entries, Message};

pub use canonical::{put_canonical, read_canonical};
pub use fault::Fault;
pub use frames::Frames;
pub use proto::cluster;
pub use size::{MAX_TCP_BODY, TooLarge, check_size};

/// Which Message layout a connection speaks, for its whole life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// yunque-socket's documents.
    Yunque,
    /// CIM 4.2's source.
    Cim,
}

/// How bodies are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    /// Binary proto3 bodies behind a type byte.
    Protobuf,
    /// Text `{"type":n,"content":"…"}`.
    Json,
}

/// What a frame travels in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Framing {
    /// One WebSocket message each.
    WebSocket,
    /// Type byte, u16 little-endian length, body. Protobuf only.
    Tcp,
}

/// How one connection is spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Form {
    /// Message layout.
    pub dialect: Dialect,
    /// Body coding.
    pub coding: Coding,
    /// Transport framing.
    pub framing: Framing,
}

/// What a client asks for: the body of a SENT frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SendBody {
    /// Which function.
    pub key: String,
    /// The client's clock; never trusted.
    pub timestamp: i64,
    /// Its parameters.
    pub data: Entries,
}

/// The answer to a SendBody: the body of a REPLY frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// The key that was asked.
    pub key: String,
    /// Three digits as text.
    pub code: String,
    /// In plain words; empty = absent.
    pub message: String,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// What the client needs.
    pub data: Entries,
}

/// What a client may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientFrame {
    /// Answer to a PING. Its body is never looked at.
    Pong,
    /// A SendBody.
    Sent(SendBody),
}

/// What a node sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerFrame<'a> {
    /// Asks for a PONG.
    Ping,
    /// A message.
    Message(&'a Message),
    /// An answer.
    Reply(&'a Reply),
}

impl ServerFrame<'_> {
    /// The byte, or the number in JSON, that says what a frame is.
    const fn type_code(&self) -> u8 {
        match self {
            Self::Ping => PING,
            Self::Message(_) => MESSAGE,
            Self::Reply(_) => REPLY,
        }
    }
}

impl Dialect {
    /// The word used in configuration, logs and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Yunque => "yunque",
            Self::Cim => "cim",
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A word that names no dialect or form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected}, got {got:?}")]
pub struct UnknownName {
    expected: &'static str,
    got: String,
}

impl FromStr for Dialect {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        match text {
            "yunque" => Ok(Self::Yunque),
            "cim" => Ok(Self::Cim),
            _ => Err(UnknownName { expected: "yunque or cim", got: text.to_owned() }),
        }
    }
}

impl Form {
    /// How many forms there are.
    pub const COUNT: usize = 6;

    /// Each form that exists, at its [`Form::index`].
    pub const ALL: [Self; Self::COUNT] = [
        Self::new(Dialect::Yunque, Coding::Protobuf, Framing::WebSocket),
        Self::new(Dialect::Yunque, Coding::Json, Framing::WebSocket),
        Self::new(Dialect::Yunque, Coding::Protobuf, Framing::Tcp),
        Self::new(Dialect::Cim, Coding::Protobuf, Framing::WebSocket),
        Self::new(Dialect::Cim, Coding::Json, Framing::WebSocket),
        Self::new(Dialect::Cim, Coding::Protobuf, Framing::Tcp),
    ];

    const fn new(dialect: Dialect, coding: Coding, framing: Framing) -> Self {
        Self { dialect, coding, framing }
    }

    /// A WebSocket form.
    #[must_use]
    pub const fn websocket(dialect: Dialect, coding: Coding) -> Self {
        Self::new(dialect, coding, Framing::WebSocket)
    }

    /// The form of a dialect over TCP.
    #[must_use]
    pub const fn tcp(dialect: Dialect) -> Self {
        Self::new(dialect, Coding::Protobuf, Framing::Tcp)
    }

    /// A number below [`Form::COUNT`], different for each form that exists (JSON over TCP does not).
    #[must_use]
    pub const fn index(self) -> usize {
        let dialect = match self.dialect {
            Dialect::Yunque => 0,
            Dialect::Cim => 1,
        };
        let way = match (self.framing, self.coding) {
            (Framing::Tcp, _) => 2,
            (Framing::WebSocket, Coding::Protobuf) => 0,
            (Framing::WebSocket, Coding::Json) => 1,
        };
        dialect * 3 + way
    }

    /// The name: of a WebSocket form its subprotocol, else `yunque.tcp` or `cim.tcp`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        ["yunque.pb", "yunque.json", "yunque.tcp", "cim.pb", "cim.json", "cim.tcp"][self.index()]
    }

    /// Whether bodies are text; TCP carries none.
    const fn is_json(self) -> bool {
        matches!((self.framing, self.coding), (Framing::WebSocket, Coding::Json))
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Reads the names of WebSocket subprotocols only: nobody chooses TCP by its name.
impl FromStr for Form {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let known = Self::ALL.into_iter().find(|form| form.framing == Framing::WebSocket && form.as_str() == text);
        known
            .ok_or_else(|| UnknownName { expected: "yunque.pb, yunque.json, cim.pb or cim.json", got: text.to_owned() })
    }
}

/// Why bytes are no frame. `Display` is fit for a log and a close reason: it says what was expected and what came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not even the byte that says what the frame is.
    #[error("expected a type byte, got nothing")]
    Empty,
    /// A type that does not exist.
    #[error("expected PONG (0) or SENT (3), got unknown type {0}")]
    UnknownType(i64),
    /// A type that only a node may send.
    #[error("expected PONG (0) or SENT (3), got {0}, which is not legal from a client")]
    NotFromClient(&'static str),
    /// A body that is no protobuf of its kind.
    #[error("expected a protobuf body, got {0}")]
    Protobuf(String),
    /// A text that is no frame, or whose content is no body.
    #[error("{0}")]
    Json(Fault),
    /// A map with more entries than a message may have.
    #[error("expected at most {limit} entries in {field}, got {entries}")]
    TooManyEntries {
        /// The map.
        field: &'static str,
        /// How many came.
        entries: usize,
        /// How many may come.
        limit: usize,
    },
    /// A frame that is longer than its framing, or this node, allows.
    #[error("expected at most {limit} bytes, got {bytes}")]
    TooLong {
        /// Bytes of the body.
        bytes: usize,
        /// Bytes that it may have.
        limit: usize,
    },
}

/// Writes one frame as it goes to the socket: WebSocket header or TCP framing included.
///
/// # Errors
/// A body over 65 535 bytes on TCP is an error for the sender, never truncated.
pub fn encode(form: Form, frame: ServerFrame<'_>) -> Result<Bytes, FrameError> {
    let measured = frames::measure(form, frame)?;
    let mut out = Vec::with_capacity(measured.total);
    frames::write(form, frame, measured, &mut out);
    Ok(out.into())
}

/// Reads the payload of one WebSocket message or the body of one TCP frame (type byte included, length not).
///
/// # Errors
/// [`FrameError`] for anything but PONG and SENT, and for bodies that do not parse.
pub fn decode(coding: Coding, payload: &[u8]) -> Result<ClientFrame, FrameError> {
    match coding {
        Coding::Json => json::decode(payload),
        Coding::Protobuf => {
            let (&code, body) = payload.split_first().ok_or(FrameError::Empty)?;
            check_type(i64::from(code))?;
            // A PONG's body is never looked at: one SDK sends `PON\0`.
            if code == PONG { Ok(ClientFrame::Pong) } else { protobuf::decode_sent(body).map(ClientFrame::Sent) }
        }
    }
}

/// Whether a client may send frames of this type.
fn check_type(code: i64) -> Result<(), FrameError> {
    match u8::try_from(code) {
        Ok(PONG | SENT) => Ok(()),
        Ok(PING) => Err(FrameError::NotFromClient("PING (1)")),
        Ok(MESSAGE) => Err(FrameError::NotFromClient("MESSAGE (2)")),
        Ok(REPLY) => Err(FrameError::NotFromClient("REPLY (4)")),
        _ => Err(FrameError::UnknownType(code)),
    }
}

const PONG: u8 = 0;
const PING: u8 = 1;
const MESSAGE: u8 = 2;
const SENT: u8 = 3;
const REPLY: u8 = 4;
