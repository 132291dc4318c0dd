//! The socket below hyper: makes requests with doubtful framing unreadable, and limits every wait.
//!
//! hyper limits neither the time that a client takes to read a response nor the time of a head on a connection that was
//! idle. The API limits the time of bodies.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::framing::{Framing, InvalidFraming};
use crate::server::socket::MaybeTlsStream;

/// No field, method or line end may hold this byte, so hyper answers 400 and closes.
const UNREADABLE: u8 = 0;

/// Maximum waits of one connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct PipeTimeouts {
    /// From the first to the last byte of a head.
    pub(super) head: Duration,
    /// Between two bytes that the client accepts.
    pub(super) write: Duration,
}

/// The number of the request that asks for a WebSocket, counted from 1; 0 = none so far.
#[derive(Debug, Clone, Default)]
pub(super) struct UpgradeNumber(Arc<AtomicU32>);

impl UpgradeNumber {
    /// The number of that request, set once its head was read.
    pub(super) fn number(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The socket of one connection.
pub(super) struct Pipe {
    stream: MaybeTlsStream,
    framing: Framing,
    websocket: UpgradeNumber,
    timeouts: PipeTimeouts,
    read_timeout: Option<Pin<Box<Sleep>>>,
    write_timeout: Option<Pin<Box<Sleep>>>,
    is_broken: bool,
}

impl Pipe {
    pub(super) fn new(stream: MaybeTlsStream, timeouts: PipeTimeouts, websocket: UpgradeNumber) -> Self {
        let framing = Framing::default();
        Self { stream, framing, websocket, timeouts, read_timeout: None, write_timeout: None, is_broken: false }
    }

    pub(super) fn into_inner(self) -> MaybeTlsStream {
        self.stream
    }

    /// Parses the received bytes. Makes a refused line unreadable and drops everything after it.
    fn scan(&mut self, buffer: &mut ReadBuf<'_>, before: usize) {
        let heads = self.framing.heads();
        let received = &mut buffer.filled_mut()[before..];
        if let Err(InvalidFraming { at }) = self.framing.read(received) {
            received[at] = UNREADABLE;
            buffer.set_filled(before + at + 1);
            self.is_broken = true;
        }
        if self.framing.heads() != heads {
            self.read_timeout = None;
        }
        if let Some(number) = self.framing.websocket() {
            self.websocket.0.store(number, Ordering::Relaxed);
        }
    }

    fn poll_timeout<T>(
        wait: &mut Option<Pin<Box<Sleep>>>,
        most: Duration,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        let wait = wait.get_or_insert_with(|| Box::pin(sleep(most)));
        wait.as_mut().poll(cx).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn written(&mut self, written: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if written.is_pending() {
            return Self::poll_timeout(&mut self.write_timeout, self.timeouts.write, cx);
        }
        self.write_timeout = None;
        written
    }
}

impl AsyncRead for Pipe {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let pipe = self.get_mut();
        if pipe.is_broken {
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut pipe.stream).poll_read(cx, buffer);
        if matches!(read, Poll::Ready(Ok(()))) {
            pipe.scan(buffer, before);
        }
        if !pipe.framing.is_mid_head() {
            pipe.read_timeout = None;
        } else if read.is_pending() {
            return Self::poll_timeout(&mut pipe.read_timeout, pipe.timeouts.head, cx);
        }
        read
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let pipe = self.get_mut();
        let written = Pin::new(&mut pipe.stream).poll_write(cx, bytes);
        pipe.written(written, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let pipe = self.get_mut();
        let written = Pin::new(&mut pipe.stream).poll_write_vectored(cx, parts);
        pipe.written(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
