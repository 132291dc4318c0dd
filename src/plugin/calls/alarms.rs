//! Delivery of due timers: each goes to the version that serves then, by its export `alarms`.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::commit::{self, CommitResult};
use super::lease::InstanceLease;
use super::snapshot::Snapshot;
use super::source::CallSource;
use super::version::Version;
use super::version::stats::CallOutcome;
use crate::plugin::Role;
use crate::plugin::guest::failure::Failure;
use crate::plugin::guest::timers::{DueTimer, Timers};

/// Due timers that are delivered at once, over all plugins.
const AT_ONCE: usize = 32;

/// Delivers due timers until the node ends.
pub(in crate::plugin) async fn deliver_timers(
    timers: Arc<Timers>,
    serving: Arc<ArcSwap<Snapshot>>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut deliveries = JoinSet::new();
    loop {
        let next = timers.next();
        let due = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            _ = stopped.changed() => break,
            _ = deliveries.join_next(), if !deliveries.is_empty() => continue,
            () = timers.changed() => continue,
            () = due, if deliveries.len() < AT_ONCE => {}
        }
        while deliveries.len() < AT_ONCE
            && let Some(due) = timers.take_due(Instant::now())
        {
            let live = serving.load().live(&due.plugin);
            match live.filter(|version| version.blueprint.exports.has_alarms()) {
                Some(version) => drop(deliveries.spawn(async move { deliver_or_count(&version, &due).await })),
                None => {
                    tracing::warn!(plugin = %due.plugin, timer = due.name, "plugin timer dropped: no serving version exports alarms");
                }
            }
        }
    }
    while deliveries.join_next().await.is_some() {}
}

async fn deliver_or_count(version: &Arc<Version>, due: &DueTimer) {
    if let Err(failure) = deliver(version, due).await {
        version.failed(Role::Events, &failure, &CallSource::timer(due));
    }
}

/// Delivers a timer and commits the staged work.
pub(in crate::plugin) async fn deliver(version: &Arc<Version>, due: &DueTimer) -> Result<(), Failure> {
    for _ in 0..=commit::RETRIES {
        let begun = version.begin(|| CallSource::timer(due))?;
        let mut lease = InstanceLease::take(version).await?;
        lease.instance().on_timer(&due.name, &due.data).await?;
        let staged = lease.instance().take_staged();
        lease.return_to_pool();
        match commit::commit(&version.blueprint.context, Role::Events, staged).await? {
            CommitResult::Committed => {
                begun.answered(CallOutcome::TimerDelivered);
                return Ok(());
            }
            CommitResult::Conflict => begun.guest_works(),
        }
    }
    Err(commit::too_many_conflicts())
}
