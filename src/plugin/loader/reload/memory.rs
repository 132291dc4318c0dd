//! State of the loader that survives a restart, stored beside the compiled code. It names the guards, so that no gate
//! opens if a plugin is broken or gone at the next start. It also names rolled-back files, so that they are not tried
//! again.
//!
//! One file for each plugin directory. Without it nothing is known: a refused file may have guarded any role.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::cache;
use super::super::load::Fault;
use super::{Loader, Plugin};
use crate::plugin::calls::snapshot::states::{Entry, Shut};
use crate::plugin::calls::version;
use crate::plugin::guest::files::Mark;
use crate::plugin::guest::manifest::Manifest;
use crate::plugin::guest::manifest::matching::Rules;
use crate::plugin::{Role, digest};

/// The stored state of one plugin directory.
#[derive(Debug)]
pub(super) struct Memory {
    /// `None` = nothing is kept between runs.
    file: Option<PathBuf>,
    dir: PathBuf,
    /// Content of the file; `None` = not known.
    known: Option<Known>,
}

#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    guards: BTreeMap<Arc<str>, Guard>,
    #[serde(default)]
    rolled_back: BTreeMap<Arc<str>, RolledBack>,
}

/// Files that were rolled back, and the files of the version that serves in their place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RolledBack {
    pub(super) refused: Mark,
    pub(super) reason: String,
    pub(super) serves: Mark,
}

/// Rollback of a plugin.
#[derive(Debug, Default)]
pub(super) enum Rollback {
    /// The newest version serves.
    #[default]
    No,
    /// A rollback of an earlier run, until the file has been looked at.
    Recalled(RolledBack),
    /// The previous version serves.
    InForce(RolledBack),
}

impl Rollback {
    /// The files of the rollback, whether it is in force or recalled.
    pub(super) fn files(&self) -> Option<&RolledBack> {
        match self {
            Self::No => None,
            Self::Recalled(files) | Self::InForce(files) => Some(files),
        }
    }

    /// True while the previous version serves.
    pub(super) fn is_in_force(&self) -> bool {
        matches!(self, Self::InForce(_))
    }

    /// Ends a rollback that is in force, unless these files are the refused ones. One of an earlier run stays.
    pub(super) fn end_unless(&mut self, tried: Option<&Mark>) {
        if let Self::InForce(files) = self
            && tried != Some(&files.refused)
        {
            *self = Self::No;
        }
    }

    /// Takes a rollback of an earlier run.
    pub(super) fn take_recalled(&mut self) -> Option<RolledBack> {
        match std::mem::take(self) {
            Self::Recalled(files) => Some(files),
            other => {
                *self = other;
                None
            }
        }
    }
}

/// A guard: its roles, its position and its match rules, in the form of a manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Guard {
    roles: Vec<String>,
    proved: bool,
    order: i64,
    actions: Vec<String>,
    rooms: Vec<String>,
    keys: Vec<String>,
    origins: Vec<String>,
    /// True if it served by a manifest.
    #[serde(default)]
    ruled: bool,
}

#[derive(Serialize, Deserialize)]
struct Written {
    /// The plugin directory of this file, for readers and for the removal of directories that are gone.
    dir: PathBuf,
    #[serde(flatten)]
    known: Known,
}

impl Guard {
    fn of(shut: &Shut, ruled: bool) -> Self {
        let texts = |patterns: &[_]| patterns.iter().map(ToString::to_string).collect();
        let Rules { actions, rooms, keys, origins } = &shut.rules;
        Self {
            roles: shut.roles.iter().map(|role| role.as_str().to_owned()).collect(),
            proved: shut.proved,
            order: shut.order,
            actions: texts(actions),
            rooms: texts(rooms),
            keys: texts(keys),
            origins: origins.iter().map(|origin| origin.as_str().to_owned()).collect(),
            ruled,
        }
    }

    fn shut(&self) -> Shut {
        let known = |role: &Role| self.roles.iter().any(|name| name == role.as_str());
        Shut {
            roles: Role::ALL.into_iter().filter(known).collect(),
            proved: self.proved,
            order: self.order,
            rules: Rules::of_texts(&self.actions, &self.rooms, &self.keys, &self.origins),
        }
    }
}

impl Memory {
    /// Reads the state that the last run left in `folder` for the plugin directory `dir`.
    pub(super) fn read(folder: Option<&Path>, dir: &Path) -> Self {
        let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
        let hash = digest::of(dir.as_os_str().as_encoded_bytes());
        folder.iter().for_each(|folder| give_up_gone(folder));
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
    fn keep(&mut self, known: Known) {
        if self.known.as_ref() == Some(&known) {
            return;
        }
        if let Some(file) = &self.file
            && let Err(error) = write(file, &Written { dir: self.dir.clone(), known: known.clone() })
        {
            tracing::warn!(%error, file = %file.display(), "list of fail-closed plugins and rollbacks cannot be written");
        }
        self.known = Some(known);
    }
}

fn read(file: &Path) -> io::Result<Written> {
    let mut bytes = Vec::new();
    cache::open_own(file)?.read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

/// Removes the components of plugin directories that no longer exist: no node will start with such a directory and do
/// it.
fn give_up_gone(folder: &Path) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()).filter(|path| path.is_dir()) {
        let is_gone = |written: Written| written.dir.try_exists().is_ok_and(|exists| !exists);
        if read(&path.with_extension("json")).is_ok_and(is_gone) {
            let _ = fs::remove_dir_all(&path);
        }
    }
}

/// Written under a temporary name and renamed: a crash leaves the old file, or at worst an unreadable one.
fn write(file: &Path, written: &Written) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let aside = file.with_extension(format!("{}.tmp", std::process::id()));
    let mut out = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    let ended = serde_json::to_writer_pretty(&mut out, written).map_err(io::Error::from);
    ended.and_then(|()| fs::rename(&aside, file)).inspect_err(|_| drop(fs::remove_file(&aside)))
}

impl Loader {
    /// Runs before the first look: each guard is missing until its file serves, and rollbacks are remembered.
    pub(super) fn recall(&mut self) {
        let known = self.memory.known.clone().unwrap_or_default();
        for (name, guard) in known.guards {
            let shut = Some(guard.shut()).filter(|shut| !shut.roles.is_empty());
            let entry = Some(Entry::missing(&name, shut));
            self.plugins.insert(name, Plugin { entry, ruled: guard.ruled, ..Plugin::default() });
        }
        for (name, rolled_back) in known.rolled_back {
            self.plugins.entry(name).or_default().rollback = Rollback::Recalled(rolled_back);
        }
    }

    /// Runs after the first look: a guard that is still missing is forgotten if the operator allows it, or else
    /// reported.
    pub(super) fn miss(&mut self) {
        self.forget_missing();
        for (name, plugin) in &mut self.plugins {
            if plugin.seen.wasm.is_none() {
                plugin.rollback.take_recalled();
            }
            if plugin.entry.as_ref().is_some_and(Entry::is_missing) {
                tracing::error!(
                    plugin = %name,
                    "fail-closed plugin has no file: its role refuses until plugins.allow_remove names the plugin"
                );
            }
        }
    }

    /// Stores the guards, including those disabled for this run, and the rollbacks.
    pub(super) fn remember(&mut self) {
        let guard = |plugin: &Plugin| {
            let entry = plugin.entry.as_ref()?;
            entry.parked().unwrap_or(entry).guard().map(|shut| Guard::of(&shut, plugin.ruled))
        };
        let guards = self.plugins.iter().filter_map(|(name, plugin)| Some((Arc::clone(name), guard(plugin)?)));
        let rolled_back = |plugin: &Plugin| plugin.rollback.files().cloned();
        let rolled_back =
            self.plugins.iter().filter_map(|(name, plugin)| Some((Arc::clone(name), rolled_back(plugin)?)));
        let known = Known { guards: guards.collect(), rolled_back: rolled_back.collect() };
        self.memory.keep(known);
    }

    /// The gate that stays shut for a file that is refused at the start and has not been seen to serve.
    pub(super) fn unproved(&self, fault: &Fault, manifest: Option<&Manifest>) -> Option<Shut> {
        let default = Manifest::default();
        let manifest = manifest.unwrap_or(&default);
        match (&manifest.roles, &*fault.roles, &self.memory.known) {
            (Some(said), ..) => Shut::of(said, manifest),
            (None, [], None) => Shut::of(&Role::ALL, manifest),
            // The file was not there when the node ended, or it served and was no guard.
            (None, [], Some(_)) => None,
            (None, found, _) => Shut::of(found, manifest),
        }
    }
}

impl Shut {
    /// The gate of a plugin with these stated or assumed roles, as far as they are guarded.
    pub(super) fn of(roles: &[Role], manifest: &Manifest) -> Option<Self> {
        let roles: Vec<Role> = roles.iter().copied().filter(|role| version::is_gate(*role, manifest)).collect();
        (!roles.is_empty()).then(|| Self { roles, proved: false, order: manifest.order, rules: manifest.rules.clone() })
    }
}

impl Entry {
    /// The gate that stays shut when this plugin goes: the roles that it serves, or served before its gate was shut.
    fn guard(&self) -> Option<Shut> {
        match self.live() {
            Some(live) => Shut::of(&live.roles, &live.manifest).map(|shut| Shut { proved: true, ..shut }),
            None => self.shut().cloned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_was_kept_is_read_again_and_only_for_its_own_directory() {
        let (folder, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let kept = folder.path().join("known");
        let read = |dir: &Path| Memory::read(Some(&kept), dir);
        assert_eq!(read(dir.path()).known, None, "nobody knows");
        let text = "order = -3\n[match]\nactions = [\"a\", \"b*\"]\nrooms = [\"r*\"]\norigins = [\"client\"]";
        let manifest = Manifest::parse(text, &crate::config::PluginCaps::default()).unwrap();
        let shut = Shut::of(&[Role::Auth, Role::Filter, Role::Events], &manifest).unwrap();
        assert_eq!(shut.roles, [Role::Auth, Role::Filter]);
        let mark = |hash: &str, manifest: Option<&str>| Mark {
            hash: hash.into(),
            manifest: manifest.map(Into::into),
            signature: None,
        };
        let rolled_back =
            RolledBack { refused: mark("2", Some(text)), reason: "trapped".into(), serves: mark("1", None) };
        let known = Known {
            guards: [("f".into(), Guard::of(&shut, true))].into(),
            rolled_back: [("f".into(), rolled_back)].into(),
        };
        read(dir.path()).keep(known.clone());
        assert_eq!(read(dir.path()).known, Some(known));
        assert_eq!(read(dir.path()).known.unwrap().guards["f"].shut(), shut);
        assert_eq!(read(folder.path()).known, None, "another directory's");
        let file = fs::read_dir(&kept).unwrap().next().unwrap().unwrap().path();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(&file, r#"{"dir": "/", "guards": {}}"#).unwrap();
        assert_eq!(
            read(dir.path()).known,
            Some(Known::default()),
            "as it was written before there were rollbacks in it"
        );
        fs::write(file, "half").unwrap();
        assert_eq!(read(dir.path()).known, None);
    }

    #[test]
    fn components_of_a_directory_that_is_gone_are_given_up_and_nothing_else() {
        let (folder, here, gone) =
            (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let kept = |dir: &Path| {
            let mut memory = Memory::read(Some(folder.path()), dir);
            memory.keep(Known::default());
            let kept = memory.folder().unwrap();
            fs::create_dir(&kept).unwrap();
            fs::write(kept.join("component"), "x").unwrap();
            kept
        };
        let (stays, goes) = (kept(here.path()), kept(gone.path()));
        gone.close().unwrap();
        let other = folder.path().join("a folder of which nobody knows whose it is");
        fs::create_dir(&other).unwrap();
        Memory::read(Some(folder.path()), here.path());
        assert_eq!((stays.join("component").exists(), goes.exists(), other.exists()), (true, false, true));
        assert!(goes.with_extension("json").exists(), "who stood guard is remembered still");
    }
}
