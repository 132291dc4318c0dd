//! Drain: closes all connections with a code that means "reconnect".
//!
//! The closes are spread over time, so that not all users connect to the next node in the same second.

use tokio::time::{Duration, Instant, sleep, timeout_at};

use super::cluster::choose::NodeChooser;
use super::cluster::redirect::close_with_redirect;
use crate::disconnect::Disconnect;
use crate::hub::Hub;

/// Time between two steps.
const STEP: Duration = Duration::from_millis(500);
/// Minimum number of connections per step. A small node needs no spreading.
const MIN_STEP: usize = 100;

/// Closes all connections of `hub`, `step_percent` per cent at a time. Returns when all are gone or at `deadline`; the
/// hub closes the rest.
pub(super) async fn close_all(hub: &Hub, chooser: &NodeChooser, step_percent: u32, deadline: Instant) {
    let all_gone = async {
        close_in_steps(hub, chooser, step_percent).await;
        while !hub.connections().is_empty() {
            sleep(STEP / 10).await;
        }
    };
    if timeout_at(deadline, all_gone).await.is_err() {
        tracing::warn!("drain: grace time is over; closing the remaining connections");
    }
}

async fn close_in_steps(hub: &Hub, chooser: &NodeChooser, step_percent: u32) {
    let connections = hub.connections();
    let share = connections.len() * step_percent as usize / 100;
    for (i, step) in connections.chunks(share.max(MIN_STEP)).enumerate() {
        if i > 0 {
            sleep(STEP).await;
        }
        for connection in step {
            close_with_redirect(chooser, connection, Disconnect::RESTART).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::node::fake::Fake;

    #[tokio::test(start_paused = true)]
    async fn drain_ends_at_its_deadline_with_steps_left() {
        let fake = Fake::new(&Config::default());
        let mut connections = Vec::new();
        for i in 0..2 * MIN_STEP + 1 {
            connections.push(fake.connect(&format!("u{i}"), "phone", "android", &[]).await);
        }
        fake.node.begin_drain();
        let begun = Instant::now();
        fake.node.drain(1, begun + STEP + STEP / 2).await;
        assert_eq!(begun.elapsed(), STEP + STEP / 2, "the third step would come later");
        let closed = connections.iter().filter(|c| c.closed() == Some(Disconnect::RESTART)).count();
        assert_eq!(closed, 2 * MIN_STEP);
    }
}
