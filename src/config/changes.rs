//! Differences between two configurations, split by the marks of the keys into those that a running node applies and
//! those that need a restart.

use std::collections::BTreeMap;

use super::Config;
use super::read::Setting;
use super::read::value::Value;

/// Keys that differ between two configurations, in the order of the tree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changes {
    /// A running node applies these.
    pub live: Vec<String>,
    /// These take effect after a restart.
    pub needs_restart: Vec<String>,
}

impl Config {
    /// Compares this configuration, which is in force, with `new`.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Changes {
        let (old, taken, new) = (self.show(), self.with_live(new).show(), new.show());
        let (old, taken, new) = (old.leaves(), taken.leaves(), new.leaves());
        let by_path = |leaves: &[(String, &Value)]| -> BTreeMap<String, Value> {
            leaves.iter().map(|(path, value)| (path.clone(), (*value).clone())).collect()
        };
        let [before, in_force, after] = [&old, &taken, &new].map(|leaves| by_path(leaves));
        let changed = new.iter().map(|(path, _)| path).filter(|path| before.get(*path) != after.get(*path));
        let gone = old.iter().map(|(path, _)| path).filter(|path| !after.contains_key(*path));
        let mut changes = Changes::default();
        for path in changed.chain(gone) {
            let is_taken = in_force.get(path) == after.get(path);
            let list = if is_taken { &mut changes.live } else { &mut changes.needs_restart };
            list.push(path.clone());
        }
        changes
    }

    /// Takes the live keys from `new` and keeps the others.
    #[must_use]
    pub fn with_live(&self, new: &Self) -> Self {
        let mut taken = self.clone();
        taken.take_live(new);
        taken
    }
}
