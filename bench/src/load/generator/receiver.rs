//! One receiving connection: cheap enough for thousands, and it checks every message.

use std::io;

use hdrhistogram::Histogram;

use super::super::payload::{self, Mark, SAMPLE};
use super::super::websocket::{self, CLOSE, Frame, Kind, PING, PONG};
use super::channel::Channel;
use crate::peer::{PartKind, PeerClient};
use crate::results::stats;

/// Counters over all receivers of a run.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) deliveries: u64,
    pub(crate) bytes: u64,
    /// Heartbeats; each was answered.
    pub(crate) pings: u64,
    /// Nanoseconds since the intended time of sending.
    pub(crate) latency: Histogram<u64>,
    pub(crate) faults: Faults,
    /// Offset of the text in the last frame.
    hint: usize,
}

/// Errors of a run. Slow and stuck receivers may be closed and are not counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Faults {
    pub(crate) missed: u64,
    pub(crate) doubled: u64,
    pub(crate) corrupt: u64,
    /// Connections closed by the server.
    pub(crate) lost: u64,
}

impl Faults {
    pub(crate) fn is_none(self) -> bool {
        self == Self::default()
    }
}

impl Default for Tally {
    fn default() -> Self {
        Self { deliveries: 0, bytes: 0, pings: 0, latency: stats::histogram(), faults: Faults::default(), hint: 0 }
    }
}

/// Progress of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The upgrade response is awaited; `true`: a bind reply follows it.
    Upgrading(bool),
    Binding,
    Live,
    Closed,
}

/// Read behaviour of a receiver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// Reads everything at once.
    Eager,
    /// Reads a little at intervals, without checks.
    Slow,
    /// Reads nothing more.
    Stuck,
}

#[derive(Debug)]
pub(super) struct Receiver {
    pub(super) channel: Channel,
    pub(super) state: State,
    pub(super) pace: Pace,
    /// The next expected sequence.
    pub(super) next: u32,
    /// An incomplete frame.
    rest: Vec<u8>,
    /// State for the peer.
    client: Option<Box<PeerClient>>,
}

impl Receiver {
    pub(super) fn new(channel: Channel, awaits_bind: bool, client: Option<Box<PeerClient>>) -> Self {
        let is_plain = client.as_ref().is_some_and(|client| client.peer.adapter.upgrade().is_none());
        let state = if is_plain { State::Binding } else { State::Upgrading(awaits_bind) };
        Self { channel, state, pace: Pace::Eager, next: 0, rest: Vec::new(), client }
    }

    /// Reads up to `buffer.len()` bytes and drops them.
    pub(super) fn read_slowly(&mut self, buffer: &mut [u8]) {
        // A closed connection is detected by the check at the end.
        let _ = self.channel.read(buffer);
    }

    /// Reads and processes all available input. `now` is the generator's clock.
    pub(super) fn pump(&mut self, buffer: &mut [u8], tally: &mut Tally, now: u64) {
        while self.state != State::Closed && self.pace == Pace::Eager {
            let kept = self.rest.len();
            buffer[..kept].copy_from_slice(&self.rest);
            self.rest.clear();
            let read = match self.channel.read(&mut buffer[kept..]) {
                Ok(0) => return self.end(tally),
                Ok(read) => read,
                Err(error) => {
                    self.rest.extend_from_slice(&buffer[..kept]);
                    match error.kind() {
                        io::ErrorKind::WouldBlock => return,
                        io::ErrorKind::Interrupted => continue,
                        _ => return self.end(tally),
                    }
                }
            };
            let filled = kept + read;
            let used = self.take(&buffer[..filled], tally, now);
            self.rest.extend_from_slice(&buffer[used..filled]);
            // The next byte triggers the next event.
            if filled < buffer.len() && self.channel.is_empty_after_short_read() {
                return;
            }
        }
    }

    /// Returns the number of processed bytes.
    fn take(&mut self, bytes: &[u8], tally: &mut Tally, now: u64) -> usize {
        let mut used = 0;
        if let State::Upgrading(awaits_bind) = self.state {
            let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") else { return 0 };
            if !bytes.starts_with(b"HTTP/1.1 101") {
                self.end(tally);
                return bytes.len();
            }
            self.state = if awaits_bind { State::Binding } else { State::Live };
            used = end + 4;
            if let Some(client) = &self.client {
                let hello = client.peer.adapter.hello(client);
                self.send(&hello);
            }
        }
        while let Some(frame) = self.split(&bytes[used..]) {
            used += frame.len;
            if frame.opcode == CLOSE {
                self.end(tally);
            }
            if self.state == State::Closed {
                return bytes.len();
            }
            if let Some(mut client) = self.client.take() {
                self.process_peer_frame(&mut client, &frame, tally, now);
                self.client = Some(client);
                continue;
            }
            match websocket::kind(frame.payload) {
                Kind::Message => {
                    tally.bytes += frame.len as u64;
                    self.check_message(frame.payload, tally, now);
                }
                Kind::Reply if self.state == State::Binding => self.state = State::Live,
                Kind::Ping => {
                    tally.pings += 1;
                    self.send(&websocket::pong(frame.opcode));
                }
                Kind::Reply | Kind::Other => {}
            }
        }
        used
    }

    fn split<'a>(&self, bytes: &'a [u8]) -> Option<Frame<'a>> {
        match &self.client {
            None => websocket::split(bytes),
            Some(client) => client.peer.adapter.split(bytes),
        }
    }

    /// Processes a frame of a peer, which may contain several messages.
    fn process_peer_frame(&mut self, client: &mut PeerClient, frame: &Frame<'_>, tally: &mut Tally, now: u64) {
        if frame.opcode == PING {
            tally.pings += 1;
            return self.send(&websocket::from_client(PONG, frame.payload));
        }
        tally.bytes += frame.len as u64;
        let adapter = &client.peer.adapter;
        let mut rest = frame.payload;
        while !rest.is_empty() {
            let part = adapter.part(rest);
            rest = &rest[part.len..];
            match part.kind {
                PartKind::Message => self.check_message(part.body, tally, now),
                PartKind::Welcome => {
                    client.awaited = client.awaited.saturating_sub(1);
                    if client.awaited == 0 && self.state == State::Binding {
                        self.state = State::Live;
                    }
                }
                PartKind::NeedsAnswer => {
                    tally.pings += u64::from(self.state == State::Live);
                    self.send(&adapter.answer(client, part));
                }
                PartKind::Refusal => self.end(tally),
                PartKind::Invalid => tally.faults.corrupt += 1,
                PartKind::Other => {}
            }
        }
    }

    /// Sends bytes that fit into any socket that is not stuck. A failure shows as a closed connection.
    fn send(&mut self, bytes: &[u8]) {
        drop(self.channel.write(bytes));
    }

    fn check_message(&mut self, payload: &[u8], tally: &mut Tally, now: u64) {
        tally.deliveries += 1;
        let found = payload::find(payload, tally.hint).and_then(|at| Some((at, payload::read(&payload[at..])?)));
        let Some((at, Mark { sequence, stamp })) = found else {
            tally.faults.corrupt += 1;
            return;
        };
        tally.hint = at;
        if sequence % SAMPLE == 0 && !payload::is_intact(&payload[at..]) {
            tally.faults.corrupt += 1;
        }
        self.next = next_sequence(self.next, sequence, &mut tally.faults);
        tally.latency.saturating_record(now.saturating_sub(stamp).max(1));
    }

    fn end(&mut self, tally: &mut Tally) {
        tally.faults.lost += u64::from(self.state != State::Closed && self.pace == Pace::Eager);
        self.state = State::Closed;
    }
}

/// Counts the fault if `sequence` differs from `next`, and returns the new expected sequence.
fn next_sequence(next: u32, sequence: u32, faults: &mut Faults) -> u32 {
    if sequence < next {
        faults.doubled += 1;
        return next;
    }
    faults.missed += u64::from(sequence - next);
    sequence + 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(sequences: &[u32]) -> Faults {
        let mut faults = Faults::default();
        sequences.iter().fold(0, |next, sequence| next_sequence(next, *sequence, &mut faults));
        faults
    }

    #[test]
    fn consecutive_numbers_are_no_fault() {
        assert!(faults(&[0, 1, 2, 3]).is_none());
    }

    #[test]
    fn gap_counts_each_missing_message() {
        assert_eq!(faults(&[0, 3, 4]), Faults { missed: 2, ..Faults::default() });
    }

    #[test]
    fn a_message_that_comes_again_or_late_is_told() {
        assert_eq!(faults(&[0, 1, 1, 2]), Faults { doubled: 1, ..Faults::default() });
        assert_eq!(faults(&[1, 0]), Faults { missed: 1, doubled: 1, ..Faults::default() });
    }
}
