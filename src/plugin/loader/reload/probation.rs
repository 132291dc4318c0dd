//! Probation of a new version. The previous version stays warm and is restored when the new version's circuit opens.
//! After its probation, a canary serves all senders.

use std::sync::Arc;

use metrics::counter;
use tokio::time::Instant;

use super::Loader;
use super::memory::{Rollback, RolledBack};
use crate::plugin::Rejected;
use crate::plugin::calls::snapshot::states::Entry;
use crate::plugin::calls::version::Condemned;
use crate::telemetry::names;

impl Loader {
    /// Ends the probations that are over. Returns true if there is something to publish.
    pub(super) fn review(&mut self, now: Instant) -> bool {
        let rules = self.probation;
        let mut reviewed = false;
        for (name, plugin) in &mut self.plugins {
            let Some(entry) = plugin.entry.as_mut() else { continue };
            let Some((version, probation)) = entry.probation() else { continue };
            let (version, calls) = (Arc::clone(version), version.stats.calls());
            if !probation.is_over(rules, now, calls) {
                continue;
            }
            reviewed = true;
            if let Some(before) = entry.promote(calls) {
                tracing::info!(
                    plugin = %name, version = version.number, hash = %version.mark.hash, before = &*before.mark.hash, calls,
                    "canary passed its probation: it serves all senders"
                );
                counter!(names::PLUGIN_RELOADS, "plugin" => name.to_string(), "outcome" => "live").increment(1);
                continue;
            }
            entry.prove();
            // Kept for the operator, but cold: its instances are worth more elsewhere.
            entry.previous().into_iter().for_each(|previous| previous.cool());
            version.set_previous(None);
            let before = entry.previous().map(|version| version.mark.hash.as_ref());
            tracing::info!(
                plugin = %name, hash = &*version.mark.hash, before, calls,
                "plugin version passed its probation: it is not rolled back automatically any more"
            );
        }
        reviewed
    }

    /// Handles sufficient evidence against a version: it is rolled back if it is on probation.
    pub(in crate::plugin) async fn condemned(&mut self, Condemned { version, failure }: Condemned) {
        let Some(plugin) = self.plugins.get(&version.name) else { return };
        let Some((on_probation, probation)) = plugin.entry.as_ref().and_then(Entry::probation) else { return };
        let calls = version.stats.calls();
        if !Arc::ptr_eq(on_probation, &version) || probation.is_over(self.probation, Instant::now(), calls) {
            return;
        }
        let name = Arc::clone(&version.name);
        let reason = format!("rolled back: it failed on probation within {calls} calls: {failure}");
        if let Err(why) = self.roll_back(&name, reason).await {
            tracing::error!(plugin = %name, hash = %version.mark.hash, why, "plugin cannot be rolled back");
        }
    }

    /// Goes back to the previous version. The files that served are recorded as refused, so that they are not tried
    /// again until they change. This holds after a restart, too.
    ///
    /// # Errors
    /// Why a rollback is not possible.
    pub(super) async fn roll_back(&mut self, name: &Arc<str>, reason: String) -> Result<(), String> {
        let entry = self.plugins.get(name).and_then(|plugin| plugin.entry.as_ref());
        let entry = entry.ok_or("no version of the plugin serves")?;
        let back_to = entry.back_to().cloned().ok_or("there is no earlier version to restore")?;
        if let Some((key, owner)) = self.clash(&back_to) {
            return Err(format!("the previous version owns the key {key:?}, which plugin {owner} owns now"));
        }
        if let Err(failure) = back_to.warm().await {
            tracing::warn!(plugin = %name, %failure, "previous version has no warm instances");
        }
        let plugin = self.plugin(name);
        let Some(entry) = plugin.entry.as_mut() else { return Ok(()) };
        let refused = entry.roll_back().map(|version| version.mark.clone());
        let before = refused.as_ref().map(|mark| Arc::clone(&mark.hash));
        tracing::error!(
            plugin = %name, version = back_to.number, hash = %back_to.mark.hash, before = before.as_deref(), reason,
            "plugin is rolled back"
        );
        counter!(names::PLUGIN_RELOADS, "plugin" => name.to_string(), "outcome" => "rolled_back").increment(1);
        entry.rejected = before.map(|hash| Rejected { hash: hash.to_string(), reason: reason.clone() });
        if let Some(refused) = refused {
            plugin.rollback = Rollback::InForce(RolledBack { refused, reason, serves: back_to.mark.clone() });
        }
        self.publish_one(name);
        Ok(())
    }
}
