//! Second opinions: extra calls by which the node finds the party to blame for a failure.
//!
//! Bounded, so that a hostile sender cannot multiply its cost to the node. A source gets one opinion of each purpose
//! per `breaker.rest`, and the whole node runs two at once. Knows no plugin.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ahash::AHashMap;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// Opinions that run on the node at once.
const AT_ONCE: usize = 2;
/// Opinions that may wait for their turn; more are refused.
const WAITING: usize = 32;
/// Sources that are remembered; more are refused until the oldest have rested.
const SOURCES: usize = 4_096;

/// Purpose of a second opinion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::plugin) enum Purpose {
    /// The same version is asked again, because the first call overran its budget.
    Retry,
    /// The previous version is asked, because a version on probation failed.
    Previous,
}

/// Issues permits, each for one extra call.
#[derive(Debug)]
pub(in crate::plugin) struct SecondOpinions {
    rest: Duration,
    turns: Arc<Semaphore>,
    waiting: AtomicUsize,
    asked: Mutex<AHashMap<(Purpose, u64), Instant>>,
}

/// The permit for one extra call; the next call may begin when it is dropped.
#[derive(Debug)]
pub(in crate::plugin) struct Turn {
    _permit: OwnedSemaphorePermit,
}

impl SecondOpinions {
    /// One opinion for each source and purpose per `rest`.
    pub(in crate::plugin) fn new(rest: Duration) -> Self {
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        Self { rest, turns, waiting: AtomicUsize::new(0), asked: Mutex::default() }
    }

    /// A permit for an extra call now; `None` if the source had one within the rest, or as many as may run do.
    pub(in crate::plugin) fn now(&self, purpose: Purpose, source: u64) -> Option<Turn> {
        let permit = Arc::clone(&self.turns).try_acquire_owned().ok()?;
        self.is_first(purpose, source).then_some(Turn { _permit: permit })
    }

    /// A permit once one is free; `None` if the source had one within the rest, or too many wait.
    pub(in crate::plugin) async fn in_turn(&self, purpose: Purpose, source: u64) -> Option<Turn> {
        if !self.is_first(purpose, source) {
            return None;
        }
        let _place = Place::take(&self.waiting)?;
        let permit = Arc::clone(&self.turns).acquire_owned().await.ok()?;
        Some(Turn { _permit: permit })
    }

    /// True while no opinion runs or waits.
    #[cfg(test)]
    pub(in crate::plugin) fn is_idle(&self) -> bool {
        self.turns.available_permits() == AT_ONCE && self.waiting.load(Ordering::Relaxed) == 0
    }

    /// Records an opinion for the source; false if it had one within the rest.
    fn is_first(&self, purpose: Purpose, source: u64) -> bool {
        let (mut asked, now) = (self.asked.lock(), Instant::now());
        let has_rested = |at: &Instant| now.saturating_duration_since(*at) >= self.rest;
        if asked.get(&(purpose, source)).is_some_and(|at| !has_rested(at)) {
            return false;
        }
        if asked.len() >= SOURCES {
            asked.retain(|_, at| !has_rested(at));
            if asked.len() >= SOURCES {
                return false;
            }
        }
        asked.insert((purpose, source), now);
        true
    }
}

/// A place in the queue.
struct Place<'a>(&'a AtomicUsize);

impl<'a> Place<'a> {
    fn take(waiting: &'a AtomicUsize) -> Option<Self> {
        let place = Self(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < WAITING).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::time::advance;

    use super::*;

    const REST: Duration = Duration::from_secs(5);

    #[tokio::test(start_paused = true)]
    async fn a_source_has_one_of_each_purpose_in_a_rest() {
        let opinions = SecondOpinions::new(REST);
        assert!(opinions.now(Purpose::Retry, 1).is_some());
        assert!(opinions.now(Purpose::Retry, 1).is_none());
        assert!(opinions.in_turn(Purpose::Previous, 1).await.is_some());
        assert!(opinions.in_turn(Purpose::Previous, 1).await.is_none());
        assert!(opinions.now(Purpose::Retry, 2).is_some());
        advance(REST).await;
        assert!(opinions.now(Purpose::Retry, 1).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn two_are_under_way_at_once() {
        let opinions = SecondOpinions::new(REST);
        let (first, second) = (opinions.now(Purpose::Retry, 1), opinions.in_turn(Purpose::Previous, 2).await);
        assert!(first.is_some() && second.is_some());
        assert!(opinions.now(Purpose::Retry, 3).is_none());
        let mut third = Box::pin(opinions.in_turn(Purpose::Previous, 4));
        assert!(third.as_mut().now_or_never().is_none(), "it waits");
        drop(first);
        assert!(third.await.is_some());
        assert!(opinions.now(Purpose::Retry, 3).is_some(), "a refusal for want of a turn is no opinion");
        drop(second);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_and_memory_are_bounded() {
        let opinions = SecondOpinions::new(REST);
        let _held = [opinions.now(Purpose::Retry, 1), opinions.now(Purpose::Retry, 2)];
        let mut waiting: Vec<_> =
            (0..WAITING as u64).map(|n| Box::pin(opinions.in_turn(Purpose::Previous, n))).collect();
        assert!(waiting.iter_mut().all(|one| one.as_mut().now_or_never().is_none()));
        assert!(opinions.in_turn(Purpose::Previous, 99).await.is_none());
        drop(waiting);
        drop(_held);
        for source in 0..2 * SOURCES as u64 {
            opinions.now(Purpose::Retry, 1_000 + source);
        }
        assert!(opinions.asked.lock().len() <= SOURCES);
        advance(REST).await;
        assert!(opinions.now(Purpose::Retry, 7).is_some());
    }
}
