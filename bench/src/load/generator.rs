//! The load generator: thousands of receivers and a few publishers in one thread and one poll, without an async
//! runtime.
//!
//! Handles bytes and sequences; [`super::traffic`] decides the receivers of each message.

mod channel;
mod pipe;
mod receiver;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use mio::{Events, Interest, Poll, Registry, Token};

pub(crate) use receiver::{Faults, Pace, Tally};

use super::wire::Wire;
use crate::peer::PeerClient;
use crate::subject::tls::Trust;
use channel::Channel;
pub(crate) use pipe::Losses;
use pipe::Pipe;
use receiver::{Receiver, State};

/// Connection plan of receivers.
#[derive(Debug, Clone)]
pub(crate) struct Dial {
    pub(crate) address: SocketAddr,
    /// Set if they use TLS.
    pub(crate) trust: Option<Trust>,
    /// First request of each receiver.
    pub(crate) requests: Vec<FirstRequest>,
    /// True if a bind reply follows the upgrade.
    pub(crate) awaits_bind: bool,
}

/// Start of one receiver.
#[derive(Debug, Clone)]
pub(crate) struct FirstRequest {
    /// The first bytes it sends.
    pub(crate) opening: Vec<u8>,
    /// State for a peer.
    pub(crate) client: Option<Box<PeerClient>>,
}

impl From<Vec<u8>> for FirstRequest {
    fn from(opening: Vec<u8>) -> Self {
        Self { opening, client: None }
    }
}

pub(crate) struct Generator {
    poll: Poll,
    events: Events,
    buffer: Vec<u8>,
    receivers: Vec<Receiver>,
    pipes: Vec<Pipe>,
    ticks: u64,
    start: Instant,
    /// Time of the next read of slow receivers.
    next_slow_read: Option<Instant>,
    pub(crate) tally: Tally,
}

const BUFFER: usize = 256 * 1024;
/// Token of the first publisher; receivers count from 0.
const FIRST_PIPE: usize = 1 << 24;
/// Token of the timer.
pub(crate) const TIMER: Token = Token(1 << 25);
/// Concurrent connects.
const DIALS: usize = 64;
/// Bytes and interval of a slow receiver's reads: 80 KB/s.
const SLOW_READ_BYTES: usize = 4096;
const SLOW_READ_INTERVAL: Duration = Duration::from_millis(50);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

impl Generator {
    pub(crate) fn new() -> anyhow::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1024),
            buffer: vec![0; BUFFER],
            receivers: Vec::new(),
            pipes: Vec::new(),
            ticks: 0,
            start: Instant::now(),
            next_slow_read: None,
            tally: Tally::default(),
        })
    }

    /// Nanoseconds since the start: the clock of stamps.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(crate) fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Opens receivers, a limited number at a time, until all can be pushed to.
    pub(crate) fn connect(&mut self, dial: &Dial) -> anyhow::Result<()> {
        let base = self.receivers.len();
        let mut last_progress = Instant::now();
        let mut done = 0;
        while done < dial.requests.len() {
            while self.receivers.len() - base < (done + DIALS).min(dial.requests.len()) {
                let number = self.receivers.len();
                let mut receiver = open(dial, number - base)?;
                self.poll.registry().register(&mut receiver.channel.tcp, Token(number), Interest::READABLE)?;
                self.receivers.push(receiver);
            }
            self.turn(Some(Duration::from_millis(100)))?;
            let live = self.receivers[base + done..].iter().take_while(|r| r.state == State::Live).count();
            done += live;
            if live > 0 {
                last_progress = Instant::now();
            }
            if self.tally.faults.lost > 0 {
                bail!("the server refused or closed a connection after {done} of {}", dial.requests.len());
            }
            if last_progress.elapsed() > CONNECT_TIMEOUT {
                bail!("no connection opened within {CONNECT_TIMEOUT:?}, after {done} of {}", dial.requests.len());
            }
        }
        Ok(())
    }

    /// Opens publishers, replacing the existing ones.
    pub(crate) fn open_pipes(&mut self, address: SocketAddr, wire: Wire, count: u32) -> anyhow::Result<()> {
        self.pipes.clear();
        for number in 0..count as usize {
            let mut pipe = Pipe::open(address, wire)?;
            register(self.poll.registry(), &mut pipe, number)?;
            self.pipes.push(pipe);
        }
        Ok(())
    }

    /// Requests of one publisher without a response.
    pub(crate) fn in_flight(&self, pipe: u32) -> usize {
        self.pipes[pipe as usize].in_flight
    }

    /// Losses that the responses to one publisher reported.
    pub(crate) fn losses(&self, pipe: u32) -> Losses {
        self.pipes[pipe as usize].losses
    }

    /// Sends one request, written by `write`.
    pub(crate) fn send(&mut self, pipe: u32, write: impl FnOnce(&mut Vec<u8>)) -> anyhow::Result<()> {
        let number = pipe as usize;
        let pipe = &mut self.pipes[number];
        if pipe.has_ended {
            pipe.reopen()?;
            register(self.poll.registry(), pipe, number)?;
        }
        pipe.send(write)
    }

    /// Slows down the last `count` receivers to `pace`. Their sockets get small buffers.
    pub(crate) fn slow_down(&mut self, count: u32, pace: Pace) -> anyhow::Result<()> {
        let from = self.receivers.len() - count as usize;
        for receiver in &mut self.receivers[from..] {
            receiver.pace = pace;
            rustix::net::sockopt::set_socket_recv_buffer_size(&receiver.channel.tcp, 4096)?;
        }
        self.next_slow_read = (pace == Pace::Slow).then(Instant::now);
        Ok(())
    }

    /// Lets slow receivers read a little when it is time.
    fn read_slowly(&mut self) {
        if self.next_slow_read.is_none_or(|at| Instant::now() < at) {
            return;
        }
        self.next_slow_read = Some(Instant::now() + SLOW_READ_INTERVAL);
        for receiver in self.receivers.iter_mut().rev().take_while(|receiver| receiver.pace == Pace::Slow) {
            receiver.read_slowly(&mut self.buffer[..SLOW_READ_BYTES]);
        }
    }

    /// Restarts every sequence; no message may be in flight.
    pub(crate) fn restart_sequences(&mut self) {
        self.receivers.iter_mut().for_each(|receiver| receiver.next = 0);
    }

    /// Waits for events and processes them. Returns the timer ticks since the last call.
    pub(crate) fn turn(&mut self, patience: Option<Duration>) -> anyhow::Result<u64> {
        match self.poll.poll(&mut self.events, patience) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => return Ok(0),
            other => other.context("cannot wait for sockets")?,
        }
        // Taken out, so that the rest of `self` can be borrowed meanwhile.
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        self.read_slowly();
        let done = events.iter().try_for_each(|event| self.process_event(event.token(), event.is_writable()));
        self.events = events;
        done?;
        Ok(std::mem::take(&mut self.ticks))
    }

    /// Serves the sockets for this time.
    pub(crate) fn idle(&mut self, time: Duration) -> anyhow::Result<()> {
        let end = Instant::now() + time;
        while let Some(left) = end.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            self.turn(Some(left))?;
        }
        Ok(())
    }

    fn process_event(&mut self, Token(token): Token, writable: bool) -> anyhow::Result<()> {
        if token == TIMER.0 {
            self.ticks += 1;
        } else if token >= FIRST_PIPE {
            let pipe = &mut self.pipes[token - FIRST_PIPE];
            if writable {
                pipe.flush()?;
            }
            pipe.pump(&mut self.buffer)?;
            if let Some(request) = pipe.next_queued() {
                let number = u32::try_from(token - FIRST_PIPE).context("a publisher's number")?;
                self.send(number, |out| out.extend_from_slice(&request))?;
            }
        } else {
            let now = self.now();
            // Only current receivers. Sockets of earlier ones have left the poll.
            if let Some(receiver) = self.receivers.get_mut(token) {
                receiver.pump(&mut self.buffer, &mut self.tally, now);
            }
        }
        Ok(())
    }
}

fn register(registry: &Registry, pipe: &mut Pipe, number: usize) -> std::io::Result<()> {
    registry.register(&mut pipe.stream, Token(FIRST_PIPE + number), Interest::READABLE | Interest::WRITABLE)
}

fn open(dial: &Dial, number: usize) -> anyhow::Result<Receiver> {
    let FirstRequest { opening, client } = &dial.requests[number];
    let opened = Channel::open(dial.address, dial.trust.as_ref(), opening);
    let channel = opened.with_context(|| format!("cannot open connection {number}"))?;
    Ok(Receiver::new(channel, dial.awaits_bind, client.clone()))
}
