//! Queue between the publishers and the writing thread. Its lock is held for one push or one swap, and over no other
//! lock.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::Extent;
use super::record::{Append, State};
use crate::message::StreamName;

/// Approximate bytes that may wait for the disk; further appends are refused.
const MAX_QUEUED_BYTES: usize = 64 << 20;
/// Streams that a failing journal owes by name; beyond, it owes all of them.
const MAX_OWED: usize = 100_000;
/// Ranges of lost tickets that are remembered: at most one for each failure.
const MAX_LOST: usize = 1_024;
/// Approximate bytes of a record beside its message.
const RECORD_BYTES: usize = 64;

/// Work of the writing thread.
pub(in crate::broker::history) enum Item {
    /// A message was appended, after a message with this id.
    Append(Append, i64),
    /// The whole of a stream.
    State(State),
    /// The stream does not exist any more.
    Drop(StreamName),
    /// Begins the segment with this number.
    Rotate(u64),
    /// Removes all segments below this number.
    Remove(u64),
    /// Answered when all earlier items are written or lost.
    Barrier(oneshot::Sender<()>),
    /// Answered when all earlier items are on the disk or lost.
    Sync(oneshot::Sender<()>),
    /// Answered when the journal has ended.
    End(oneshot::Sender<()>),
}

/// Place of an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker::history) struct Place {
    /// Number of the item, from 1.
    pub(in crate::broker::history) ticket: u64,
    /// Segment of its record.
    pub(in crate::broker::history) segment: u64,
}

/// The journal is failing, or too many bytes wait for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker::history) struct Refused;

/// The queue.
pub(super) struct Queue {
    inner: Mutex<Inner>,
    wake: Condvar,
    /// All tickets up to this one are written or lost.
    settled: AtomicU64,
    /// True after the first loss.
    has_lost: AtomicBool,
    segment_bytes: usize,
}

struct Inner {
    items: Vec<Item>,
    /// Ticket of the last item.
    last: u64,
    /// Approximate bytes of the items.
    bytes: usize,
    /// Current segment, its approximate bytes, and the oldest segment with the bytes of all.
    segment: u64,
    in_segment: usize,
    oldest: u64,
    total: u64,
    condition: Condition,
    owed: Owed,
    /// Ranges of lost tickets, first and last.
    lost: VecDeque<(u64, u64)>,
    is_parked: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Condition {
    Works,
    Fails(String),
    Ended,
}

/// Streams whose records are missing in a failing journal.
#[derive(Debug, Default)]
pub(super) enum Owed {
    #[default]
    Nothing,
    Named(HashSet<StreamName>),
    All,
}

/// Items for the thread.
pub(super) struct Taken {
    pub(super) items: Vec<Item>,
    /// Ticket of the first one.
    pub(super) first: u64,
}

impl Item {
    fn bytes(&self) -> usize {
        match self {
            Self::Append(append, _) => RECORD_BYTES + append.message.approximate_bytes(),
            Self::State(state) => {
                RECORD_BYTES
                    + state.messages.iter().map(crate::broker::history::KeptMessage::approximate_bytes).sum::<usize>()
            }
            Self::Drop(_) => RECORD_BYTES,
            Self::Rotate(_) | Self::Remove(_) | Self::Barrier(_) | Self::Sync(_) | Self::End(_) => 0,
        }
    }

    fn stream(&self) -> Option<&StreamName> {
        match self {
            Self::Append(append, _) => Some(&append.name),
            Self::State(state) => Some(&state.name),
            Self::Drop(name) => Some(name),
            Self::Rotate(_) | Self::Remove(_) | Self::Barrier(_) | Self::Sync(_) | Self::End(_) => None,
        }
    }
}

impl Owed {
    /// Adds a stream.
    pub(super) fn add(&mut self, name: &StreamName) {
        match self {
            Self::Nothing => *self = Self::Named(HashSet::from([name.clone()])),
            Self::Named(names) if names.len() >= MAX_OWED => *self = Self::All,
            Self::Named(names) => drop(names.insert(name.clone())),
            Self::All => {}
        }
    }

    /// Adds the streams of another one.
    pub(super) fn merge(&mut self, other: Self) {
        match other {
            Self::Nothing => {}
            Self::Named(names) => names.iter().for_each(|name| self.add(name)),
            Self::All => *self = Self::All,
        }
    }
}

impl Queue {
    /// A queue whose items go to this segment.
    pub(super) fn new(segment: u64, segment_bytes: usize) -> Self {
        let inner = Inner {
            items: Vec::new(),
            last: 0,
            bytes: 0,
            segment,
            in_segment: 0,
            oldest: segment,
            total: 0,
            condition: Condition::Works,
            owed: Owed::Nothing,
            lost: VecDeque::new(),
            is_parked: false,
        };
        Self {
            inner: Mutex::new(inner),
            wake: Condvar::new(),
            settled: AtomicU64::new(0),
            has_lost: AtomicBool::new(false),
            segment_bytes,
        }
    }

    pub(super) fn push(&self, item: Item) -> Result<Place, Refused> {
        let mut inner = self.inner.lock();
        inner.push(item, self.segment_bytes, &self.wake)
    }

    pub(super) fn push_or_owe(&self, item: Item) -> Option<Place> {
        let mut inner = self.inner.lock();
        if let (false, Some(name)) = (inner.condition == Condition::Works, item.stream()) {
            inner.owed.add(name);
            return None;
        }
        inner.push(item, self.segment_bytes, &self.wake).ok()
    }

    pub(super) fn owe(&self, name: &StreamName) {
        self.inner.lock().owed.add(name);
    }

    pub(super) fn is_settled(&self, ticket: u64) -> bool {
        self.settled.load(Ordering::Acquire) >= ticket
    }

    pub(super) fn is_lost(&self, ticket: u64) -> bool {
        let is_in = |(first, last): &(u64, u64)| (*first..=*last).contains(&ticket);
        self.has_lost.load(Ordering::Acquire) && self.inner.lock().lost.iter().any(is_in)
    }

    pub(super) fn fault(&self) -> Option<String> {
        match &self.inner.lock().condition {
            Condition::Works | Condition::Ended => None,
            Condition::Fails(why) => Some(why.clone()),
        }
    }

    pub(super) fn extent(&self) -> Extent {
        let inner = self.inner.lock();
        let segment_bytes = u64::try_from(self.segment_bytes).unwrap_or(u64::MAX);
        Extent { oldest: inner.oldest, current: inner.segment, bytes: inner.total, segment_bytes }
    }

    /// Ends the thread: nobody needs the journal any more.
    pub(super) fn abandon(&self) {
        self.inner.lock().condition = Condition::Ended;
        self.wake.notify_one();
    }

    /// Waits at most `wait` for items. `None` once the journal has ended and all items are taken.
    pub(super) fn take(&self, wait: Duration) -> Option<Taken> {
        let mut inner = self.inner.lock();
        if inner.items.is_empty() && inner.condition != Condition::Ended {
            inner.is_parked = true;
            self.wake.wait_for(&mut inner, wait);
            inner.is_parked = false;
        }
        if inner.items.is_empty() && inner.condition == Condition::Ended {
            return None;
        }
        Some(inner.take())
    }

    /// All tickets up to this one are settled.
    pub(super) fn settle(&self, ticket: u64) {
        self.settled.store(ticket, Ordering::Release);
    }

    /// Refuses items from now on. Those from the ticket `first` on are lost; returns the ones in the queue, and the last
    /// lost ticket.
    pub(super) fn fail(&self, first: u64, why: &str, owes_all: bool) -> (Vec<Item>, u64) {
        let mut inner = self.inner.lock();
        if inner.condition != Condition::Ended {
            inner.condition = Condition::Fails(why.to_owned());
        }
        let Taken { items, first: first_queued } = inner.take();
        let (first, last) = (first.min(first_queued), inner.last);
        if first <= last {
            if inner.lost.len() == MAX_LOST {
                inner.lost.pop_front();
            }
            inner.lost.push_back((first, last));
            self.has_lost.store(true, Ordering::Release);
        }
        if owes_all {
            inner.owed = Owed::All;
        }
        (items, last)
    }

    /// Takes the streams that the journal owes.
    pub(super) fn take_owed(&self) -> Owed {
        std::mem::take(&mut self.inner.lock().owed)
    }

    /// Puts streams back that could not be written.
    pub(super) fn put_owed(&self, owed: Owed) {
        self.inner.lock().owed.merge(owed);
    }

    /// Takes items again, into this segment. Returns false if more streams are owed.
    pub(super) fn reopen(&self, segment: u64) -> bool {
        let mut inner = self.inner.lock();
        if !matches!(inner.owed, Owed::Nothing) {
            return false;
        }
        if inner.condition != Condition::Ended {
            inner.condition = Condition::Works;
        }
        (inner.segment, inner.in_segment) = (segment, 0);
        true
    }

    /// Tells the oldest segment and the bytes of all.
    pub(super) fn set_extent(&self, oldest: u64, total: u64) {
        let mut inner = self.inner.lock();
        (inner.oldest, inner.total) = (oldest, total);
    }
}

impl Inner {
    fn push(&mut self, item: Item, segment_bytes: usize, wake: &Condvar) -> Result<Place, Refused> {
        let is_full = matches!(item, Item::Append(..)) && self.bytes >= MAX_QUEUED_BYTES;
        if self.condition != Condition::Works || is_full {
            return Err(Refused);
        }
        let bytes = item.bytes();
        if bytes > 0 && self.in_segment >= segment_bytes {
            (self.segment, self.in_segment) = (self.segment + 1, 0);
            self.last += 1;
            self.items.push(Item::Rotate(self.segment));
        }
        // Only these wait for the thread; it takes all others with them, or at its next turn.
        let is_urgent = matches!(item, Item::Barrier(_) | Item::Sync(_) | Item::End(_));
        if matches!(item, Item::End(_)) {
            self.condition = Condition::Ended;
        }
        self.in_segment += bytes;
        self.bytes += bytes;
        self.last += 1;
        self.items.push(item);
        if is_urgent && self.is_parked {
            wake.notify_one();
        }
        Ok(Place { ticket: self.last, segment: self.segment })
    }

    fn take(&mut self) -> Taken {
        let items = std::mem::take(&mut self.items);
        self.bytes = 0;
        let count = u64::try_from(items.len()).expect("64 bits hold a count");
        Taken { items, first: self.last + 1 - count }
    }
}
