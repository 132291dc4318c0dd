//! Cache of compiled plugins on disk. A restart or a known file costs milliseconds instead of a compile.
//!
//! A file name holds the hash of the plugin, the fingerprint of the engine and the digest of the file's own bytes. A
//! file is written under a temporary name, renamed, and never written again, because it is mapped into memory. The
//! directory belongs to this user alone, because its files are executed without another check of their code. Owner,
//! mode and digest are checked at each load. The cache offers no protection against a process that writes as this user.

use std::fs::{self, File, Metadata};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use wasmtime::Engine;
use wasmtime::component::Component;

use super::draft::{Draft, is_draft};
use crate::plugin::digest;

const ENDING: &str = ".cwasm";
/// Age at which an unfinished file that a crash left behind is removed.
const STALE: Duration = Duration::from_secs(3_600);

/// The cache directory, for one engine.
#[derive(Debug, Clone)]
pub(in crate::plugin) struct Cache {
    dir: PathBuf,
    engine: u64,
    /// Most bytes in the directory.
    most: u64,
}

impl Cache {
    /// Opens or creates the directory. `engine` is the engine's fingerprint.
    ///
    /// # Errors
    /// The directory is open to other users, or cannot be created.
    pub(in crate::plugin) fn open(dir: &Path, engine: u64, most: u64) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let meta = fs::metadata(dir)?;
        if !is_own(&meta) || meta.mode() & 0o077 != 0 {
            return Err(io::Error::other(format!(
                "{}: expected a directory of this user that no other user may enter (mode 0700)",
                dir.display()
            )));
        }
        let cache = Self { dir: dir.to_owned(), engine, most };
        cache.sweep();
        Ok(cache)
    }

    fn stem(&self, hash: &str) -> String {
        format!("{hash}-{:016x}-", self.engine)
    }

    /// The compiled form of the file with this hash. A file that fails its checks or does not load is removed.
    pub(in crate::plugin) fn load(&self, engine: &Engine, hash: &str) -> Option<Component> {
        let (path, sum) = self.find(hash)?;
        let loaded = self.map(engine, &path, &sum);
        let unusable = |error: &wasmtime::Error| {
            tracing::warn!(error = format!("{error:#}"), file = %path.display(), "cached plugin cannot be loaded: it is compiled again");
            // The plugin is compiled again, and this file would be found instead of the new one.
            let _ = fs::remove_file(&path);
        };
        loaded.inspect_err(unusable).ok()
    }

    fn find(&self, hash: &str) -> Option<(PathBuf, String)> {
        let stem = self.stem(hash);
        fs::read_dir(&self.dir).ok()?.filter_map(Result::ok).find_map(|entry| {
            let name = entry.file_name();
            let sum = name.to_str()?.strip_prefix(&stem)?.strip_suffix(ENDING)?.to_owned();
            Some((entry.path(), sum))
        })
    }

    fn map(&self, engine: &Engine, path: &Path, sum: &str) -> wasmtime::Result<Component> {
        let mut file = open_own(path)?;
        let found = digest::of_rest(&mut file)?;
        if found != sum {
            return Err(wasmtime::Error::msg(format!("expected the digest {sum}, got {found}")));
        }
        // Files are evicted in the order of use. If this update fails, the order falls back to age.
        let _ = file.set_modified(SystemTime::now());
        mapped(engine, &file)
    }

    /// Begins a file that may become part of the cache.
    pub(in crate::plugin) fn draft(&self) -> io::Result<Draft> {
        Draft::beside(&self.dir)
    }

    /// Keeps the compiled form of the file with this hash; `sum` is the digest of the code. A failure only costs the
    /// next start a compile.
    pub(in crate::plugin) fn insert(&self, hash: &str, sum: &str, code: Draft) {
        if let Err(error) = self.try_insert(&format!("{}{sum}{ENDING}", self.stem(hash)), code) {
            tracing::warn!(%error, dir = %self.dir.display(), "compiled plugin not added to the cache");
        }
    }

    fn try_insert(&self, name: &str, code: Draft) -> io::Result<()> {
        let length = code.file().metadata()?.len();
        if length > self.most {
            let most = self.most;
            return Err(io::Error::other(format!("expected at most {most} bytes (plugins.cache_bytes), got {length}")));
        }
        code.publish(&self.dir, name)?;
        if let Err(error) = self.evict(&self.dir.join(name)) {
            tracing::warn!(%error, dir = %self.dir.display(), "plugin cache exceeds plugins.cache_bytes: old files cannot be removed");
        }
        Ok(())
    }

    /// Evicts the least recently used files until the rest fits. A file that a live plugin has mapped may be evicted
    /// too: the mapping keeps the bytes, and only the name disappears.
    fn evict(&self, newest: &Path) -> io::Result<()> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)?.filter_map(Result::ok) {
            let Ok(meta) = entry.metadata() else { continue };
            if entry.file_name().to_str().is_some_and(|name| name.ends_with(ENDING)) {
                files.push((meta.modified().unwrap_or(SystemTime::UNIX_EPOCH), meta.len(), entry.path()));
            }
        }
        let mut bytes: u64 = files.iter().map(|(_, length, _)| length).sum();
        files.sort();
        for (_, length, path) in files.into_iter().filter(|(_, _, path)| path != newest) {
            if bytes <= self.most {
                break;
            }
            tracing::debug!(file = %path.display(), "compiled plugin removed from the cache to make room for newer ones");
            fs::remove_file(path)?;
            bytes = bytes.saturating_sub(length);
        }
        Ok(())
    }

    /// Removes unfinished files of earlier processes.
    fn sweep(&self) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        for entry in entries.filter_map(Result::ok) {
            let is_unfinished = entry.file_name().to_str().is_some_and(is_draft);
            let age = entry.metadata().and_then(|meta| meta.modified()).ok().and_then(|made| made.elapsed().ok());
            if is_unfinished && age.is_some_and(|age| age > STALE) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Opens a file that only this user can have written.
pub(in crate::plugin) fn open_own(path: &Path) -> io::Result<File> {
    let file = File::open(path)?;
    let meta = file.metadata()?;
    if !meta.is_file() || !is_own(&meta) || meta.mode() & 0o022 != 0 {
        return Err(io::Error::other("expected a file that only this user may write"));
    }
    Ok(file)
}

/// Writes a file for this user alone: under a temporary name, synced, and then renamed.
pub(in crate::plugin) fn write_own(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let draft = Draft::beside(dir)?;
    draft.file().write_all(bytes)?;
    draft.publish(dir, name)
}

/// Maps the code of a file that was opened and checked, or just written.
#[allow(unsafe_code)]
pub(in crate::plugin) fn mapped(engine: &Engine, file: &File) -> wasmtime::Result<Component> {
    // By its descriptor, so that the mapped file is the checked one.
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    // SAFETY: the bytes are this program's own output for this engine, from this process or its child. Only this user
    // can have written them, and this program never rewrites a file that it has named or mapped.
    unsafe { Component::deserialize_file(engine, name) }
}

fn is_own(meta: &Metadata) -> bool {
    meta.uid() == rustix::process::geteuid().as_raw()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const HASH: &str = "0123";

    fn code(engine: &Engine, text: &str) -> Vec<u8> {
        engine.precompile_component(&wat::parse_str(text).unwrap()).unwrap()
    }

    fn store(cache: &Cache, hash: &str, code: &[u8]) {
        let draft = cache.draft().unwrap();
        draft.file().write_all(code).unwrap();
        cache.insert(hash, &digest::of(code), draft);
    }

    fn only(dir: &Path) -> PathBuf {
        let mut files = fs::read_dir(dir).unwrap();
        let file = files.next().unwrap().unwrap().path();
        assert!(files.next().is_none());
        file
    }

    #[test]
    fn tampered_or_writable_cache_file_is_not_used() {
        let (dir, engine) = (tempfile::tempdir().unwrap(), Engine::default());
        let cache = Cache::open(&dir.path().join("c"), 7, 1 << 20).unwrap();
        let code = code(&engine, "(component)");
        let spoil: [fn(&Path); 3] = [
            |file| {
                let mut bytes = fs::read(file).unwrap();
                *bytes.last_mut().unwrap() ^= 1;
                fs::write(file, bytes).unwrap();
            },
            |file| fs::set_permissions(file, fs::Permissions::from_mode(0o660)).unwrap(),
            |file| fs::write(file, "").unwrap(),
        ];
        for spoil in spoil {
            assert!(cache.load(&engine, HASH).is_none());
            store(&cache, HASH, &code);
            let written = open_own(&only(&cache.dir)).unwrap();
            assert!(mapped(&engine, &written).is_ok(), "it is mapped from where it lies");
            assert!(cache.load(&engine, HASH).is_some());
            spoil(&only(&cache.dir));
            assert!(cache.load(&engine, HASH).is_none());
            assert_eq!(fs::read_dir(&cache.dir).unwrap().count(), 0, "it is removed, to be compiled again");
        }
        store(&cache, HASH, &code);
        let other = Cache { engine: 8, ..cache };
        assert!(other.load(&engine, HASH).is_none(), "another engine's");
    }

    #[test]
    fn least_recently_used_cache_file_is_removed_first() {
        let (dir, engine) = (tempfile::tempdir().unwrap(), Engine::default());
        let code = code(&engine, "(component)");
        let most = code.len() as u64 * 5 / 2;
        let cache = Cache::open(&dir.path().join("c"), 7, most).unwrap();
        let age = |hash: &str, seconds| {
            let file = File::open(cache.find(hash).unwrap().0).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
        };
        store(&cache, "a", &code);
        age("a", 300);
        store(&cache, "b", &code);
        age("b", 200);
        let mapped = cache.load(&engine, "a").unwrap();
        age("a", 100);
        store(&cache, "c", &code);
        let kept = |hash: &str| cache.find(hash).is_some();
        assert_eq!((kept("a"), kept("b"), kept("c")), (true, false, true));
        store(&cache, "d", &code);
        assert_eq!((kept("a"), kept("c"), kept("d")), (false, true, true));
        assert_eq!(mapped.component_type().imports(&engine).len(), 0, "its name is gone, its bytes are not");
        store(&cache, "e", &vec![0; usize::try_from(most).unwrap() + 1]);
        assert!(!kept("e") && kept("d"), "what alone is too large pushes nothing out");
        assert_eq!(fs::read_dir(&cache.dir).unwrap().count(), 2, "and is not left lying about");
    }

    #[test]
    fn a_directory_that_others_may_enter_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o750)).unwrap();
        assert!(Cache::open(dir.path(), 7, 1).unwrap_err().to_string().contains("0700"));
    }
}
