//! The time that guests see, and that the ends of their keys are counted by: the machine's, or one that stands until it is moved.
//!
//! Budgets are no part of it: a guest pays with the machine's own time.

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
    /// At `start`, since 1970.
    since_1970: Duration,
    /// Nanoseconds that were let pass.
    passed: AtomicU64,
}

static STARTED: LazyLock<Instant> = LazyLock::new(Instant::now);

impl Time {
    /// A time that stands at so long since 1970 until [`Time::advance`] moves it.
    #[must_use]
    pub fn fixed(since_1970: Duration) -> Self {
        Self(Some(Arc::new(Fixed { start: Instant::now(), since_1970, passed: AtomicU64::new(0) })))
    }

    /// Lets so much of a fixed time pass; the machine's does as it likes.
    pub fn advance(&self, by: Duration) {
        if let Some(fixed) = &self.0 {
            fixed.passed.fetch_add(u64::try_from(by.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
        }
    }

    /// Since 1970.
    pub(super) fn since_1970(&self) -> Duration {
        self.0.as_ref().map_or_else(clock::since_1970, |fixed| fixed.since_1970 + fixed.passed())
    }

    /// Since some start, never going back.
    pub(super) fn monotonic(&self) -> Duration {
        self.0.as_ref().map_or_else(|| STARTED.elapsed(), |fixed| fixed.passed())
    }

    /// To count the end of something by.
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
