//! Reads one WebSocket: tungstenite finds the messages; nothing here writes.
//!
//! tungstenite answers pings and closes while it reads. The shard writes to the same socket, so these answers would
//! corrupt its frames. The writes of tungstenite are dropped, and the answers go through the connection's queue
//! instead.

mod meter;

use std::io;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, WebSocket, error::ProtocolError};

use super::connection::ReadEvent;
use super::socket::MaybeTlsStream;
use crate::disconnect::Disconnect;
use crate::protocol::{Coding, websocket};
use meter::{Meter, TooManyFragments};

/// Bytes requested from the socket at once. The buffer lives as long as the connection.
const READ_BUFFER: usize = 512;

/// A buffer that held a larger message, in bytes, is freed.
const LARGE_BUFFER: usize = 4096;

/// RFC 6455 §7.4.1: errors of WebSocket itself, which every library knows. Errors of the protocol above it use the
/// codes of `disconnect`.
const PROTOCOL_ERROR: Disconnect = Disconnect { code: 1002, reason: "websocket protocol error" };
const NOT_UTF8: Disconnect = Disconnect { code: 1007, reason: "text is not utf-8" };
const NORMAL: u16 = 1000;

/// The reading side of one WebSocket.
pub(super) struct Reader {
    socket: WebSocket<WsInput>,
    /// True if the buffer has grown for a large message; it would never shrink by itself.
    is_buffer_large: bool,
}

impl Reader {
    /// Reads `stream` after `read_ahead`, the bytes received after the handshake. `max` limits a frame and a message,
    /// in bytes.
    pub(super) fn new(stream: Arc<MaybeTlsStream>, read_ahead: &[u8], max: usize) -> Self {
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER)
            .write_buffer_size(0)
            .max_message_size(Some(max))
            .max_frame_size(Some(max));
        let mut meter = Meter::default();
        let overflow = meter.read(read_ahead).is_err();
        let source = WsInput { stream, meter, overflow };
        let socket = WebSocket::from_partially_read(source, read_ahead.to_vec(), Role::Server, Some(config));
        Self { socket, is_buffer_large: false }
    }

    /// Polls for the next input.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ReadEvent> {
        loop {
            let event = match self.socket.read() {
                Ok(Message::Binary(payload)) => self.message(Coding::Protobuf, payload),
                Ok(Message::Text(payload)) => self.message(Coding::Json, payload.into()),
                Ok(Message::Ping(payload)) => ReadEvent::Ping(websocket::pong(&payload)),
                Ok(Message::Pong(_)) => ReadEvent::Alive,
                Ok(Message::Close(frame)) => ReadEvent::Close(echo(frame)),
                Ok(Message::Frame(_)) => continue,
                Err(Error::Io(e)) if e.kind() == io::ErrorKind::WouldBlock => {
                    self.shrink();
                    match ready!(self.input().stream.poll_readable(cx)) {
                        Ok(()) => continue,
                        Err(_) => ReadEvent::Disconnected,
                    }
                }
                Err(error) => fault(&error),
            };
            return Poll::Ready(event);
        }
    }

    /// True if a message has started and is incomplete.
    pub(super) fn is_mid_message(&self) -> bool {
        self.input().meter.is_mid_message()
    }

    /// Number of the newest message; distinguishes the current message from the previous one.
    pub(super) fn message_number(&self) -> u32 {
        self.input().meter.message_number()
    }

    pub(super) fn stream(&self) -> &Arc<MaybeTlsStream> {
        &self.input().stream
    }

    fn message(&mut self, coding: Coding, payload: Bytes) -> ReadEvent {
        self.is_buffer_large |= payload.len() > LARGE_BUFFER;
        ReadEvent::Message(coding, payload)
    }

    /// Between two messages tungstenite holds only its buffer, so it can be replaced by a fresh instance.
    fn shrink(&mut self) {
        if self.is_buffer_large && !self.is_mid_message() {
            self.is_buffer_large = false;
            let config = *self.socket.get_config();
            let WsInput { stream, meter, overflow } = self.socket.get_mut();
            let source = WsInput { stream: Arc::clone(stream), meter: std::mem::take(meter), overflow: *overflow };
            self.socket = WebSocket::from_raw_socket(source, Role::Server, Some(config));
        }
    }

    fn input(&self) -> &WsInput {
        self.socket.get_ref()
    }
}

/// Input of tungstenite. Its writes are dropped.
struct WsInput {
    stream: Arc<MaybeTlsStream>,
    meter: Meter,
    overflow: bool,
}

impl io::Read for WsInput {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.overflow {
            return Err(io::Error::other(TooManyFragments));
        }
        let count = self.stream.try_read(buffer)?;
        self.meter.read(&buffer[..count]).map_err(io::Error::other)?;
        Ok(count)
    }
}

impl io::Write for WsInput {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Echoes the client's close code, as RFC 6455 §5.5.1 requires.
fn echo(frame: Option<CloseFrame>) -> Disconnect {
    let code = frame.map_or(NORMAL, |frame| u16::from(frame.code));
    Disconnect { code, reason: "" }
}

fn fault(error: &Error) -> ReadEvent {
    match error {
        Error::Io(e) if is_overflow(e) => ReadEvent::Invalid(Disconnect::TOO_LARGE),
        Error::Io(_)
        | Error::ConnectionClosed
        | Error::AlreadyClosed
        | Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => ReadEvent::Disconnected,
        Error::Capacity(_) => ReadEvent::Invalid(Disconnect::TOO_LARGE),
        Error::Utf8(_) => ReadEvent::Invalid(NOT_UTF8),
        _ => ReadEvent::Invalid(PROTOCOL_ERROR),
    }
}

fn is_overflow(error: &io::Error) -> bool {
    error.get_ref().is_some_and(<dyn std::error::Error + Send + Sync>::is::<TooManyFragments>)
}

#[cfg(test)]
mod tests;
