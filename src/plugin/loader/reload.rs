//! Keeps the snapshot in step with the directory: scan, settle, load off the path, and swap all changes at once.
//!
//! If a step fails, the last good version goes on serving, and the failure is shown with its reason. The roles of a
//! fail-closed plugin refuse when it disappears. The parts of the loader are:
//!
//! - `probation`: probation of new versions, and rollbacks
//! - `commands`: operator commands
//! - `inputs`: queues of commands and rollback requests
//! - `results`: the results of a load
//! - `removal`: files that disappear
//! - `state`: fail-closed plugins and rollbacks of an earlier run
//! - `kept`: components that a rollback restored

mod commands;
mod inputs;
mod kept;
mod probation;
mod removal;
mod results;
mod state;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use metrics::gauge;
use tokio::runtime::Handle;
use tokio::time::Instant;
use wasmtime::component::Component;

use super::disk::{self, FileStamps, Owners, RawFiles, ReadError};
use super::load::{self, Env, LoadFault};
use crate::config::Plugins;
use crate::plugin::calls::snapshot::Snapshot;
use crate::plugin::calls::snapshot::states::{Entry, ProbationRules};
use crate::plugin::calls::version::Version;
use crate::plugin::guest::files::{FilesId, PluginFiles};
use crate::plugin::guest::manifest::Manifest;
use crate::telemetry::names;

pub(in crate::plugin) use commands::LoaderCommand;
pub(in crate::plugin) use inputs::{LoaderInput, LoaderInputs};
use kept::KeptFiles;
use state::{LoaderState, Rollback};

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
    state: LoaderState,
    /// Components of serving versions, kept for rollbacks; `None` = nothing is kept.
    kept: Option<KeptFiles>,
    inputs: LoaderInputs,
    /// True during the first scan, before any version has served.
    first_scan: bool,
}

/// State of one plugin name in the loader.
#[derive(Default)]
struct Plugin {
    stamps: FileStamps,
    /// Time of a change that is not applied yet.
    changed: Option<Instant>,
    /// The files that were applied last, accepted or refused.
    applied: Option<FilesId>,
    /// True if the plugin serves, or is disabled, by a manifest.
    has_manifest: bool,
    /// Refused only because of another plugin, and tried again when that may have changed.
    has_key_conflict: bool,
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
    fn settle_time(&self, settle: Duration) -> Duration {
        let signed = self.applied.as_ref().is_some_and(|files_id| files_id.signature.is_some());
        let is_short = self.stamps.wasm.is_none()
            || (self.has_manifest && !FileStamps::has_content(self.stamps.manifest))
            || (signed && !FileStamps::has_content(self.stamps.signature));
        if is_short { settle.max(ABSENCE) } else { settle }
    }

    /// True while the operator has disabled the plugin. Changes of its files are ignored meanwhile.
    fn is_disabled(&self) -> bool {
        self.entry.as_ref().is_some_and(|entry| entry.before_disable().is_some())
    }

    /// Has the files tried again, as if they had just changed.
    fn retry(&mut self) {
        (self.applied, self.changed) = (None, Some(Instant::now()));
    }

    /// The change that is applied once it has settled.
    fn pending(&self) -> Option<Instant> {
        self.changed.filter(|_| !self.is_disabled())
    }
}

/// Treatment of files that changed just now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plugin) enum Settling {
    /// Files must not have changed for the settle time.
    Settle,
    /// Files are taken as they are.
    Now,
}

impl Loader {
    pub(in crate::plugin) fn new(
        config: &Plugins,
        env: Arc<Env>,
        serving: Arc<ArcSwap<Snapshot>>,
        inputs: LoaderInputs,
    ) -> Self {
        let state = LoaderState::read(env.state_folder.as_deref(), &config.dir);
        let kept = state.folder().map(|folder| KeptFiles::new(folder, config.cache_bytes as u64));
        let mut loader = Self {
            dir: config.dir.clone(),
            settle: config.settle,
            allow_remove: config.allow_remove.clone(),
            env,
            serving,
            plugins: BTreeMap::new(),
            probation: ProbationRules { calls: config.probation.calls, time: config.probation.time },
            state,
            kept,
            inputs,
            first_scan: true,
        };
        loader.restore_state();
        loader
    }

    /// The next input; `None` when all senders are gone.
    pub(in crate::plugin) async fn next_input(&mut self) -> Option<LoaderInput> {
        self.inputs.next().await
    }

    pub(in crate::plugin) fn dir(&self) -> &PathBuf {
        &self.dir
    }

    /// Time at which the next change will have settled.
    pub(in crate::plugin) fn due(&self) -> Option<Instant> {
        self.plugins.values().filter_map(|plugin| Some(plugin.pending()? + plugin.settle_time(self.settle))).min()
    }

    /// Scans the directory and applies all settled changes in one swap.
    ///
    /// # Errors
    /// The directory cannot be read; nothing changes then.
    pub(in crate::plugin) async fn scan(&mut self, settling: Settling) -> std::io::Result<()> {
        self.scan_since(settling, Instant::now()).await
    }

    /// Like `scan`, with `since` as the time of the changes that are found.
    ///
    /// # Errors
    /// The directory cannot be read; nothing changes then.
    pub(in crate::plugin) async fn scan_since(&mut self, settling: Settling, since: Instant) -> std::io::Result<()> {
        let dir = self.dir.clone();
        let found = blocking(move || disk::scan(&dir)).await?;
        self.record_scan(&found, since);
        let probations_ended = self.end_probations(Instant::now());
        let mut due = self.settled(settling);
        if due.is_empty() && !self.first_scan && !probations_ended {
            return Ok(());
        }
        // A plugin with a key conflict is tried once more after the others, which may no longer own the key.
        for _ in 0..2 {
            for name in &due {
                self.apply(name).await;
            }
            let conflicting = self.plugins.iter().filter(|(_, p)| p.has_key_conflict && !p.is_disabled());
            due = conflicting.map(|(name, _)| Arc::clone(name)).collect();
        }
        if std::mem::take(&mut self.first_scan) {
            self.report_missing();
        }
        self.publish();
        self.remove_unneeded_files().await;
        Ok(())
    }

    fn publish(&mut self) {
        self.store_state();
        let entries: Vec<Entry> = self.plugins.values().filter_map(|plugin| plugin.entry.clone()).collect();
        entries.iter().for_each(update_gauges);
        self.serving.store(Arc::new(Snapshot::new(entries)));
    }

    /// Publishes one plugin only: other changes of a scan that still runs stay unpublished.
    fn publish_one(&mut self, name: &Arc<str>) {
        self.store_state();
        let entry = self.plugins.get(name).and_then(|plugin| plugin.entry.clone());
        entry.iter().for_each(update_gauges);
        self.serving.store(Arc::new(self.serving.load().with(name, entry)));
    }

    /// Runs `work` and still handles inputs. A compile does not delay a rollback or a command that needs no file.
    async fn handle_inputs_during<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        loop {
            tokio::select! {
                done = &mut work => return done,
                Some(request) = self.inputs.rollback_requests.recv() => self.roll_back_if_on_probation(request).await,
                Some(command) = self.inputs.commands.recv() => match command.needs_files() {
                    true => self.inputs.deferred.push_back(command),
                    false => self.execute_now(command).await,
                },
            }
        }
    }

    fn record_scan(&mut self, found: &BTreeMap<String, FileStamps>, now: Instant) {
        for name in found.keys() {
            if !self.plugins.contains_key(name.as_str()) {
                self.plugins.insert(name.as_str().into(), Plugin::default());
            }
        }
        for (name, plugin) in &mut self.plugins {
            let stamps = found.get(&**name).copied().unwrap_or_default();
            if stamps != plugin.stamps {
                plugin.stamps = stamps;
                plugin.changed = Some(now);
            }
        }
    }

    fn settled(&mut self, settling: Settling) -> Vec<Arc<str>> {
        let mut due = Vec::new();
        for (name, plugin) in &mut self.plugins {
            let wait = plugin.settle_time(self.settle);
            let settled = |changed: Instant| settling == Settling::Now || changed.elapsed() >= wait;
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
            let RawFiles { wasm, manifest, signature } = disk::read(&dir, &file, Owners::Trusted)?;
            // Hashing a large file takes a while, too.
            let files = wasm.map(|bytes| PluginFiles::new(file, bytes, manifest.clone(), signature));
            Ok((files, manifest))
        };
        match blocking(move || Ok(read())).await {
            Ok(Ok((Some(files), _))) if self.lost_manifest_since_scan(&files) => self.retry_later(name),
            Ok(Ok((Some(files), _))) => self.replace(files).await,
            // The file vanished after the scan. It may come back, so this change has to settle like any other.
            Ok(Ok((None, _))) if self.plugin(name).stamps.wasm.is_some() => self.retry_later(name),
            Ok(Ok((None, manifest))) => self.remove(name, manifest.as_deref()),
            Ok(Err(ReadError::Changed(_))) => self.retry_later(name),
            Ok(Err(error)) => {
                self.reject(name, "", &LoadFault { roles: Vec::new(), reasons: vec![error.to_string()] }, None);
            }
            Err(error) => {
                tracing::error!(plugin = %name, %error, "plugin files not read: the task panicked or was cancelled");
            }
        }
    }

    fn retry_later(&mut self, name: &str) {
        self.plugin(name).changed = Some(Instant::now());
    }

    /// Applies files that were read, unless they equal those that were tried before.
    async fn replace(&mut self, files: PluginFiles) {
        let name = Arc::clone(&files.plugin);
        let plugin = self.plugin(&name);
        if plugin.applied.as_ref() == Some(&files.id) && !plugin.has_key_conflict {
            return;
        }
        plugin.has_key_conflict = false;
        plugin.applied = Some(files.id.clone());
        if let Some(fault) = self.missing_manifest(&files) {
            return self.reject(&name, &files.id.hash, &fault, None);
        }
        match self.restore_rollback(&files).await {
            Ok(true) => {}
            Ok(false) => self.try_load(files).await,
            Err(lost) => {
                self.try_load(files).await;
                if let Some(entry) = &mut self.plugin(&name).entry {
                    entry.lost = Some(lost);
                }
            }
        }
    }

    /// Loads the files. The version serves from the next swap on; a failure is recorded with its reason.
    async fn try_load(&mut self, files: PluginFiles) {
        let name = Arc::clone(&files.plugin);
        let manifest = Manifest::parse(files.manifest(), self.env.caps());
        let manifest = match manifest {
            Ok(manifest) => manifest,
            Err(faults) => {
                let reasons = faults.iter().map(|fault| format!("{name}.toml: {fault}")).collect();
                return self.reject(&name, &files.id.hash, &LoadFault { roles: Vec::new(), reasons }, None);
            }
        };
        if !manifest.enabled {
            return self.disable_by_manifest(&name);
        }
        if let Err(fault) = load::check_trust(&self.env, &files, &manifest) {
            return self.reject(&name, &files.id.hash, &fault, Some(&manifest));
        }
        let loaded = self.load(&files, manifest.clone()).await;
        let plugin = self.plugin(&name);
        if plugin.is_disabled() {
            // Disabled meanwhile: all of it is repeated when the plugin is enabled.
            return plugin.retry();
        }
        match loaded {
            Ok(version) => self.accept(&version),
            Err(fault) => self.reject(&name, &files.id.hash, &fault, Some(&manifest)),
        }
    }

    async fn load(&mut self, files: &PluginFiles, manifest: Manifest) -> Result<Arc<Version>, LoadFault> {
        let name = &files.plugin;
        let known = self.plugin(name).compiled.clone().filter(|(hash, _)| *hash == files.id.hash);
        let (env, kept, number) = (Arc::clone(&self.env), self.kept.clone(), self.plugin(name).versions + 1);
        let loading = Box::pin(async {
            let component = match known {
                Some((_, component)) => component,
                None => load::compile(&env, files).await?,
            };
            let version = link(env, files.clone(), component.clone(), manifest, number).await;
            if let (Some(kept), Ok(_)) = (kept, &version) {
                kept.keep(files).await;
            }
            Ok((component, version))
        });
        let (component, version) = self.handle_inputs_during(loading).await?;
        self.plugin(name).compiled = Some((Arc::clone(&files.id.hash), component));
        let version = version?;
        let fault = |reason| LoadFault { roles: version.roles.clone(), reasons: vec![reason] };
        let lost = self.fail_closed_roles(name).into_iter().find(|role| !version.roles.contains(role));
        if let Some(role) = lost.filter(|_| !self.may_remove(name)) {
            let role = role.as_str();
            return Err(fault(format!(
                "it does not export the role {role}, which the serving version has: to allow this, name the plugin in plugins.allow_remove"
            )));
        }
        if let Some((key, owner)) = self.key_conflict(&version) {
            self.plugin(name).has_key_conflict = true;
            return Err(fault(format!("it owns the key {key:?}, which plugin {owner} owns already")));
        }
        Ok(version)
    }

    fn key_conflict(&self, version: &Version) -> Option<(String, Arc<str>)> {
        let others = self.plugins.values().filter_map(|plugin| plugin.entry.as_ref()).flat_map(Entry::serving_versions);
        others.filter(|other| other.name != version.name).find_map(|other| {
            let key = version.keys.iter().find(|key| other.keys.contains(key))?;
            Some((key.clone(), Arc::clone(&other.name)))
        })
    }
}

/// Sets the metrics of an entry.
fn update_gauges(entry: &Entry) {
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
    files: PluginFiles,
    component: Component,
    manifest: Manifest,
    number: u64,
) -> Result<Arc<Version>, LoadFault> {
    let runtime = Handle::current();
    let work = move || runtime.block_on(load::link(&env, &files, &component, manifest, number));
    let crashed = || LoadFault { roles: Vec::new(), reasons: vec!["the loader crashed on this file".to_owned()] };
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|_| Err(crashed()))
}

/// Runs file work on a blocking thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> std::io::Result<T> + Send + 'static) -> std::io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;
    use crate::plugin::Options;

    #[test]
    fn missing_or_empty_known_file_settles_longer() {
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
        let files_id = FilesId { hash: "".into(), manifest: whole.map(Into::into), signature: whole.map(Into::into) };
        let mut plugin = Plugin { has_manifest: true, applied: Some(files_id), ..Plugin::default() };
        for (stamps, waits) in [
            (files(whole, whole, whole), settle),
            (files(None, whole, whole), ABSENCE),
            (files(whole, None, whole), ABSENCE),
            (files(whole, Some(""), whole), ABSENCE),
            (files(whole, whole, None), ABSENCE),
            (files(whole, whole, Some("")), ABSENCE),
        ] {
            plugin.stamps = stamps;
            assert_eq!(plugin.settle_time(settle), waits, "{stamps:?}");
        }
        (plugin.has_manifest, plugin.applied, plugin.stamps) = (false, None, files(whole, None, None));
        assert_eq!(plugin.settle_time(settle), settle, "nothing is missed that was never there");
    }

    #[tokio::test]
    async fn a_file_that_goes_between_scan_and_read_is_not_deleted_yet() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("noop.wasm");
        let sample = concat!(env!("CARGO_MANIFEST_DIR"), "/plugins/testing/dist/noop.wasm");
        std::fs::copy(sample, &file).unwrap();
        let config = Plugins { dir: dir.path().to_owned(), ..crate::config::Config::default().plugins };
        let (warmer, _asked) = mpsc::channel(8);
        let (rollbacks, rollback_requests) = mpsc::channel(8);
        let (_sender, commands) = mpsc::channel(8);
        let env = Arc::new(Env::new(&config, Options::default(), warmer, rollbacks).unwrap());
        let mut loader = Loader::new(&config, env, Arc::default(), LoaderInputs::new(commands, rollback_requests));
        loader.scan(Settling::Now).await.unwrap();
        let state =
            |loader: &Loader| loader.plugins["noop"].entry.as_ref().map(|entry| entry.state.public_state().as_str());
        assert_eq!(state(&loader), Some("live"));

        let found = disk::scan(dir.path()).unwrap();
        std::fs::remove_file(&file).unwrap();
        loader.record_scan(&found, Instant::now());
        loader.apply(&"noop".into()).await;
        assert_eq!(state(&loader), Some("live"), "it may be on its way back");
        assert!(loader.due().is_some(), "and is read again");

        loader.scan(Settling::Settle).await.unwrap();
        assert_eq!(state(&loader), Some("live"), "an absence has to last");
        loader.scan(Settling::Now).await.unwrap();
        assert_eq!(state(&loader), Some("missing"));
    }
}
