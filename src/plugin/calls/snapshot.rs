//! Snapshot of the plugins that serve: an immutable set that is replaced as a whole.
//!
//! A reader loads it once and keeps it, so that one publish never sees two sets.

pub(in crate::plugin) mod states;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use super::version::Version;
use crate::plugin::guest::manifest::matching::Rules;
use crate::plugin::{CanaryStatus, Role, SetApart, Status};
use states::{Canary, Entry};

/// Versions that answer in one role, or for one key.
#[derive(Default)]
pub(in crate::plugin) struct ServingVersions {
    /// `None` if only the canary has the role or the key.
    stable: Option<Arc<Version>>,
    canary: Option<Canary>,
}

/// One entry of a chain.
pub(in crate::plugin) enum ChainEntry {
    /// A plugin that serves.
    Live(ServingVersions),
    /// A fail-closed plugin that cannot serve: its role refuses everything that it would have seen.
    Unavailable {
        /// The plugin.
        plugin: Arc<str>,
        /// Its match rules.
        rules: Rules,
    },
}

/// The snapshot.
#[derive(Default)]
pub(in crate::plugin) struct Snapshot {
    pub(in crate::plugin) auth: Vec<ChainEntry>,
    pub(in crate::plugin) filters: Vec<ChainEntry>,
    pub(in crate::plugin) handlers: HashMap<String, ServingVersions>,
    pub(in crate::plugin) events: Vec<ServingVersions>,
    pub(in crate::plugin) access: Vec<ChainEntry>,
    /// True if a plugin of `events` exports `receipts`.
    pub(in crate::plugin) has_receipts: bool,
    entries: Vec<Entry>,
}

impl Snapshot {
    /// Snapshot of these plugins. The caller ensures that no key has two owners.
    pub(in crate::plugin) fn new(mut entries: Vec<Entry>) -> Self {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        let mut handlers: HashMap<String, ServingVersions> = HashMap::new();
        for entry in &entries {
            if let Some(version) = entry.live() {
                for key in &version.keys {
                    handlers.entry(key.clone()).or_default().stable = Some(Arc::clone(version));
                }
            }
            if let Some(canary) = entry.canary() {
                for key in &canary.version.keys {
                    handlers.entry(key.clone()).or_default().canary = Some(canary.clone());
                }
            }
        }
        let events: Vec<ServingVersions> =
            chain(&entries, Role::Events).into_iter().filter_map(ChainEntry::live).collect();
        let has_receipts = events.iter().flat_map(ServingVersions::versions).any(|version| version.has_receipts());
        Self {
            auth: chain(&entries, Role::Auth),
            filters: chain(&entries, Role::Filter),
            access: chain(&entries, Role::Access),
            has_receipts,
            events,
            handlers,
            entries,
        }
    }

    /// Snapshot of one plugin alone.
    pub(in crate::plugin) fn of_one(version: &Arc<Version>) -> Self {
        Self::new(vec![Entry::serving(&version.name, Arc::clone(version))])
    }

    /// This snapshot with one plugin in its current state; `None` removes it.
    pub(in crate::plugin) fn with(&self, name: &str, entry: Option<Entry>) -> Self {
        let others = self.entries.iter().filter(|other| *other.name != *name).cloned();
        Self::new(others.chain(entry).collect())
    }

    /// The version of a plugin that serves all senders but the canary's.
    pub(in crate::plugin) fn live(&self, name: &str) -> Option<Arc<Version>> {
        self.entries.iter().find(|entry| *entry.name == *name)?.live().cloned()
    }

    pub(in crate::plugin) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Why traffic should go elsewhere for now. Missing plugins are shown by their state instead.
    pub(in crate::plugin) fn faults(&self) -> impl Iterator<Item = String> {
        let refused = self.entries.iter().filter(|entry| entry.is_refused() && entry.fail_closed().is_some());
        let refused = refused.map(|entry| format!("plugin {}: its file is refused, so its role refuses", entry.name));
        let auth = self.auth.iter().filter_map(|entry| match entry {
            ChainEntry::Live(served) => served.stable.as_ref().filter(|version| version.breaker.refuses_calls()),
            ChainEntry::Unavailable { .. } => None,
        });
        let open =
            auth.map(|version| format!("plugin {}: its circuit is open, so clients are not admitted", version.name));
        refused.chain(open)
    }

    pub(in crate::plugin) fn status(&self) -> Vec<Status> {
        self.entries.iter().map(Entry::status).collect()
    }
}

impl ServingVersions {
    /// The version for this sender. `sender` is called only while two versions serve. Calls without a sender use the
    /// stable version.
    pub(in crate::plugin) fn choose<'a>(&self, sender: impl FnOnce() -> Option<Cow<'a, str>>) -> Option<&Arc<Version>> {
        let Some(canary) = &self.canary else { return self.stable.as_ref() };
        let taken = sender().is_some_and(|sender| canary.share.contains(&canary.version.name, &sender));
        if taken { Some(&canary.version) } else { self.stable.as_ref() }
    }

    /// The version, if only one serves.
    pub(in crate::plugin) fn only(&self) -> Option<&Arc<Version>> {
        self.stable.as_ref().filter(|_| self.canary.is_none())
    }

    pub(in crate::plugin) fn versions(&self) -> impl Iterator<Item = &Arc<Version>> {
        self.stable.iter().chain(self.canary.iter().map(|canary| &canary.version))
    }
}

impl ChainEntry {
    /// The plugin that should serve here and cannot.
    pub(in crate::plugin) fn unavailable_plugin(&self) -> Option<&Arc<str>> {
        match self {
            Self::Live(_) => None,
            Self::Unavailable { plugin, .. } => Some(plugin),
        }
    }

    fn live(self) -> Option<ServingVersions> {
        match self {
            Self::Live(served) => Some(served),
            Self::Unavailable { .. } => None,
        }
    }
}

/// The plugins of one role, in the order of their manifests; equal ones by name.
fn chain(entries: &[Entry], role: Role) -> Vec<ChainEntry> {
    let mut chain: Vec<(i64, ChainEntry)> = Vec::new();
    for entry in entries {
        let stable = entry.live().cloned().filter(|version| version.roles.contains(&role));
        let canary = entry.canary().cloned().filter(|canary| canary.version.roles.contains(&role));
        if let Some(version) = stable.as_ref().or(canary.as_ref().map(|canary| &canary.version)) {
            chain.push((version.manifest.order, ChainEntry::Live(ServingVersions { stable, canary })));
        } else if let Some(fail_closed) = entry.fail_closed().filter(|fail_closed| fail_closed.roles.contains(&role)) {
            let (plugin, rules) = (Arc::clone(&entry.name), fail_closed.rules.clone());
            chain.push((fail_closed.order, ChainEntry::Unavailable { plugin, rules }));
        }
    }
    chain.sort_by_key(|(order, _)| *order);
    chain.into_iter().map(|(_, entry)| entry).collect()
}

impl Entry {
    pub(in crate::plugin) fn status(&self) -> Status {
        let live = self.live();
        let fail_closed = self.fail_closed().map(|fail_closed| fail_closed.roles.as_slice()).unwrap_or_default();
        let roles = match live {
            Some(version) => version.shown_roles(),
            None => fail_closed.iter().map(|role| role.as_str()).collect(),
        };
        Status {
            name: Arc::clone(&self.name),
            state: self.state.public_state(),
            roles,
            version: live.map_or(0, |version| version.number),
            hash: live.map(|version| version.files_id.hash.to_string()).unwrap_or_default(),
            size: live.map_or(0, |version| version.size),
            keys: live.map(|version| version.keys.clone()).unwrap_or_default(),
            since: live.map_or(0, |version| version.since),
            calls: live.map_or(0, |version| version.stats.calls()),
            failures: live.map_or(0, |version| version.stats.failures()),
            outcomes: live.map(|version| version.stats.outcomes()).unwrap_or_default(),
            p50: live.and_then(|version| version.stats.percentile(50)),
            p99: live.and_then(|version| version.stats.percentile(99)),
            memory: live.map_or(0, |version| version.stats.memory()),
            circuit: live.map(|version| version.breaker.state()),
            circuits_opened: live.map_or(0, |version| version.breaker.times_opened()),
            set_apart: live.map(|version| set_apart(version)).unwrap_or_default(),
            probation: self.probation().is_some(),
            previous: self.previous().map(|version| version.files_id.hash.to_string()),
            canary: self.canary().map(Canary::status),
            rejected: self.rejected.clone(),
            lost: self.lost.clone(),
        }
    }
}

impl Canary {
    fn status(&self) -> CanaryStatus {
        let version = &self.version;
        CanaryStatus {
            share: self.share.to_string(),
            version: version.number,
            hash: version.files_id.hash.to_string(),
            since: version.since,
            calls: version.stats.calls(),
            failures: version.stats.failures(),
            outcomes: version.stats.outcomes(),
            circuit: version.breaker.state(),
            set_apart: set_apart(version),
        }
    }
}

/// Most sources that a status shows of those set apart.
const SHOWN: usize = 20;

fn set_apart(version: &Version) -> SetApart {
    let (now, sources) = version.breaker.apart(SHOWN);
    SetApart { now, times: version.breaker.times_set_apart(), sources }
}
