//! Compiled plugins on disk, so that a restart and a known file cost a millisecond instead of a compile.
//!
//! A file's name says what it was made from and by which engine; it is written aside, renamed, and never written again,
//! because it is mapped into memory. The directory belongs to this user alone: what lies in it is run as it is.

use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use wasmtime::Engine;
use wasmtime::component::Component;

/// The cache directory, for one engine.
#[derive(Debug, Clone)]
pub(super) struct Cache {
    dir: PathBuf,
    engine: u64,
}

impl Cache {
    /// Opens or makes the directory.
    ///
    /// # Errors
    /// It is not this user's alone, or cannot be made.
    pub(super) fn open(dir: &Path, engine: &Engine) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let meta = fs::metadata(dir)?;
        if meta.uid() != rustix::process::geteuid().as_raw() || meta.mode() & 0o077 != 0 {
            return Err(io::Error::other(format!(
                "{} must belong to this user and be closed to all others (mode 0700)",
                dir.display()
            )));
        }
        let mut hasher = DefaultHasher::new();
        engine.precompile_compatibility_hash().hash(&mut hasher);
        Ok(Self { dir: dir.to_owned(), engine: hasher.finish() })
    }

    fn path(&self, hash: &str) -> PathBuf {
        self.dir.join(format!("{hash}-{:016x}.cwasm", self.engine))
    }

    /// The compiled form of the file with this hash.
    #[allow(unsafe_code)]
    pub(super) fn load(&self, engine: &Engine, hash: &str) -> Option<Component> {
        let path = self.path(hash);
        if !path.exists() {
            return None;
        }
        // SAFETY: the file was written whole by `store` below from this engine's own output, into a directory that
        // only this user can write, and is never modified: `open` checked owner and mode.
        let loaded = unsafe { Component::deserialize_file(engine, &path) };
        loaded.inspect_err(|error| tracing::warn!(error = format!("{error:#}"), "a cached plugin is unusable")).ok()
    }

    /// Keeps the compiled form; a failure costs the next start a compile and nothing else.
    pub(super) fn store(&self, hash: &str, component: &Component) {
        if let Err(error) = self.write(hash, component) {
            tracing::warn!(error = format!("{error:#}"), dir = %self.dir.display(), "a compiled plugin was not kept");
        }
    }

    fn write(&self, hash: &str, component: &Component) -> wasmtime::Result<()> {
        let path = self.path(hash);
        let code = component.serialize()?;
        let aside = path.with_extension(format!("{}.tmp", std::process::id()));
        let mut file = File::create(&aside)?;
        file.write_all(&code)?;
        file.sync_all()?;
        fs::rename(&aside, &path)?;
        File::open(&self.dir)?.sync_all()?;
        Ok(())
    }
}
