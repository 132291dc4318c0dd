//! The upper limit: one thread, one poll, no allocation per delivery. Frames are encoded once and written unchanged.

use std::io::{self, Read as _, Write as _};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use super::{LOOPBACK, Push, number, request};
use crate::load::websocket::{self, BINARY};
use crate::load::wire::PUSH;

/// Serves until it is killed. `coalesce`: one write per connection and request instead of per delivery.
pub(super) fn run(coalesce: bool) -> anyhow::Result<()> {
    let poll = Poll::new()?;
    let mut listener = TcpListener::bind(LOOPBACK)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    crate::print(&format!("ready {}", listener.local_addr()?))?;
    let mut server = Server { coalesce, poll, connections: Vec::new(), receivers: Vec::new(), dirty: Vec::new() };
    let mut events = Events::with_capacity(1024);
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match server.poll.poll(&mut events, None) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error.into()),
            _ => {}
        }
        for event in &events {
            match event.token() {
                LISTENER => server.accept(&listener)?,
                Token(at) => server.serve(at, &mut buffer),
            }
        }
    }
}

const LISTENER: Token = Token(usize::MAX);
/// A fixed response, regardless of the client's key: the generator does not verify it.
const UPGRADED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

struct Server {
    coalesce: bool,
    poll: Poll,
    connections: Vec<Option<Connection>>,
    /// Index in `connections` by the receiver's number.
    receivers: Vec<usize>,
    dirty: Vec<usize>,
}

struct Connection {
    stream: TcpStream,
    role: Role,
    inbox: Vec<u8>,
    /// Bytes that the socket has not accepted yet.
    outbox: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Unknown,
    Receiver,
    Publisher,
}

impl Server {
    fn accept(&mut self, listener: &TcpListener) -> io::Result<()> {
        loop {
            let mut stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let at = self.connections.len();
            self.poll.registry().register(&mut stream, Token(at), Interest::READABLE | Interest::WRITABLE)?;
            let connection = Connection { stream, role: Role::Unknown, inbox: Vec::new(), outbox: Vec::new() };
            self.connections.push(Some(connection));
        }
    }

    fn serve(&mut self, at: usize, buffer: &mut [u8]) {
        let Some(connection) = self.connections[at].as_mut() else { return };
        if !connection.flush() || !connection.read(buffer) {
            self.connections[at] = None;
            return;
        }
        if connection.role == Role::Unknown {
            connection.greet(at, &mut self.receivers);
        }
        if connection.role == Role::Publisher {
            let inbox = std::mem::take(&mut connection.inbox);
            let used = self.push(at, &inbox);
            if let Some(connection) = self.connections[at].as_mut() {
                connection.inbox = inbox;
                connection.inbox.drain(..used);
            }
        }
    }

    /// Processes every complete request of publisher `at`; returns the number of bytes processed.
    fn push(&mut self, at: usize, inbox: &[u8]) -> usize {
        let mut used = 0;
        while let Some((items, len)) = request(&inbox[used..]) {
            used += len;
            if self.coalesce {
                self.deliver_at_once(&items);
            } else {
                self.deliver_each(&items);
            }
            self.write(at, b".");
        }
        used
    }

    fn deliver_each(&mut self, items: &[Push<'_>]) {
        let mut frame = Vec::new();
        for item in items {
            frame.clear();
            websocket::put(&mut frame, BINARY, item.body);
            for number in item.first..item.first + item.count {
                self.write(self.receivers[number], &frame);
            }
        }
    }

    fn deliver_at_once(&mut self, items: &[Push<'_>]) {
        let mut frames = Vec::new();
        let (first, count) = (items[0].first, items[0].count);
        if items.iter().all(|item| (item.first, item.count) == (first, count)) {
            items.iter().for_each(|item| websocket::put(&mut frames, BINARY, item.body));
            (first..first + count).for_each(|number| self.write(self.receivers[number], &frames));
            return;
        }
        for item in items {
            frames.clear();
            websocket::put(&mut frames, BINARY, item.body);
            for number in item.first..item.first + item.count {
                let at = self.receivers[number];
                if let Some(Some(connection)) = self.connections.get_mut(at) {
                    connection.outbox.extend_from_slice(&frames);
                    self.dirty.push(at);
                }
            }
        }
        for at in self.dirty.drain(..) {
            if self.connections[at].as_mut().is_some_and(|connection| !connection.flush()) {
                self.connections[at] = None;
            }
        }
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        // Unknown receiver numbers are ignored.
        let Some(Some(connection)) = self.connections.get_mut(at) else { return };
        if !connection.write(bytes) {
            self.connections[at] = None;
        }
    }
}

/// Each method returns `false` when the connection is over.
impl Connection {
    fn read(&mut self, buffer: &mut [u8]) -> bool {
        loop {
            match self.stream.read(buffer) {
                Ok(0) => return false,
                // Input of a receiver after its upgrade is ignored.
                Ok(_) if self.role == Role::Receiver => {}
                Ok(read) => self.inbox.extend_from_slice(&buffer[..read]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
    }

    /// Determines the role of the connection.
    fn greet(&mut self, at: usize, receivers: &mut Vec<usize>) {
        if self.inbox.starts_with(PUSH) {
            self.inbox.drain(..PUSH.len());
            self.role = Role::Publisher;
        } else if self.inbox.ends_with(b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&self.inbox);
            let number = number(head.lines().next().unwrap_or_default()).unwrap_or(receivers.len());
            if receivers.len() <= number {
                receivers.resize(number + 1, usize::MAX);
            }
            receivers[number] = at;
            self.role = Role::Receiver;
            self.inbox = Vec::new();
            self.write(UPGRADED);
        }
    }

    fn write(&mut self, bytes: &[u8]) -> bool {
        if !self.outbox.is_empty() {
            // The socket is full; an event reports when it is writable.
            self.outbox.extend_from_slice(bytes);
            return true;
        }
        match self.stream.write(bytes) {
            Ok(written) => self.outbox.extend_from_slice(&bytes[written..]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.outbox.extend_from_slice(bytes),
            Err(_) => return false,
        }
        true
    }

    fn flush(&mut self) -> bool {
        while !self.outbox.is_empty() {
            match self.stream.write(&self.outbox) {
                Ok(written) => drop(self.outbox.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}
