//! The time that guests see, and by which their keys expire: the machine's clock, or a fixed one.
//!
//! Budgets do not use it: guests are charged by the machine's own clock.

use std::sync::Arc;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use wasmtime_wasi::{HostMonotonicClock, HostWallClock};

use crate::clock;

/// The machine's time, unless it is [`Time::fixed`].
#[derive(Debug, Clone, Default)]
pub struct Time(Option<Arc<Fixed>>);

#[derive(Debug)]
struct Fixed {
    start: Instant,
    /// Time since 1970 at `start`.
    since_1970: Duration,
    /// Nanoseconds by which the clock was advanced.
    passed: AtomicU64,
}

static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Time {
    /// A clock that stands at this time since 1970 until [`Time::advance`] moves it.
    #[must_use]
    pub fn fixed(since_1970: Duration) -> Self {
        Self(Some(Arc::new(Fixed { start: Instant::now(), since_1970, passed: AtomicU64::new(0) })))
    }

    /// Advances a fixed clock. Does nothing to the machine's clock.
    pub fn advance(&self, by: Duration) {
        if let Some(fixed) = &self.0 {
            fixed.passed.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// Time since 1970.
    pub(super) fn since_1970(&self) -> Duration {
        self.0.as_ref().map_or_else(clock::since_1970, |fixed| fixed.since_1970 + fixed.passed())
    }

    /// Time since an arbitrary start; never goes back.
    pub(super) fn monotonic(&self) -> Duration {
        self.0.as_ref().map_or_else(|| STARTED.elapsed(), |fixed| fixed.passed())
    }

    /// The current instant, for expiries and due times.
    pub(super) fn instant(&self) -> Instant {
        self.0.as_ref().map_or_else(Instant::now, |fixed| fixed.start + fixed.passed())
    }
}

impl Fixed {
    fn passed(&self) -> Duration {
        Duration::from_nanos(self.passed.load(Ordering::Relaxed))
    }
}

impl HostWallClock for Time {
    fn resolution(&self) -> Duration {
        Duration::from_millis(1)
    }

    fn now(&self) -> Duration {
        self.since_1970()
    }
}

impl HostMonotonicClock for Time {
    fn resolution(&self) -> u64 {
        1
    }

    fn now(&self) -> u64 {
        u64::try_from(self.monotonic().as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_fixed_time_moves_only_when_it_is_moved() {
        let time = Time::fixed(Duration::from_secs(1_000));
        let (instant, shared) = (time.instant(), time.clone());
        assert_eq!((time.since_1970(), time.monotonic()), (Duration::from_secs(1_000), Duration::ZERO));
        shared.advance(Duration::from_secs(5));
        assert_eq!((time.since_1970(), time.monotonic()), (Duration::from_secs(1_005), Duration::from_secs(5)));
        assert_eq!(time.instant(), instant + Duration::from_secs(5));
    }
}
