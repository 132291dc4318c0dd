//! One stream in memory: numbering, ring of messages, and the turn of its publishers.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;

use crate::broker::history::{KeptMessage, MAX_PAGE_BYTES, Missed, Page, Range, Start};
use crate::config::StreamBounds;
use crate::message::{Envelope, Epoch, Position, Receipt, same_id};

/// Approximate size of a stream without messages, with its name and its places in the maps.
const OWN_BYTES: usize = 256;

/// A stream. Its messages have the offsets up to `top`, without a gap.
pub(super) struct Stream {
    epoch: Epoch,
    top: u64,
    /// Id of the last message.
    top_id: i64,
    /// The last messages.
    ring: VecDeque<KeptMessage>,
    /// Bytes of the ring.
    ring_bytes: usize,
    /// Time of the last append.
    appended: Duration,
    /// Time at which the messages expire.
    until: Duration,
    /// Key in the map's order of appends.
    pub(super) age: u64,
    /// Number of the batch whose publisher delivers now.
    owner: Option<u64>,
    waiting: Vec<Waiting>,
}

/// Right or duty to deliver an appended envelope.
pub(in crate::broker) enum Turn {
    /// The publisher delivers it.
    Own,
    /// Another publisher delivers it after its own, and sends the receipt.
    Other(oneshot::Receiver<Receipt>),
}

/// An appended envelope that another publisher delivers.
pub(in crate::broker) struct Waiting {
    /// The envelope.
    pub envelope: Envelope,
    /// Its position.
    pub position: Position,
    /// Takes its receipt.
    pub reply: oneshot::Sender<Receipt>,
}

impl Stream {
    pub(super) fn new(epoch: Epoch) -> Self {
        Self {
            epoch,
            top: 0,
            top_id: 0,
            ring: VecDeque::new(),
            ring_bytes: 0,
            appended: Duration::ZERO,
            until: Duration::ZERO,
            age: 0,
            owner: None,
            waiting: Vec::new(),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        OWN_BYTES + self.ring_bytes
    }

    /// Appends a message that lives for `ttl` from now on. A short `ttl` does not shorten the life of earlier messages.
    pub(super) fn append(&mut self, message: KeptMessage, now: Duration, ttl: Duration) -> Position {
        self.top += 1;
        self.top_id = message.message.id;
        self.ring_bytes += message.approximate_bytes();
        self.ring.push_back(message);
        self.appended = now;
        self.until = self.until.max(now + ttl);
        self.position()
    }

    /// Removes the oldest messages beyond the bounds. The newest one stays.
    pub(super) fn trim(&mut self, bounds: StreamBounds) {
        while self.ring.len() > 1 && (self.ring.len() > bounds.size || self.ring_bytes > bounds.bytes) {
            if let Some(oldest) = self.ring.pop_front() {
                self.ring_bytes -= oldest.approximate_bytes();
            }
        }
    }

    /// Removes all messages once their time is over.
    pub(super) fn expire(&mut self, now: Duration) {
        if now >= self.until && !self.ring.is_empty() {
            self.ring = VecDeque::new();
            self.ring_bytes = 0;
        }
    }

    /// True if nothing was appended for `ttl` and no publisher delivers.
    pub(super) fn is_over(&self, now: Duration, ttl: Duration) -> bool {
        self.is_idle() && self.ring.is_empty() && now >= self.appended + ttl
    }

    /// True if no publisher delivers.
    pub(super) fn is_idle(&self) -> bool {
        self.owner.is_none()
    }

    /// Forgets messages and numbering.
    pub(super) fn begin_again(&mut self, epoch: Epoch) {
        (self.epoch, self.top, self.top_id) = (epoch, 0, 0);
        (self.ring, self.ring_bytes, self.until) = (VecDeque::new(), 0, Duration::ZERO);
    }

    /// Gives the turn to the batch `owner`, or queues the envelope while another batch has the turn. An owner whose
    /// stream has waiting envelopes queues too, so that the order of the offsets is the order of delivery.
    pub(super) fn take_turn(&mut self, owner: u64, envelope: &Envelope, position: Position) -> Turn {
        let is_free = self.owner.is_none_or(|current| current == owner);
        if is_free && self.waiting.is_empty() {
            self.owner = Some(owner);
            return Turn::Own;
        }
        let (reply, receipt) = oneshot::channel();
        self.waiting.push(Waiting { envelope: envelope.clone(), position, reply });
        Turn::Other(receipt)
    }

    /// Takes the waiting envelopes. Without any the turn ends.
    pub(super) fn next_waiting(&mut self) -> Vec<Waiting> {
        if self.waiting.is_empty() {
            self.owner = None;
        }
        std::mem::take(&mut self.waiting)
    }

    /// Reads a page.
    pub(super) fn page(&self, range: Range) -> Page {
        let top = self.position();
        let missed = match range.start {
            Start::After(position) if !range.reverse => self.check(position).err(),
            Start::After(position) if position.epoch != self.epoch => Some(Missed::Epoch),
            Start::After(_) | Start::End => None,
        };
        let messages = if missed.is_some() { Vec::new() } else { self.messages(range) };
        Page { messages, top, missed }
    }

    fn messages(&self, range: Range) -> Vec<(u64, KeptMessage)> {
        let first = self.first();
        let all = self.ring.iter().enumerate().map(|(index, message)| (first + index as u64, message));
        let picked: Box<dyn Iterator<Item = (u64, &KeptMessage)>> = match (range.start, range.reverse) {
            (Start::End, false) => Box::new(all),
            (Start::End, true) => Box::new(all.rev()),
            (Start::After(position), false) => Box::new(all.skip(index_of(position.offset + 1, first))),
            (Start::After(position), true) => {
                let after = self.ring.len() - index_of(position.offset, first).min(self.ring.len());
                Box::new(all.rev().skip(after))
            }
        };
        let mut bytes = 0;
        let within = |(_, message): &(u64, &KeptMessage)| {
            let is_first = bytes == 0;
            bytes += message.approximate_bytes();
            is_first || bytes <= MAX_PAGE_BYTES
        };
        picked.take(range.limit).take_while(within).map(|(offset, message)| (offset, message.clone())).collect()
    }

    /// Succeeds if every message after the position is kept.
    fn check(&self, position: Position) -> Result<(), Missed> {
        if position.epoch != self.epoch {
            return Err(Missed::Epoch);
        }
        if position.offset == self.top {
            return if same_id(position.id, self.top_id) { Ok(()) } else { Err(Missed::Fork) };
        }
        if position.offset > self.top {
            return Err(Missed::Fork);
        }
        // Position 0 is before the first message, which has no id.
        if position.offset == 0 {
            return if self.first() == 1 && !self.ring.is_empty() { Ok(()) } else { Err(Missed::Trimmed) };
        }
        let at = position.offset.checked_sub(self.first()).and_then(|index| usize::try_from(index).ok());
        match at.and_then(|index| self.ring.get(index)) {
            Some(message) if same_id(message.message.id, position.id) => Ok(()),
            Some(_) => Err(Missed::Fork),
            None => Err(Missed::Trimmed),
        }
    }

    /// Offset of the oldest kept message; one above `top` if there is none.
    fn first(&self) -> u64 {
        self.top + 1 - self.ring.len() as u64
    }

    fn position(&self) -> Position {
        Position { epoch: self.epoch, offset: self.top, id: self.top_id }
    }
}

/// Index of an offset in a ring that begins at `first`.
fn index_of(offset: u64, first: u64) -> usize {
    usize::try_from(offset.saturating_sub(first)).unwrap_or(usize::MAX)
}
