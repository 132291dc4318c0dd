//! Keeps the snapshot in step with the directory: look, settle, load off the path, and swap all changes at once.
//!
//! If a step fails, the last good version goes on serving, and the failure is shown with its reason. A guard that
//! disappears does not open its gate. The parts of the loader are:
//!
//! - `probation`: probation of new versions, and rollbacks
//! - `words`: operator commands
//! - `outcome`: the results of a load
//! - `gone`: files that disappear
//! - `memory`: guards and rollbacks of an earlier run
//! - `kept`: components that a rollback restored

mod gone;
mod kept;
mod memory;
mod outcome;
mod probation;
mod words;

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics::gauge;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::Instant;
use wasmtime::component::Component;

use super::disk::{self, Files, Owners, ReadError, Seen};
use super::load::{self, Env, Fault};
use crate::config::Plugins;
use crate::plugin::calls::snapshot::Snapshot;
use crate::plugin::calls::snapshot::states::{Entry, ProbationRules};
use crate::plugin::calls::version::{Condemned, Version};
use crate::plugin::guest::files::{Mark, Source};
use crate::plugin::guest::manifest::Manifest;
use crate::telemetry::names;

use kept::Kept;
use memory::{Memory, Rollback};
pub(in crate::plugin) use words::Command;

/// Time after which a missing file, or an empty manifest, counts as deleted.
const ABSENCE: Duration = Duration::from_secs(3);

/// The loader: the only part that changes the snapshot.
pub(in crate::plugin) struct Loader {
    dir: PathBuf,
    settle: Duration,
    allow_remove: Vec<String>,
    env: Arc<Env>,
    serving: Arc<ArcSwap<Snapshot>>,
    plugins: BTreeMap<Arc<str>, Plugin>,
    probation: ProbationRules,
    memory: Memory,
    /// Components of serving versions, kept for rollbacks; `None` = nothing is kept.
    kept: Option<Kept>,
    news: News,
    /// True during the first look, before any version has served.
    first: bool,
}

/// Input of the loader besides changes of files.
pub(in crate::plugin) struct News {
    pub(in crate::plugin) commands: mpsc::Receiver<Command>,
    pub(in crate::plugin) condemned: mpsc::Receiver<Condemned>,
    /// Commands that arrived during a load and need the directory.
    pub(in crate::plugin) waiting: VecDeque<Command>,
}

impl News {
    pub(in crate::plugin) fn new(commands: mpsc::Receiver<Command>, condemned: mpsc::Receiver<Condemned>) -> Self {
        Self { commands, condemned, waiting: VecDeque::new() }
    }
}

/// One piece of [`News`].
pub(in crate::plugin) enum Told {
    Command(Command),
    Condemned(Condemned),
}

/// State of one plugin name in the loader.
#[derive(Default)]
struct Plugin {
    seen: Seen,
    /// Time of a change that is not applied yet.
    changed: Option<Instant>,
    /// The files that were applied last, accepted or refused.
    tried: Option<Mark>,
    /// True if the plugin serves, or is disabled, by a manifest.
    ruled: bool,
    /// Refused only because of another plugin, and tried again when that may have changed.
    clashes: bool,
    /// The last component that compiled, with the hash of its file.
    compiled: Option<(Arc<str>, Component)>,
    versions: u64,
    /// Its state; `None` until a file was tried, and after it was removed.
    entry: Option<Entry>,
    rollback: Rollback,
}

impl Plugin {
    /// How long a change of its files must have rested. A missing file, or an empty manifest or signature, must rest
    /// longer. The last version goes on serving, and an operator who deletes and writes again may be slow.
    fn patience(&self, settle: Duration) -> Duration {
        let signed = self.tried.as_ref().is_some_and(|mark| mark.signature.is_some());
        let is_short = self.seen.wasm.is_none()
            || (self.ruled && !Seen::holds(self.seen.manifest))
            || (signed && !Seen::holds(self.seen.signature));
        if is_short { settle.max(ABSENCE) } else { settle }
    }

    /// True while the operator has disabled the plugin. Changes of its files are ignored meanwhile.
    fn is_parked(&self) -> bool {
        self.entry.as_ref().is_some_and(|entry| entry.parked().is_some())
    }

    /// Has the files tried again, as if they had just changed.
    fn retry(&mut self) {
        (self.tried, self.changed) = (None, Some(Instant::now()));
    }

    /// The change that is applied once it has settled.
    fn pending(&self) -> Option<Instant> {
        self.changed.filter(|_| !self.is_parked())
    }
}

/// Treatment of files that changed just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plugin) enum Patience {
    /// Files must not have changed for the settle time.
    Settle,
    /// Files are taken as they are.
    Now,
}

impl Loader {
    pub(in crate::plugin) fn new(config: &Plugins, env: Arc<Env>, serving: Arc<ArcSwap<Snapshot>>, news: News) -> Self {
        let memory = Memory::read(env.memory.as_deref(), &config.dir);
        let kept = memory.folder().map(|folder| Kept::new(folder, config.cache_bytes as u64));
        let mut loader = Self {
            dir: config.dir.clone(),
            settle: config.settle,
            allow_remove: config.allow_remove.clone(),
            env,
            serving,
            plugins: BTreeMap::new(),
            probation: ProbationRules { calls: config.probation.calls, time: config.probation.time },
            memory,
            kept,
            news,
            first: true,
        };
        loader.recall();
        loader
    }

    /// The next piece of news; `None` when all senders are gone.
    pub(in crate::plugin) async fn told(&mut self) -> Option<Told> {
        if let Some(command) = self.news.waiting.pop_front() {
            return Some(Told::Command(command));
        }
        tokio::select! {
            Some(condemned) = self.news.condemned.recv() => Some(Told::Condemned(condemned)),
            command = self.news.commands.recv() => command.map(Told::Command),
        }
    }

    pub(in crate::plugin) fn dir(&self) -> &PathBuf {
        &self.dir
    }

    /// Time at which the next change will have settled.
    pub(in crate::plugin) fn due(&self) -> Option<Instant> {
        self.plugins.values().filter_map(|plugin| Some(plugin.pending()? + plugin.patience(self.settle))).min()
    }

    /// Looks at the directory and applies all settled changes in one swap.
    ///
    /// # Errors
    /// The directory cannot be read; nothing changes then.
    pub(in crate::plugin) async fn look(&mut self, patience: Patience) -> std::io::Result<()> {
        self.look_since(patience, Instant::now()).await
    }

    /// Like `look`, with `since` as the time of the changes that are found.
    ///
    /// # Errors
    /// The directory cannot be read; nothing changes then.
    pub(in crate::plugin) async fn look_since(&mut self, patience: Patience, since: Instant) -> std::io::Result<()> {
        let dir = self.dir.clone();
        let found = blocking(move || disk::scan(&dir)).await?;
        self.note(&found, since);
        let reviewed = self.review(Instant::now());
        let mut due = self.settled(patience);
        if due.is_empty() && !self.first && !reviewed {
            return Ok(());
        }
        // A plugin with a key clash is tried once more after the others, which may have given the key up.
        for _ in 0..2 {
            for name in &due {
                self.apply(name).await;
            }
            let clashing = self.plugins.iter().filter(|(_, p)| p.clashes && !p.is_parked());
            due = clashing.map(|(name, _)| Arc::clone(name)).collect();
        }
        if std::mem::take(&mut self.first) {
            self.miss();
        }
        self.publish();
        self.give_up_kept().await;
        Ok(())
    }

    fn publish(&mut self) {
        self.remember();
        let entries: Vec<Entry> = self.plugins.values().filter_map(|plugin| plugin.entry.clone()).collect();
        entries.iter().for_each(show);
        self.serving.store(Arc::new(Snapshot::new(entries)));
    }

    /// Publishes one plugin only: other changes of a look that still runs stay unpublished.
    fn publish_one(&mut self, name: &Arc<str>) {
        self.remember();
        let entry = self.plugins.get(name).and_then(|plugin| plugin.entry.clone());
        entry.iter().for_each(show);
        self.serving.store(Arc::new(self.serving.load().with(name, entry)));
    }

    /// Runs `work` and still handles news. A compile does not delay a condemned version or a command that needs no
    /// file.
    async fn meanwhile<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                Some(condemned) = self.news.condemned.recv() => self.condemned(condemned).await,
                Some(command) = self.news.commands.recv() => match command.needs_files() {
                    true => self.news.waiting.push_back(command),
                    false => self.obey_at_once(command).await,
                },
            }
        }
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
            if plugin.pending().is_some_and(settled) {
                plugin.changed = None;
                due.push(Arc::clone(name));
            }
        }
        due
    }

    fn plugin(&mut self, name: &str) -> &mut Plugin {
        self.plugins.get_mut(name).expect("plugin names are never removed")
    }

    async fn apply(&mut self, name: &Arc<str>) {
        let (dir, file) = (self.dir.clone(), Arc::clone(name));
        let read = move || -> Result<_, ReadError> {
            let Files { wasm, manifest, signature } = disk::read(&dir, &file, Owners::Trusted)?;
            // Hashing a large file takes a while, too.
            let source = wasm.map(|bytes| Source::new(file, bytes, manifest.clone(), signature));
            Ok((source, manifest))
        };
        match blocking(move || Ok(read())).await {
            Ok(Ok((Some(source), _))) if self.lost_since(&source) => self.look_again_at(name),
            Ok(Ok((Some(source), _))) => self.replace(source).await,
            // The file vanished after the look. It may come back, so this change has to settle like any other.
            Ok(Ok((None, _))) if self.plugin(name).seen.wasm.is_some() => self.look_again_at(name),
            Ok(Ok((None, manifest))) => self.remove(name, manifest.as_deref()),
            Ok(Err(ReadError::Changed(_))) => self.look_again_at(name),
            Ok(Err(error)) => {
                self.reject(name, "", &Fault { roles: Vec::new(), reasons: vec![error.to_string()] }, None);
            }
            Err(error) => {
                tracing::error!(plugin = %name, %error, "plugin files not read: the task panicked or was cancelled")
            }
        }
    }

    fn look_again_at(&mut self, name: &str) {
        self.plugin(name).changed = Some(Instant::now());
    }

    /// Applies files that were read, unless they equal those that were tried before.
    async fn replace(&mut self, source: Source) {
        let name = Arc::clone(&source.plugin);
        let plugin = self.plugin(&name);
        if plugin.tried.as_ref() == Some(&source.mark) && !plugin.clashes {
            return;
        }
        plugin.clashes = false;
        plugin.tried = Some(source.mark.clone());
        if let Some(fault) = self.lost_manifest(&source) {
            return self.reject(&name, &source.mark.hash, &fault, None);
        }
        match self.go_back_again(&source).await {
            Ok(true) => {}
            Ok(false) => self.attempt(source).await,
            Err(lost) => {
                self.attempt(source).await;
                if let Some(entry) = &mut self.plugin(&name).entry {
                    entry.lost = Some(lost);
                }
            }
        }
    }

    /// Loads the files. The version serves from the next swap on; a failure is recorded with its reason.
    async fn attempt(&mut self, source: Source) {
        let name = Arc::clone(&source.plugin);
        let manifest = Manifest::parse(source.manifest(), &self.env.caps);
        let manifest = match manifest {
            Ok(manifest) => manifest,
            Err(faults) => {
                let reasons = faults.iter().map(|fault| format!("{name}.toml: {fault}")).collect();
                return self.reject(&name, &source.mark.hash, &Fault { roles: Vec::new(), reasons }, None);
            }
        };
        if !manifest.enabled {
            return self.switch_off(&name);
        }
        if let Err(fault) = load::trust(&self.env, &source, &manifest) {
            return self.reject(&name, &source.mark.hash, &fault, Some(&manifest));
        }
        let loaded = self.load(&source, manifest.clone()).await;
        let plugin = self.plugin(&name);
        if plugin.is_parked() {
            // Disabled meanwhile: all of it is repeated when the plugin is enabled.
            return plugin.retry();
        }
        match loaded {
            Ok(version) => self.accept(&version),
            Err(fault) => self.reject(&name, &source.mark.hash, &fault, Some(&manifest)),
        }
    }

    async fn load(&mut self, source: &Source, manifest: Manifest) -> Result<Arc<Version>, Fault> {
        let name = &source.plugin;
        let known = self.plugin(name).compiled.clone().filter(|(hash, _)| *hash == source.mark.hash);
        let (env, kept, number) = (Arc::clone(&self.env), self.kept.clone(), self.plugin(name).versions + 1);
        let loading = Box::pin(async {
            let component = match known {
                Some((_, component)) => component,
                None => load::compile(&env, source).await?,
            };
            let version = link(env, source.clone(), component.clone(), manifest, number).await;
            if let (Some(kept), Ok(_)) = (kept, &version) {
                kept.keep(source).await;
            }
            Ok((component, version))
        });
        let (component, version) = self.meanwhile(loading).await?;
        self.plugin(name).compiled = Some((Arc::clone(&source.mark.hash), component));
        let version = version?;
        let fault = |reason| Fault { roles: version.roles.clone(), reasons: vec![reason] };
        let lost = self.guarded(name).into_iter().find(|role| !version.roles.contains(role));
        if let Some(role) = lost.filter(|_| !self.may_remove(name)) {
            let role = role.as_str();
            return Err(fault(format!(
                "it does not export the role {role}, which the serving version has: to allow this, name the plugin in plugins.allow_remove"
            )));
        }
        if let Some((key, owner)) = self.clash(&version) {
            self.plugin(name).clashes = true;
            return Err(fault(format!("it owns the key {key:?}, which plugin {owner} owns already")));
        }
        Ok(version)
    }

    fn clash(&self, version: &Version) -> Option<(String, Arc<str>)> {
        let others = self.plugins.values().filter_map(|plugin| plugin.entry.as_ref()).flat_map(Entry::served);
        others.filter(|other| other.name != version.name).find_map(|other| {
            let key = version.keys.iter().find(|key| other.keys.contains(key))?;
            Some((key.clone(), Arc::clone(&other.name)))
        })
    }
}

/// Sets the metrics of an entry.
fn show(entry: &Entry) {
    let live = entry.live();
    #[allow(clippy::cast_precision_loss, reason = "a gauge is a float")]
    let number = live.map_or(0.0, |version| version.number as f64);
    let open = live.is_some_and(|version| !version.breaker.is_closed());
    gauge!(names::PLUGIN_VERSION, "plugin" => entry.name.to_string()).set(number);
    gauge!(names::PLUGIN_CIRCUIT_OPEN, "plugin" => entry.name.to_string()).set(f64::from(u8::from(open)));
}

/// Links on a blocking thread: a worker would not poll its sockets for a millisecond or two.
async fn link(
    env: Arc<Env>,
    source: Source,
    component: Component,
    manifest: Manifest,
    number: u64,
) -> Result<Arc<Version>, Fault> {
    let runtime = Handle::current();
    let work = move || runtime.block_on(load::link(&env, &source, &component, manifest, number));
    let crashed = || Fault { roles: Vec::new(), reasons: vec!["the loader crashed on this file".to_owned()] };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(crashed()))
}

/// Runs file work on a blocking thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::Options;

    #[test]
    fn every_file_that_is_gone_or_empty_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let files = |wasm: Option<&str>, manifest: Option<&str>, signature: Option<&str>| {
            for (name, text) in [("p.wasm", wasm), ("p.toml", manifest), ("p.wasm.sig", signature)] {
                match text {
                    Some(text) => std::fs::write(dir.path().join(name), text).unwrap(),
                    None => drop(std::fs::remove_file(dir.path().join(name))),
                }
            }
            disk::scan(dir.path()).unwrap().get("p").copied().unwrap_or_default()
        };
        let (settle, whole) = (Duration::from_millis(150), Some("x"));
        let mark = Mark { hash: "".into(), manifest: whole.map(Into::into), signature: whole.map(Into::into) };
        let mut plugin = Plugin { ruled: true, tried: Some(mark), ..Plugin::default() };
        for (seen, waits) in [
            (files(whole, whole, whole), settle),
            (files(None, whole, whole), ABSENCE),
            (files(whole, None, whole), ABSENCE),
            (files(whole, Some(""), whole), ABSENCE),
            (files(whole, whole, None), ABSENCE),
            (files(whole, whole, Some("")), ABSENCE),
        ] {
            plugin.seen = seen;
            assert_eq!(plugin.patience(settle), waits, "{seen:?}");
        }
        (plugin.ruled, plugin.tried, plugin.seen) = (false, None, files(whole, None, None));
        assert_eq!(plugin.patience(settle), settle, "nothing is missed that was never there");
    }

    #[tokio::test]
    async fn a_file_that_goes_between_look_and_read_is_not_deleted_yet() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("noop.wasm");
        let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/plugins/testing/dist/noop.wasm");
        std::fs::copy(sample, &file).unwrap();
        let config = Plugins { dir: dir.path().to_owned(), ..crate::config::Config::default().plugins };
        let (warmer, _asked) = mpsc::channel(8);
        let (alarm, opened) = mpsc::channel(8);
        let (_told, commands) = mpsc::channel(8);
        let env = Arc::new(Env::new(&config, Options::default(), warmer, alarm).unwrap());
        let mut loader = Loader::new(&config, env, Arc::default(), News::new(commands, opened));
        loader.look(Patience::Now).await.unwrap();
        let state = |loader: &Loader| loader.plugins["noop"].entry.as_ref().map(|entry| entry.state.shown().as_str());
        assert_eq!(state(&loader), Some("live"));

        let found = disk::scan(dir.path()).unwrap();
        std::fs::remove_file(&file).unwrap();
        loader.note(&found, Instant::now());
        loader.apply(&"noop".into()).await;
        assert_eq!(state(&loader), Some("live"), "it may be on its way back");
        assert!(loader.due().is_some(), "and is looked at again");

        loader.look(Patience::Settle).await.unwrap();
        assert_eq!(state(&loader), Some("live"), "an absence has to last");
        loader.look(Patience::Now).await.unwrap();
        assert_eq!(state(&loader), Some("missing"));
    }
}
