//! Exponential backoff with jitter.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The delays between attempts at one operation.
#[derive(Debug, Clone)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts at about `first`, doubles with each attempt, and stays at about `longest`.
    #[must_use]
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// Returns the next delay: random, between half of the current step and all of it.
    pub fn wait(&mut self) -> Duration {
        let step = self.next;
        self.next = (step * 2).min(self.longest);
        random_between(step / 2, step)
    }

    /// Restarts at the first step after a success.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// Returns a random time from `least` to `most`.
#[must_use]
pub fn random_between(least: Duration, most: Duration) -> Duration {
    let chance = u32::try_from(RandomState::new().hash_one(least) >> 32).expect("32 bits are left");
    least + most.saturating_sub(least).mul_f64(f64::from(chance) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_with_jitter() {
        let (first, longest) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(first, longest);
        for step in [100, 200, 400, 800, 1000, 1000].map(Duration::from_millis) {
            let wait = backoff.wait();
            assert!(step / 2 <= wait && wait <= step, "{wait:?} of {step:?}");
        }
        backoff.reset();
        assert!(backoff.wait() <= first);
        let waits: std::collections::HashSet<Duration> =
            (0..8).map(|_| Backoff::new(longest, longest).wait()).collect();
        assert!(waits.len() > 1, "{waits:?}");
    }
}
