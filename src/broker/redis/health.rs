//! Whether one of the ways to the engine works, and since when it does not.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// One way's state. At first it is away.
#[derive(Debug)]
pub(super) struct Health {
    what: &'static str,
    away: Mutex<Option<Away>>,
}

#[derive(Debug)]
struct Away {
    since: Instant,
    why: String,
}

impl Health {
    /// Of the way that does `what`.
    pub(super) fn new(what: &'static str) -> Self {
        let away = Away { since: Instant::now(), why: "not connected yet".to_owned() };
        Self { what, away: Mutex::new(Some(away)) }
    }

    /// It works.
    pub(super) fn is_back(&self) {
        if let Some(away) = self.away.lock().take() {
            tracing::info!(what = self.what, after = ?away.since.elapsed(), "redis is there");
        }
    }

    /// It does not, and why. The time it has been away counts from the first such word.
    pub(super) fn is_away(&self, why: String) {
        let mut away = self.away.lock();
        if away.as_ref().is_none_or(|away| away.why != why) {
            tracing::warn!(what = self.what, %why, "redis is away");
        }
        let since = away.as_ref().map_or_else(Instant::now, |away| away.since);
        *away = Some(Away { since, why });
    }

    /// Why it does not work, if that has lasted for so long.
    pub(super) fn away_for(&self, long: Duration) -> Option<String> {
        self.away.lock().as_ref().filter(|away| away.since.elapsed() >= long).map(|away| away.why.clone())
    }

    /// One short sentence while it does not work.
    pub(super) fn fault(&self) -> Option<String> {
        self.away.lock().as_ref().map(|away| format!("redis is away, the node cannot {}: {}", self.what, away.why))
    }
}
