//! Outcomes of files that were tried: they serve, are disabled by their manifest, or are refused.

use std::sync::Arc;

use metrics::counter;

use super::super::load::LoadFault;
use super::Loader;
use super::state::Rollback;
use crate::plugin::Rejected;
use crate::plugin::calls::snapshot::states::Entry;
use crate::plugin::calls::version::Version;
use crate::plugin::guest::manifest::Manifest;
use crate::telemetry::names;

impl Loader {
    /// The version serves from the next swap on: all senders, or its share while another version serves the rest.
    pub(super) fn accept(&mut self, version: &Arc<Version>) {
        let name = Arc::clone(&version.name);
        let plugin = self.plugin(&name);
        let old = plugin.entry.take();
        let before = old.as_ref().and_then(Entry::live).map(|live| Arc::clone(&live.files_id.hash));
        let share = version.manifest.canary.filter(|_| before.is_some());
        let roles: Vec<&str> = version.roles.iter().map(|role| role.as_str()).collect();
        tracing::info!(
            plugin = %name,
            version = version.number,
            hash = %version.files_id.hash,
            before = before.as_deref(),
            roles = roles.join(","),
            canary = share.map(tracing::field::display),
            "plugin goes live"
        );
        let outcome = if share.is_some() { "canary" } else { "live" };
        counter!(names::PLUGIN_RELOADS, "plugin" => name.to_string(), "outcome" => outcome).increment(1);
        plugin.versions = version.number;
        plugin.has_manifest = version.files_id.has_manifest();
        plugin.rollback = Rollback::Inactive;
        let entry = Entry::accept(old, &name, Arc::clone(version), share, |live| live.breaker.is_closed());
        version.set_previous(entry.rollback_target());
        plugin.entry = Some(entry);
    }

    /// The manifest disables the plugin.
    pub(super) fn disable_by_manifest(&mut self, name: &Arc<str>) {
        let plugin = self.plugin(name);
        let before = plugin.entry.as_ref().and_then(Entry::live).map(|live| Arc::clone(&live.files_id.hash));
        tracing::info!(plugin = %name, before = before.as_deref(), "plugin is disabled by its manifest");
        counter!(names::PLUGIN_RELOADS, "plugin" => name.to_string(), "outcome" => "disabled").increment(1);
        (plugin.rollback, plugin.has_manifest) = (Rollback::Inactive, true);
        plugin.entry = Some(Entry::disable_by_manifest(name));
    }

    pub(super) fn reject(&mut self, name: &Arc<str>, hash: &str, fault: &LoadFault, manifest: Option<&Manifest>) {
        let rejected = Rejected { hash: hash.to_owned(), reason: fault.reason() };
        // At the start, the roles of a file that may have been fail-closed refuse.
        let fail_closed = if self.first_scan { self.assumed_fail_closed(fault, manifest) } else { None };
        let plugin = self.plugin(name);
        // Any file other than the rolled-back one ends the rollback, so that the next start loads the file.
        plugin.rollback.end_unless(plugin.applied.as_ref());
        let entry = plugin.entry.get_or_insert_with(|| Entry::refused(name, fail_closed));
        if entry.rejected.as_ref() != Some(&rejected) {
            let serves = entry.live().map(|live| live.files_id.hash.as_ref());
            tracing::error!(plugin = %name, hash, serves, reason = rejected.reason, "plugin is refused");
            counter!(names::PLUGIN_RELOADS, "plugin" => name.to_string(), "outcome" => "rejected").increment(1);
        }
        entry.refuse(rejected);
    }
}
