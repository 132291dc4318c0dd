//! Time as the hub counts it: ticks since the hub was made. Tick 0 never is, so that it can mean "none".

use std::time::Duration;

use tokio::time::Instant;

use super::Settings;
use crate::clock;

/// Number of a tick. At one a second it lasts 136 years.
pub(super) type Tick = u32;

/// The usual tick. A shorter one is taken where a configured time is too short to be told with it.
const TICK: Duration = Duration::from_secs(1);
const SHORTEST_TICK: Duration = Duration::from_millis(10);

/// Turns time into ticks, the same ones in every shard.
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

    /// How many ticks it takes for at least `time` to pass; at least one.
    pub(super) fn ticks(&self, time: Duration) -> Tick {
        Tick::try_from(time.as_nanos().div_ceil(self.tick.as_nanos())).unwrap_or(Tick::MAX).max(1)
    }

    /// The tick by which all of `time` has passed from now on.
    pub(super) fn after(&self, time: Duration) -> Tick {
        // The current tick has begun already.
        self.now().saturating_add(self.ticks(time)).saturating_add(1)
    }

    /// The tick at which the wall clock shows so many seconds since 1970; the next one if it did already.
    pub(super) fn at_wall(&self, seconds: u64) -> Tick {
        self.after(Duration::from_secs(seconds).saturating_sub(clock::since_1970()))
    }
}
