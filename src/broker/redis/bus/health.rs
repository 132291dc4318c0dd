//! State of one connection to the engine, and the time since it fails.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// State of one connection. Starts as unavailable.
#[derive(Debug)]
pub(super) struct Health {
    what: &'static str,
    outage: Mutex<Option<Outage>>,
}

#[derive(Debug)]
struct Outage {
    since: Instant,
    why: String,
}

impl Health {
    /// Creates the state of the connection that does `what`.
    pub(super) fn new(what: &'static str) -> Self {
        let outage = Outage { since: Instant::now(), why: "not connected yet".to_owned() };
        Self { what, outage: Mutex::new(Some(outage)) }
    }

    /// Marks the connection as working.
    pub(super) fn mark_connected(&self) {
        if let Some(outage) = self.outage.lock().take() {
            tracing::info!(what = self.what, after = ?outage.since.elapsed(), "redis connected");
        }
    }

    /// Marks the connection as failed. The time counts from the first failure in a row.
    pub(super) fn mark_failed(&self, why: String) {
        let mut outage = self.outage.lock();
        if outage.as_ref().is_none_or(|outage| outage.why != why) {
            tracing::warn!(what = self.what, %why, "redis connection failed; retrying");
        }
        let since = outage.as_ref().map_or_else(Instant::now, |outage| outage.since);
        *outage = Some(Outage { since, why });
    }

    /// Returns the reason if the connection has failed for at least `time`.
    pub(super) fn failed_for(&self, time: Duration) -> Option<String> {
        self.outage.lock().as_ref().filter(|outage| outage.since.elapsed() >= time).map(|outage| outage.why.clone())
    }

    /// Returns one short sentence while the connection fails.
    pub(super) fn fault(&self) -> Option<String> {
        self.outage
            .lock()
            .as_ref()
            .map(|outage| format!("redis is unavailable: the node cannot {}: {}", self.what, outage.why))
    }
}
