//! Warnings about settings that are valid but rarely intended. `skylark check` and the start of the node print them.

use crate::config::{Config, Listener, Scope, Service};

impl Config {
    /// One sentence per warning, with its key first.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        self.warn_of_scopes(&mut warnings);
        self.warn_of_origins(&mut warnings);
        warnings
    }

    /// Warns that clients cannot join any room by themselves: no room is open and no access plugin is loaded.
    #[must_use]
    pub fn closed_rooms(&self, has_access_plugin: bool) -> Option<&'static str> {
        let takes_clients = |listener: &Listener| {
            [Service::Ws, Service::Cim, Service::CimTcp].into_iter().any(|service| listener.has(service))
        };
        let is_closed = self.clients.open_rooms.patterns().is_empty() && !has_access_plugin;
        (is_closed && self.listeners.iter().any(takes_clients)).then_some(
            "clients.open_rooms: no room is open and no access plugin is live: clients cannot join rooms by themselves; \
             clients.open_rooms: [\"*\"] opens all rooms",
        )
    }

    /// `manage` included the plugin commands until they got their own scope.
    fn warn_of_scopes(&self, warnings: &mut Vec<String>) {
        let changed = |key: &&crate::config::ApiKey| key.may(Scope::Manage) && !key.may(Scope::Plugins);
        for (index, key) in self.api.keys.iter().enumerate().filter(|(_, key)| changed(key)) {
            warnings.push(format!(
                "api.keys[{index}].scopes: {:?} has `manage` without `plugins`, and may no longer enable, disable, reload or roll \
                 back plugins, nor read their log: add `plugins` if it should",
                key.name
            ));
        }
    }

    /// A page of any site may connect, so a cookie does not prove that its user wanted the connection.
    fn warn_of_origins(&self, warnings: &mut Vec<String>) {
        let is_open = |listener: &Listener| listener.origins.iter().any(|origin| origin == "*");
        for (index, _) in self.listeners.iter().enumerate().filter(|(_, listener)| is_open(listener)) {
            warnings.push(format!(
                "listeners[{index}].origins: `*` lets the pages of every site connect, so a token in a cookie does not count for \
                 them: name the origins whose cookies should count"
            ));
        }
    }
}
