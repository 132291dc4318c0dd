//! Outcomes of files that were tried: they serve, are disabled by their manifest, or are refused.

use std::sync::Arc;

use metrics::counter;

use super::super::load::Fault;
use super::Loader;
use super::probation::Trial;
use crate::plugin::Rejected;
use crate::plugin::calls::snapshot::{Canary, Entry, State};
use crate::plugin::calls::version::Version;
use crate::plugin::guest::manifest::Manifest;
use crate::telemetry::names;

impl Loader {
    /// The version serves from the next swap on: all senders, or its share while another version serves the rest.
    pub(super) fn accept(&mut self, version: Arc<Version>) {
        let name = Arc::clone(&version.name);
        let plugin = self.plugin(&name);
        let old = plugin.entry.take();
        let before = old.as_ref().and_then(|entry| entry.live.as_ref()).map(|live| Arc::clone(&live.mark.hash));
        let share = version.manifest.canary.filter(|_| before.is_some());
        let roles: Vec<&str> = version.roles.iter().map(|role| role.as_str()).collect();
        tracing::info!(
            plugin = %name,
            version = version.number,
            hash = %version.mark.hash,
            before = before.as_deref(),
            roles = roles.join(","),
            canary = share.map(tracing::field::display),
            "plugin goes live"
        );
        let outcome = if share.is_some() { "canary" } else { "live" };
        counter!(names::PLUGIN_RELOADS, "plugin" => name.to_string(), "outcome" => outcome).increment(1);
        plugin.versions = version.number;
        plugin.ruled = version.mark.is_ruled();
        plugin.rolled_back = None;
        let mut entry = Entry::empty(&name, State::Live);
        match (share, old) {
            (Some(share), Some(old)) => {
                (entry.live, entry.previous) = (old.live, old.previous);
                entry.canary = Some(Canary { version, share });
            }
            (_, old) => {
                entry.live = Some(version);
                entry.previous = old.and_then(Entry::last_good);
            }
        }
        match (&entry.canary, &entry.live) {
            (Some(canary), stable) => canary.version.set_previous(stable.as_ref()),
            (None, Some(live)) => live.set_previous(entry.previous.as_ref()),
            (None, None) => {}
        }
        entry.probation = entry.canary.is_some() || entry.previous.is_some();
        plugin.trial = entry.probation.then(|| Trial::new(0));
        plugin.entry = Some(entry);
    }

    /// The manifest disables the plugin.
    pub(super) fn switch_off(&mut self, name: &Arc<str>) {
        let plugin = self.plugin(name);
        let before =
            plugin.entry.as_ref().and_then(|entry| entry.live.as_ref()).map(|live| Arc::clone(&live.mark.hash));
        tracing::info!(plugin = %name, before = before.as_deref(), "plugin is disabled by its manifest");
        counter!(names::PLUGIN_RELOADS, "plugin" => name.to_string(), "outcome" => "disabled").increment(1);
        (plugin.trial, plugin.rolled_back, plugin.ruled) = (None, None, true);
        plugin.entry = Some(Entry::empty(name, State::Disabled));
    }

    pub(super) fn reject(&mut self, name: &Arc<str>, hash: &str, fault: &Fault, manifest: Option<&Manifest>) {
        let rejected = Rejected { hash: hash.to_owned(), reason: fault.reason() };
        // At the start, a file that may have been a guard keeps its gate shut.
        let shut = if self.first { self.unproved(fault, manifest) } else { None };
        let new = || Entry { shut, ..Entry::empty(name, State::Rejected) };
        let plugin = self.plugin(name);
        // Any file other than the rolled-back one ends the rollback, so that the next start looks at the file.
        let tried = plugin.tried.as_ref();
        plugin.rolled_back = plugin.rolled_back.take().filter(|rolled_back| tried == Some(&rolled_back.refused));
        let entry = plugin.entry.get_or_insert_with(new);
        if entry.rejected.as_ref() != Some(&rejected) {
            let serves = entry.live.as_ref().map(|live| live.mark.hash.as_ref());
            tracing::error!(plugin = %name, hash, serves, reason = rejected.reason, "plugin is refused");
            counter!(names::PLUGIN_RELOADS, "plugin" => name.to_string(), "outcome" => "rejected").increment(1);
        }
        entry.rejected = Some(rejected);
        if entry.live.is_none() {
            entry.state = State::Rejected;
        }
    }
}
