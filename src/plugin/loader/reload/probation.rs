//! Probation of a new version. The previous version stays warm and is restored when the new version's circuit opens.
//! After its probation, a canary serves all senders.

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::time::Instant;

use super::{Loader, RolledBack};
use crate::plugin::Rejected;
use crate::plugin::calls::snapshot::Entry;
use crate::plugin::calls::version::{Condemned, Version};
use crate::telemetry::names;

/// A probation with few calls ends after this time, or after this many times its length if that is longer.
const AT_MOST: Duration = Duration::from_secs(600);
const AT_MOST_TIMES: u32 = 20;

/// Length of a probation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    /// Fewest calls.
    pub(super) calls: u64,
    /// Shortest time.
    pub(super) time: Duration,
}

/// One probation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Trial {
    since: Instant,
    /// Calls that the version had served when it began.
    calls: u64,
}

impl Trial {
    /// Begins now, for a version that has served `calls`.
    pub(super) fn new(calls: u64) -> Self {
        Self { since: Instant::now(), calls }
    }

    fn is_over(&self, rules: Rules, now: Instant, calls: u64) -> bool {
        let lasted = now.saturating_duration_since(self.since);
        let enough_calls = calls.saturating_sub(self.calls) >= rules.calls;
        (enough_calls && lasted >= rules.time) || lasted >= AT_MOST.max(rules.time.saturating_mul(AT_MOST_TIMES))
    }
}

impl Entry {
    /// The version to go back to once another one takes its place: the live one, unless its circuit is open and there
    /// is an older one.
    pub(super) fn last_good(self) -> Option<Arc<Version>> {
        match (self.live, self.previous) {
            (Some(live), Some(previous)) if !live.breaker.is_closed() => {
                drop(live);
                Some(previous)
            }
            (live, previous) => live.or(previous),
        }
    }

    /// The version on probation.
    fn on_trial(&self) -> Option<&Arc<Version>> {
        self.canary.as_ref().map(|canary| &canary.version).or(self.live.as_ref())
    }
}

impl Loader {
    /// Ends the probations that are over. Returns true if there is something to publish.
    pub(super) fn review(&mut self, now: Instant) -> bool {
        let rules = self.probation;
        let mut reviewed = false;
        for (name, plugin) in &mut self.plugins {
            let (Some(trial), Some(entry)) = (plugin.trial, plugin.entry.as_mut()) else { continue };
            let Some(calls) = entry.on_trial().map(|version| version.stats.calls()) else { continue };
            if !trial.is_over(rules, now, calls) {
                continue;
            }
            reviewed = true;
            let Some(canary) = entry.canary.take() else {
                // Kept for the operator, but cold: its instances are worth more elsewhere.
                entry.previous.iter().for_each(|previous| previous.cool());
                entry.live.iter().for_each(|live| live.set_previous(None));
                (plugin.trial, entry.probation) = (None, false);
                let hash = |version: Option<&Arc<Version>>| version.map(|version| Arc::clone(&version.mark.hash));
                let (now, before) = (hash(entry.live.as_ref()), hash(entry.previous.as_ref()));
                tracing::info!(
                    plugin = %name, hash = now.as_deref(), before = before.as_deref(), calls,
                    "the plugin's version has proved itself: it is not taken back by itself any more"
                );
                continue;
            };
            let (hash, version) = (Arc::clone(&canary.version.mark.hash), canary.version.number);
            let before = entry.live.replace(canary.version);
            tracing::info!(
                plugin = %name, version, %hash, before = before.as_ref().map(|old| old.mark.hash.as_ref()), calls,
                "the plugin's canary has proved itself: it serves all senders"
            );
            counter!(names::PLUGIN_RELOADS, "plugin" => name.to_string(), "outcome" => "live").increment(1);
            entry.previous = before;
            plugin.trial = Some(Trial::new(calls));
        }
        reviewed
    }

    /// Handles sufficient evidence against a version: it is rolled back if it is on probation.
    pub(in crate::plugin) async fn condemned(&mut self, Condemned { version, failure }: Condemned) {
        let Some(plugin) = self.plugins.get(&version.name) else { return };
        let (Some(trial), Some(entry)) = (plugin.trial, plugin.entry.as_ref()) else { return };
        let calls = version.stats.calls();
        let is_it = entry.on_trial().is_some_and(|on_trial| Arc::ptr_eq(on_trial, &version));
        if !is_it || trial.is_over(self.probation, Instant::now(), calls) {
            return;
        }
        let name = Arc::clone(&version.name);
        let reason = format!("rolled back: it failed by its own fault within {calls} calls: {failure}");
        if let Err(why) = self.roll_back(&name, reason).await {
            tracing::error!(plugin = %name, hash = %version.mark.hash, why, "the plugin cannot be rolled back");
        }
    }

    /// Goes back to the previous version. The files that served are recorded as refused, so that they are not tried
    /// again until they change. This holds after a restart, too.
    ///
    /// # Errors
    /// Why a rollback is not possible.
    pub(super) async fn roll_back(&mut self, name: &Arc<str>, reason: String) -> Result<(), String> {
        let entry = self.plugins.get(name).and_then(|plugin| plugin.entry.as_ref());
        let entry = entry.ok_or("nothing serves")?;
        let back_to = match &entry.canary {
            Some(_) => entry.live.clone(),
            None => entry.previous.clone(),
        };
        let back_to = back_to.ok_or("there is no earlier version to go back to")?;
        if let Some((key, owner)) = self.clash(&back_to) {
            return Err(format!("the version before owns the key {key:?}, which plugin {owner} owns by now"));
        }
        if let Err(failure) = back_to.warm().await {
            tracing::warn!(plugin = %name, %failure, "the version before is not warm");
        }
        let plugin = self.plugin(name);
        plugin.trial = None;
        let Some(entry) = plugin.entry.as_mut() else { return Ok(()) };
        let taken_back = entry.canary.take().map(|canary| canary.version);
        let taken_back = match taken_back {
            Some(version) => Some(version),
            None => {
                entry.previous = None;
                entry.live.replace(Arc::clone(&back_to))
            }
        };
        let refused = taken_back.map(|version| version.mark.clone());
        let before = refused.as_ref().map(|mark| Arc::clone(&mark.hash));
        tracing::error!(
            plugin = %name, version = back_to.number, hash = %back_to.mark.hash, before = before.as_deref(), reason,
            "plugin is rolled back"
        );
        counter!(names::PLUGIN_RELOADS, "plugin" => name.to_string(), "outcome" => "rolled_back").increment(1);
        entry.rejected = before.map(|hash| Rejected { hash: hash.to_string(), reason: reason.clone() });
        entry.probation = false;
        plugin.rolled_back = refused.map(|refused| RolledBack { refused, reason, serves: back_to.mark.clone() });
        self.publish_one(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_probation_takes_calls_and_time_and_ends_in_any_case() {
        let rules = Rules { calls: 1_000, time: Duration::from_secs(30) };
        let trial = Trial::new(500);
        let over = |seconds, calls| trial.is_over(rules, trial.since + Duration::from_secs(seconds), calls);
        assert!(!over(29, 1_000_000), "too early");
        assert!(!over(30, 1_499), "too few calls");
        assert!(over(30, 1_500));
        assert!(!over(599, 500));
        assert!(over(600, 500), "nobody calls it");
    }
}
