//! The plugins that serve at one moment: an immutable set, replaced whole.
//!
//! Whoever uses it loads it once and keeps to it, so one publish never meets two sets.

use std::collections::HashMap;
use std::sync::Arc;

use super::matching::Rules;
use super::version::Version;
use super::{Rejected, Role, Status};

/// What stands at one place of a chain.
pub(super) enum Gate {
    /// A plugin that serves.
    Live(Arc<Version>),
    /// A plugin that should serve and cannot: its role refuses what it would have seen.
    Shut {
        /// Which one.
        plugin: Arc<str>,
        /// What it would have seen.
        rules: Rules,
    },
}

/// A gate whose plugin is gone or broken.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Shut {
    pub(super) roles: Vec<Role>,
    pub(super) order: i64,
    pub(super) rules: Rules,
}

/// One plugin, whether it serves or not.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) name: Arc<str>,
    pub(super) state: State,
    pub(super) live: Option<Arc<Version>>,
    pub(super) shut: Option<Shut>,
    pub(super) rejected: Option<Rejected>,
}

/// How a plugin stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// It serves.
    Live,
    /// Its manifest says no.
    Disabled,
    /// Its file was refused and no older version serves.
    Rejected,
    /// Its file is gone and its role refuses.
    Missing,
}

impl State {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Disabled => "disabled",
            Self::Rejected => "rejected",
            Self::Missing => "missing",
        }
    }
}

/// The set.
#[derive(Default)]
pub(super) struct Snapshot {
    pub(super) auth: Vec<Gate>,
    pub(super) filters: Vec<Gate>,
    pub(super) handlers: HashMap<String, Arc<Version>>,
    pub(super) events: Vec<Arc<Version>>,
    entries: Vec<Entry>,
}

impl Snapshot {
    /// Of these plugins. No key may have two owners: that was settled before.
    pub(super) fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let mut handlers = HashMap::new();
        for version in entries.iter().filter_map(|entry| entry.live.as_ref()) {
            for key in &version.keys {
                handlers.insert(key.clone(), Arc::clone(version));
            }
        }
        Self {
            auth: chain(&entries, Role::Auth),
            filters: chain(&entries, Role::Filter),
            events: chain(&entries, Role::Events).into_iter().filter_map(Gate::live).collect(),
            handlers,
            entries,
        }
    }

    /// Of one plugin alone.
    pub(super) fn of_one(version: &Arc<Version>) -> Self {
        let (name, live) = (Arc::clone(&version.name), Some(Arc::clone(version)));
        Self::new(vec![Entry { name, state: State::Live, live, shut: None, rejected: None }])
    }

    pub(super) fn status(&self) -> Vec<Status> {
        self.entries.iter().map(Entry::status).collect()
    }
}

impl Gate {
    fn live(self) -> Option<Arc<Version>> {
        match self {
            Self::Live(version) => Some(version),
            Self::Shut { .. } => None,
        }
    }
}

/// The plugins of one role, in the order that the manifests say; equal ones by name.
fn chain(entries: &[Entry], role: Role) -> Vec<Gate> {
    let mut gates: Vec<(i64, Gate)> = Vec::new();
    for entry in entries {
        if let Some(version) = entry.live.as_ref().filter(|version| version.roles.contains(&role)) {
            gates.push((version.manifest.order, Gate::Live(Arc::clone(version))));
        } else if let Some(shut) = entry.shut.as_ref().filter(|shut| shut.roles.contains(&role)) {
            gates.push((shut.order, Gate::Shut { plugin: Arc::clone(&entry.name), rules: shut.rules.clone() }));
        }
    }
    gates.sort_by_key(|(order, _)| *order);
    gates.into_iter().map(|(_, gate)| gate).collect()
}

impl Entry {
    fn status(&self) -> Status {
        let live = self.live.as_ref();
        let shut = self.shut.as_ref().map(|shut| shut.roles.as_slice()).unwrap_or_default();
        let roles = live.map_or(shut, |version| version.roles.as_slice());
        Status {
            name: Arc::clone(&self.name),
            state: self.state.as_str(),
            roles: roles.iter().map(|role| role.as_str()).collect(),
            version: live.map_or(0, |version| version.number),
            hash: live.map(|version| version.hash.to_string()).unwrap_or_default(),
            size: live.map_or(0, |version| version.size),
            keys: live.map(|version| version.keys.clone()).unwrap_or_default(),
            since: live.map_or(0, |version| version.since),
            calls: live.map_or(0, |version| version.stats.calls()),
            failures: live.map_or(0, |version| version.stats.failures()),
            rejected: self.rejected.clone(),
        }
    }
}
