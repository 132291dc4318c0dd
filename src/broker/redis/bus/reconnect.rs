//! Keeps one connection of the bus: dials it, uses it until it breaks, and dials again after a growing pause.
//!
//! Independent of what the connection carries.

use std::sync::Arc;
use std::time::Duration;

use metrics::{Counter, counter};
use tokio::sync::watch;
use tokio::time::sleep;

use super::super::client::Client;
use super::super::wire::{Wire, WireError};
use super::health::Health;
use crate::backoff::Backoff;
use crate::telemetry::names;

/// Pause before a new connection attempt.
const FIRST_WAIT: Duration = Duration::from_millis(50);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Uses one connection after the other.
pub(super) trait Serve: Send {
    /// Uses `wire` until it breaks. Returns `Ok` once the bus is closed and no work is left. Marks the health as back
    /// as soon as the connection works.
    fn serve(&mut self, wire: Wire) -> impl Future<Output = Result<(), WireError>> + Send;
}

/// The loop around the connections of one [`Serve`].
pub(super) struct Reconnect {
    client: Arc<Client>,
    health: Arc<Health>,
    closing: watch::Receiver<bool>,
    lost: Counter,
}

impl Reconnect {
    /// `way` is the purpose of the connections in metrics.
    pub(super) fn new(
        client: &Arc<Client>,
        health: &Arc<Health>,
        closing: &watch::Receiver<bool>,
        way: &'static str,
    ) -> Self {
        let lost = counter!(names::BUS_RECONNECTS, "engine" => "redis", "way" => way);
        Self { client: Arc::clone(client), health: Arc::clone(health), closing: closing.clone(), lost }
    }

    /// Runs until `serve` is done, or until the bus is closed while no connection stands.
    pub(super) async fn run(mut self, mut serve: impl Serve) {
        let mut backoff = Backoff::new(FIRST_WAIT, LONGEST_WAIT);
        loop {
            match self.client.wire().await {
                Ok(wire) => {
                    backoff.reset();
                    match serve.serve(wire).await {
                        Ok(()) => return,
                        Err(error) => self.health.mark_failed(error.to_string()),
                    }
                    self.lost.increment(1);
                }
                Err(unavailable) => self.health.mark_failed(unavailable.why),
            }
            if *self.closing.borrow() {
                return;
            }
            tokio::select! {
                () = sleep(backoff.wait()) => {}
                _ = self.closing.changed() => {}
            }
        }
    }
}
