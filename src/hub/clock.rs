//! Clock of the hub: ticks since its creation. Tick 0 never occurs, so that it can mean "none".

use std::time::Duration;

use tokio::time::Instant;

use super::Settings;
use crate::clock;

/// Number of a tick. With one tick per second, the type lasts 136 years.
pub(super) type Tick = u32;

/// Default length of a tick. A shorter one is used if a configured time is too short for it.
const TICK: Duration = Duration::from_secs(1);
const SHORTEST_TICK: Duration = Duration::from_millis(10);

/// Converts times to ticks, identically in every shard.
#[derive(Debug, Clone)]
pub(super) struct Clock {
    pub(super) start: Instant,
    pub(super) tick: Duration,
}

impl Clock {
    pub(super) fn new(settings: &Settings) -> Self {
        let shortest = settings.heartbeat.interval.min(settings.queue.write_timeout).min(settings.unbound);
        Self { start: Instant::now(), tick: (shortest / 4).clamp(SHORTEST_TICK, TICK) }
    }

    pub(super) fn now(&self) -> Tick {
        let ticks = self.start.elapsed().as_nanos() / self.tick.as_nanos();
        Tick::try_from(ticks).map_or(Tick::MAX, |ticks| ticks.saturating_add(1))
    }

    /// Number of ticks in which at least `time` passes. At least one.
    pub(super) fn ticks(&self, time: Duration) -> Tick {
        Tick::try_from(time.as_nanos().div_ceil(self.tick.as_nanos())).unwrap_or(Tick::MAX).max(1)
    }

    /// Tick at which all of `time` has passed from now on.
    pub(super) fn after(&self, time: Duration) -> Tick {
        // The current tick has already begun.
        self.now().saturating_add(self.ticks(time)).saturating_add(1)
    }

    /// Tick at which the wall clock reaches `seconds` since 1970. The next tick if that time has passed.
    pub(super) fn at_unix_time(&self, seconds: u64) -> Tick {
        self.after(Duration::from_secs(seconds).saturating_sub(clock::since_1970()))
    }
}
