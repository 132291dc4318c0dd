//! A file on its way: written where nobody looks for it, then given its name when it is whole, or gone.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{MemfdFlags, memfd_create};

/// Ends the names of those that are not finished, which begin with a dot.
const ENDING: &str = ".tmp";

/// Whether a file of this name is one that a crash left behind, or that is being written.
pub(super) fn is_draft(name: &str) -> bool {
    name.starts_with('.') && name.ends_with(ENDING)
}

/// A file for this user alone. Dropped without a name it disappears; who has opened or mapped it keeps its bytes.
pub(super) struct Draft {
    file: File,
    /// Where it lies; none = in memory.
    path: Option<PathBuf>,
}

impl Draft {
    /// In this directory.
    pub(super) fn beside(dir: &Path) -> io::Result<Self> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = dir.join(format!(".{}-{number}{ENDING}", std::process::id()));
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        Ok(Self { file, path: Some(path) })
    }

    /// In no directory at all.
    pub(super) fn in_memory() -> io::Result<Self> {
        Ok(Self { file: memfd_create("skylark-plugin", MemfdFlags::CLOEXEC)?.into(), path: None })
    }

    pub(super) fn is_in_memory(&self) -> bool {
        self.path.is_none()
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Gives it its name, once its bytes are on the disk; a file that had the name is replaced.
    pub(super) fn publish(mut self, dir: &Path, name: &str) -> io::Result<()> {
        let Some(path) = &self.path else { return Err(io::Error::other("what lies in memory can have no name")) };
        self.file.sync_all()?;
        fs::rename(path, dir.join(name))?;
        self.path = None;
        File::open(dir)?.sync_all()
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // What stays is swept away by age.
            let _ = fs::remove_file(path);
        }
    }
}
