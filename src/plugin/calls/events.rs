//! Events: one bounded queue and one task. Plugins receive events in order, and no caller waits for a plugin.

use std::sync::Arc;

use arc_swap::ArcSwap;
use metrics::counter;
use tokio::sync::{mpsc, watch};

use super::commit::{self, CommitResult};
use super::lease::InstanceLease;
use super::snapshot::Snapshot;
use super::source::CallSource;
use super::version::Version;
use super::version::stats::CallOutcome;
use crate::plugin::guest::failure::Failure;
use crate::plugin::guest::manifest::share;
use crate::plugin::{Event, Role};
use crate::telemetry::names;

/// Events that may wait for the task; more are dropped and counted.
const QUEUE: usize = 8_192;

/// The sending side of the queue.
pub(in crate::plugin) struct Queue {
    waiting: mpsc::Sender<(Event, u8)>,
}

impl Queue {
    pub(in crate::plugin) fn new() -> (Self, mpsc::Receiver<(Event, u8)>) {
        let (waiting, events) = mpsc::channel(QUEUE);
        (Self { waiting }, events)
    }

    /// Queues the event, or drops it if the queue is full.
    pub(in crate::plugin) fn put(&self, event: Event, hops: u8) {
        if self.waiting.try_send((event, hops)).is_err() {
            counter!(names::PLUGIN_EVENTS_LOST).increment(1);
        }
    }
}

/// Delivers events to the plugins of the current snapshot until the node ends. Events that wait at that time are still
/// delivered.
pub(in crate::plugin) async fn deliver_events(
    serving: Arc<ArcSwap<Snapshot>>,
    mut events: mpsc::Receiver<(Event, u8)>,
    mut stopped: watch::Receiver<bool>,
) {
    loop {
        let event = tokio::select! {
            biased;
            event = events.recv() => event,
            _ = stopped.changed(), if !events.is_closed() => {
                events.close();
                continue;
            }
        };
        let Some((event, hops)) = event else { return };
        let plugins = serving.load_full();
        for version in plugins.events.iter().filter_map(|served| served.choose(|| Some(share::subject(&event)))) {
            if !wants(version, &event) {
                continue;
            }
            if let Err(failure) = deliver(version, &event, hops).await {
                version.failed(Role::Events, &failure, &CallSource::subject(&event));
            }
        }
    }
}

fn wants(version: &Version, event: &Event) -> bool {
    if event.is_receipt() && !version.has_receipts() {
        return false;
    }
    let room = match event {
        Event::Online(_) | Event::Offline(_) | Event::Resumed(..) | Event::Undelivered(..) => None,
        Event::RoomJoined(_, room) | Event::RoomLeft(_, room) => Some(room.as_str()),
    };
    version.manifest.rules.wants_room(room)
}

/// Delivers the event to one plugin and commits its staged work.
pub(in crate::plugin) async fn deliver(version: &Arc<Version>, event: &Event, hops: u8) -> Result<(), Failure> {
    for _ in 0..=commit::RETRIES {
        let begun = version.begin(|| CallSource::subject(event))?;
        let mut lease = InstanceLease::take(version).await?;
        lease.instance().on_event(event, hops).await?;
        let staged = lease.instance().take_staged();
        lease.return_to_pool();
        if commit::commit(&version.blueprint.context, Role::Events, staged).await? == CommitResult::Committed {
            begun.answered(if event.is_receipt() {
                CallOutcome::ReceiptDelivered
            } else {
                CallOutcome::EventDelivered
            });
            return Ok(());
        }
    }
    Err(commit::too_many_conflicts())
}
