//! One publishing connection: requests in, answers counted. HTTP to a node, the push protocol to a reference server.

use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use mio::net::TcpStream;

use super::super::wire::Wire;

#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) stream: TcpStream,
    /// Requests without an answer.
    pub(super) in_flight: usize,
    pub(super) losses: Losses,
    wire: Wire,
    out: Vec<u8>,
    written: usize,
    inbox: Vec<u8>,
}

/// Answers which told that a message did not reach somebody.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::cli::bench) struct Losses {
    /// The queue was full.
    pub(in crate::cli::bench) full: u64,
    /// Nobody was there.
    pub(in crate::cli::bench) offline: u64,
}

const FULL: &[u8] = br#""full":"#;
const OFFLINE: &[u8] = br#""offline":["#;

impl Pipe {
    pub(super) fn open(address: SocketAddr, wire: Wire) -> anyhow::Result<Self> {
        let mut stream = std::net::TcpStream::connect(address).context("cannot open a publishing connection")?;
        stream.set_nodelay(true)?;
        if wire == Wire::Push {
            stream.write_all(super::super::wire::PUSH)?;
        }
        stream.set_nonblocking(true)?;
        let stream = TcpStream::from_std(stream);
        Ok(Self {
            stream,
            in_flight: 0,
            losses: Losses::default(),
            wire,
            out: Vec::new(),
            written: 0,
            inbox: Vec::new(),
        })
    }

    /// Adds one request, made by `write`, and sends what the socket takes.
    pub(super) fn send<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> anyhow::Result<T> {
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
        let made = write(&mut self.out);
        self.in_flight += 1;
        self.flush()?;
        Ok(made)
    }

    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("the publishing connection broke"),
            }
        }
        Ok(())
    }

    /// Reads what is there and counts the answers. One that is not 200 is an error.
    pub(super) fn pump(&mut self, buffer: &mut [u8]) -> anyhow::Result<()> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => bail!("the server closed the publishing connection"),
                Ok(read) => self.inbox.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("the publishing connection broke"),
            }
        }
        let mut used = 0;
        while let Some(len) = match self.wire {
            Wire::Http => answer(&self.inbox[used..])?,
            Wire::Push => (used < self.inbox.len()).then_some(1),
        } {
            self.losses.count(&self.inbox[used..used + len]);
            used += len;
            self.in_flight = self.in_flight.checked_sub(1).context("an answer that nobody asked for")?;
        }
        self.inbox.drain(..used);
        Ok(())
    }
}

impl Losses {
    fn count(&mut self, answer: &[u8]) {
        let behind = |name: &[u8]| answer.windows(name.len()).position(|part| part == name).map(|at| at + name.len());
        self.full += u64::from(behind(FULL).is_some());
        // The first list is that of the whole answer.
        self.offline += u64::from(behind(OFFLINE).is_some_and(|at| answer.get(at) != Some(&b']')));
    }
}

/// The length of the whole answer at the front of `bytes`; `None` while it is not whole.
fn answer(bytes: &[u8]) -> anyhow::Result<Option<usize>> {
    let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end]).context("an answer whose head is no text")?;
    let lengths = head.lines().filter_map(|line| line.split_once(':'));
    let length = lengths.filter(|(name, _)| name.eq_ignore_ascii_case("content-length")).map(|(_, value)| value).next();
    let length: usize = length.context("an answer without a length")?.trim().parse()?;
    let whole = end + 4 + length;
    let Some(body) = bytes.get(end + 4..whole) else { return Ok(None) };
    if head.split(' ').nth(1) != Some("200") {
        bail!("the push was refused: {}", String::from_utf8_lossy(body));
    }
    Ok(Some(whole))
}

#[cfg(test)]
mod tests {
    use super::answer;

    #[test]
    fn answers_are_counted_when_whole() {
        let text = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}HTTP/1.1";
        assert_eq!(answer(text).unwrap(), Some(text.len() - 8));
        assert_eq!(answer(&text[..text.len() - 9]).unwrap(), None);
        assert_eq!(answer(b"HTTP/1.1 200").unwrap(), None);
    }

    #[test]
    fn a_refusal_is_an_error_that_says_why() {
        let error = answer(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 3\r\n\r\nwhy").unwrap_err();
        assert_eq!(error.to_string(), "the push was refused: why");
    }
}
