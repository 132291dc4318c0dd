//! The ledger compares the acknowledgements of publishers with the messages that each client received.
//!
//! `received = acked − declared losses`: in order for each publisher and stream, without duplicates after dedupe. It
//! holds for each connection from its bind reply to its closing marker, or to its last message if it ends earlier. A
//! [`Book`] records one publisher's messages and their answers, a [`Stay`] the messages of one connection; [`judge`]
//! compares them. Publishers are in `load`, clients in `crowd`, and `drill` runs a complete drill.

pub mod crowd;
pub mod drill;
mod judge;
pub mod load;
pub mod ways;

use std::time::{Duration, Instant};

pub use judge::{Counted, Verdict, judge};

/// Microseconds since the start of the drill.
pub type Moment = u64;

/// The only clock of a drill: publishers, clients and faults run in one process.
#[derive(Debug, Clone, Copy)]
pub struct Clock(Instant);

impl Clock {
    pub fn start() -> Self {
        Self(Instant::now())
    }

    pub fn now(self) -> Moment {
        u64::try_from(self.0.elapsed().as_micros()).unwrap()
    }
}

/// A unit of ordering: messages are in order within one stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stream {
    User(u32),
    Room(u32),
    Everyone,
}

/// Name of a user.
pub fn uid(user: u32) -> String {
    format!("u{user}")
}

/// Name of a room.
pub fn room(room: u32) -> String {
    format!("r{room}")
}

/// The answer to a publisher for one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Accepted: every connected recipient of the stream receives it.
    Acked,
    /// Accepted with the answer that it reached no client: a loss declared at once.
    Nobody,
    /// Not accepted.
    Refused,
    /// The connection broke before an answer arrived.
    Unknown,
}

/// One message as its publisher recorded it.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub stream: Stream,
    pub begun: Moment,
    pub ended: Moment,
    pub fate: Fate,
}

/// The messages of one publisher in order, with their answers.
#[derive(Debug)]
pub struct Book {
    pub publisher: u32,
    /// How it publishes, as text for people.
    pub way: &'static str,
    /// True if the intake keeps the order of its streams.
    pub is_ordered: bool,
    /// True if a fault may lose messages without declaring it, as in plain pub/sub.
    pub is_at_most_once: bool,
    pub entries: Vec<Entry>,
    /// The last message of each stream it used.
    pub markers: Vec<u64>,
    /// The longest answer time of a node that was up.
    pub slowest: Duration,
    /// Violations that must never happen.
    pub faults: Vec<String>,
}

impl Book {
    /// The message id of an entry: its publisher and its index in the book.
    pub fn id(&self, index: usize) -> u64 {
        message_id(self.publisher, index)
    }
}

/// Fits in the 53 bits of a JavaScript number.
pub fn message_id(publisher: u32, index: usize) -> u64 {
    (u64::from(publisher) + 1) << 32 | index as u64
}

/// Publisher and index of a message id; `None` if no publisher could have created the id.
pub fn parse_id(id: u64) -> Option<(u32, usize)> {
    let publisher = u32::try_from(id >> 32).ok()?.checked_sub(1)?;
    Some((publisher, usize::try_from(id & u64::from(u32::MAX)).unwrap()))
}

/// The text that a message carries; it must arrive unchanged.
pub fn text_of(id: u64) -> String {
    format!("{id:016x} {:016x}", id.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// The end of a stay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It received the last message of every publisher on each of its streams.
    Marked,
    /// The markers did not arrive in time.
    Unmarked,
    /// The client moved to another node.
    Left,
    /// The peer closed the connection: the close code, if there was one.
    Cut(Option<u16>),
}

/// The messages of one connection from its bind reply on.
#[derive(Debug)]
pub struct Stay {
    pub user: u32,
    pub device: u32,
    pub rooms: Vec<u32>,
    /// Index of the node.
    pub place: usize,
    pub bound: Moment,
    /// Message ids in order of arrival.
    pub heard: Vec<u64>,
    /// Times of the gap notices that it received.
    pub gaps: Vec<Moment>,
    pub end: End,
    /// Violations that must never happen.
    pub faults: Vec<String>,
}

impl Stay {
    /// True if the connection must receive this stream.
    pub fn is_for(&self, stream: Stream) -> bool {
        match stream {
            Stream::User(user) => user == self.user,
            Stream::Room(room) => self.rooms.contains(&room),
            Stream::Everyone => true,
        }
    }

    pub fn streams(&self) -> impl Iterator<Item = Stream> {
        let rooms = self.rooms.iter().map(|room| Stream::Room(*room));
        rooms.chain([Stream::User(self.user), Stream::Everyone])
    }
}

/// From the moment before a fault began to the moment after its repair.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub from: Moment,
    pub to: Moment,
}
