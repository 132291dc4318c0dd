//! Reads one WebSocket: tungstenite finds the messages, nothing here writes.
//!
//! tungstenite answers pings and closes while it reads; with a shard writing to the same socket that would tear frames
//! apart. So its writes lead nowhere, and what it would have said is said through the connection's queue.

mod meter;

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket, error::ProtocolError};

use super::connection::Heard;
use super::socket::Stream;
use crate::disconnect::Disconnect;
use crate::protocol::{Coding, websocket};
use meter::{Meter, TooManyFragments};

/// What is asked of the socket at once; it stays allocated as long as the connection lives.
const READ_BUFFER: usize = 512;

/// A buffer that has held a message of more bytes is given back.
const SWOLLEN: usize = 4096;

/// RFC 6455 §7.4.1: faults of WebSocket itself, which every library knows. Those of the protocol above it have the
/// codes of `disconnect`.
const PROTOCOL_ERROR: Disconnect = Disconnect { code: 1002, reason: "websocket protocol error" };
const NOT_UTF8: Disconnect = Disconnect { code: 1007, reason: "text is not utf-8" };
const NORMAL: u16 = 1000;

/// The reading side of one WebSocket.
pub(super) struct Reader {
    socket: WebSocket<Source>,
    /// Its buffer has grown for a big message and would never shrink by itself.
    is_swollen: bool,
}

impl Reader {
    /// Reads `stream` after `already` (what came behind the handshake); `max` bounds a frame and a message, in bytes.
    pub(super) fn new(stream: Arc<Stream>, already: &[u8], max: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(max))
            .max_frame_size(Some(max));
        let mut meter = Meter::default();
        let overflow = meter.read(already).is_err();
        let source = Source { stream, meter, overflow };
        let socket = WebSocket::from_partially_read(source, already.to_vec(), Role::Server, Some(config));
        Self { socket, is_swollen: false }
    }

    /// The next thing that the client says.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        loop {
            let heard = match self.socket.read() {
                Ok(Message::Binary(payload)) => self.whole(Coding::Protobuf, payload),
                Ok(Message::Text(payload)) => self.whole(Coding::Json, payload.into()),
                Ok(Message::Ping(payload)) => Heard::Ping(websocket::pong(&payload)),
                Ok(Message::Pong(_)) => Heard::Life,
                Ok(Message::Close(frame)) => Heard::Closing(echo(frame)),
                Ok(Message::Frame(_)) => continue,
                Err(Error::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.shrink();
                    match ready!(self.source().stream.poll_readable(cx)) {
                        Ok(()) => continue,
                        Err(_) => Heard::Gone,
                    }
                }
                Err(error) => fault(&error),
            };
            return Poll::Ready(heard);
        }
    }

    /// Whether a message has begun and not ended.
    pub(super) fn is_mid_message(&self) -> bool {
        self.source().meter.is_mid_message()
    }

    /// Number of the newest message, which tells one that is under way from the one before.
    pub(super) fn begun(&self) -> u32 {
        self.source().meter.begun()
    }

    pub(super) fn stream(&self) -> &Arc<Stream> {
        &self.source().stream
    }

    fn whole(&mut self, coding: Coding, payload: Bytes) -> Heard {
        self.is_swollen |= payload.len() > SWOLLEN;
        Heard::Message(coding, payload)
    }

    /// Between two messages tungstenite holds nothing but its buffer: a fresh one takes its place.
    fn shrink(&mut self) {
        if self.is_swollen && !self.is_mid_message() {
            self.is_swollen = false;
            let config = *self.socket.get_config();
            let Source { stream, meter, overflow } = self.socket.get_mut();
            let source = Source { stream: Arc::clone(stream), meter: std::mem::take(meter), overflow: *overflow };
            self.socket = WebSocket::from_raw_socket(source, Role::Server, Some(config));
        }
    }

    fn source(&self) -> &Source {
        self.socket.get_ref()
    }
}

/// What tungstenite reads from, and writes to in vain.
struct Source {
    stream: Arc<Stream>,
    meter: Meter,
    overflow: bool,
}

impl io::Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.overflow {
            return Err(io::Error::other(TooManyFragments));
        }
        let count = self.stream.try_read(buffer)?;
        self.meter.read(&buffer[..count]).map_err(io::Error::other)?;
        Ok(count)
    }
}

impl io::Write for Source {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The client's own code goes back to it, as RFC 6455 §5.5.1 asks.
fn echo(frame: Option<CloseFrame>) -> Disconnect {
    let code = frame.map_or(NORMAL, |frame| u16::from(frame.code));
    Disconnect { code, reason: "" }
}

fn fault(error: &Error) -> Heard {
    match error {
        Error::Io(e) if is_overflow(e) => Heard::Fault(Disconnect::TOO_LARGE),
        Error::Io(_)
        | Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => Heard::Gone,
        Error::Capacity(_) => Heard::Fault(Disconnect::TOO_LARGE),
        Error::Utf8(_) => Heard::Fault(NOT_UTF8),
        _ => Heard::Fault(PROTOCOL_ERROR),
    }
}

fn is_overflow(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<TooManyFragments>)
}

#[cfg(test)]
mod tests;
