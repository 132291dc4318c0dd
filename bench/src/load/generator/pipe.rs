//! One publishing connection: sends requests and counts responses. HTTP for a node or a peer, the push protocol for a
//! reference server.

use std::collections::VecDeque;
use std::io::{self, Read as _, Write as _};
use std::net::SocketAddr;

use anyhow::{Context as _, bail};
use mio::net::TcpStream;

use super::super::wire::Wire;
use crate::peer::Peer;

#[derive(Debug)]
pub(super) struct Pipe {
    pub(super) stream: TcpStream,
    /// Requests without a response.
    pub(super) in_flight: usize,
    pub(super) losses: Losses,
    address: SocketAddr,
    wire: Wire,
    /// The server has announced that it closes the connection.
    pub(super) has_ended: bool,
    /// Requests held back until the previous one is answered.
    queued_requests: VecDeque<Vec<u8>>,
    out: Vec<u8>,
    written: usize,
    inbox: Vec<u8>,
}

/// Number of responses that reported lost messages.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Losses {
    /// A queue was full.
    pub(crate) full: u64,
    /// A receiver was offline.
    pub(crate) offline: u64,
}

const FULL: &[u8] = br#""full":"#;
const OFFLINE: &[u8] = br#""offline":["#;

impl Pipe {
    pub(super) fn open(address: SocketAddr, wire: Wire) -> anyhow::Result<Self> {
        Ok(Self {
            stream: dial(address, wire)?,
            in_flight: 0,
            losses: Losses::default(),
            address,
            wire,
            has_ended: false,
            queued_requests: VecDeque::new(),
            out: Vec::new(),
            written: 0,
            inbox: Vec::new(),
        })
    }

    /// Reconnects to a server that closes the connection after a response. The caller must register the new socket.
    pub(super) fn reopen(&mut self) -> anyhow::Result<()> {
        self.stream = dial(self.address, self.wire)?;
        self.has_ended = false;
        self.inbox.clear();
        Ok(())
    }

    /// Takes the next request held back, if no other is in flight.
    pub(super) fn next_queued(&mut self) -> Option<Vec<u8>> {
        if self.in_flight > self.queued_requests.len() {
            return None;
        }
        let request = self.queued_requests.pop_front()?;
        self.in_flight -= 1;
        Some(request)
    }

    /// Adds one request, written by `write`, and sends as much as the socket accepts, or holds it back.
    pub(super) fn send(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> anyhow::Result<()> {
        if self.in_flight > self.queued_requests.len() && !self.wire.pipelines() {
            let mut request = Vec::new();
            write(&mut request);
            self.queued_requests.push_back(request);
            self.in_flight += 1;
            return Ok(());
        }
        if self.written == self.out.len() {
            self.out.clear();
            self.written = 0;
        }
        write(&mut self.out);
        self.in_flight += 1;
        self.flush()
    }

    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("the publishing connection failed"),
            }
        }
        Ok(())
    }

    /// Reads the available bytes and counts responses. A response other than 200 is an error.
    pub(super) fn pump(&mut self, buffer: &mut [u8]) -> anyhow::Result<()> {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => {
                    // The close was announced, or the last response contains the reason.
                    if self.has_ended || answer(&self.inbox)?.is_some_and(|answer| answer.closes) {
                        break;
                    }
                    bail!("the server closed the publishing connection");
                }
                Ok(read) => self.inbox.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("the publishing connection failed"),
            }
        }
        let mut used = 0;
        while let Some(len) = match self.wire {
            Wire::Http | Wire::Peer(_) => answer(&self.inbox[used..])?.map(|answer| {
                self.has_ended |= answer.closes;
                answer.len
            }),
            Wire::Push => (used < self.inbox.len()).then_some(1),
        } {
            let response = &self.inbox[used..used + len];
            match self.wire {
                Wire::Peer(peer) => refuse(peer, response)?,
                Wire::Http | Wire::Push => self.losses.count(response),
            }
            used += len;
            self.in_flight = self.in_flight.checked_sub(1).context("a response without a request")?;
        }
        self.inbox.drain(..used);
        Ok(())
    }
}

impl Losses {
    fn count(&mut self, answer: &[u8]) {
        let behind = |name: &[u8]| answer.windows(name.len()).position(|part| part == name).map(|at| at + name.len());
        self.full += u64::from(behind(FULL).is_some());
        // The first list belongs to the whole response.
        self.offline += u64::from(behind(OFFLINE).is_some_and(|at| answer.get(at) != Some(&b']')));
    }
}

fn dial(address: SocketAddr, wire: Wire) -> anyhow::Result<TcpStream> {
    let mut stream = std::net::TcpStream::connect(address).context("cannot open a publishing connection")?;
    stream.set_nodelay(true)?;
    if wire == Wire::Push {
        stream.write_all(super::super::wire::PUSH)?;
    }
    stream.set_nonblocking(true)?;
    Ok(TcpStream::from_std(stream))
}

#[derive(Debug, PartialEq, Eq)]
struct Answer {
    len: usize,
    /// The server closes the connection after this response.
    closes: bool,
}

/// The complete response at the start of `bytes`; `None` if it is incomplete.
fn answer(bytes: &[u8]) -> anyhow::Result<Option<Answer>> {
    let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") else { return Ok(None) };
    let head = std::str::from_utf8(&bytes[..end]).context("a response with a head that is not UTF-8")?;
    let header = |wanted: &str| {
        let mut headers = head.lines().filter_map(|line| line.split_once(':'));
        headers.find(|(name, _)| name.eq_ignore_ascii_case(wanted)).map(|(_, value)| value.trim())
    };
    let length = match (header("content-length"), header("transfer-encoding")) {
        (Some(length), _) => Some(length.parse()?),
        (None, Some("chunked")) => chunked(&bytes[end + 4..])?,
        _ => bail!("a response without a length"),
    };
    let Some(whole) = length.map(|length| end + 4 + length) else { return Ok(None) };
    let Some(body) = bytes.get(end + 4..whole) else { return Ok(None) };
    if head.split(' ').nth(1) != Some("200") {
        bail!("the push was refused: {}", String::from_utf8_lossy(body));
    }
    let closes = header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok(Some(Answer { len: whole, closes }))
}

/// Length of a chunked body including its framing; `None` if it is incomplete. Trailers are not supported.
fn chunked(bytes: &[u8]) -> anyhow::Result<Option<usize>> {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let Some(line) = rest.windows(2).position(|part| part == b"\r\n") else { return Ok(None) };
        let size = std::str::from_utf8(&rest[..line]).ok().and_then(|size| usize::from_str_radix(size, 16).ok());
        let size = size.context("a chunk without a size")?;
        at = line.checked_add(size).and_then(|len| at.checked_add(len + 4)).context("a chunk without an end")?;
        if size == 0 {
            return Ok(Some(at));
        }
    }
}

/// A response of 200 may still contain a refusal.
fn refuse(peer: &Peer, answer: &[u8]) -> anyhow::Result<()> {
    let body = answer.windows(4).position(|part| part == b"\r\n\r\n").map_or(answer, |end| &answer[end + 4..]);
    if peer.adapter.is_refusal(body) {
        bail!("the push was refused: {}", String::from_utf8_lossy(body));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(bytes: &[u8]) -> anyhow::Result<Option<usize>> {
        Ok(super::answer(bytes)?.map(|answer| answer.len))
    }

    #[test]
    fn second_request_without_pipelining_waits_for_the_first_answer() {
        let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let peer = format!("pusher=ws://{},id=a,key=k,secret=s", server.local_addr().unwrap());
        let peer: &'static Peer = Box::leak(Box::new(Peer::parse(&peer).unwrap()));
        let mut pipe = Pipe::open(peer.api, Wire::Peer(peer)).unwrap();
        pipe.send(|out| out.push(1)).unwrap();
        pipe.send(|out| out.push(2)).unwrap();
        assert_eq!((pipe.next_queued(), pipe.in_flight), (None, 2));
        let (mut socket, _) = server.accept().unwrap();
        socket.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}").unwrap();
        pipe.pump(&mut [0; 1024]).unwrap();
        assert!(pipe.has_ended);
        assert_eq!((pipe.next_queued(), pipe.in_flight), (Some(vec![2]), 0));
    }

    #[test]
    fn answer_with_connection_close_ends_the_connection() {
        let text = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
        assert!(super::answer(text).unwrap().unwrap().closes);
    }

    #[test]
    fn a_chunked_answer_ends_with_its_empty_chunk() {
        let text =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n{\"replies\":\r\n3\r\n[]}\r\n0\r\n\r\nHTTP";
        assert_eq!(answer(text).unwrap(), Some(text.len() - 4));
        for short in [5, 9, 20] {
            assert_eq!(answer(&text[..text.len() - short]).unwrap(), None, "{short}");
        }
        assert!(answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n").is_err());
    }

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
