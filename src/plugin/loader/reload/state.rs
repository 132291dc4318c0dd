//! State of the loader that survives a restart, stored beside the compiled code. It names the fail-closed plugins, so
//! that their roles refuse if a plugin is broken or gone at the next start. It also names rolled-back files, so that
//! they are not tried again.
//!
//! One file for each plugin directory. Without it nothing is known: a refused file may have been fail-closed in any
//! role.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::cache;
use super::super::load::LoadFault;
use super::{Loader, Plugin};
use crate::plugin::calls::snapshot::states::{Entry, FailClosed};
use crate::plugin::calls::version;
use crate::plugin::guest::files::FilesId;
use crate::plugin::guest::manifest::Manifest;
use crate::plugin::guest::manifest::matching::Rules;
use crate::plugin::{Role, digest};

/// The stored state of one plugin directory.
#[derive(Debug)]
pub(super) struct LoaderState {
    /// `None` = nothing is kept between runs.
    file: Option<PathBuf>,
    dir: PathBuf,
    /// Content of the file; `None` = not known.
    known: Option<StoredState>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct StoredState {
    #[serde(rename = "guards")]
    fail_closed: BTreeMap<Arc<str>, FailClosedRecord>,
    #[serde(default)]
    rolled_back: BTreeMap<Arc<str>, RolledBack>,
}

/// Files that were rolled back, and the files of the version that serves in their place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RolledBack {
    pub(super) refused: FilesId,
    pub(super) reason: String,
    pub(super) serves: FilesId,
}

/// Rollback of a plugin.
#[derive(Debug, Default)]
pub(super) enum Rollback {
    /// The newest version serves.
    #[default]
    Inactive,
    /// A rollback of an earlier run, until the file has been read.
    FromEarlierRun(RolledBack),
    /// The previous version serves.
    Active(RolledBack),
}

impl Rollback {
    /// The files of the rollback, whether it is active or of an earlier run.
    pub(super) fn files(&self) -> Option<&RolledBack> {
        match self {
            Self::Inactive => None,
            Self::FromEarlierRun(files) | Self::Active(files) => Some(files),
        }
    }

    /// True while the previous version serves.
    pub(super) fn is_active(&self) -> bool {
        matches!(self, Self::Active(_))
    }

    /// Ends an active rollback, unless these files are the refused ones. A rollback of an earlier run stays.
    pub(super) fn end_unless(&mut self, applied: Option<&FilesId>) {
        if let Self::Active(files) = self
            && applied != Some(&files.refused)
        {
            *self = Self::Inactive;
        }
    }

    /// Takes a rollback of an earlier run.
    pub(super) fn take_earlier(&mut self) -> Option<RolledBack> {
        match std::mem::take(self) {
            Self::FromEarlierRun(files) => Some(files),
            other => {
                *self = other;
                None
            }
        }
    }
}

/// A fail-closed plugin: its roles, its position and its match rules, in the form of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct FailClosedRecord {
    roles: Vec<String>,
    #[serde(rename = "proved")]
    confirmed: bool,
    order: i64,
    actions: Vec<String>,
    rooms: Vec<String>,
    keys: Vec<String>,
    origins: Vec<String>,
    /// True if it served by a manifest.
    #[serde(default, rename = "ruled")]
    has_manifest: bool,
}

#[derive(Serialize, Deserialize)]
struct StateFile {
    /// The plugin directory of this file, for readers and for the removal of directories that are gone.
    dir: PathBuf,
    #[serde(flatten)]
    known: StoredState,
}

impl FailClosedRecord {
    fn of(fail_closed: &FailClosed, has_manifest: bool) -> Self {
        let texts = |patterns: &[_]| patterns.iter().map(ToString::to_string).collect();
        let Rules { actions, rooms, keys, origins } = &fail_closed.rules;
        Self {
            roles: fail_closed.roles.iter().map(|role| role.as_str().to_owned()).collect(),
            confirmed: fail_closed.confirmed,
            order: fail_closed.order,
            actions: texts(actions),
            rooms: texts(rooms),
            keys: texts(keys),
            origins: origins.iter().map(|origin| origin.as_str().to_owned()).collect(),
            has_manifest,
        }
    }

    fn fail_closed(&self) -> FailClosed {
        let known = |role: &Role| self.roles.iter().any(|name| name == role.as_str());
        FailClosed {
            roles: Role::ALL.into_iter().filter(known).collect(),
            confirmed: self.confirmed,
            order: self.order,
            rules: Rules::of_texts(&self.actions, &self.rooms, &self.keys, &self.origins),
        }
    }
}

impl LoaderState {
    /// Reads the state that the last run left in `folder` for the plugin directory `dir`.
    pub(super) fn read(folder: Option<&Path>, dir: &Path) -> Self {
        let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
        let hash = digest::of(dir.as_os_str().as_encoded_bytes());
        folder.iter().for_each(|folder| remove_orphaned_folders(folder));
        let file = folder.map(|folder| folder.join(format!("{}.json", &hash[..16])));
        let known = file.as_deref().and_then(|file| match read(file) {
            Ok(written) => Some(written.known),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => {
                tracing::warn!(%error, file = %file.display(), "list of fail-closed plugins and rollbacks cannot be read");
                None
            }
        });
        Self { file, dir, known }
    }

    /// The folder beside the file, for data that is too large for it.
    pub(super) fn folder(&self) -> Option<PathBuf> {
        self.file.as_ref().map(|file| file.with_extension(""))
    }

    /// Stores the current state if it has changed.
    fn store(&mut self, known: StoredState) {
        if self.known.as_ref() == Some(&known) {
            return;
        }
        if let Some(file) = &self.file
            && let Err(error) = write(file, &StateFile { dir: self.dir.clone(), known: known.clone() })
        {
            tracing::warn!(%error, file = %file.display(), "list of fail-closed plugins and rollbacks cannot be written");
        }
        self.known = Some(known);
    }
}

fn read(file: &Path) -> io::Result<StateFile> {
    let mut bytes = Vec::new();
    cache::open_own(file)?.read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// Removes the components of plugin directories that no longer exist: no node will start with such a directory and do
/// it.
fn remove_orphaned_folders(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_dir()) {
        let is_gone = |written: StateFile| written.dir.try_exists().is_ok_and(|exists| !exists);
        if read(&path.with_extension("json")).is_ok_and(is_gone) {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// Written under a temporary name and renamed: a crash leaves the old file, or at worst an unreadable one.
fn write(file: &Path, written: &StateFile) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let temporary = file.with_extension(format!("{}.tmp", std::process::id()));
    let mut out = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    let result = serde_json::to_writer_pretty(&mut out, written).map_err(io::Error::from);
    result.and_then(|()| fs::rename(&temporary, file)).inspect_err(|_| drop(fs::remove_file(&temporary)))
}

impl Loader {
    /// Runs before the first scan: each fail-closed plugin is missing until its file serves. Rollbacks are restored.
    pub(super) fn restore_state(&mut self) {
        let known = self.state.known.clone().unwrap_or_default();
        for (name, record) in known.fail_closed {
            let fail_closed = Some(record.fail_closed()).filter(|fail_closed| !fail_closed.roles.is_empty());
            let entry = Some(Entry::missing(&name, fail_closed));
            self.plugins.insert(name, Plugin { entry, has_manifest: record.has_manifest, ..Plugin::default() });
        }
        for (name, rolled_back) in known.rolled_back {
            self.plugins.entry(name).or_default().rollback = Rollback::FromEarlierRun(rolled_back);
        }
    }

    /// Runs after the first scan: a fail-closed plugin that is still missing is forgotten if the operator allows it, or
    /// else reported.
    pub(super) fn report_missing(&mut self) {
        self.forget_missing();
        for (name, plugin) in &mut self.plugins {
            if plugin.stamps.wasm.is_none() {
                plugin.rollback.take_earlier();
            }
            if plugin.entry.as_ref().is_some_and(Entry::is_missing) {
                tracing::error!(
                    plugin = %name,
                    "fail-closed plugin has no file: its role refuses until plugins.allow_remove names the plugin"
                );
            }
        }
    }

    /// Stores the fail-closed plugins, including those disabled for this run, and the rollbacks.
    pub(super) fn store_state(&mut self) {
        let record = |plugin: &Plugin| {
            let entry = plugin.entry.as_ref()?;
            let fail_closed = entry.before_disable().unwrap_or(entry).to_fail_closed()?;
            Some(FailClosedRecord::of(&fail_closed, plugin.has_manifest))
        };
        let fail_closed = self.plugins.iter().filter_map(|(name, plugin)| Some((Arc::clone(name), record(plugin)?)));
        let rolled_back = |plugin: &Plugin| plugin.rollback.files().cloned();
        let rolled_back =
            self.plugins.iter().filter_map(|(name, plugin)| Some((Arc::clone(name), rolled_back(plugin)?)));
        let known = StoredState { fail_closed: fail_closed.collect(), rolled_back: rolled_back.collect() };
        self.state.store(known);
    }

    /// The fail-closed roles that refuse for a file that is refused at the start and has not served yet.
    pub(super) fn assumed_fail_closed(&self, fault: &LoadFault, manifest: Option<&Manifest>) -> Option<FailClosed> {
        let default = Manifest::default();
        let manifest = manifest.unwrap_or(&default);
        match (&manifest.roles, &*fault.roles, &self.state.known) {
            (Some(stated), ..) => FailClosed::of(stated, manifest),
            (None, [], None) => FailClosed::of(&Role::ALL, manifest),
            // The file was not there when the node ended, or it served and was not fail-closed.
            (None, [], Some(_)) => None,
            (None, found, _) => FailClosed::of(found, manifest),
        }
    }
}

impl FailClosed {
    /// The fail-closed ones of the stated or assumed roles of a plugin.
    pub(super) fn of(roles: &[Role], manifest: &Manifest) -> Option<Self> {
        let roles: Vec<Role> = roles.iter().copied().filter(|role| version::is_fail_closed(*role, manifest)).collect();
        (!roles.is_empty()).then(|| Self {
            roles,
            confirmed: false,
            order: manifest.order,
            rules: manifest.rules.clone(),
        })
    }
}

impl Entry {
    /// The roles that refuse when this plugin goes: fail-closed roles that it serves, or served before it was missing.
    fn to_fail_closed(&self) -> Option<FailClosed> {
        match self.live() {
            Some(live) => FailClosed::of(&live.roles, &live.manifest)
                .map(|fail_closed| FailClosed { confirmed: true, ..fail_closed }),
            None => self.fail_closed().cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn stored_state_is_read_again_and_only_for_its_own_directory() {
        let (folder, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let kept = folder.path().join("known");
        let read = |dir: &Path| LoaderState::read(Some(&kept), dir);
        assert_eq!(read(dir.path()).known, None, "nothing is stored yet");
        let text = "order = -3\n[match]\nactions = [\"a\", \"b*\"]\nrooms = [\"r*\"]\norigins = [\"client\"]";
        let manifest = Manifest::parse(text, &crate::config::PluginCaps::default()).unwrap();
        let fail_closed = FailClosed::of(&[Role::Auth, Role::Filter, Role::Events], &manifest).unwrap();
        assert_eq!(fail_closed.roles, [Role::Auth, Role::Filter]);
        let files_id = |hash: &str, manifest: Option<&str>| FilesId {
            hash: hash.into(),
            manifest: manifest.map(Into::into),
            signature: None,
        };
        let rolled_back =
            RolledBack { refused: files_id("2", Some(text)), reason: "trapped".into(), serves: files_id("1", None) };
        let known = StoredState {
            fail_closed: [("f".into(), FailClosedRecord::of(&fail_closed, true))].into(),
            rolled_back: [("f".into(), rolled_back)].into(),
        };
        read(dir.path()).store(known.clone());
        assert_eq!(read(dir.path()).known, Some(known));
        assert_eq!(read(dir.path()).known.unwrap().fail_closed["f"].fail_closed(), fail_closed);
        assert_eq!(read(folder.path()).known, None, "another directory's");
        let file = fs::read_dir(&kept).unwrap().next().unwrap().unwrap().path();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&file, r#"{"dir": "/", "guards": {}}"#).unwrap();
        assert_eq!(
            read(dir.path()).known,
            Some(StoredState::default()),
            "as it was written before there were rollbacks in it"
        );
        fs::write(file, "half").unwrap();
        assert_eq!(read(dir.path()).known, None);
    }

    #[test]
    fn components_of_a_directory_that_is_gone_are_removed_and_nothing_else() {
        let (folder, here, gone) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let kept = |dir: &Path| {
            let mut state = LoaderState::read(Some(folder.path()), dir);
            state.store(StoredState::default());
            let kept = state.folder().unwrap();
            fs::create_dir(&kept).unwrap();
            fs::write(kept.join("component"), "x").unwrap();
            kept
        };
        let (stays, goes) = (kept(here.path()), kept(gone.path()));
        gone.close().unwrap();
        let other = folder.path().join("a folder of an unknown owner");
        fs::create_dir(&other).unwrap();
        LoaderState::read(Some(folder.path()), here.path());
        assert_eq!((stays.join("component").exists(), goes.exists(), other.exists()), (true, false, true));
        assert!(goes.with_extension("json").exists(), "the fail-closed plugins are still stored");
    }
}
