//! The numbers that one node gives out, each of them once: ids of connections, messages and questions.
//!
//! A number is given out only below a bound that outlives the process: blocks of numbers are reserved in a store
//! (`app::ids`) before they are used. Knows no store. Layout: 12 bits of the node's number, 41 bits of the counter.

use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use smallvec::SmallVec;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use super::{ConnectionId, MAX_NODE_NUMBER};

/// Bits of the counter.
pub(super) const SEQUENCE_BITS: u32 = 41;
/// The counter ends below this: the numbers of the node are used up then.
pub const SEQUENCE_END: u64 = 1 << SEQUENCE_BITS;
/// 2025-01-01T00:00:00Z, the zero of the seed.
const SEED_EPOCH: Duration = Duration::from_secs(1_735_689_600);
/// Latest seed, in 2059: a clock that is far ahead does not use the numbers up.
const LATEST_SEED: u64 = SEQUENCE_END / 2;
/// How long a caller waits while no number is reserved.
const PATIENCE: Duration = Duration::from_secs(2);
/// Most numbers that are taken as one run; the smallest block holds many of these.
const RUN: usize = 4_096;

/// Where the counter begins if nothing is known but the time: (seconds since 2025) × 1024.
#[must_use]
pub fn seed(now: SystemTime) -> u64 {
    let since = now.duration_since(UNIX_EPOCH + SEED_EPOCH).unwrap_or_default();
    ((since.as_secs() << 10) | 1).min(LATEST_SEED)
}

/// Numbers of one node: unique in the cluster, growing, at most [`MAX_SAFE_INTEGER`](super::MAX_SAFE_INTEGER).
#[derive(Debug)]
pub struct IdSequence {
    node: u64,
    next: AtomicU64,
    /// No number from here on may be given out.
    bound: AtomicU64,
    /// From here on more numbers are wanted.
    mark: AtomicU64,
    /// More numbers were asked for since the last grant.
    has_asked: AtomicBool,
    wanted: Notify,
    granted: watch::Sender<()>,
}

/// Ids that were taken together, in order.
#[derive(Debug, Default)]
pub struct Ids(SmallVec<[Range<u64>; 1]>);

impl IdSequence {
    /// Without numbers, until a block is [granted](Self::grant). Of a node number above [`MAX_NODE_NUMBER`] only the
    /// lower bits count.
    #[must_use]
    pub fn empty(number: u16) -> Self {
        Self {
            node: u64::from(number & MAX_NODE_NUMBER) << SEQUENCE_BITS,
            next: AtomicU64::new(0),
            bound: AtomicU64::new(0),
            mark: AtomicU64::new(u64::MAX),
            has_asked: AtomicBool::new(false),
            wanted: Notify::new(),
            granted: watch::Sender::new(()),
        }
    }

    /// With all numbers from the [`seed`] on. After a restart, numbers repeat if the clock went back or if the node
    /// gave out more than 1 024 a second on average.
    #[must_use]
    pub fn new(number: u16, now: SystemTime) -> Self {
        let ids = Self::empty(number);
        ids.grant(seed(now)..SEQUENCE_END);
        ids
    }

    /// Allows the numbers of `block`, which begins at or above each block before. Numbers that are left of an earlier
    /// block are given up unless `block` continues it. To be called by one task.
    pub fn grant(&self, block: Range<u64>) {
        let end = block.end.min(SEQUENCE_END);
        // First the counter, then the bound: a caller that sees the new bound takes a number of the new block.
        if block.start != self.bound.load(Ordering::Relaxed) {
            self.next.fetch_max(block.start, Ordering::AcqRel);
        }
        let half = block.start + end.saturating_sub(block.start) / 2;
        self.mark.store(if end == SEQUENCE_END { u64::MAX } else { half }, Ordering::Relaxed);
        self.has_asked.store(false, Ordering::Relaxed);
        self.bound.store(end, Ordering::Release);
        self.granted.send_replace(());
    }

    /// Returns once half of the last block is used.
    pub async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// How many numbers are reserved and not given out.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.bound.load(Ordering::Acquire).saturating_sub(self.next.load(Ordering::Relaxed))
    }

    /// The first number that was not given out.
    #[must_use]
    pub fn position(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    /// So many numbers, if they are reserved.
    fn try_take(&self, count: u64) -> Option<Range<u64>> {
        // The bound is read before the number is taken. The other way round, a number that was taken beyond an old bound
        // could pass under a new one, whose block begins later.
        let bound = self.bound.load(Ordering::Acquire);
        if self.next.load(Ordering::Relaxed) + count > bound {
            self.ask();
            return None;
        }
        let first = self.next.fetch_add(count, Ordering::AcqRel);
        let end = first + count;
        if end > self.mark.load(Ordering::Relaxed) {
            self.ask();
        }
        (end <= bound).then_some(self.node | first..self.node | end)
    }

    fn ask(&self) {
        if !self.has_asked.load(Ordering::Relaxed) && !self.has_asked.swap(true, Ordering::Relaxed) {
            self.wanted.notify_one();
        }
    }

    async fn run(&self, count: u64) -> Option<Range<u64>> {
        if let Some(run) = self.try_take(count) {
            return Some(run);
        }
        let waited = async {
            let mut granted = self.granted.subscribe();
            loop {
                granted.borrow_and_update();
                if let Some(run) = self.try_take(count) {
                    return Some(run);
                }
                granted.changed().await.ok()?;
            }
        };
        timeout(PATIENCE, waited).await.ok().flatten()
    }

    /// So many ids. Waits for at most two seconds while none are reserved; `None` = still none.
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

    /// One id, as [`take`](Self::take).
    pub async fn take_one(&self) -> Option<u64> {
        self.run(1).await.map(|run| run.start)
    }

    /// One id as that of a connection, as [`take`](Self::take).
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
            // Every second block belongs to somebody else.
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
