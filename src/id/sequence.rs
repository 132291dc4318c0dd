//! The id sequence of one node, for connections, messages and requests. No number is issued twice.
//!
//! A number is issued only below a bound that outlives the process: blocks of numbers are reserved in a store
//! (`app::ids`) before use. Independent of the store. Layout: 12 bits of the node's number, 41 bits of the counter.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use smallvec::SmallVec;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::{ConnectionId, MAX_NODE_NUMBER};

/// Bits of the counter.
pub(super) const SEQUENCE_BITS: u32 = 41;
/// Exclusive upper bound of the counter. At this value the numbers of the node are used up.
pub const SEQUENCE_END: u64 = 1 << SEQUENCE_BITS;
/// 2025-01-01T00:00:00Z, the zero point of the seed.
const SEED_EPOCH: Duration = Duration::from_secs(1_735_689_600);
/// Largest seed, reached in 2059. It keeps a clock that is far ahead from using the numbers up.
const LATEST_SEED: u64 = SEQUENCE_END / 2;
/// How long a caller waits while no number is reserved.
const PATIENCE: Duration = Duration::from_secs(2);
/// Maximum length of one run. The smallest block holds many runs.
const RUN: usize = 4_096;

/// Start of the counter if only the time is known: (seconds since 2025) × 1024.
#[must_use]
pub fn seed(now: SystemTime) -> u64 {
    let since = now.duration_since(UNIX_EPOCH + SEED_EPOCH).unwrap_or_default();
    ((since.as_secs() << 10) | 1).min(LATEST_SEED)
}

/// Ids of one node: unique in the cluster, growing, at most [`MAX_SAFE_INTEGER`](super::MAX_SAFE_INTEGER).
#[derive(Debug)]
pub struct IdSequence {
    node: u64,
    next: AtomicU64,
    /// Exclusive bound: numbers from here on are not reserved.
    bound: AtomicU64,
    /// Numbers from here on trigger a request for the next block.
    request_at: AtomicU64,
    /// True if more numbers were requested since the last grant.
    is_requested: AtomicBool,
    wanted: Notify,
    granted: watch::Sender<()>,
}

/// Ids taken together, in order.
#[derive(Debug, Default)]
pub struct Ids(SmallVec<[Range<u64>; 1]>);

impl IdSequence {
    /// Creates a sequence without numbers until a block is [granted](Self::grant). Only the low 12 bits of `number`
    /// count if it exceeds [`MAX_NODE_NUMBER`].
    #[must_use]
    pub fn empty(number: u16) -> Self {
        Self {
            node: u64::from(number & MAX_NODE_NUMBER) << SEQUENCE_BITS,
            next: AtomicU64::new(0),
            bound: AtomicU64::new(0),
            request_at: AtomicU64::new(u64::MAX),
            is_requested: AtomicBool::new(false),
            wanted: Notify::new(),
            granted: watch::Sender::new(()),
        }
    }

    /// Creates a sequence with all numbers from the [`seed`] on. After a restart, numbers repeat if the clock went back
    /// or if the node issued more than 1 024 a second on average.
    #[must_use]
    pub fn new(number: u16, now: SystemTime) -> Self {
        let ids = Self::empty(number);
        ids.grant(seed(now)..SEQUENCE_END);
        ids
    }

    /// Allows the numbers of `block`, which must begin at or above every earlier block. The rest of an earlier block is
    /// given up unless `block` continues it. Only one task may call this.
    pub fn grant(&self, block: Range<u64>) {
        let end = block.end.min(SEQUENCE_END);
        // Store the counter before the bound: a caller that sees the new bound takes a number of the new block.
        if block.start != self.bound.load(Ordering::Relaxed) {
            self.next.fetch_max(block.start, Ordering::AcqRel);
        }
        let half = block.start + end.saturating_sub(block.start) / 2;
        self.request_at.store(if end == SEQUENCE_END { u64::MAX } else { half }, Ordering::Relaxed);
        self.is_requested.store(false, Ordering::Relaxed);
        self.bound.store(end, Ordering::Release);
        self.granted.send_replace(());
    }

    /// Returns once half of the last block is used.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// Number of ids that are reserved and not issued yet.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.bound.load(Ordering::Acquire).saturating_sub(self.next.load(Ordering::Relaxed))
    }

    /// The first number that was not issued.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// Takes `count` consecutive numbers, if they are reserved.
    fn try_take(&self, count: u64) -> Option<Range<u64>> {
        // Read the bound before taking the number. In the other order, a number beyond the old bound could pass under
        // the new bound of a block that begins later.
        let bound = self.bound.load(Ordering::Acquire);
        if self.next.load(Ordering::Relaxed) + count > bound {
            self.request_block();
            return None;
        }
        let first = self.next.fetch_add(count, Ordering::AcqRel);
        let end = first + count;
        if end > self.request_at.load(Ordering::Relaxed) {
            self.request_block();
        }
        (end <= bound).then_some(self.node | first..self.node | end)
    }

    fn request_block(&self) {
        if !self.is_requested.load(Ordering::Relaxed) && !self.is_requested.swap(true, Ordering::Relaxed) {
            self.wanted.notify_one();
        }
    }

    async fn run(&self, count: u64) -> Option<Range<u64>> {
        if let Some(run) = self.try_take(count) {
            return Some(run);
        }
        let granted_run = async {
            let mut granted = self.granted.subscribe();
            loop {
                granted.borrow_and_update();
                if let Some(run) = self.try_take(count) {
                    return Some(run);
                }
                granted.changed().await.ok()?;
            }
        };
        timeout(PATIENCE, granted_run).await.ok().flatten()
    }

    /// Takes `count` ids. Waits at most two seconds while none are reserved; `None` = still none.
    pub async fn take(&self, count: usize) -> Option<Ids> {
        let mut ids = Ids::default();
        let mut left = count;
        while left > 0 {
            let count = left.min(RUN);
            ids.0.push(self.run(count as u64).await?);
            left -= count;
        }
        Some(ids)
    }

    /// Takes one id, as [`take`](Self::take).
    pub async fn take_one(&self) -> Option<u64> {
        self.run(1).await.map(|run| run.start)
    }

    /// Takes one id for a connection, as [`take`](Self::take).
    pub async fn take_connection(&self) -> Option<ConnectionId> {
        self.take_one().await.map(ConnectionId)
    }
}

impl Iterator for Ids {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        loop {
            let first = self.0.first_mut()?;
            if let Some(id) = first.next() {
                return Some(id);
            }
            self.0.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::id::MAX_SAFE_INTEGER;

    #[tokio::test]
    async fn ids_grow_carry_the_node_and_stay_safe_in_javascript() {
        let ids = IdSequence::new(4095, SystemTime::now());
        let (a, b) = (ids.take_connection().await.unwrap(), ids.take_connection().await.unwrap());
        assert!(a < b && b.as_u64() <= MAX_SAFE_INTEGER);
        assert_eq!(a.node(), 4095);
        let many: Vec<u64> = ids.take(10_000).await.unwrap().collect();
        assert!(many.len() == 10_000 && many[0] > b.as_u64() && many.windows(2).all(|two| two[0] < two[1]));
    }

    #[test]
    fn seed_grows_with_the_clock_and_leaves_numbers_behind_any_clock() {
        let year = |years: u64| UNIX_EPOCH + Duration::from_secs(years * 365 * 24 * 3600);
        assert!(seed(year(57)) > seed(year(56)));
        assert!(seed(year(0)) == 1 && seed(year(10_000)) == LATEST_SEED);
        // 1 024 numbers a second last until 2093.
        assert_eq!(SEQUENCE_END / 1024 / (365 * 24 * 3600), 68);
    }

    #[tokio::test(start_paused = true)]
    async fn no_number_is_given_out_beyond_the_bound() {
        let ids = Arc::new(IdSequence::empty(0));
        assert!(ids.take_one().await.is_none(), "nothing is reserved");
        ids.grant(10..14);
        ids.wanted().await;
        assert_eq!(ids.take(2).await.unwrap().collect::<Vec<_>>(), [10, 11]);
        assert_eq!(ids.left(), 2);
        assert!(ids.take(3).await.is_none(), "two are left");
        ids.wanted().await;
        let waiter = tokio::spawn({
            let ids = Arc::clone(&ids);
            async move { ids.take(3).await.map(Iterator::collect::<Vec<_>>) }
        });
        tokio::task::yield_now().await;
        ids.grant(14..20);
        assert_eq!(waiter.await.unwrap().unwrap(), [12, 13, 14], "a block that continues the last one");
        ids.grant(100..104);
        assert_eq!(ids.take(4).await.unwrap().collect::<Vec<_>>(), [100, 101, 102, 103], "one that does not");
        ids.grant(SEQUENCE_END - 1..SEQUENCE_END + 5);
        assert_eq!(ids.take_one().await, Some(SEQUENCE_END - 1));
        assert!(ids.take_one().await.is_none(), "the numbers of the node are used up, and do not begin again");
    }

    #[test]
    fn numbers_are_given_out_once_while_blocks_are_granted() {
        let ids = IdSequence::empty(0);
        ids.grant(0..64);
        let taken: Vec<Vec<Range<u64>>> = std::thread::scope(|scope| {
            let takers: Vec<_> = (1..=4)
                .map(|count| {
                    let ids = &ids;
                    scope.spawn(move || {
                        let mut runs = Vec::new();
                        while ids.position() < 200_000 {
                            runs.extend(ids.try_take(count));
                        }
                        runs
                    })
                })
                .collect();
            // Every second block belongs to another process.
            let mut start = 128;
            while start < 300_000 {
                if ids.left() < 32 {
                    ids.grant(start..start + 64);
                    start += 128;
                }
                if ids.position() >= 200_000 {
                    break;
                }
            }
            takers.into_iter().map(|taker| taker.join().unwrap()).collect()
        });
        let mut runs: Vec<Range<u64>> = taken.into_iter().flatten().collect();
        runs.sort_by_key(|run| run.start);
        assert!(runs.windows(2).all(|two| two[0].end <= two[1].start), "no number twice");
        assert!(runs.iter().all(|run| run.start % 128 < 64 && (run.end - 1) % 128 < 64), "none of a block not granted");
    }
}
