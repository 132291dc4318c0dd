//! The socket of one connection, plain or TLS, shared between its task (reader) and its shard (writer).
//!
//! tokio keeps one waker per direction, so the two never wake each other. With TLS both use one [`TlsSession`] behind a
//! lock, which is held for one read or write and never across an await. Callers see one kind of stream: an operation
//! blocks exactly if the operation of the socket below it does.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use parking_lot::Mutex;
use rustix::net::Shutdown;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::tls::TlsSession;
use crate::node::Socket;

/// Time the peer has to read the last frame.
const LINGER: Duration = Duration::from_secs(1);

/// A connected socket.
#[derive(Debug)]
pub(super) struct MaybeTlsStream {
    tcp: TcpStream,
    tls: Option<Box<Mutex<TlsSession>>>,
}

impl Socket for MaybeTlsStream {
    fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match (&self.tls, parts) {
            (Some(session), _) => session.lock().write(&self.tcp, parts),
            // `send` costs the kernel less than `writev`, and a single buffer is the usual case.
            (None, [one]) => self.tcp.try_write(one),
            (None, _) => self.tcp.try_write_vectored(parts),
        }
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_write_ready(cx)
    }

    fn shutdown(&self, abort: bool) {
        if let (Some(session), false) = (&self.tls, abort) {
            session.lock().send_close_notify(&self.tcp);
        }
        let how = if abort { Shutdown::Both } else { Shutdown::Write };
        // An error means that the peer has closed it already.
        let _ = rustix::net::shutdown(&self.tcp, how);
    }
}

impl MaybeTlsStream {
    pub(super) fn plain(tcp: TcpStream) -> Self {
        Self { tcp, tls: None }
    }

    /// Creates a TLS socket. Complete [`MaybeTlsStream::handshake`] before reading or writing.
    ///
    /// # Errors
    /// If `config` and this build of rustls are incompatible.
    pub(super) fn tls(tcp: TcpStream, config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let session = TlsSession::new(config)?;
        Ok(Self { tcp, tls: Some(Box::new(Mutex::new(session))) })
    }

    /// Performs the TLS handshake; returns at once for a plain socket.
    ///
    /// # Errors
    /// `InvalidData` if the client did not send supported TLS (an alert has been sent), or the error of a closed
    /// socket.
    pub(super) async fn handshake(&self) -> io::Result<()> {
        let Some(session) = &self.tls else { return Ok(()) };
        loop {
            let advanced = session.lock().advance(&self.tcp);
            match advanced {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                ended => return ended,
            }
            // Release the lock before waiting.
            let wants_write = session.lock().wants_write();
            if wants_write { self.tcp.writable().await? } else { self.tcp.readable().await? }
        }
    }

    /// Reads the available bytes; 0 = the peer has closed its side.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is available.
    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.tls {
            None => self.tcp.try_read(buffer),
            Some(session) => session.lock().read(&self.tcp, buffer.len(), |part| {
                buffer[..part.len()].copy_from_slice(part);
            }),
        }
    }

    /// Like [`MaybeTlsStream::try_read`], into the reserved capacity of `buffer`.
    pub(super) fn try_read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        match &self.tls {
            None => self.tcp.try_read_buf(buffer),
            Some(session) => {
                let room = buffer.chunk_mut().len();
                session.lock().read(&self.tcp, room, |part| buffer.put_slice(part))
            }
        }
    }

    /// Ready if there may be something to read, or if the socket is closed.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.tls {
            Some(session) if session.lock().has_unread() => Poll::Ready(Ok(())),
            _ => self.tcp.poll_read_ready(cx),
        }
    }

    /// The local address to which the client connected.
    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// Like [`MaybeTlsStream::discard`], with a short timeout, for a socket that no shard will shut down.
    pub(super) async fn linger(&self) {
        let _ = tokio::time::timeout(LINGER, self.discard()).await;
    }

    /// Reads and drops input until the peer closes or the shard shuts down the socket. An earlier close would make the
    /// kernel answer bytes in flight with a reset, and a reset may overtake the last frame. Dropped input is not
    /// decrypted.
    pub(super) async fn discard(&self) {
        loop {
            if self.tcp.readable().await.is_err() {
                return;
            }
            match self.discard_some() {
                Ok(0) => return,
                Ok(_) => tokio::task::coop::consume_budget().await,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }

    /// A separate function, so that its buffer is not part of a future.
    fn discard_some(&self) -> io::Result<usize> {
        self.tcp.try_read(&mut [0; 4096])
    }
}

/// For hyper, which owns the stream until the upgrade.
impl AsyncRead for MaybeTlsStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let Self { tcp, tls } = self.get_mut();
        let Some(session) = tls else { return Pin::new(tcp).poll_read(cx, buffer) };
        let session = session.get_mut();
        loop {
            match session.read(tcp, buffer.remaining(), |part| buffer.put_slice(part)) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!(tcp.poll_read_ready(cx))?,
                ended => return Poll::Ready(ended.map(drop)),
            }
        }
    }
}

impl AsyncWrite for MaybeTlsStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = self.get_mut();
        loop {
            match stream.try_write(parts) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!(stream.tcp.poll_write_ready(cx))?,
                ended => return Poll::Ready(ended),
            }
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Written data is in the socket already.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shutdown(false);
        Poll::Ready(Ok(()))
    }
}
