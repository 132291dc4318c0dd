//! The socket of one connection, plain or TLS, shared between who reads it (its task) and who writes it (its shard).
//!
//! tokio keeps one waker for each direction, so the two never wake each other. Under TLS both use one [`Session`] behind
//! a lock that is held for one read or write and never across a wait. Everything above sees one kind of stream: what
//! would block is what the socket below it does.

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

use super::tls::Session;
use crate::node::Socket;

/// How long the peer has to read the last words.
const LINGER: Duration = Duration::from_secs(1);

/// A connected socket.
#[derive(Debug)]
pub(super) struct Stream {
    tcp: TcpStream,
    tls: Option<Box<Mutex<Session>>>,
}

impl Socket for Stream {
    fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match (&self.tls, parts) {
            (Some(session), _) => session.lock().write(&self.tcp, parts),
            // `send` costs the kernel less than `writev`, and one run is the usual case.
            (None, [one]) => self.tcp.try_write(one),
            (None, _) => self.tcp.try_write_vectored(parts),
        }
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_write_ready(cx)
    }

    fn shutdown(&self, abort: bool) {
        if let (Some(session), false) = (&self.tls, abort) {
            session.lock().say_goodbye(&self.tcp);
        }
        let how = if abort { Shutdown::Both } else { Shutdown::Write };
        // An error means that the peer has ended it already.
        let _ = rustix::net::shutdown(&self.tcp, how);
    }
}

impl Stream {
    pub(super) fn plain(tcp: TcpStream) -> Self {
        Self { tcp, tls: None }
    }

    /// A socket that speaks TLS. Nothing can be read or written before [`Stream::handshake`] has ended.
    ///
    /// # Errors
    /// When `config` and this build of rustls do not fit.
    pub(super) fn secured(tcp: TcpStream, config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let session = Session::new(config)?;
        Ok(Self { tcp, tls: Some(Box::new(Mutex::new(session))) })
    }

    /// Ends with the handshake; a plain socket has none.
    ///
    /// # Errors
    /// What the client said was no TLS, or none that is spoken here (`InvalidData`; it has been told), or it is gone.
    pub(super) async fn handshake(&self) -> io::Result<()> {
        let Some(session) = &self.tls else { return Ok(()) };
        loop {
            let advanced = session.lock().advance(&self.tcp);
            match advanced {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                ended => return ended,
            }
            // The guard must be gone before the wait.
            let has_more_to_say = session.lock().has_more_to_say();
            if has_more_to_say { self.tcp.writable().await? } else { self.tcp.readable().await? }
        }
    }

    /// Reads what is there now; 0 = the peer has ended its side.
    ///
    /// # Errors
    /// `WouldBlock` when nothing is there.
    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.tls {
            None => self.tcp.try_read(buffer),
            Some(session) => session.lock().read(&self.tcp, buffer.len(), |part| {
                buffer[..part.len()].copy_from_slice(part);
            }),
        }
    }

    /// As [`Stream::try_read`], into what `buffer` has reserved.
    pub(super) fn try_read_buf(&self, buffer: &mut BytesMut) -> io::Result<usize> {
        match &self.tls {
            None => self.tcp.try_read_buf(buffer),
            Some(session) => {
                let room = buffer.chunk_mut().len();
                session.lock().read(&self.tcp, room, |part| buffer.put_slice(part))
            }
        }
    }

    /// Ready when there may be something to read, or never will be.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &self.tls {
            Some(session) if session.lock().has_unread() => Poll::Ready(Ok(())),
            _ => self.tcp.poll_read_ready(cx),
        }
    }

    /// The address that the client dialled, as this machine knows it.
    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// As [`Stream::discard`], for a socket that no shard will cut: not for long.
    pub(super) async fn linger(&self) {
        let _ = tokio::time::timeout(LINGER, self.discard()).await;
    }

    /// Reads and forgets until the peer ends, or the shard cuts the socket: closing earlier would make the kernel
    /// answer bytes under way with a reset, and a reset may overtake the last words. What is forgotten is not decrypted.
    pub(super) async fn discard(&self) {
        loop {
            if self.tcp.readable().await.is_err() {
                return;
            }
            match self.forget_some() {
                Ok(0) => return,
                Ok(_) => tokio::task::coop::consume_budget().await,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return,
            }
        }
    }

    /// Apart, so that its buffer is no part of anyone's future.
    fn forget_some(&self) -> io::Result<usize> {
        self.tcp.try_read(&mut [0; 4096])
    }
}

/// For hyper, which owns the stream until it is upgraded.
impl AsyncRead for Stream {
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

impl AsyncWrite for Stream {
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

    /// What was taken is in the socket already.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.shutdown(false);
        Poll::Ready(Ok(()))
    }
}
