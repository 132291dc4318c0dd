//! The non-blocking socket of one receiver, plain or TLS, read and written as plaintext.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;

use mio::net::TcpStream;
use rustls::ClientConnection;

use crate::subject::tls::Trust;

#[derive(Debug)]
pub(super) struct Channel {
    pub(super) tcp: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Channel {
    /// Connects and sends `opening`. Over loopback, the connect is complete on return, and `opening` fits into the
    /// socket's buffer.
    pub(super) fn open(address: SocketAddr, trust: Option<&Trust>, opening: &[u8]) -> anyhow::Result<Self> {
        let tcp = std::net::TcpStream::connect(address)?;
        tcp.set_nodelay(true)?;
        tcp.set_nonblocking(true)?;
        let tls = trust.map(Trust::connect).transpose()?.map(Box::new);
        let mut channel = Self { tcp: TcpStream::from_std(tcp), tls };
        channel.write(opening)?;
        Ok(channel)
    }

    /// Reads the available bytes; 0 = the server has closed its side.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is available.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &mut self.tls else { return self.tcp.read(buffer) };
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                done => return done,
            }
            if tls.read_tls(&mut self.tcp)? == 0 {
                return Ok(0);
            }
            tls.process_new_packets().map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            while tls.wants_write() {
                tls.write_tls(&mut self.tcp)?;
            }
        }
    }

    /// True if a read that did not fill its buffer has emptied the socket.
    pub(super) fn is_empty_after_short_read(&self) -> bool {
        self.tls.is_none()
    }

    /// Writes bytes that fit into the buffer of any socket being read. During a handshake they are sent at its end.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Some(tls) = &mut self.tls else { return self.tcp.write_all(bytes) };
        tls.writer().write_all(bytes)?;
        while tls.wants_write() {
            tls.write_tls(&mut self.tcp)?;
        }
        Ok(())
    }
}
