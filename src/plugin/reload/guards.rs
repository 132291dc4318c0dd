//! Who stood guard when the node ended: kept beside the compiled code, so that a restart does not open a gate whose plugin is
//! broken or gone by then.
//!
//! One file for each plugin directory. Where there is none, nobody knows: a file that is refused may have guarded anything.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::load::Fault;
use super::super::manifest::Manifest;
use super::super::matching::Rules;
use super::super::snapshot::{Entry, Shut, State};
use super::super::version;
use super::super::{Role, digest};
use super::{Loader, Plugin};

/// What is kept of one plugin directory.
#[derive(Debug)]
pub(super) struct Memory {
    /// None = nothing is kept between runs.
    file: Option<PathBuf>,
    dir: PathBuf,
    /// What the file says; none = nobody knows.
    known: Option<BTreeMap<Arc<str>, Guard>>,
}

/// A plugin that stood guard: in which roles, where, and over what, as its manifest writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Guard {
    roles: Vec<String>,
    proved: bool,
    order: i64,
    actions: Vec<String>,
    rooms: Vec<String>,
    keys: Vec<String>,
    origins: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Written {
    /// For whoever reads it.
    dir: PathBuf,
    guards: BTreeMap<Arc<str>, Guard>,
}

impl Guard {
    fn of(shut: &Shut) -> Self {
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
    /// What the last run left in `folder` about the plugin directory `dir`.
    pub(super) fn read(folder: Option<&Path>, dir: &Path) -> Self {
        let dir = fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
        let hash = digest::of(dir.as_os_str().as_encoded_bytes());
        let file = folder.map(|folder| folder.join(format!("{}.json", &hash[..16])));
        let known = file.as_deref().and_then(|file| match fs::read(file).map(|bytes| parse(&bytes)) {
            Ok(Ok(guards)) => Some(guards),
            Ok(Err(error)) => {
                tracing::warn!(%error, file = %file.display(), "nobody knows which plugins stood guard");
                None
            }
            Err(_) => None,
        });
        Self { file, dir, known }
    }

    /// Keeps what stands guard now, where that is something new.
    fn keep(&mut self, guards: BTreeMap<Arc<str>, Guard>) {
        if self.known.as_ref() == Some(&guards) {
            return;
        }
        if let Some(file) = &self.file
            && let Err(error) = write(file, &Written { dir: self.dir.clone(), guards: guards.clone() })
        {
            tracing::warn!(%error, file = %file.display(), "which plugins stand guard is not kept");
        }
        self.known = Some(guards);
    }
}

fn parse(bytes: &[u8]) -> serde_json::Result<BTreeMap<Arc<str>, Guard>> {
    Ok(serde_json::from_slice::<Written>(bytes)?.guards)
}

/// Aside, then renamed: a crash leaves the old one, or at worst one that nobody can read.
fn write(file: &Path, written: &Written) -> io::Result<()> {
    let folder = file.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let aside = file.with_extension(format!("{}.tmp", std::process::id()));
    let mut out = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&aside)?;
    let ended = serde_json::to_writer_pretty(&mut out, written).map_err(io::Error::from);
    ended.and_then(|()| fs::rename(&aside, file)).inspect_err(|_| drop(fs::remove_file(&aside)))
}

impl Loader {
    /// Before the first look: whoever stood guard is missing until its file serves.
    pub(super) fn recall(&mut self) {
        for (name, guard) in self.memory.known.iter().flatten() {
            let shut = Some(guard.shut()).filter(|shut| !shut.roles.is_empty());
            let entry = Entry { shut, ..Entry::empty(name, State::Missing) };
            self.plugins.insert(Arc::clone(name), Plugin { entry: Some(entry), ..Plugin::default() });
        }
    }

    /// After the first look: what is still missing may be so by the operator's word, or is told.
    pub(super) fn miss(&mut self) {
        self.forget_missing();
        for (name, plugin) in &self.plugins {
            if plugin.entry.as_ref().is_some_and(|entry| entry.state == State::Missing) {
                tracing::error!(
                    plugin = %name,
                    "a plugin that should stand guard has no file: its role refuses until plugins.allow_remove names it"
                );
            }
        }
    }

    /// Keeps who stands guard, whoever is disabled for this run included.
    pub(super) fn remember(&mut self) {
        let guard = |plugin: &Plugin| {
            let entry = plugin.parked.as_ref().or(plugin.entry.as_ref())?;
            entry.guard().map(|shut| Guard::of(&shut))
        };
        let guards = self.plugins.iter().filter_map(|(name, plugin)| Some((Arc::clone(name), guard(plugin)?)));
        let guards = guards.collect();
        self.memory.keep(guards);
    }

    /// What has to stay shut for a file that is refused at the start, when nobody has seen it serve.
    pub(super) fn unproved(&self, fault: &Fault, manifest: Option<&Manifest>) -> Option<Shut> {
        let default = Manifest::default();
        let manifest = manifest.unwrap_or(&default);
        match (&manifest.roles, &*fault.roles, &self.memory.known) {
            (Some(said), ..) => Shut::of(said, manifest),
            (None, [], None) => Shut::of(&Role::ALL, manifest),
            // It was not there when the node ended, or served and stood no guard.
            (None, [], Some(_)) => None,
            (None, found, _) => Shut::of(found, manifest),
        }
    }
}

impl Shut {
    /// Of a plugin that is said or feared to have these roles, as far as one of them must not just disappear.
    pub(super) fn of(roles: &[Role], manifest: &Manifest) -> Option<Self> {
        let roles: Vec<Role> = roles.iter().copied().filter(|role| version::is_gate(*role, manifest)).collect();
        (!roles.is_empty()).then(|| Self { roles, proved: false, order: manifest.order, rules: manifest.rules.clone() })
    }
}

impl Entry {
    /// What must not open when this plugin goes: what it serves, or served before its gate was shut.
    fn guard(&self) -> Option<Shut> {
        match &self.live {
            Some(live) => Shut::of(&live.roles, &live.manifest).map(|shut| Shut { proved: true, ..shut }),
            None => self.shut.clone(),
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
        read(dir.path()).keep([("f".into(), Guard::of(&shut))].into());
        assert_eq!(read(dir.path()).known.unwrap()["f"].shut(), shut);
        assert_eq!(read(folder.path()).known, None, "another directory's");
        let file = fs::read_dir(&kept).unwrap().next().unwrap().unwrap().path();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        fs::write(file, "half").unwrap();
        assert_eq!(read(dir.path()).known, None);
    }
}
