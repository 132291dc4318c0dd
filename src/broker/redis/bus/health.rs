//! State of one connection to the engine, and the time since it fails.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// State of one connection. Starts as unavailable.
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
    /// Creates the state of the connection that does `what`.
    pub(super) fn new(what: &'static str) -> Self {
        let away = Away { since: Instant::now(), why: "not connected yet".to_owned() };
        Self { what, away: Mutex::new(Some(away)) }
    }

    /// Marks the connection as working.
    pub(super) fn is_back(&self) {
        if let Some(away) = self.away.lock().take() {
            tracing::info!(what = self.what, after = ?away.since.elapsed(), "redis connected");
        }
    }

    /// Marks the connection as failed. The time counts from the first failure in a row.
    pub(super) fn is_away(&self, why: String) {
        let mut away = self.away.lock();
        if away.as_ref().is_none_or(|away| away.why != why) {
            tracing::warn!(what = self.what, %why, "redis connection failed; retrying");
        }
        let since = away.as_ref().map_or_else(Instant::now, |away| away.since);
        *away = Some(Away { since, why });
    }

    /// Returns the reason if the connection has failed for at least `long`.
    pub(super) fn away_for(&self, long: Duration) -> Option<String> {
        self.away.lock().as_ref().filter(|away| away.since.elapsed() >= long).map(|away| away.why.clone())
    }

    /// Returns one short sentence while the connection fails.
    pub(super) fn fault(&self) -> Option<String> {
        self.away
            .lock()
            .as_ref()
            .map(|away| format!("redis is unavailable: the node cannot {}: {}", self.what, away.why))
    }
}
