//! Extra calls that find the cause of a failure: the second opinions of `docs/decisions/0020-blame.md`.
//!
//! Bounded, so that a hostile sender cannot multiply its cost to the node. A source gets one extra call of each purpose
//! per `breaker.rest`, and the whole node runs two at once. Knows no plugin.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ahash::AHashMap;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::spawn_blocking;
use tokio::time::Instant;

/// Extra calls that run on the node at once.
const AT_ONCE: usize = 2;
/// Extra calls that may wait for a permit; more are refused.
const WAITING: usize = 32;
/// Sources that are remembered; more are refused until the rest of the oldest is over.
const SOURCES: usize = 4_096;

/// Purpose of an extra call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::plugin) enum Purpose {
    /// The same version is asked again, because the first call overran its budget.
    Retry,
    /// The previous version is asked, because a version on probation failed.
    Previous,
}

/// Issues permits, each for one extra call.
#[derive(Debug)]
pub(in crate::plugin) struct ExtraCalls {
    rest: Duration,
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
    asked: Mutex<AHashMap<(Purpose, u64), Instant>>,
}

/// The permit for one extra call; the next call may begin when it is dropped.
#[derive(Debug)]
pub(in crate::plugin) struct ExtraCallPermit {
    _permit: OwnedSemaphorePermit,
}

impl ExtraCallPermit {
    /// Runs the call on a blocking thread, so that no busy worker decides its result. Releases the permit when the call
    /// ends. `None` if the call panicked or the runtime ends.
    pub(in crate::plugin) async fn run<T: Send + 'static>(
        self,
        call: impl AsyncFnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let runtime = Handle::current();
        let answer = spawn_blocking(move || {
            let _permit = self;
            runtime.block_on(call())
        });
        answer.await.ok()
    }
}

impl ExtraCalls {
    /// One extra call for each source and purpose per `rest`.
    pub(in crate::plugin) fn new(rest: Duration) -> Self {
        let permits = Arc::new(Semaphore::new(AT_ONCE));
        Self { rest, permits, waiting: AtomicUsize::new(0), asked: Mutex::default() }
    }

    /// A permit for an extra call now; `None` if the source had one within the rest, or no permit is free.
    pub(in crate::plugin) fn try_acquire(&self, purpose: Purpose, source: u64) -> Option<ExtraCallPermit> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().ok()?;
        self.is_first(purpose, source).then_some(ExtraCallPermit { _permit: permit })
    }

    /// A permit once one is free; `None` if the source had one within the rest, or too many wait.
    pub(in crate::plugin) async fn acquire(&self, purpose: Purpose, source: u64) -> Option<ExtraCallPermit> {
        if !self.is_first(purpose, source) {
            return None;
        }
        let _position = QueuePosition::take(&self.waiting)?;
        let permit = Arc::clone(&self.permits).acquire_owned().await.ok()?;
        Some(ExtraCallPermit { _permit: permit })
    }

    /// True while no extra call runs or waits.
    #[cfg(test)]
    pub(in crate::plugin) fn is_idle(&self) -> bool {
        self.permits.available_permits() == AT_ONCE && self.waiting.load(Ordering::Relaxed) == 0
    }

    /// Records an extra call for the source; false if it had one within the rest.
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

/// A position in the queue for permits.
struct QueuePosition<'a>(&'a AtomicUsize);

impl<'a> QueuePosition<'a> {
    fn take(waiting: &'a AtomicUsize) -> Option<Self> {
        let position = Self(waiting);
        (waiting.fetch_add(1, Ordering::Relaxed) < WAITING).then_some(position)
    }
}

impl Drop for QueuePosition<'_> {
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
    async fn source_gets_one_extra_call_of_each_purpose_per_rest() {
        let extra_calls = ExtraCalls::new(REST);
        assert!(extra_calls.try_acquire(Purpose::Retry, 1).is_some());
        assert!(extra_calls.try_acquire(Purpose::Retry, 1).is_none());
        assert!(extra_calls.acquire(Purpose::Previous, 1).await.is_some());
        assert!(extra_calls.acquire(Purpose::Previous, 1).await.is_none());
        assert!(extra_calls.try_acquire(Purpose::Retry, 2).is_some());
        advance(REST).await;
        assert!(extra_calls.try_acquire(Purpose::Retry, 1).is_some());
    }

    #[tokio::test]
    async fn permit_is_free_again_after_an_answer_and_after_a_panic() {
        let extra_calls = ExtraCalls::new(REST);
        let permit = extra_calls.try_acquire(Purpose::Retry, 1).unwrap();
        assert_eq!(permit.run(async || 7).await, Some(7));
        assert!(extra_calls.is_idle());
        let permit = extra_calls.try_acquire(Purpose::Retry, 2).unwrap();
        assert_eq!(permit.run(async || -> u8 { panic!("a guest's call panics") }).await, None);
        assert!(extra_calls.is_idle());
    }

    #[tokio::test(start_paused = true)]
    async fn two_extra_calls_run_at_once_and_the_third_waits() {
        let extra_calls = ExtraCalls::new(REST);
        let (first, second) =
            (extra_calls.try_acquire(Purpose::Retry, 1), extra_calls.acquire(Purpose::Previous, 2).await);
        assert!(first.is_some() && second.is_some());
        assert!(extra_calls.try_acquire(Purpose::Retry, 3).is_none());
        let mut third = Box::pin(extra_calls.acquire(Purpose::Previous, 4));
        assert!(third.as_mut().now_or_never().is_none(), "it waits");
        drop(first);
        assert!(third.await.is_some());
        assert!(
            extra_calls.try_acquire(Purpose::Retry, 3).is_some(),
            "a refusal without a free permit counts as no extra call"
        );
        drop(second);
    }

    #[tokio::test(start_paused = true)]
    async fn waiting_and_memory_are_bounded() {
        let extra_calls = ExtraCalls::new(REST);
        let _held = [extra_calls.try_acquire(Purpose::Retry, 1), extra_calls.try_acquire(Purpose::Retry, 2)];
        let mut waiting: Vec<_> =
            (0..WAITING as u64).map(|n| Box::pin(extra_calls.acquire(Purpose::Previous, n))).collect();
        assert!(waiting.iter_mut().all(|one| one.as_mut().now_or_never().is_none()));
        assert!(extra_calls.acquire(Purpose::Previous, 99).await.is_none());
        drop(waiting);
        drop(_held);
        for source in 0..2 * SOURCES as u64 {
            extra_calls.try_acquire(Purpose::Retry, 1_000 + source);
        }
        assert!(extra_calls.asked.lock().len() <= SOURCES);
        advance(REST).await;
        assert!(extra_calls.try_acquire(Purpose::Retry, 7).is_some());
    }
}
