//! Keeps the component to roll back to over a restart; its file was overwritten by another version.
//!
//! Each serving component is stored once, named by its hash, beside the loader's stored state (`state`). A component
//! that no rollback needs any more is removed. Knows no component: stored bytes that match their name are checked and
//! compiled like any file.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::Arc;

use super::super::cache;
use super::super::load;
use super::state::{Rollback, RolledBack};
use super::{Loader, blocking};
use crate::plugin::Rejected;
use crate::plugin::calls::snapshot::states::Entry;
use crate::plugin::calls::version::Version;
use crate::plugin::guest::files::{FilesId, PluginFiles};
use crate::plugin::guest::manifest::Manifest;

const ENDING: &str = ".wasm";

/// The folder of one plugin directory's components.
#[derive(Debug, Clone)]
pub(super) struct KeptFiles {
    folder: PathBuf,
    /// Most bytes in the folder.
    most: u64,
}

impl KeptFiles {
    pub(super) fn new(folder: PathBuf, most: u64) -> Self {
        Self { folder, most }
    }

    /// Keeps the component. If this fails, the version still serves, but a rollback to it does not survive a restart.
    pub(super) async fn keep(self, files: &PluginFiles) {
        let (plugin, files) = (Arc::clone(&files.plugin), files.clone());
        let written = blocking(move || self.write(&files.id.hash, &files.bytes)).await;
        if let Err(error) = written {
            tracing::warn!(%plugin, %error, "plugin file not kept: a rollback to this version would not survive a restart");
        }
    }

    fn write(&self, hash: &str, bytes: &[u8]) -> io::Result<()> {
        let (name, length) = (format!("{hash}{ENDING}"), bytes.len() as u64);
        let existing = cache::open_own(&self.folder.join(&name)).and_then(|file| file.metadata());
        if existing.is_ok_and(|meta| meta.len() == length) {
            return Ok(());
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)?;
        let mut sum = length;
        for entry in fs::read_dir(&self.folder)? {
            sum = sum.saturating_add(entry?.metadata()?.len());
        }
        if sum > self.most {
            let most = self.most;
            return Err(io::Error::other(format!(
                "expected at most {most} bytes of kept files (plugins.cache_bytes), got {sum}"
            )));
        }
        cache::write_own(&self.folder, &name, bytes)
    }

    /// The component with this hash.
    fn read(&self, plugin: &Arc<str>, files_id: &FilesId) -> Result<PluginFiles, String> {
        let path = self.folder.join(format!("{}{ENDING}", files_id.hash));
        let read = || -> io::Result<Vec<u8>> {
            let (mut file, mut bytes) = (cache::open_own(&path)?, Vec::new());
            file.read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|error| format!("its kept file cannot be read: {error}"))?;
        let text = |text: &Option<Arc<str>>| text.as_ref().map(ToString::to_string);
        let files = PluginFiles::new(Arc::clone(plugin), bytes, text(&files_id.manifest), text(&files_id.signature));
        if files.id == *files_id {
            return Ok(files);
        }
        // `write` would take it for the right one.
        let _ = fs::remove_file(&path);
        Err(format!("expected the digest {} of its kept file, got {}", files_id.hash, files.id.hash))
    }

    /// Removes all other components.
    fn remove_others(&self, hashes: &BTreeSet<Arc<str>>) -> io::Result<()> {
        let entries = match fs::read_dir(&self.folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name();
            let hash = name.to_str().and_then(|name| name.strip_suffix(ENDING));
            if !hash.is_some_and(|hash| hashes.contains(hash)) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

impl Loader {
    /// Restores the rollback of an earlier run, if these are the files that were rolled back. They are not tried again:
    /// the version that served then serves again. Returns true if it does.
    ///
    /// # Errors
    /// The version that served then, and why it cannot serve now.
    pub(super) async fn restore_rollback(&mut self, found: &PluginFiles) -> Result<bool, Rejected> {
        let name = &found.plugin;
        let earlier = self.plugin(name).rollback.take_earlier().filter(|files| files.refused == found.id);
        let Some(rolled_back) = earlier else { return Ok(false) };
        let version = self.load_kept(name, &rolled_back).await;
        let plugin = self.plugin(name);
        plugin.has_key_conflict = false;
        if plugin.is_disabled() {
            // Disabled meanwhile: all of it is repeated when the plugin is enabled.
            plugin.retry();
            plugin.rollback = Rollback::FromEarlierRun(rolled_back);
            return Ok(true);
        }
        let (hash, refused) = (&rolled_back.serves.hash, &rolled_back.refused.hash);
        match version {
            Ok(version) => {
                tracing::warn!(
                    plugin = %name, %hash, before = %refused, reason = rolled_back.reason,
                    "plugin stays rolled back: its file is loaded again after it changes or the operator reloads it"
                );
                self.accept(&version);
                let plugin = self.plugin(name);
                if let Some(entry) = &mut plugin.entry {
                    entry.rejected = Some(Rejected { hash: refused.to_string(), reason: rolled_back.reason.clone() });
                }
                plugin.rollback = Rollback::Active(rolled_back);
                Ok(true)
            }
            Err(reason) => {
                tracing::error!(
                    plugin = %name, %hash, before = %refused, reason,
                    "version restored by a rollback cannot be loaded: the file that was rolled back is tried again"
                );
                Err(Rejected { hash: hash.to_string(), reason })
            }
        }
    }

    /// Loads a kept component by the same steps as a file, pins and signatures included.
    async fn load_kept(&mut self, name: &Arc<str>, rolled_back: &RolledBack) -> Result<Arc<Version>, String> {
        let kept = self.kept.clone().ok_or("files are not kept without a plugin cache (plugins.cache)")?;
        let (plugin, files_id) = (Arc::clone(name), rolled_back.serves.clone());
        let read = blocking(move || Ok(kept.read(&plugin, &files_id))).await;
        let files = read.map_err(|error| error.to_string())??;
        let manifest = Manifest::parse(files.manifest(), self.env.caps());
        let manifest = manifest.map_err(|faults| format!("{name}.toml: {}", faults.join("; ")))?;
        load::check_trust(&self.env, &files, &manifest).map_err(|fault| fault.reason())?;
        self.load(&files, manifest).await.map_err(|fault| fault.reason())
    }

    /// Removes all components except those that serve or that a rollback may restore.
    pub(super) async fn remove_unneeded_files(&self) {
        let Some(kept) = self.kept.clone() else { return };
        let mut hashes = BTreeSet::new();
        for plugin in self.plugins.values() {
            let entries = plugin.entry.iter().chain(plugin.entry.as_ref().and_then(Entry::before_disable));
            hashes.extend(entries.flat_map(Entry::versions).map(|version| Arc::clone(&version.files_id.hash)));
            hashes.extend(plugin.rollback.files().map(|files| Arc::clone(&files.serves.hash)));
        }
        if let Err(error) = blocking(move || kept.remove_others(&hashes)).await {
            tracing::warn!(%error, "kept files of earlier plugin versions cannot be removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn kept_files_are_the_owners_alone_bounded_and_removed() {
        let dir = tempfile::tempdir().unwrap();
        let kept = KeptFiles::new(dir.path().join("known/0"), 10);
        let files = |text: &str| PluginFiles::new("p".into(), text.into(), Some("order = 1".into()), None);
        let (one, two, three) = (files("1111"), files("2222"), files("3333"));
        let put = |files: &PluginFiles| kept.write(&files.id.hash, &files.bytes);
        let take = |files: &PluginFiles| kept.read(&files.plugin, &files.id).map(|read| read.bytes);
        kept.remove_others(&BTreeSet::new()).unwrap();
        assert!(take(&one).unwrap_err().contains("No such file"));
        for _ in 0..2 {
            put(&one).unwrap();
            put(&two).unwrap();
        }
        let told = put(&three).unwrap_err().to_string();
        assert_eq!(told, "expected at most 10 bytes of kept files (plugins.cache_bytes), got 12");
        assert_eq!((take(&one), take(&two)), (Ok(one.bytes.clone()), Ok(two.bytes.clone())));
        for path in [&kept.folder, &kept.folder.join(format!("{}.wasm", one.id.hash))] {
            assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o077, 0, "{}", path.display());
        }
        kept.remove_others(&[Arc::clone(&one.id.hash)].into()).unwrap();
        assert!(take(&one).is_ok() && take(&two).is_err());
        put(&three).unwrap();
    }

    #[test]
    fn a_kept_file_with_another_digest_or_open_to_others_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let kept = KeptFiles::new(dir.path().to_owned(), 1 << 20);
        let files = PluginFiles::new("p".into(), b"right".to_vec(), None, None);
        let path = dir.path().join(format!("{}.wasm", files.id.hash));
        kept.write(&files.id.hash, &files.bytes).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o660)).unwrap();
        assert!(kept.read(&files.plugin, &files.id).is_err_and(|told| told.contains("only this user may write")));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, "wrong").unwrap();
        assert!(kept.read(&files.plugin, &files.id).is_err_and(|told| told.contains("expected the digest")));
        assert!(!path.exists(), "the next one is written anew");
    }
}
