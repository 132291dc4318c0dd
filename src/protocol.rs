//! Frames ↔ bytes, for both dialects, all codings and framings. Pure: no I/O, no clock, no state.
//!
//! Facts and their sources: `docs/protocol.md`; golden frames: `tests/vectors/frames.json`.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

use crate::message::{Entries, Message};

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

impl Form {
    /// How many forms there are.
    pub const COUNT: usize = 6;

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
}

/// Why bytes are no frame. The text names what was expected; `Display` is fit for a close reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not written yet.
    #[error("not implemented")]
    Stub,
}

/// Writes one frame as it goes to the socket: WebSocket header or TCP framing included.
///
/// # Errors
/// A body over 65 535 bytes on TCP is an error for the sender, never truncated.
pub fn encode(_form: Form, _frame: ServerFrame<'_>) -> Result<Bytes, FrameError> {
    todo!()
}

/// Reads the payload of one WebSocket message or the body of one TCP frame (type byte included, length not).
///
/// # Errors
/// [`FrameError`] for anything but PONG and SENT, and for bodies that do not parse.
pub fn decode(_coding: Coding, _payload: &[u8]) -> Result<ClientFrame, FrameError> {
    todo!()
}

/// Messages for the same receivers, written once per form that a receiver needs, all in one run of bytes.
///
/// Shared between shards: whoever needs a form first encodes it.
#[derive(Debug)]
pub struct Frames {
    messages: Vec<Arc<Message>>,
    forms: [OnceLock<Bytes>; Form::COUNT],
}

impl Frames {
    /// Of these messages, in order. They must have passed the size check, so that every form can carry them.
    #[must_use]
    pub fn new(messages: Vec<Arc<Message>>) -> Self {
        Self { messages, forms: Default::default() }
    }

    /// How many frames one receiver gets.
    #[must_use]
    pub fn count(&self) -> usize {
        self.messages.len()
    }

    /// The run of frames in `form`.
    pub fn bytes(&self, _form: Form) -> &Bytes {
        todo!()
    }
}

/// A message that some dialect could not carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TooLarge {
    /// Which one.
    pub dialect: Dialect,
    /// Bytes it would take.
    pub bytes: usize,
    /// Bytes it may take.
    pub limit: usize,
}

/// Whether every form can carry the message; `limit` bounds its canonical body.
///
/// # Errors
/// [`TooLarge`] names the dialect that cannot.
pub fn check_size(_message: &Message, _limit: usize) -> Result<(), TooLarge> {
    todo!()
}
