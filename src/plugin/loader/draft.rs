//! An unfinished file: written under a temporary name or in memory, then renamed when it is complete, or removed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, memfd_create};

/// Suffix of unfinished files; their names begin with a dot.
const ENDING: &str = ".tmp";

/// True for the name of a file that is being written, or that a crash left behind.
pub(in crate::plugin) fn is_draft(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(ENDING)
}

/// A file for this user alone. It is removed on drop unless it was published; open descriptors and mappings keep its
/// bytes.
pub(in crate::plugin) struct Draft {
    file: File,
    /// Its path; `None` if it is in memory.
    path: Option<PathBuf>,
}

impl Draft {
    /// Creates a draft in this directory.
    pub(in crate::plugin) fn beside(dir: &Path) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!(".{}-{number}{ENDING}", std::process::id()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { file, path: Some(path) })
    }

    /// Creates a draft in memory.
    pub(in crate::plugin) fn in_memory() -> io::Result<Self> {
        Ok(Self { file: memfd_create("skylark-plugin", MemfdFlags::CLOEXEC)?.into(), path: None })
    }

    pub(in crate::plugin) fn is_in_memory(&self) -> bool {
        self.path.is_none()
    }

    pub(in crate::plugin) fn file(&self) -> &File {
        &self.file
    }

    /// Syncs the file and renames it to `name`; a file of that name is replaced.
    pub(in crate::plugin) fn publish(mut self, dir: &Path, name: &str) -> io::Result<()> {
        let Some(path) = &self.path else { return Err(io::Error::other("a draft in memory cannot become a file")) };
        self.file.sync_all()?;
        fs::rename(path, dir.join(name))?;
        self.path = None;
        File::open(dir)?.sync_all()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // A file that stays behind is removed later, by age.
            let _ = fs::remove_file(path);
        }
    }
}
