//! Sketch of the sources seen lately: one slot for each hash, with the second of the last call.
//!
//! Two sources seldom share one of the 4 096 slots. A slot is written at most once a second for the same source.
//! Nothing is allocated or locked, so a call may mark its source at any time.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::super::source::SourceId;

/// Seconds for which a source counts as seen.
pub(super) const WINDOW: u32 = 60;
/// Slots for the sources that count for the circuit, and slots for their groups.
const SLOTS: usize = 4_096;
/// Samples per second that are enough while nothing fails.
const SAMPLES: u64 = 256;
/// At least one call in this many is a sample.
const MOST_GAP: u64 = 64;

/// The sketch of one version.
#[derive(Debug)]
pub(super) struct RecentSources {
    sources: Box<[AtomicU32]>,
    groups: Box<[AtomicU32]>,
}

/// Seconds of the breaker's clock, from 1 on.
pub(super) type Seconds = u32;

impl RecentSources {
    pub(super) fn new() -> Self {
        let slots = || (0..SLOTS).map(|_| AtomicU32::new(0)).collect();
        Self { sources: slots(), groups: slots() }
    }

    /// Records a call of the source.
    pub(super) fn mark(&self, source: SourceId, now: Seconds) {
        for (slots, hash) in [(&self.sources, source.circuit_hash), (&self.groups, source.group_hash)] {
            let slot = &slots[slot(hash)];
            if slot.load(Ordering::Relaxed) != now {
                slot.store(now, Ordering::Relaxed);
            }
        }
    }

    /// Approximate number of sources and of groups seen within the window.
    pub(super) fn count(&self, now: Seconds) -> (usize, usize) {
        let lately =
            |slots: &[AtomicU32]| slots.iter().filter(|slot| is_recent(slot.load(Ordering::Relaxed), now)).count();
        (lately(&self.sources), lately(&self.groups))
    }
}

/// True if the second is within the window; 0 means never.
pub(super) const fn is_recent(at: Seconds, now: Seconds) -> bool {
    at != 0 && now.saturating_sub(at) < WINDOW
}

/// The slot of a source. Failing sources are counted in the same slots as seen ones.
pub(super) fn slot(hash: u64) -> usize {
    usize::try_from(hash % SLOTS as u64).unwrap_or_default()
}

/// Selects the calls that mark their source while nothing fails: every call of a quiet plugin, about [`SAMPLES`] a
/// second of a busy one.
#[derive(Debug)]
pub(super) struct Sampler {
    /// Number of the call that is the next sample.
    next: AtomicU64,
    /// Time of the last sample, in nanoseconds of the breaker's clock.
    last: AtomicU64,
}

impl Sampler {
    pub(super) fn new() -> Self {
        Self { next: AtomicU64::new(0), last: AtomicU64::new(0) }
    }

    /// True if call number `call` is a sample. Costs one load.
    pub(super) fn is_due(&self, call: u64) -> bool {
        call >= self.next.load(Ordering::Relaxed)
    }

    /// Chooses the next sample. `salt` keeps the samples from falling into step with the senders.
    pub(super) fn took(&self, call: u64, since_start: Duration, salt: u64) {
        let now = u64::try_from(since_start.as_nanos()).unwrap_or(u64::MAX);
        let since = now.saturating_sub(self.last.swap(now, Ordering::Relaxed)).max(1);
        let before = self.next.load(Ordering::Relaxed);
        let calls = call.saturating_sub(before).saturating_add(1);
        // Calls in a SAMPLES-th of a second, at the rate since the last sample.
        let gap = (calls.saturating_mul(1_000_000_000 / SAMPLES) / since).min(MOST_GAP);
        // The rate is not known yet.
        let gap = if call < MOST_GAP { 0 } else { gap };
        self.next.store(call + 1 + gap + if gap > 1 { salt % gap } else { 0 }, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::calls::source::CallSource;

    #[test]
    fn source_is_counted_once_within_the_window() {
        let seen = RecentSources::new();
        for _ in 0..3 {
            for sender in ["a", "b", "c"] {
                seen.mark(CallSource::Key { name: "shop", sender }.id(), 1);
                seen.mark(CallSource::User(sender).id(), 2);
            }
        }
        // Three users and one key, unless two of the hashes share a slot.
        assert!((3..=4).contains(&seen.count(2).0));
        assert_eq!(seen.count(1 + WINDOW).0, seen.count(2).0 - 1, "the key was seen first");
        assert_eq!(seen.count(2 + WINDOW), (0, 0));
    }

    #[test]
    fn sampler_takes_every_call_of_a_quiet_plugin_and_few_of_a_busy_one() {
        let samples = |calls: u64, between: Duration| {
            let sampler = Sampler::new();
            let at = |call: u64| between * u32::try_from(call).unwrap();
            (0..calls)
                .filter(|call| sampler.is_due(*call))
                .inspect(|call| sampler.took(*call, at(*call), *call))
                .count()
        };
        assert_eq!(samples(100, Duration::from_millis(50)), 100, "20 calls a second");
        let busy = samples(100_000, Duration::from_micros(10));
        assert!((700..3_000).contains(&busy), "{busy} of 100000 calls in a second");
    }
}
