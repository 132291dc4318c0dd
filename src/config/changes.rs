//! What a new configuration changes, and which of it a running node can take.

use std::collections::BTreeMap;

use super::Config;
use super::read::Setting;
use super::value::Value;

/// Keys, or beginnings of keys, that a running node takes without a restart.
const LIVE: [&str; 9] = [
    "clients.",
    "limits.batch",
    "limits.body_bytes",
    "limits.uids",
    "api.keys",
    "api.insecure",
    "plugins.allow_remove",
    "log.level",
    "drain.",
];

/// Keys that differ between two configurations, in the tree's order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// A running node takes these.
    pub live: Vec<String>,
    /// These wait for a restart.
    pub needs_restart: Vec<String>,
}

impl Config {
    /// What `new` changes.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Changes {
        let (old_tree, new_tree) = (self.show(), new.show());
        let (old, new) = (old_tree.leaves(), new_tree.leaves());
        let before: BTreeMap<&str, &Value> = old.iter().map(|(path, value)| (path.as_str(), *value)).collect();
        let after: BTreeMap<&str, &Value> = new.iter().map(|(path, value)| (path.as_str(), *value)).collect();
        let changed =
            new.iter().map(|(path, _)| path).filter(|path| before.get(path.as_str()) != after.get(path.as_str()));
        let gone = old.iter().map(|(path, _)| path).filter(|path| !after.contains_key(path.as_str()));
        let mut changes = Changes::default();
        for path in changed.chain(gone) {
            let is_live = LIVE.iter().any(|live| path.starts_with(live));
            (if is_live { &mut changes.live } else { &mut changes.needs_restart }).push(path.clone());
        }
        changes
    }

    /// Takes from `new` what a running node can take, and keeps the rest.
    #[must_use]
    pub fn with_live(&self, new: &Self) -> Self {
        let mut config = self.clone();
        config.clients = new.clients.clone();
        config.limits.batch = new.limits.batch;
        config.limits.body_bytes = new.limits.body_bytes;
        config.limits.uids = new.limits.uids;
        config.api = new.api.clone();
        config.plugins.allow_remove = new.plugins.allow_remove.clone();
        config.log.level = new.log.level.clone();
        config.drain = new.drain.clone();
        config
    }
}
