//! Handles plugin files that disappear. If the component of a fail-closed plugin is gone, its roles refuse. If the
//! manifest is gone, the version that it configured goes on serving. Both hold until the operator decides otherwise.

use std::sync::Arc;

use metrics::counter;

use super::super::disk::FileStamps;
use super::super::load::LoadFault;
use super::Loader;
use super::state::Rollback;
use crate::plugin::Role;
use crate::plugin::calls::snapshot::states::{Entry, FailClosed};
use crate::plugin::guest::files::PluginFiles;
use crate::plugin::guest::manifest::Manifest;
use crate::telemetry::names;

impl Loader {
    /// Allows plugins with these names to disappear, even if they have disappeared already.
    pub(super) fn allow_remove(&mut self, names: Vec<String>) {
        self.allow_remove = names;
        self.retry_without_manifest();
        self.forget_missing();
        self.publish();
    }

    /// Forgets missing plugins that the operator allows to disappear.
    pub(super) fn forget_missing(&mut self) {
        let allowed = self.allow_remove.clone();
        for (name, plugin) in &mut self.plugins {
            let missing = plugin.entry.as_ref().is_some_and(Entry::is_missing);
            if missing && allowed.iter().any(|allowed| **allowed == **name) {
                tracing::warn!(plugin = %name, "missing plugin removed: plugins.allow_remove names it");
                plugin.entry = None;
            }
        }
    }

    /// Tries refused plugins again that may now run without a manifest.
    fn retry_without_manifest(&mut self) {
        let allowed = self.allow_remove.clone();
        for (name, plugin) in &mut self.plugins {
            let is_refused = plugin.entry.as_ref().is_some_and(|entry| entry.rejected.is_some());
            if plugin.has_manifest && is_refused && allowed.iter().any(|allowed| **allowed == **name) {
                plugin.retry();
            }
        }
    }

    /// True if the manifest was there at the scan, and is gone or empty now.
    pub(super) fn lost_manifest_since_scan(&self, files: &PluginFiles) -> bool {
        let was_there =
            self.plugins.get(&files.plugin).is_some_and(|plugin| FileStamps::has_content(plugin.stamps.manifest));
        was_there && files.manifest().is_empty()
    }

    /// Why the files do not serve: the current entry has a manifest, and that is gone or empty now. Its pin, its match
    /// rules and its settings would be lost with it.
    pub(super) fn missing_manifest(&self, files: &PluginFiles) -> Option<LoadFault> {
        let name = &files.plugin;
        let has_manifest = self.plugins.get(name).is_some_and(|plugin| plugin.has_manifest);
        if !has_manifest || !files.manifest().trim().is_empty() || self.may_remove(name) {
            return None;
        }
        let what = if files.id.manifest.is_some() { "empty" } else { "gone" };
        Some(LoadFault {
            roles: Vec::new(),
            reasons: vec![format!(
                "{name}.toml is {what}, so the version that it configured keeps serving: restore it (a comment is enough), or \
                 name {name} in plugins.allow_remove to run the plugin without a manifest"
            )],
        })
    }

    pub(super) fn remove(&mut self, name: &Arc<str>, manifest: Option<&str>) {
        let roles = self.fail_closed_roles(name);
        let parsed = manifest.and_then(|text| Manifest::parse(text, self.env.caps()).ok());
        let disabled = parsed.as_ref().is_some_and(|manifest| !manifest.enabled);
        let may_go = disabled || self.may_remove(name);
        // A plugin that never served is just removed, unless its manifest names its roles.
        let stated =
            parsed.filter(|_| !may_go).and_then(|manifest| FailClosed::of(manifest.roles.as_ref()?, &manifest));
        let forget = (roles.is_empty() && stated.is_none()) || may_go;
        let plugin = self.plugin(name);
        (plugin.applied, plugin.rollback) = (None, Rollback::Inactive);
        let Some(entry) = plugin.entry.take() else {
            match (manifest, stated) {
                (_, Some(stated)) => plugin.entry = Some(Entry::missing(name, Some(stated))),
                (Some(_), None) => tracing::warn!(plugin = %name, "manifest without a .wasm file"),
                (None, None) => {}
            }
            return;
        };
        if forget {
            plugin.has_manifest = false;
            let before = entry.live().map(|live| live.files_id.hash.as_ref());
            tracing::info!(plugin = %name, before, "plugin is removed");
            counter!(names::PLUGIN_RELOADS, "plugin" => name.to_string(), "outcome" => "removed").increment(1);
            return;
        }
        let before = entry.live().map(|live| Arc::clone(&live.files_id.hash));
        let fail_closed = entry.live().map_or(entry.fail_closed().cloned(), |version| {
            let manifest = &version.manifest;
            (!roles.is_empty()).then(|| FailClosed {
                roles,
                confirmed: true,
                order: manifest.order,
                rules: manifest.rules.clone(),
            })
        });
        tracing::error!(
            plugin = %name,
            before = before.as_deref(),
            "file of a fail-closed plugin is gone: its role refuses until plugins.allow_remove names the plugin"
        );
        let missing = Entry::missing(name, fail_closed.filter(|fail_closed| fail_closed.confirmed).or(stated));
        plugin.entry = Some(Entry { rejected: entry.rejected, ..missing });
    }

    /// The roles that refuse without this plugin: fail-closed roles that it serves, or served before it was missing.
    pub(super) fn fail_closed_roles(&self, name: &str) -> Vec<Role> {
        let Some(entry) = self.plugins.get(name).and_then(|plugin| plugin.entry.as_ref()) else { return Vec::new() };
        let confirmed = entry.fail_closed().filter(|fail_closed| fail_closed.confirmed);
        let fail_closed = confirmed.map(|fail_closed| fail_closed.roles.as_slice()).unwrap_or_default();
        let live = entry.live();
        Role::ALL
            .into_iter()
            .filter(|role| fail_closed.contains(role) || live.is_some_and(|version| version.is_fail_closed(*role)))
            .collect()
    }

    pub(super) fn may_remove(&self, name: &str) -> bool {
        self.allow_remove.iter().any(|allowed| allowed == name)
    }
}
