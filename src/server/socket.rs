//! The TCP socket of one connection, shared between who reads it (its task) and who writes it (its shard).
//!
//! tokio keeps one waker for each direction, so the two never wake each other.

use std::io::{self, IoSlice};
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::Shutdown;
use tokio::net::TcpStream;

use crate::node::Socket;

/// How long the peer has to read the last words.
const LINGER: Duration = Duration::from_secs(1);

/// A connected socket.
#[derive(Debug)]
pub(super) struct Stream(pub(super) TcpStream);

impl Socket for Stream {
    fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match parts {
            // `send` costs the kernel less than `writev`, and one run is the usual case.
            [one] => self.0.try_write(one),
            _ => self.0.try_write_vectored(parts),
        }
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_write_ready(cx)
    }

    fn shutdown(&self, abort: bool) {
        let how = if abort { Shutdown::Both } else { Shutdown::Write };
        // An error means that the peer has ended it already.
        let _ = rustix::net::shutdown(&self.0, how);
    }
}

impl Stream {
    /// As [`Stream::discard`], for a socket that no shard will cut: not for long.
    pub(super) async fn linger(&self) {
        let _ = tokio::time::timeout(LINGER, self.discard()).await;
    }

    /// Reads and forgets until the peer ends, or the shard cuts the socket: closing earlier would make the kernel
    /// answer bytes under way with a reset, and a reset may overtake the last words.
    pub(super) async fn discard(&self) {
        loop {
            if self.0.readable().await.is_err() {
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
        self.0.try_read(&mut [0; 4096])
    }
}
