//! The end of a node's life: no new connections, then every one closed with a code that says "come back".
//!
//! Spread out, so that a whole node's users do not dial the next one in the same second.

use tokio::time::{Duration, Instant, sleep, sleep_until, timeout_at};

use super::Node;
use crate::config::Drain;
use crate::disconnect::Disconnect;

/// Time between two steps.
const STEP: Duration = Duration::from_millis(500);
/// A step closes at least so many: a small node needs no spreading.
const MIN_STEP: usize = 100;

impl Node {
    /// From now on: not ready, no new connection.
    pub fn begin_drain(&self) {
        self.draining.store(true, std::sync::atomic::Ordering::Release);
    }

    /// Closes every connection, a step at a time; takes no longer than `drain.grace`.
    pub async fn drain(&self, drain: &Drain) {
        let deadline = Instant::now() + drain.grace;
        let connections = self.hub.connections();
        let share = connections.len() * drain.step_percent as usize / 100;
        for (i, step) in connections.chunks(share.max(MIN_STEP)).enumerate() {
            if i > 0 {
                sleep(STEP).await;
            }
            let close_all = async {
                for connection in step {
                    connection.close(Disconnect::RESTART).await;
                }
            };
            if timeout_at(deadline, close_all).await.is_err() {
                break;
            }
        }
        let all_gone = async {
            while !self.hub.connections().is_empty() {
                sleep(STEP / 10).await;
            }
        };
        tokio::select! {
            () = all_gone => {}
            () = sleep_until(deadline) => tracing::warn!("drain: the grace time is over, the rest is cut"),
        }
    }
}
