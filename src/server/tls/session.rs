//! One TLS connection over a non-blocking socket: rustls between plaintext and ciphertext.
//!
//! Independent of tasks and wakers. Contract with the writer above: a byte counts as written once the socket has
//! accepted the ciphertext of all data passed with it. If the socket accepts only a part, only the last byte is held
//! back. The writer then still has data to write and returns when the socket is writable. An idle connection holds the
//! state of rustls and its read buffer, and no data sent or received.

use std::io::{self, BufRead as _, IoSlice, Read, Write};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};
use smallvec::SmallVec;
use tokio::net::TcpStream;

/// Maximum plaintext of one write, in bytes: two full records.
pub(super) const MAX_WRITE: usize = 32 * 1024;

/// One TLS connection.
#[derive(Debug)]
pub(in crate::server) struct TlsSession {
    rustls: ServerConnection,
    /// Decrypted plaintext that was not read yet, in bytes.
    unread: usize,
    /// True if the first byte of the next write was already encrypted with the previous one.
    holds_back_a_byte: bool,
}

impl TlsSession {
    pub(in crate::server) fn new(config: Arc<ServerConfig>) -> Result<Self, rustls::Error> {
        let mut rustls = ServerConnection::new(config)?;
        rustls.set_buffer_limit(Some(MAX_WRITE));
        Ok(Self { rustls, unread: 0, holds_back_a_byte: false })
    }

    /// Continues the handshake; `WouldBlock` until it has ended and all its output was sent.
    pub(in crate::server) fn advance(&mut self, tcp: &TcpStream) -> io::Result<()> {
        loop {
            self.flush(tcp)?;
            if !self.rustls.is_handshaking() {
                return Ok(());
            }
            match self.rustls.read_tls(&mut Wire(tcp)) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(_) => self.process(tcp)?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// True if ciphertext waits for the socket.
    pub(in crate::server) fn wants_write(&self) -> bool {
        self.rustls.wants_write()
    }

    /// True if plaintext can be read without the socket.
    pub(in crate::server) fn has_unread(&self) -> bool {
        self.unread > 0
    }

    /// Encrypts `parts` into as few records as possible and writes them, in one call if possible. After `WouldBlock` or
    /// a partial count, the next call must begin with the bytes not counted.
    pub(in crate::server) fn write(&mut self, tcp: &TcpStream, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        self.flush(tcp)?;
        let held_back = usize::from(std::mem::take(&mut self.holds_back_a_byte));
        let taken = match parts {
            [first, rest @ ..] if held_back > 0 => {
                let mut left: SmallVec<[IoSlice<'_>; 8]> = SmallVec::with_capacity(parts.len());
                left.push(IoSlice::new(&first[held_back..]));
                left.extend_from_slice(rest);
                self.rustls.writer().write_vectored(&left)?
            }
            _ => self.rustls.writer().write_vectored(parts)?,
        };
        match self.flush(tcp) {
            Ok(()) => Ok(held_back + taken),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && taken > 0 => {
                self.holds_back_a_byte = true;
                let counted = held_back + taken - 1;
                if counted == 0 { Err(e) } else { Ok(counted) }
            }
            Err(e) => Err(e),
        }
    }

    /// Passes up to `room` bytes of plaintext to `put`. Returns their number, 0 at the end.
    pub(in crate::server) fn read(
        &mut self,
        tcp: &TcpStream,
        room: usize,
        put: impl FnOnce(&[u8]),
    ) -> io::Result<usize> {
        self.fetch(tcp)?;
        if self.unread == 0 {
            return Ok(0);
        }
        let mut reader = self.rustls.reader();
        let chunk = reader.fill_buf()?;
        let count = chunk.len().min(room);
        put(&chunk[..count]);
        reader.consume(count);
        self.unread -= count;
        Ok(count)
    }

    /// Sends close_notify as far as the socket accepts it. During a handshake there is no session to close.
    pub(in crate::server) fn send_close_notify(&mut self, tcp: &TcpStream) {
        if !self.rustls.is_handshaking() {
            self.rustls.send_close_notify();
        }
        let _ = self.flush(tcp);
    }

    /// Reads until there is plaintext or the peer has closed its side. A missing close_notify is not an error, because
    /// the protocol above marks the ends of its messages itself.
    fn fetch(&mut self, tcp: &TcpStream) -> io::Result<()> {
        while self.unread == 0 {
            match self.rustls.read_tls(&mut Wire(tcp)) {
                Ok(0) => return Ok(()),
                Ok(_) => self.process(tcp)?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Decrypts received data. Replies of rustls (an alert, a new key) are sent at once if possible, otherwise with the
    /// next write.
    fn process(&mut self, tcp: &TcpStream) -> io::Result<()> {
        let processed = self.rustls.process_new_packets();
        if self.rustls.wants_write() {
            let _ = self.flush(tcp);
        }
        match processed {
            Ok(state) => {
                self.unread = state.plaintext_bytes_to_read();
                Ok(())
            }
            Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error)),
        }
    }

    /// Writes all pending ciphertext.
    fn flush(&mut self, tcp: &TcpStream) -> io::Result<()> {
        while self.rustls.wants_write() {
            match self.rustls.write_tls(&mut Wire(tcp)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// Adapts a socket to rustls.
struct Wire<'a>(&'a TcpStream);

impl Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        match parts {
            [one] => self.0.try_write(one),
            _ => self.0.try_write_vectored(parts),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
