//! Call durations, precise enough for a p50 and a p99: a fixed table of counts without a lock.
//!
//! Each octave of microseconds has four buckets, so a result is at most a quarter too high.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets per octave, as a power of two.
const FINE: u32 = 2;
/// From 1/16 µs to more than an hour.
const BUCKETS: usize = 40 << FINE;
/// The unit of the first bucket: 64 ns.
const UNIT: u32 = 6;

/// Counts of durations.
#[derive(Debug)]
pub(in crate::plugin) struct Durations([AtomicU64; BUCKETS]);

impl Durations {
    pub(in crate::plugin) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; BUCKETS])
    }

    pub(in crate::plugin) fn record(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.0[bucket(nanos >> UNIT)].fetch_add(1, Ordering::Relaxed);
    }

    /// The time within which `percent` per cent of the calls ended; `None` before the first call.
    pub(in crate::plugin) fn percentile(&self, percent: u64) -> Option<Duration> {
        let counts: Vec<u64> = self.0.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let total: u64 = counts.iter().sum();
        let wanted = (total * percent).div_ceil(100).max(1);
        let mut seen = 0;
        let found = counts.iter().position(|count| {
            seen += count;
            seen >= wanted
        })?;
        Some(Duration::from_nanos(end(found) << UNIT))
    }
}

/// Index of the bucket that counts a number of units.
fn bucket(units: u64) -> usize {
    let octave = (units | 1).ilog2();
    if octave < FINE {
        return usize::try_from(units).unwrap_or_default();
    }
    let within = (units >> (octave - FINE)) & ((1 << FINE) - 1);
    let bucket = (u64::from(octave - FINE + 1) << FINE) + within;
    usize::try_from(bucket).map_or(BUCKETS - 1, |bucket| bucket.min(BUCKETS - 1))
}

/// Upper end of a bucket, in units.
fn end(bucket: usize) -> u64 {
    let (octave, within) = (bucket >> FINE, (bucket & ((1 << FINE) - 1)) as u64);
    match octave {
        0 => within + 1,
        _ => ((1 << FINE) + within + 1) << (octave - 1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_follow_each_other_without_a_gap() {
        let mut last = 0;
        for units in 0..100_000_u64 {
            let bucket = bucket(units);
            assert!(bucket == last || bucket == last + 1, "{units}");
            assert!(units < end(bucket) && end(bucket) <= (units + 1) * 5 / 4 + 1, "{units} ends at {}", end(bucket));
            last = bucket;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_are_near_what_was_recorded() {
        let durations = Durations::new();
        assert_eq!(durations.percentile(50), None);
        for millis in 1..=100 {
            durations.record(Duration::from_millis(millis));
        }
        for (percent, millis) in [(50, 50.0), (99, 99.0), (100, 100.0)] {
            let measured = durations.percentile(percent).unwrap().as_secs_f64() * 1e3;
            assert!((millis..millis * 1.26).contains(&measured), "p{percent} is {measured} ms");
        }
    }
}
