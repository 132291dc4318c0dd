//! CIM over plain TCP: accepts the socket and reads its frames. Uses the same session as WebSocket.
//!
//! Nothing is sent before the client binds, because no handshake could carry a token.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};

use super::connection::{self, ConnectionStart, FirstInput, ReadEvent};
use super::peers::ConnectionPermit;
use super::socket::MaybeTlsStream;
use crate::disconnect::Disconnect;
use crate::node::Transport;
use crate::protocol::{Coding, Form, FrameError, tcp};

/// Bytes requested from the socket at once.
const READ_BUFFER: usize = 512;
/// The length field has 16 bits.
const MAX_BODY: usize = 65_535;

/// Serves one client until it is gone.
pub(super) async fn serve(permit: ConnectionPermit, stream: MaybeTlsStream, peer: SocketAddr, at: usize) {
    let config = permit.gateway().config.load_full();
    let listener = &config.listeners[at];
    let start = ConnectionStart {
        at,
        transport: Transport {
            listener: "cim-tcp",
            remote: peer.ip().to_canonical().to_string(),
            ..Transport::default()
        },
        first_input: Some(FirstInput::Unbound),
        form: Form::tcp(listener.dialect),
        sniffs: false,
    };
    drop(config);
    connection::start(permit, Box::new(start), stream, Bytes::new()).await;
}

/// The reading side of one TCP connection. It holds no buffer while idle.
pub(super) struct Reader {
    stream: Arc<MaybeTlsStream>,
    buffer: BytesMut,
    max: usize,
}

impl Reader {
    /// `max` limits a body, in bytes.
    pub(super) fn new(stream: Arc<MaybeTlsStream>, max: usize) -> Self {
        Self { stream, buffer: BytesMut::new(), max: max.min(MAX_BODY) }
    }

    /// Polls for the next frame.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ReadEvent> {
        loop {
            match tcp::split_tcp_frame(&mut self.buffer, self.max) {
                Ok(Some(frame)) => return Poll::Ready(ReadEvent::Message(Coding::Protobuf, frame)),
                Ok(None) => {}
                Err(error) => return Poll::Ready(ReadEvent::Invalid(fault(&error))),
            }
            if self.buffer.is_empty() {
                self.buffer = BytesMut::new();
            }
            if ready!(self.stream.poll_readable(cx)).is_err() {
                return Poll::Ready(ReadEvent::Disconnected);
            }
            self.buffer.reserve(READ_BUFFER);
            match self.stream.try_read_buf(&mut self.buffer) {
                Ok(0) => return Poll::Ready(ReadEvent::Disconnected),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(ReadEvent::Disconnected),
            }
        }
    }

    /// True if a frame has started and is incomplete.
    pub(super) fn is_mid_message(&self) -> bool {
        !self.buffer.is_empty()
    }

    pub(super) fn stream(&self) -> &Arc<MaybeTlsStream> {
        &self.stream
    }
}

/// The close code for bytes that are not a valid frame.
pub(super) fn fault(error: &FrameError) -> Disconnect {
    match error {
        FrameError::TooLong { .. } => Disconnect::TOO_LARGE,
        _ => Disconnect::PROTOCOL_ERROR,
    }
}

#[cfg(test)]
mod tests;
