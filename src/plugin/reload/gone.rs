//! What follows when a plugin's file goes: whoever stands guard leaves its gate shut, until the operator says otherwise.

use std::sync::Arc;

use metrics::counter;

use super::super::Role;
use super::super::manifest::Manifest;
use super::super::snapshot::{Entry, Shut, State};
use super::Loader;
use crate::telemetry::names;

impl Loader {
    /// Plugins with these names may disappear, those that have done so too.
    pub(super) fn allow_remove(&mut self, names: Vec<String>) {
        self.allow_remove = names;
        self.forget_missing();
        self.publish();
    }

    /// Those that are missing by the operator's word.
    pub(super) fn forget_missing(&mut self) {
        let allowed = self.allow_remove.clone();
        for (name, plugin) in &mut self.plugins {
            let missing = plugin.entry.as_ref().is_some_and(|entry| entry.state == State::Missing);
            if missing && allowed.iter().any(|allowed| **allowed == **name) {
                tracing::warn!(plugin = %name, "removed by the operator's word");
                plugin.entry = None;
            }
        }
    }

    pub(super) fn remove(&mut self, name: &Arc<str>, manifest: Option<&str>) {
        let roles = self.guarded(name);
        let parsed = manifest.and_then(|text| Manifest::parse(text, &self.env.caps).ok());
        let disabled = parsed.as_ref().is_some_and(|manifest| !manifest.enabled);
        let may_go = disabled || self.may_remove(name);
        // What never served goes as it came, unless its manifest says what it is.
        let said = parsed.filter(|_| !may_go).and_then(|manifest| Shut::of(manifest.roles.as_ref()?, &manifest));
        let open = (roles.is_empty() && said.is_none()) || may_go;
        let plugin = self.plugin(name);
        (plugin.tried, plugin.trial, plugin.rolled_back) = (None, None, None);
        plugin.recalled = None;
        let Some(entry) = plugin.entry.take() else {
            match (manifest, said) {
                (_, Some(said)) => {
                    plugin.entry = Some(Entry { shut: Some(said), ..Entry::empty(name, State::Missing) });
                }
                (Some(_), None) => tracing::warn!(plugin = %name, "there is a manifest and no {name}.wasm beside it"),
                (None, None) => {}
            }
            return;
        };
        if open {
            let before = entry.live.as_ref().map(|live| live.mark.hash.as_ref());
            tracing::info!(plugin = %name, before, "plugin is gone");
            counter!(names::PLUGIN_RELOADS, "plugin" => name.to_string(), "outcome" => "removed").increment(1);
            return;
        }
        let before = entry.live.as_ref().map(|live| Arc::clone(&live.mark.hash));
        let shut = entry.live.as_ref().map_or(entry.shut, |version| {
            let manifest = &version.manifest;
            (!roles.is_empty()).then(|| Shut {
                roles,
                proved: true,
                order: manifest.order,
                rules: manifest.rules.clone(),
            })
        });
        tracing::error!(
            plugin = %name,
            before = before.as_deref(),
            "a plugin that stands guard is gone: its role refuses until plugins.allow_remove names it"
        );
        let missing = Entry::empty(name, State::Missing);
        plugin.entry =
            Some(Entry { shut: shut.filter(|shut| shut.proved).or(said), rejected: entry.rejected, ..missing });
    }

    /// The roles that must not lose this plugin: what it serves, or served before its gate was shut.
    pub(super) fn guarded(&self, name: &str) -> Vec<Role> {
        let Some(entry) = self.plugins.get(name).and_then(|plugin| plugin.entry.as_ref()) else { return Vec::new() };
        let proved = entry.shut.as_ref().filter(|shut| shut.proved);
        let shut = proved.map(|shut| shut.roles.as_slice()).unwrap_or_default();
        let live = entry.live.as_ref();
        Role::ALL
            .into_iter()
            .filter(|role| shut.contains(role) || live.is_some_and(|version| version.is_gate(*role)))
            .collect()
    }

    pub(super) fn may_remove(&self, name: &str) -> bool {
        self.allow_remove.iter().any(|allowed| allowed == name)
    }
}
