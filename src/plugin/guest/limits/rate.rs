//! Bytes per second over all calls and instances of a plugin: the bound on a guest's log, however often it is called.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

const SECOND: Duration = Duration::from_secs(1);

/// Counts in windows of one second. A window begins with the first bytes after the previous one.
#[derive(Debug)]
pub(in crate::plugin) struct LogRate {
    most: usize,
    window: Mutex<Window>,
}

#[derive(Debug)]
struct Window {
    since: Instant,
    used: usize,
    cut: bool,
}

/// Decision about a number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plugin) enum LogDecision {
    /// They are within the share of this second.
    Write,
    /// They are the first bytes beyond the share.
    WriteNotice,
    /// They are further bytes beyond the share.
    Discard,
}

impl LogRate {
    /// Permits `most` bytes a second.
    pub(in crate::plugin) fn new(most: usize) -> Self {
        Self { most, window: Mutex::new(Window { since: Instant::now(), used: 0, cut: false }) }
    }

    pub(in crate::plugin) fn take(&self, bytes: usize, now: Instant) -> LogDecision {
        let mut window = self.window.lock();
        if now.saturating_duration_since(window.since) >= SECOND {
            *window = Window { since: now, used: 0, cut: false };
        }
        if window.used.saturating_add(bytes) <= self.most {
            window.used += bytes;
            return LogDecision::Write;
        }
        if std::mem::replace(&mut window.cut, true) { LogDecision::Discard } else { LogDecision::WriteNotice }
    }
}

#[cfg(test)]
mod tests {
    use LogDecision::{Discard, Write, WriteNotice};

    use super::*;

    #[test]
    fn log_bytes_beyond_the_rate_of_a_second_are_discarded() {
        let (rate, now) = (LogRate::new(100), Instant::now());
        let at = |millis: u64, bytes| rate.take(bytes, now + Duration::from_millis(millis));
        assert_eq!([at(0, 60), at(10, 60), at(20, 60), at(30, 40)], [Write, WriteNotice, Discard, Write]);
        assert_eq!([at(500, 1), at(1_500, 100), at(2_400, 1)], [Discard, Write, WriteNotice]);
    }
}
