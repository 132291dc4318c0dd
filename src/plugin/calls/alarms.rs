//! Delivery of due timers: each goes to the version that serves then, by its export `alarms`.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::commit::{self, Ended};
use super::lease::Lease;
use super::snapshot::Snapshot;
use super::source::CallSource;
use super::version::Version;
use super::version::stats::Outcome;
use crate::plugin::Role;
use crate::plugin::guest::failure::Failure;
use crate::plugin::guest::timers::{Due, Timers};

/// Due timers that are delivered at once, over all plugins.
const AT_ONCE: usize = 32;

/// Delivers due timers until the node ends.
pub(in crate::plugin) async fn ring(
    timers: Arc<Timers>,
    serving: Arc<ArcSwap<Snapshot>>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut told = JoinSet::new();
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
            _ = told.join_next(), if !told.is_empty() => continue,
            () = timers.changed() => continue,
            () = due, if told.len() < AT_ONCE => {}
        }
        while told.len() < AT_ONCE
            && let Some(due) = timers.take_due(Instant::now())
        {
            let live = serving.load().live(&due.plugin);
            match live.filter(|version| version.blueprint.exports.has_alarms()) {
                Some(version) => drop(told.spawn(async move { tell(&version, &due).await })),
                None => {
                    tracing::warn!(plugin = %due.plugin, timer = due.name, "plugin timer dropped: no serving version exports alarms");
                }
            }
        }
    }
    while told.join_next().await.is_some() {}
}

async fn tell(version: &Arc<Version>, due: &Due) {
    if let Err(failure) = hand(version, due).await {
        version.failed(Role::Events, &failure, &CallSource::timer(due));
    }
}

/// Delivers a timer and commits the staged work.
pub(in crate::plugin) async fn hand(version: &Arc<Version>, due: &Due) -> Result<(), Failure> {
    for _ in 0..=commit::RETRIES {
        let begun = version.begin(|| CallSource::timer(due))?;
        let mut lease = Lease::take(version).await?;
        lease.instance().on_timer(&due.name, &due.data).await?;
        let staged = lease.instance().take_staged();
        lease.give_back();
        match commit::commit(&version.blueprint.context, Role::Events, staged).await? {
            Ended::Committed => {
                begun.answered(Outcome::Rang);
                return Ok(());
            }
            Ended::Conflict => begun.lives(),
        }
    }
    Err(commit::too_many_conflicts())
}
