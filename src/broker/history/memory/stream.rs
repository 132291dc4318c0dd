//! One stream in memory: numbering, ring of messages, and the turn of its publishers.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Age;
use crate::broker::history::journal::{Append, Place, State};
use crate::broker::history::{KeptMessage, MAX_PAGE_BYTES, Missed, Page, Range, Start};
use crate::config::StreamBounds;
use crate::message::{Envelope, Epoch, Position, Receipt, StreamName, same_id};

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
    /// Time of the last append, at first that of the creation.
    appended: Duration,
    /// Time at which the messages expire.
    until: Duration,
    /// Key in the map's order of eviction.
    pub(super) age: Age,
    /// Parts of the stream in the journal: first offset and segment of each. The first one begins at or before the
    /// oldest kept message. Empty without a journal.
    places: VecDeque<(u64, u64)>,
    /// Ticket of the last change in the journal; 0 = none that may be lost.
    pub(super) ticket: u64,
    /// True if a message was delivered without being kept, and no position was told since.
    is_passed_over: bool,
    /// Number of the batch whose publisher delivers now.
    owner: Option<u64>,
    waiting: Vec<Waiting>,
}

/// Right or duty to deliver an appended envelope.
pub(in crate::broker) enum Turn {
    /// The publisher delivers it.
    Own,
    /// Another publisher delivers it after its own, and sends the receipt.
    Other(oneshot::Receiver<HandedOver>),
}

/// Result of an envelope that another publisher took over.
#[derive(Debug)]
pub(in crate::broker) enum HandedOver {
    /// Delivered with its position.
    Delivered(Receipt),
    /// Delivered without being kept.
    Unkept(Receipt),
    /// The journal lost it, and it was not delivered.
    Refused,
}

/// An appended envelope that another publisher delivers.
pub(in crate::broker) struct Waiting {
    /// The envelope.
    pub envelope: Envelope,
    /// Its position.
    pub position: Position,
    /// Its ticket in the journal; 0 = none.
    pub ticket: u64,
    /// Takes the result.
    pub reply: oneshot::Sender<HandedOver>,
}

impl Stream {
    pub(super) fn new(epoch: Epoch, now: Duration) -> Self {
        Self {
            epoch,
            top: 0,
            top_id: 0,
            ring: VecDeque::new(),
            ring_bytes: 0,
            appended: now,
            until: Duration::ZERO,
            age: Age::default(),
            places: VecDeque::new(),
            ticket: 0,
            is_passed_over: false,
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
        self.until = self.until_after(now, ttl);
        self.is_passed_over = false;
        self.position()
    }

    /// Time at which the messages expire after an append.
    fn until_after(&self, now: Duration, ttl: Duration) -> Duration {
        self.until.max(now + ttl)
    }

    /// Removes the oldest messages beyond the bounds. The newest one stays.
    pub(super) fn trim(&mut self, bounds: StreamBounds) {
        while self.ring.len() > 1 && (self.ring.len() > bounds.size || self.ring_bytes > bounds.bytes) {
            if let Some(oldest) = self.ring.pop_front() {
                self.ring_bytes -= oldest.approximate_bytes();
            }
        }
        self.leave_places();
    }

    /// Removes all messages once their time is over.
    pub(super) fn expire(&mut self, now: Duration) {
        if now >= self.until && !self.ring.is_empty() {
            self.ring = VecDeque::new();
            self.ring_bytes = 0;
            self.leave_places();
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
        let ticket = self.ticket;
        let is_free = self.owner.is_none_or(|current| current == owner);
        if is_free && self.waiting.is_empty() {
            self.owner = Some(owner);
            return Turn::Own;
        }
        let (reply, receipt) = oneshot::channel();
        self.waiting.push(Waiting { envelope: envelope.clone(), position, ticket, reply });
        Turn::Other(receipt)
    }

    /// Takes the waiting envelopes. Without any the turn ends.
    pub(super) fn next_waiting(&mut self) -> Vec<Waiting> {
        if self.waiting.is_empty() {
            self.owner = None;
        }
        std::mem::take(&mut self.waiting)
    }

    /// Reads a page. A position is known to a reader from now on.
    pub(super) fn read(&mut self, range: Range) -> Page {
        self.is_passed_over = false;
        self.page(range)
    }

    fn page(&self, range: Range) -> Page {
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

/// The stream in the journal.
impl Stream {
    /// The record of the append that comes next, and the id of the message before it.
    pub(super) fn next_append(
        &self,
        name: &StreamName,
        message: &KeptMessage,
        now: Duration,
        ttl: Duration,
    ) -> (Append, i64) {
        let (appended, until) = (now, self.until_after(now, ttl));
        let (name, offset, message) = (name.clone(), self.top + 1, message.clone());
        (Append { name, epoch: self.epoch, offset, appended, until, message }, self.top_id)
    }

    /// Notes the place of the append that comes next.
    pub(super) fn place_next(&mut self, Place { ticket, segment }: Place) {
        self.ticket = ticket;
        self.place(self.top + 1, segment);
    }

    /// Notes that the whole stream is in this segment.
    pub(super) fn place_whole(&mut self, segment: u64) {
        self.places.clear();
        self.places.push_back((self.first(), segment));
    }

    /// True if the journal knows the stream.
    pub(super) fn is_placed(&self) -> bool {
        !self.places.is_empty()
    }

    /// The oldest segment that the stream needs.
    pub(super) fn oldest_segment(&self) -> Option<u64> {
        self.places.front().map(|(_, segment)| *segment)
    }

    /// The whole stream as a record.
    pub(super) fn state(&self, name: &StreamName) -> State {
        State {
            name: name.clone(),
            epoch: self.epoch,
            top: self.top,
            top_id: self.top_id,
            appended: self.appended,
            until: self.until,
            is_appended: self.age.is_appended,
            messages: self.ring.iter().cloned().collect(),
        }
    }

    /// Removes the append at `offset`, which was the last one, and what came after it. `before` is the id of the message
    /// before it.
    pub(super) fn roll_back(&mut self, append: &Append, before: i64) {
        if self.epoch != append.epoch || self.top < append.offset {
            return;
        }
        while self.top >= append.offset {
            if let Some(newest) = self.ring.pop_back() {
                self.ring_bytes -= newest.approximate_bytes();
            }
            self.top -= 1;
        }
        (self.top_id, self.ticket) = (before, 0);
    }

    /// A message is delivered without being kept: the stream begins again, so that a client that missed the message is
    /// told. Returns false if it began again already and no reader knows its position.
    pub(super) fn pass_over(&mut self, epoch: Epoch) -> bool {
        if std::mem::replace(&mut self.is_passed_over, true) {
            return false;
        }
        self.begin_again(epoch);
        true
    }

    /// Applies the record of an append.
    pub(super) fn replay(&mut self, append: Append, segment: u64) {
        if self.epoch != append.epoch || self.top + 1 != append.offset {
            // Earlier segments were removed, and with them the messages before this one.
            self.begin_again(append.epoch);
            self.places.clear();
            self.top = append.offset.saturating_sub(1);
        }
        self.expire(append.appended);
        self.place(append.offset, segment);
        self.append(append.message, append.appended, Duration::ZERO);
        self.until = append.until;
        self.age.is_appended = true;
    }

    /// The stream that a record holds.
    pub(super) fn restored(state: State, segment: u64) -> Self {
        let mut stream = Self::new(state.epoch, state.appended);
        (stream.top, stream.top_id, stream.until) = (state.top, state.top_id, state.until);
        stream.ring_bytes = state.messages.iter().map(KeptMessage::approximate_bytes).sum();
        stream.ring = state.messages.into();
        stream.age.is_appended = state.is_appended;
        stream.place_whole(segment);
        stream
    }

    /// Gives the stream another epoch. Its messages stay.
    pub(super) fn renew(&mut self, epoch: Epoch) {
        self.epoch = epoch;
    }

    /// Time of the last append, or of the creation.
    pub(super) fn appended(&self) -> Duration {
        self.appended
    }

    /// Moves times that lie ahead of the clock, which was set back, to what they can be at most.
    pub(super) fn limit_times(&mut self, now: Duration, ttl_max: Duration) {
        self.appended = self.appended.min(now);
        self.until = self.until.min(now + ttl_max);
    }

    fn place(&mut self, offset: u64, segment: u64) {
        while self.places.back().is_some_and(|(first, _)| *first >= offset) {
            self.places.pop_back();
        }
        if self.places.back().is_none_or(|(_, last)| *last != segment) {
            self.places.push_back((offset, segment));
        }
    }

    /// Leaves the places of removed messages.
    fn leave_places(&mut self) {
        while self.places.get(1).is_some_and(|(first, _)| *first <= self.first()) {
            self.places.pop_front();
        }
    }
}

/// Index of an offset in a ring that begins at `first`.
fn index_of(offset: u64, first: u64) -> usize {
    usize::try_from(offset.saturating_sub(first)).unwrap_or(usize::MAX)
}
