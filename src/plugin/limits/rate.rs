//! Bytes a second, over all calls and instances of a plugin: what a guest logs however often it is called.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

const SECOND: Duration = Duration::from_secs(1);

/// Counts by whole seconds from the first byte on.
#[derive(Debug)]
pub(in crate::plugin) struct Rate {
    most: usize,
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    used: usize,
    cut: bool,
}

/// What may be done with so many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plugin) enum Leave {
    /// They are within the second's share.
    Go,
    /// They are the first that are not.
    Cut,
    /// They are some more that are not.
    Stay,
}

impl Rate {
    /// So many bytes a second.
    pub(in crate::plugin) fn new(most: usize) -> Self {
        Self { most, window: Mutex::new(Window { since: Instant::now(), used: 0, cut: false }) }
    }

    pub(in crate::plugin) fn take(&self, bytes: usize, now: Instant) -> Leave {
        let mut window = self.window.lock();
        if now.saturating_duration_since(window.since) >= SECOND {
            *window = Window { since: now, used: 0, cut: false };
        }
        if window.used.saturating_add(bytes) <= self.most {
            window.used += bytes;
            return Leave::Go;
        }
        if std::mem::replace(&mut window.cut, true) { Leave::Stay } else { Leave::Cut }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_has_its_share_and_no_more() {
        let (rate, now) = (Rate::new(100), Instant::now());
        let at = |millis: u64, bytes| rate.take(bytes, now + Duration::from_millis(millis));
        assert_eq!([at(0, 60), at(10, 60), at(20, 60), at(30, 40)], [Leave::Go, Leave::Cut, Leave::Stay, Leave::Go]);
        assert_eq!([at(500, 1), at(1_500, 100), at(2_400, 1)], [Leave::Stay, Leave::Go, Leave::Cut]);
    }
}
