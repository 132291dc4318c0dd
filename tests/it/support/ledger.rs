//! The ledger: what publishers were told against what every client heard.
//!
//! `received = acked − declared losses`, in order per publisher and stream, nothing twice after dedupe, for each connection
//! from its bind reply to its closing marker (or, where it ends before, to the last message that it heard). A [`Book`] is
//! what one publisher did and was told, a [`Stay`] what one connection heard; [`judge`] holds them against each other.
//! Publishers are in `load`, clients in `crowd`, and `drill` plays a whole one.

pub mod crowd;
pub mod drill;
mod judge;
pub mod load;
pub mod ways;

use std::time::{Duration, Instant};

pub use judge::{Counted, Verdict, judge};

/// Microseconds since the drill began.
pub type Moment = u64;

/// The one clock of a drill: publishers, clients and faults are in one process.
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

/// What keeps an order of its own.
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

/// What its publisher was told of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Taken: whoever the stream is for and is connected gets it.
    Acked,
    /// Taken, and told that it reached nobody: a loss that was declared at once.
    Nobody,
    /// Not taken.
    Refused,
    /// The way broke before an answer came.
    Unknown,
}

/// One message, as its publisher knows it.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    pub stream: Stream,
    pub begun: Moment,
    pub ended: Moment,
    pub fate: Fate,
}

/// What one publisher published, in its order, and was told.
#[derive(Debug)]
pub struct Book {
    pub publisher: u32,
    /// How it publishes, for people.
    pub way: &'static str,
    /// Whether its streams keep their order on the way in.
    pub is_ordered: bool,
    /// Whether what a fault hits may be lost without a word: plain pub/sub.
    pub is_at_most_once: bool,
    pub entries: Vec<Entry>,
    /// The last message of each stream that it used.
    pub markers: Vec<u64>,
    /// The longest that an answer took from a node that was up.
    pub slowest: Duration,
    /// What must never happen, and did.
    pub faults: Vec<String>,
}

impl Book {
    /// The message id of an entry: its publisher, and its place in the book.
    pub fn id(&self, index: usize) -> u64 {
        message_id(self.publisher, index)
    }
}

/// Fits the 53 bits of a JavaScript number.
pub fn message_id(publisher: u32, index: usize) -> u64 {
    (u64::from(publisher) + 1) << 32 | index as u64
}

/// Publisher and index of a message id; `None` for what no publisher could have made.
pub fn parse_id(id: u64) -> Option<(u32, usize)> {
    let publisher = u32::try_from(id >> 32).ok()?.checked_sub(1)?;
    Some((publisher, usize::try_from(id & u64::from(u32::MAX)).unwrap()))
}

/// The text that a message carries: what comes must be what went.
pub fn text_of(id: u64) -> String {
    format!("{id:016x} {:016x}", id.wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

/// How a stay ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// It heard the last message of every publisher on each of its streams.
    Marked,
    /// It waited for the markers until its patience was over.
    Unmarked,
    /// It went elsewhere by its own will.
    Left,
    /// Somebody else ended it: the close code, where there was one.
    Cut(Option<u16>),
}

/// What one connection heard, from its bind reply on.
#[derive(Debug)]
pub struct Stay {
    pub user: u32,
    pub device: u32,
    pub rooms: Vec<u32>,
    /// Where.
    pub place: usize,
    pub bound: Moment,
    /// Message ids, in order.
    pub heard: Vec<u64>,
    /// When it was told that it may have missed something.
    pub gaps: Vec<Moment>,
    pub end: End,
    /// What must never happen, and did.
    pub faults: Vec<String>,
}

impl Stay {
    /// Whether this is for it.
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

/// From the moment before something was broken to the moment after it was whole again.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub from: Moment,
    pub to: Moment,
}
