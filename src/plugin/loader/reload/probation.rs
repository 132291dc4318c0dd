//! Probation of a new version. The previous version stays warm and is restored when the new version's circuit opens.
//! After its probation, a canary serves all senders.

use std::sync::Arc;

use metrics::counter;
use tokio::time::Instant;

use super::Loader;
use super::state::{Rollback, RolledBack};
use crate::plugin::Rejected;
use crate::plugin::calls::snapshot::states::Entry;
use crate::plugin::calls::version::RollbackRequest;
use crate::telemetry::names;

impl Loader {
    /// Ends the probations that are over. Returns true if there is something to publish.
    pub(super) fn end_probations(&mut self, now: Instant) -> bool {
        let rules = self.probation;
        let mut any_ended = false;
        for (name, plugin) in &mut self.plugins {
            let Some(entry) = plugin.entry.as_mut() else { continue };
            let Some((version, probation)) = entry.probation() else { continue };
            let (version, calls) = (Arc::clone(version), version.stats.calls());
            if !probation.is_over(rules, now, calls) {
                continue;
            }
            any_ended = true;
            if let Some(before) = entry.promote(calls) {
                tracing::info!(
                    plugin = %name, version = version.number, hash = %version.files_id.hash, before = &*before.files_id.hash, calls,
                    "canary passed its probation: it serves all senders"
                );
                counter!(names::PLUGIN_RELOADS, "plugin" => name.to_string(), "outcome" => "live").increment(1);
                continue;
            }
            entry.end_probation();
            // Kept for the operator, but without instances: other versions need their memory.
            entry.previous().into_iter().for_each(|previous| previous.drop_instances());
            version.set_previous(None);
            let before = entry.previous().map(|version| version.files_id.hash.as_ref());
            tracing::info!(
                plugin = %name, hash = &*version.files_id.hash, before, calls,
                "plugin version passed its probation: it is not rolled back automatically any more"
            );
        }
        any_ended
    }

    /// Handles sufficient evidence against a version: it is rolled back if it is on probation.
    pub(in crate::plugin) async fn roll_back_if_on_probation(
        &mut self,
        RollbackRequest { version, failure }: RollbackRequest,
    ) {
        let Some(plugin) = self.plugins.get(&version.name) else { return };
        let Some((on_probation, probation)) = plugin.entry.as_ref().and_then(Entry::probation) else { return };
        let calls = version.stats.calls();
        if !Arc::ptr_eq(on_probation, &version) || probation.is_over(self.probation, Instant::now(), calls) {
            return;
        }
        let name = Arc::clone(&version.name);
        let reason = format!("rolled back: it failed on probation within {calls} calls: {failure}");
        if let Err(why) = self.roll_back(&name, reason).await {
            tracing::error!(plugin = %name, hash = %version.files_id.hash, why, "plugin cannot be rolled back");
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
        let rollback_target = entry.rollback_target().cloned().ok_or("there is no earlier version to restore")?;
        if let Some((key, owner)) = self.key_conflict(&rollback_target) {
            return Err(format!("the previous version owns the key {key:?}, which plugin {owner} owns now"));
        }
        if let Err(failure) = rollback_target.warm().await {
            tracing::warn!(plugin = %name, %failure, "previous version has no warm instances");
        }
        let plugin = self.plugin(name);
        let Some(entry) = plugin.entry.as_mut() else { return Ok(()) };
        let refused = entry.roll_back().map(|version| version.files_id.clone());
        let before = refused.as_ref().map(|files_id| Arc::clone(&files_id.hash));
        tracing::error!(
            plugin = %name, version = rollback_target.number, hash = %rollback_target.files_id.hash, before = before.as_deref(), reason,
            "plugin is rolled back"
        );
        counter!(names::PLUGIN_RELOADS, "plugin" => name.to_string(), "outcome" => "rolled_back").increment(1);
        entry.rejected = before.map(|hash| Rejected { hash: hash.to_string(), reason: reason.clone() });
        if let Some(refused) = refused {
            plugin.rollback =
                Rollback::Active(RolledBack { refused, reason, serves: rollback_target.files_id.clone() });
        }
        self.publish_one(name);
        Ok(())
    }
}
