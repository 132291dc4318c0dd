//! Frames ↔ bytes for all dialects, codings and framings. Pure: no I/O, no clock, no state.
//!
//! User documentation: `docs/reference/protocol.md`. Golden frames: `tests/vectors/frames.json`. Bodies of back ends:
//! [`push`].

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
mod tail;
pub mod tcp;
#[cfg(test)]
mod tests;
pub mod websocket;

use std::fmt;
use std::str::FromStr;

use bytes::Bytes;

use crate::message::{Entries, Message};

pub use canonical::{put_canonical, read_canonical};
pub use fault::FieldFault;
pub use frames::{Frames, kept_frames};
pub use proto::cluster;
pub use size::{MAX_TCP_BODY, TooLarge, check_size};
pub use tail::FrameTail;

/// The message layout of a connection, fixed for its lifetime.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// The layout of yunque-socket's documentation.
    Yunque,
    /// The layout of CIM 4.2's source.
    Cim,
}

/// Encoding of bodies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Coding {
    /// Binary proto3 bodies after a type byte.
    Protobuf,
    /// Text `{"type":n,"content":"…"}`.
    Json,
}

/// Transport framing of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Framing {
    /// One WebSocket message per frame.
    WebSocket,
    /// Type byte, u16 little-endian length, body. Protobuf only.
    Tcp,
}

/// Dialect, coding and framing of one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Form {
    /// Message layout.
    pub dialect: Dialect,
    /// Body coding.
    pub coding: Coding,
    /// Transport framing.
    pub framing: Framing,
}

/// A client request: the body of a SENT frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SendBody {
    /// Name of the function.
    pub key: String,
    /// The client's clock; never trusted.
    pub timestamp: i64,
    /// Parameters.
    pub data: Entries,
}

/// The answer to a SendBody: the body of a REPLY frame.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// Key of the request.
    pub key: String,
    /// Three digits as text.
    pub code: String,
    /// Readable explanation; empty = absent.
    pub message: String,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    /// Data for the client.
    pub data: Entries,
}

/// Frames that a client may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientFrame {
    /// Answer to a PING. Its body is ignored.
    Pong,
    /// A SendBody.
    Sent(SendBody),
}

/// Frames that a node sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerFrame<'a> {
    /// Asks for a PONG.
    Ping,
    /// A message.
    Message(&'a Message),
    /// A message with its stream and its position there.
    StreamMessage(&'a Message, FrameTail<'a>),
    /// A reply.
    Reply(&'a Reply),
}

impl ServerFrame<'_> {
    /// The type byte, or the `type` number in JSON.
    const fn type_code(&self) -> u8 {
        match self {
            Self::Ping => PING,
            Self::Message(_) | Self::StreamMessage(..) => MESSAGE,
            Self::Reply(_) => REPLY,
        }
    }
}

impl Dialect {
    /// The name used in configuration, logs and answers.
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

/// The text is not the name of a dialect or form.
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
    /// Number of forms.
    pub const COUNT: usize = 6;

    /// Every form that exists, at its [`Form::index`].
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

    /// A number below [`Form::COUNT`], unique per form (JSON over TCP does not exist).
    #[must_use]
    pub const fn index(self) -> usize {
        let dialect = match self.dialect {
            Dialect::Yunque => 0,
            Dialect::Cim => 1,
        };
        let variant = match (self.framing, self.coding) {
            (Framing::Tcp, _) => 2,
            (Framing::WebSocket, Coding::Protobuf) => 0,
            (Framing::WebSocket, Coding::Json) => 1,
        };
        dialect * 3 + variant
    }

    /// The name: the subprotocol of a WebSocket form, or `yunque.tcp` and `cim.tcp`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        ["yunque.pb", "yunque.json", "yunque.tcp", "cim.pb", "cim.json", "cim.tcp"][self.index()]
    }

    /// True if bodies are text; never over TCP.
    const fn is_json(self) -> bool {
        matches!((self.framing, self.coding), (Framing::WebSocket, Coding::Json))
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Parses the names of WebSocket subprotocols only. TCP is chosen by the listener, not by name.
impl FromStr for Form {
    type Err = UnknownName;

    fn from_str(text: &str) -> Result<Self, UnknownName> {
        let known = Self::ALL.into_iter().find(|form| form.framing == Framing::WebSocket && form.as_str() == text);
        known
            .ok_or_else(|| UnknownName { expected: "yunque.pb, yunque.json, cim.pb or cim.json", got: text.to_owned() })
    }
}

/// The bytes are not a valid frame. `Display` gives expected and received values, suitable for logs and close reasons.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not even the type byte is present.
    #[error("expected a type byte, got nothing")]
    Empty,
    /// The type does not exist.
    #[error("expected PONG (0) or SENT (3), got unknown type {0}")]
    UnknownType(i64),
    /// Only a node may send this type.
    #[error("expected PONG (0) or SENT (3), got {0}, which is not legal from a client")]
    NotFromClient(&'static str),
    /// The body is not valid protobuf of its kind.
    #[error("expected a protobuf body, got {0}")]
    Protobuf(String),
    /// The text is not a valid frame, or its content is not a valid body.
    #[error("{0}")]
    Json(FieldFault),
    /// A map has more entries than allowed.
    #[error("expected at most {limit} entries in {field}, got {entries}")]
    TooManyEntries {
        /// The map.
        field: &'static str,
        /// Entries received.
        entries: usize,
        /// Entries allowed.
        limit: usize,
    },
    /// The frame is longer than its framing or this node allows.
    #[error("expected at most {limit} bytes, got {bytes}")]
    TooLong {
        /// Bytes of the body.
        bytes: usize,
        /// Maximum bytes of the body.
        limit: usize,
    },
}

/// Encodes one frame for the socket, including the WebSocket header or the TCP framing.
///
/// # Errors
/// A body over 65 535 bytes on TCP is an error for the sender; it is never truncated.
pub fn encode(form: Form, frame: ServerFrame<'_>) -> Result<Bytes, FrameError> {
    let measured = frames::measure(form, frame)?;
    let mut out = Vec::with_capacity(measured.total);
    frames::write(form, frame, measured, &mut out);
    Ok(out.into())
}

/// Decodes the payload of one WebSocket message or the body of one TCP frame (with the type byte, without the length).
///
/// # Errors
/// [`FrameError`] for any type except PONG and SENT, and for bodies that do not parse.
pub fn decode(coding: Coding, payload: &[u8]) -> Result<ClientFrame, FrameError> {
    match coding {
        Coding::Json => json::decode(payload),
        Coding::Protobuf => {
            let (&code, body) = payload.split_first().ok_or(FrameError::Empty)?;
            check_type(i64::from(code))?;
            // The body of a PONG is ignored: one SDK sends `PON\0`.
            if code == PONG { Ok(ClientFrame::Pong) } else { protobuf::decode_sent(body).map(ClientFrame::Sent) }
        }
    }
}

/// Verifies that a client may send frames of this type.
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
