//! Deduplication: each record and each identified envelope is delivered once per node.
//!
//! Records are identified by origin and sequence number, kept in a sliding bitmap per origin. Envelopes of an intake
//! are identified by their position in the topic. Positions may be far apart, so the last envelopes of each partition
//! are kept by hash. Both are bounded: at the limit, the origin or partition that was idle longest is forgotten.
//! Independent of engines.

use std::collections::VecDeque;
use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use ahash::{AHashMap, AHashSet, RandomState};

use super::record::RecordOrigin;
use crate::message::{Envelope, RecordIdentity, Target};

/// Maximum distance behind the newest record of an origin at which a record is still told from a copy. Publishers on
/// several threads overtake each other by some thousand records at most.
pub const WINDOW: u64 = 64 * WINDOW_WORDS as u64;
const WINDOW_WORDS: usize = 1_024;
/// Number of envelopes remembered per partition.
pub const PARTITION_WINDOW: usize = 65_536;
/// Maximum number of pairs of origin and lane, and of partitions.
const MAX_ENTRIES: usize = 1_024;

/// Result of looking up a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arrival {
    /// First delivery. `missing` sequence numbers lie between this record and the newest one before it. In a lane that
    /// leads to every node, a missing number means a loss.
    New {
        /// Number of missing records.
        missing: u64,
    },
    /// A copy, or a record old enough to count as one.
    Duplicate,
}

/// Records and envelopes that were received.
#[derive(Debug, Default)]
pub struct Deduplicator {
    origins: AHashMap<(RecordOrigin, u32), Window>,
    partitions: AHashMap<Arc<str>, PartitionWindow>,
    hasher: RandomState,
    /// Number of calls so far; gives the age of each entry.
    now: u64,
}

impl Deduplicator {
    /// Notes record `sequence` of `origin`, received in `lane`. Sequence numbers are counted per lane: one connection
    /// or one partition, in which the records of an origin arrive in order.
    pub fn record(&mut self, origin: RecordOrigin, lane: u32, sequence: u64) -> Arrival {
        self.now += 1;
        let now = self.now;
        if let Some(window) = self.origins.get_mut(&(origin, lane)) {
            window.used = now;
            return window.note(sequence);
        }
        remove_oldest_if_full(&mut self.origins, |window| window.used);
        let window = self.origins.entry((origin, lane)).or_insert_with(|| Window::before(sequence));
        window.used = now;
        window.note(sequence)
    }

    /// Notes an envelope and returns true on its first delivery. Envelopes without identity are always first. The
    /// target tells copies for different users apart.
    pub fn is_first(&mut self, envelope: &Envelope) -> bool {
        let Some(RecordIdentity { partition, offset, index }) = &envelope.identity else { return true };
        self.now += 1;
        let hash = self.hasher.hash_one((offset, index, TargetName(&envelope.target)));
        if !self.partitions.contains_key(partition) {
            remove_oldest_if_full(&mut self.partitions, |window| window.used);
        }
        let window = self.partitions.entry(Arc::clone(partition)).or_default();
        window.used = self.now;
        window.note(hash)
    }
}

/// Removes the entry that was idle longest if the map is full.
fn remove_oldest_if_full<K: Clone + Eq + Hash, V, S: BuildHasher>(
    map: &mut std::collections::HashMap<K, V, S>,
    used: impl Fn(&V) -> u64,
) {
    if map.len() >= MAX_ENTRIES
        && let Some(oldest) = map.iter().min_by_key(|(_, value)| used(value)).map(|(key, _)| key.clone())
    {
        map.remove(&oldest);
    }
}

/// The last [`WINDOW`] sequence numbers of one origin, as a ring of bits.
#[derive(Debug)]
struct Window {
    newest: u64,
    bits: Box<[u64]>,
    used: u64,
}

impl Window {
    /// State before the first record. Older records are accepted as well, because the first one may have overtaken
    /// them.
    fn before(first: u64) -> Self {
        Self { newest: first.wrapping_sub(1), bits: vec![0; WINDOW_WORDS].into(), used: 0 }
    }

    fn note(&mut self, sequence: u64) -> Arrival {
        let ahead = sequence.wrapping_sub(self.newest);
        if ahead != 0 && ahead <= u64::MAX / 2 {
            // The slots in between hold bits of the previous window.
            self.clear_behind(ahead);
            self.newest = sequence;
            self.set(sequence);
            return Arrival::New { missing: ahead - 1 };
        }
        let behind = self.newest.wrapping_sub(sequence);
        if behind >= WINDOW || self.is_set(sequence) {
            return Arrival::Duplicate;
        }
        self.set(sequence);
        Arrival::New { missing: 0 }
    }

    fn set(&mut self, sequence: u64) {
        let (word, bit) = bit_of(sequence);
        self.bits[word] |= bit;
    }

    /// Clears the slots of the next `count` numbers, whole words at a time if possible.
    fn clear_behind(&mut self, count: u64) {
        if count >= WINDOW {
            return self.bits.fill(0);
        }
        let (mut at, mut left) = (self.newest.wrapping_add(1), count);
        while left > 0 {
            let (word, bit) = bit_of(at);
            let step = if bit == 1 && left >= 64 {
                self.bits[word] = 0;
                64
            } else {
                self.bits[word] &= !bit;
                1
            };
            at = at.wrapping_add(step);
            left -= step;
        }
    }

    fn is_set(&self, sequence: u64) -> bool {
        let (word, bit) = bit_of(sequence);
        self.bits[word] & bit != 0
    }
}

fn bit_of(sequence: u64) -> (usize, u64) {
    let at = sequence % WINDOW;
    (usize::try_from(at / 64).expect("a window is small"), 1 << (at % 64))
}

/// The last [`PARTITION_WINDOW`] envelopes of one partition, by hash.
#[derive(Debug, Default)]
struct PartitionWindow {
    known: AHashSet<u64>,
    order: VecDeque<u64>,
    used: u64,
}

impl PartitionWindow {
    fn note(&mut self, hash: u64) -> bool {
        if !self.known.insert(hash) {
            return false;
        }
        self.order.push_back(hash);
        if self.order.len() > PARTITION_WINDOW
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        true
    }
}

/// Part of a target that tells two copies apart.
struct TargetName<'a>(&'a Target);

impl Hash for TargetName<'_> {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        std::mem::discriminant(self.0).hash(state);
        match self.0 {
            Target::Connection(cid) => cid.hash(state),
            Target::ConnectionOf(uid, cid) => (uid, cid).hash(state),
            Target::Device(uid, device) => (uid, device).hash(state),
            Target::User(uid) => uid.hash(state),
            Target::Room(room) => room.hash(state),
            Target::Users(uids) | Target::EveryoneBut(uids) => uids.hash(state),
            Target::Everyone => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Uid;
    use crate::message::{Message, Origin as By, Publication};

    const ORIGIN: RecordOrigin = RecordOrigin { number: 1, run_id: 7 };
    const NEW: Arrival = Arrival::New { missing: 0 };

    #[test]
    fn a_record_counts_once_however_often_it_comes() {
        let mut seen = Deduplicator::default();
        for sequence in [5, 6, 7] {
            assert_eq!(seen.record(ORIGIN, 0, sequence), NEW);
        }
        for sequence in [5, 6, 7] {
            assert_eq!(seen.record(ORIGIN, 0, sequence), Arrival::Duplicate);
        }
        assert_eq!(seen.record(RecordOrigin { run_id: 8, ..ORIGIN }, 0, 5), NEW, "another life");
        assert_eq!(seen.record(ORIGIN, 1, 5), NEW, "another lane");
    }

    #[test]
    fn what_is_missing_is_told_and_taken_when_it_comes_late() {
        let mut seen = Deduplicator::default();
        assert_eq!(seen.record(ORIGIN, 0, 10), NEW);
        assert_eq!(seen.record(ORIGIN, 0, 14), Arrival::New { missing: 3 });
        assert_eq!(seen.record(ORIGIN, 0, 12), NEW);
        assert_eq!(seen.record(ORIGIN, 0, 12), Arrival::Duplicate);
        assert_eq!(seen.record(ORIGIN, 0, 9), NEW, "overtaken by the first");
    }

    #[test]
    fn the_window_slides() {
        let mut seen = Deduplicator::default();
        for sequence in 0..3 * WINDOW {
            assert_eq!(seen.record(ORIGIN, 0, sequence), NEW, "{sequence}");
        }
        for (step, newest) in [(200, 3 * WINDOW + 199), (64, 3 * WINDOW + 263), (1, 3 * WINDOW + 264)] {
            let mut seen = Deduplicator::default();
            (0..=newest - step).for_each(|sequence| assert_eq!(seen.record(ORIGIN, 0, sequence), NEW));
            assert_eq!(seen.record(ORIGIN, 0, newest), Arrival::New { missing: step - 1 });
            for sequence in newest - WINDOW + 1..newest {
                let expected = if sequence > newest - step { NEW } else { Arrival::Duplicate };
                assert_eq!(seen.record(ORIGIN, 0, sequence), expected, "{sequence} of {newest}, a step of {step}");
            }
        }
        let newest = 3 * WINDOW - 1;
        assert_eq!(seen.record(ORIGIN, 0, newest - WINDOW + 1), Arrival::Duplicate);
        assert_eq!(seen.record(ORIGIN, 0, newest - WINDOW), Arrival::Duplicate, "older than the window");
        assert_eq!(seen.record(ORIGIN, 0, newest + 2 * WINDOW), Arrival::New { missing: 2 * WINDOW - 1 });
        assert_eq!(seen.record(ORIGIN, 0, newest + WINDOW + 1), NEW, "the jump left nothing behind");
    }

    #[test]
    fn an_identity_counts_once_for_each_target() {
        let mut seen = Deduplicator::default();
        let envelope = |uid: &str, offset, identified| {
            let identity = RecordIdentity { partition: "chat-0".into(), offset, index: 0 };
            let target = Target::User(Uid::parse(uid).unwrap());
            let publication = Publication::new(Message::default(), target, By::Broker);
            Publication { identity: Some(identity).filter(|_| identified), ..publication }.into_envelope(1, 0)
        };
        assert!(seen.is_first(&envelope("a", 1, true)) && seen.is_first(&envelope("b", 1, true)));
        assert!(!seen.is_first(&envelope("a", 1, true)));
        assert!(seen.is_first(&envelope("a", 1 << 40, true)));
        assert!(seen.is_first(&envelope("a", 1, false)) && seen.is_first(&envelope("a", 1, false)));
        for offset in 2..=PARTITION_WINDOW as u64 {
            assert!(seen.is_first(&envelope("a", offset, true)));
        }
        assert!(seen.is_first(&envelope("a", 1, true)), "what lies far back is forgotten");
    }

    #[test]
    fn origins_are_bounded() {
        let mut seen = Deduplicator::default();
        for number in 0..2_048 {
            seen.record(RecordOrigin { number, run_id: 1 }, 0, 1);
        }
        assert_eq!(seen.origins.len(), MAX_ENTRIES);
        assert_eq!(seen.record(RecordOrigin { number: 2_047, run_id: 1 }, 0, 1), Arrival::Duplicate);
    }
}
