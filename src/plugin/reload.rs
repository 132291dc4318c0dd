//! Keeps the serving set in step with the directory: look, settle, load off the path, swap all of it at once.
//!
//! A step that fails leaves the last good version serving and is shown with its reason. A plugin that stands guard
//! does not open its gate by disappearing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics::counter;
use tokio::time::Instant;
use wasmtime::component::Component;

use super::disk::{self, Files, ReadError, Seen};
use super::load::{self, Env, Fault, Source};
use super::manifest::Manifest;
use super::snapshot::{Entry, Shut, Snapshot, State};
use super::version::{self, Version};
use super::{Rejected, Role};
use crate::config::Plugins;
use crate::telemetry::names;

/// A file that has been gone for so long counts as deleted.
const ABSENCE: Duration = Duration::from_secs(3);

/// The loader: it alone changes the serving set.
pub(super) struct Loader {
    dir: PathBuf,
    settle: Duration,
    allow_remove: Vec<String>,
    env: Arc<Env>,
    serving: Arc<ArcSwap<Snapshot>>,
    plugins: BTreeMap<Arc<str>, Plugin>,
    /// Whether this is the first look, when nobody knows what served before.
    first: bool,
}

/// What the loader knows of one name.
#[derive(Default)]
struct Plugin {
    seen: Seen,
    /// When a change was seen that is not applied yet.
    changed: Option<Instant>,
    /// What was applied last, whether it serves or was refused.
    tried: Option<Tried>,
    /// Refused only because of another plugin: to be tried again when that may have changed.
    clashes: bool,
    /// The last file that compiled.
    compiled: Option<(Arc<str>, Component)>,
    versions: u64,
    entry: Option<Entry>,
}

impl Plugin {
    /// How long a change of its files must have rested. A file that is gone gets longer: its last version serves on, and
    /// whoever deletes and writes again may be slow.
    fn patience(&self, settle: Duration) -> Duration {
        if self.seen.wasm.is_none() { settle.max(ABSENCE) } else { settle }
    }
}

#[derive(PartialEq, Eq)]
struct Tried {
    hash: Arc<str>,
    manifest: Option<String>,
}

/// Whether a look waits until files have settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Patience {
    /// They must not have changed for the settle time.
    Settle,
    /// They are taken as they are.
    Now,
}

impl Loader {
    pub(super) fn new(config: &Plugins, env: Arc<Env>, serving: Arc<ArcSwap<Snapshot>>) -> Self {
        Self {
            dir: config.dir.clone(),
            settle: config.settle,
            allow_remove: config.allow_remove.clone(),
            env,
            serving,
            plugins: BTreeMap::new(),
            first: true,
        }
    }

    pub(super) fn dir(&self) -> &PathBuf {
        &self.dir
    }

    /// When a change will have settled.
    pub(super) fn due(&self) -> Option<Instant> {
        self.plugins.values().filter_map(|plugin| Some(plugin.changed? + plugin.patience(self.settle))).min()
    }

    /// Looks at the directory and applies what has settled, all of it by one swap.
    ///
    /// # Errors
    /// The directory cannot be read; nothing changes then.
    pub(super) async fn look(&mut self, patience: Patience) -> std::io::Result<()> {
        let dir = self.dir.clone();
        let found = blocking(move || disk::scan(&dir)).await?;
        self.note(&found, Instant::now());
        let mut due = self.settled(patience);
        if due.is_empty() && !self.first {
            return Ok(());
        }
        // A name that clashed is tried once more after the others, which may have given its keys up.
        for _ in 0..2 {
            for name in &due {
                self.apply(name).await;
            }
            due = self.plugins.iter().filter(|(_, p)| p.clashes).map(|(name, _)| Arc::clone(name)).collect();
        }
        self.first = false;
        self.publish();
        Ok(())
    }

    /// Plugins with these names may disappear, those that have done so too.
    pub(super) fn allow_remove(&mut self, names: Vec<String>) {
        self.allow_remove = names;
        let allowed = self.allow_remove.clone();
        for (name, plugin) in &mut self.plugins {
            let missing = plugin.entry.as_ref().is_some_and(|entry| entry.state == State::Missing);
            if missing && allowed.iter().any(|allowed| **allowed == **name) {
                tracing::warn!(plugin = %name, "removed by the operator's word");
                plugin.entry = None;
            }
        }
        self.publish();
    }

    fn publish(&self) {
        let entries = self.plugins.values().filter_map(|plugin| plugin.entry.clone()).collect();
        self.serving.store(Arc::new(Snapshot::new(entries)));
    }

    fn note(&mut self, found: &BTreeMap<String, Seen>, now: Instant) {
        for name in found.keys() {
            if !self.plugins.contains_key(name.as_str()) {
                self.plugins.insert(name.as_str().into(), Plugin::default());
            }
        }
        for (name, plugin) in &mut self.plugins {
            let seen = found.get(&**name).copied().unwrap_or_default();
            if seen != plugin.seen {
                plugin.seen = seen;
                plugin.changed = Some(now);
            }
        }
    }

    fn settled(&mut self, patience: Patience) -> Vec<Arc<str>> {
        let mut due = Vec::new();
        for (name, plugin) in &mut self.plugins {
            let wait = plugin.patience(self.settle);
            let settled = |changed: Instant| patience == Patience::Now || changed.elapsed() >= wait;
            if plugin.changed.is_some_and(settled) {
                plugin.changed = None;
                due.push(Arc::clone(name));
            }
        }
        due
    }

    fn plugin(&mut self, name: &str) -> &mut Plugin {
        self.plugins.get_mut(name).expect("a name that was noted stays")
    }

    async fn apply(&mut self, name: &Arc<str>) {
        let (dir, file) = (self.dir.clone(), Arc::clone(name));
        let files = blocking(move || Ok(disk::read(&dir, &file))).await;
        match files {
            Ok(Ok(Files { wasm: Some(bytes), manifest })) => {
                self.replace(Source::new(Arc::clone(name), bytes), manifest).await;
            }
            // Gone since it was seen: it may be on its way back, so the change has to settle like any other.
            Ok(Ok(Files { wasm: None, .. })) if self.plugin(name).seen.wasm.is_some() => self.look_again_at(name),
            Ok(Ok(Files { wasm: None, manifest })) => self.remove(name, manifest.as_deref()),
            Ok(Err(ReadError::Changed(_))) => self.look_again_at(name),
            Ok(Err(error)) => {
                self.reject(name, "", &Fault { roles: Vec::new(), reasons: vec![error.to_string()] }, None);
            }
            Err(error) => tracing::error!(plugin = %name, %error, "reading was cut off"),
        }
    }

    fn look_again_at(&mut self, name: &str) {
        self.plugin(name).changed = Some(Instant::now());
    }

    async fn replace(&mut self, source: Source, text: Option<String>) {
        let name = Arc::clone(&source.plugin);
        let tried = Tried { hash: Arc::clone(&source.hash), manifest: text };
        let plugin = self.plugin(&name);
        if plugin.tried.as_ref() == Some(&tried) && !plugin.clashes {
            return;
        }
        plugin.clashes = false;
        let manifest = Manifest::parse(tried.manifest.as_deref().unwrap_or_default(), &self.env.caps);
        self.plugin(&name).tried = Some(tried);
        let manifest = match manifest {
            Ok(manifest) => manifest,
            Err(faults) => {
                let reasons = faults.iter().map(|fault| format!("{name}.toml: {fault}")).collect();
                return self.reject(&name, &source.hash, &Fault { roles: Vec::new(), reasons }, None);
            }
        };
        if !manifest.enabled {
            return self.disable(&name);
        }
        match self.load(&source, manifest.clone()).await {
            Ok(version) => self.accept(version),
            Err(fault) => self.reject(&name, &source.hash, &fault, Some(&manifest)),
        }
    }

    async fn load(&mut self, source: &Source, manifest: Manifest) -> Result<Arc<Version>, Fault> {
        let name = &source.plugin;
        let known = self.plugin(name).compiled.clone().filter(|(hash, _)| *hash == source.hash);
        let component = match known {
            Some((_, component)) => component,
            None => load::compile(&self.env, source).await?,
        };
        self.plugin(name).compiled = Some((Arc::clone(&source.hash), component.clone()));
        let number = self.plugin(name).versions + 1;
        let version = load::link(&self.env, source, &component, manifest, number).await?;
        let fault = |reason| Fault { roles: version.roles.clone(), reasons: vec![reason] };
        let lost = self.guarded(name).into_iter().find(|role| !version.roles.contains(role));
        if let Some(role) = lost.filter(|_| !self.may_remove(name)) {
            let role = role.as_str();
            return Err(fault(format!(
                "it has no role {role} any more, which the version before has: name it in plugins.allow_remove first"
            )));
        }
        if let Some((key, owner)) = self.clash(&version) {
            self.plugin(name).clashes = true;
            return Err(fault(format!("it owns the key {key:?}, which plugin {owner} owns already")));
        }
        Ok(version)
    }

    /// The roles that must not lose this plugin: what it serves, or served before its gate was shut.
    fn guarded(&self, name: &str) -> Vec<Role> {
        let Some(entry) = self.plugins.get(name).and_then(|plugin| plugin.entry.as_ref()) else { return Vec::new() };
        let shut = entry.shut.as_ref().map(|shut| shut.roles.as_slice()).unwrap_or_default();
        let live = entry.live.as_ref();
        Role::ALL
            .into_iter()
            .filter(|role| shut.contains(role) || live.is_some_and(|version| version.is_gate(*role)))
            .collect()
    }

    fn may_remove(&self, name: &str) -> bool {
        self.allow_remove.iter().any(|allowed| allowed == name)
    }

    fn clash(&self, version: &Version) -> Option<(String, Arc<str>)> {
        let others = self.plugins.values().filter_map(|plugin| plugin.entry.as_ref()?.live.as_ref());
        others.filter(|other| other.name != version.name).find_map(|other| {
            let key = version.keys.iter().find(|key| other.keys.contains(key))?;
            Some((key.clone(), Arc::clone(&other.name)))
        })
    }

    fn accept(&mut self, version: Arc<Version>) {
        let name = Arc::clone(&version.name);
        let plugin = self.plugin(&name);
        let before = plugin.entry.as_ref().and_then(|entry| entry.live.as_ref()).map(|old| Arc::clone(&old.hash));
        let roles: Vec<&str> = version.roles.iter().map(|role| role.as_str()).collect();
        tracing::info!(
            plugin = %name,
            version = version.number,
            hash = %version.hash,
            before = before.as_deref(),
            roles = roles.join(","),
            "plugin goes live"
        );
        counter!(names::PLUGIN_RELOADS, "plugin" => name.to_string(), "outcome" => "live").increment(1);
        plugin.versions = version.number;
        plugin.entry = Some(Entry { name, state: State::Live, live: Some(version), shut: None, rejected: None });
    }

    fn disable(&mut self, name: &Arc<str>) {
        tracing::info!(plugin = %name, "plugin is disabled by its manifest");
        self.plugin(name).entry =
            Some(Entry { name: Arc::clone(name), state: State::Disabled, live: None, shut: None, rejected: None });
    }

    fn reject(&mut self, name: &Arc<str>, hash: &str, fault: &Fault, manifest: Option<&Manifest>) {
        let rejected = Rejected { hash: hash.to_owned(), reason: fault.reason() };
        let first = self.first;
        let entry = self.plugin(name).entry.get_or_insert_with(|| Entry {
            name: Arc::clone(name),
            state: State::Rejected,
            live: None,
            shut: None,
            rejected: None,
        });
        if entry.rejected.as_ref() != Some(&rejected) {
            tracing::error!(plugin = %name, hash, reason = rejected.reason, "plugin is refused");
            counter!(names::PLUGIN_RELOADS, "plugin" => name.to_string(), "outcome" => "rejected").increment(1);
        }
        entry.rejected = Some(rejected);
        if entry.live.is_none() {
            entry.state = State::Rejected;
        }
        // At the start nobody knows whether this file served before, so what would have stood guard keeps the gate shut.
        if let (true, None, Some(manifest)) = (first, &entry.live, manifest) {
            let roles: Vec<Role> =
                fault.roles.iter().copied().filter(|role| version::is_gate(*role, manifest)).collect();
            entry.shut =
                (!roles.is_empty()).then(|| Shut { roles, order: manifest.order, rules: manifest.rules.clone() });
        }
    }

    fn remove(&mut self, name: &Arc<str>, manifest: Option<&str>) {
        let roles = self.guarded(name);
        let disabled = manifest
            .and_then(|text| Manifest::parse(text, &self.env.caps).ok())
            .is_some_and(|manifest| !manifest.enabled);
        let open = roles.is_empty() || disabled || self.may_remove(name);
        let plugin = self.plugin(name);
        plugin.tried = None;
        let Some(entry) = plugin.entry.take() else {
            if manifest.is_some() {
                tracing::warn!(plugin = %name, "there is a manifest and no {name}.wasm beside it");
            }
            return;
        };
        if open {
            tracing::info!(plugin = %name, "plugin is gone");
            return;
        }
        let shut = entry.live.as_ref().map_or(entry.shut, |version| {
            let manifest = &version.manifest;
            Some(Shut { roles, order: manifest.order, rules: manifest.rules.clone() })
        });
        tracing::error!(
            plugin = %name,
            "a plugin that stands guard is gone: its role refuses until plugins.allow_remove names it"
        );
        plugin.entry =
            Some(Entry { name: Arc::clone(name), state: State::Missing, live: None, shut, rejected: entry.rejected });
    }
}

/// Runs file work where it may wait.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::host::Options;

    #[tokio::test]
    async fn a_file_that_goes_between_look_and_read_is_not_deleted_yet() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("noop.wasm");
        let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/plugins/testing/dist/noop.wasm");
        std::fs::copy(sample, &file).unwrap();
        let config = Plugins { dir: dir.path().to_owned(), ..crate::config::Config::default().plugins };
        let (warmer, _asked) = tokio::sync::mpsc::channel(8);
        let env = Arc::new(Env::new(&config, Options::default(), warmer).unwrap());
        let mut loader = Loader::new(&config, env, Arc::default());
        loader.look(Patience::Now).await.unwrap();
        let state = |loader: &Loader| loader.plugins["noop"].entry.as_ref().map(|entry| entry.state);
        assert_eq!(state(&loader), Some(State::Live));

        let found = disk::scan(dir.path()).unwrap();
        std::fs::remove_file(&file).unwrap();
        loader.note(&found, Instant::now());
        loader.apply(&"noop".into()).await;
        assert_eq!(state(&loader), Some(State::Live), "it may be on its way back");
        assert!(loader.due().is_some(), "and is looked at again");

        loader.look(Patience::Settle).await.unwrap();
        assert_eq!(state(&loader), Some(State::Live), "an absence has to last");
        loader.look(Patience::Now).await.unwrap();
        assert_eq!(state(&loader), Some(State::Missing));
    }
}
