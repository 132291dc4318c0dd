//! Reserves blocks of ids in a file that holds one number: the bound below which all ids may be in use.
//!
//! The file is replaced atomically and synced before a block is used. A lock on its folder excludes other processes.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rustix::fs::{FlockOperation, flock};

use crate::broker::Unavailable;
use crate::broker::ids::{BlockRequest, IdStore};

/// A file cannot store the bound.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The file cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// Path of the file.
        path: PathBuf,
        /// The I/O error.
        error: io::Error,
    },
    /// The file has other contents.
    #[error(
        "{}: expected the bound of the node's ids (one whole number), got {got:?}: bring back a copy of the file, or give \
         the node another node.number and remove the file",
        path.display()
    )]
    InvalidContents {
        /// Path of the file.
        path: PathBuf,
        /// Contents of the file, shortened.
        got: String,
    },
}

/// Files named `ids-NUMBER` in one folder.
#[derive(Debug, Clone)]
pub(super) struct FileIds {
    folder: PathBuf,
}

impl FileIds {
    /// Uses this folder, which is created if missing.
    #[must_use]
    pub(super) fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned() }
    }

    /// Creates folder and file if they are missing, and verifies that the file can be replaced.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be written or has other contents.
    pub(super) fn open(&self, number: u16, floor: u64) -> Result<(), FileError> {
        self.reserve_now(BlockRequest { number, from: 0, floor, count: 0, is_start: true }).map(drop)
    }

    /// The bound in the file, if it can be read.
    #[must_use]
    pub(super) fn bound(&self, number: u16) -> Option<u64> {
        read(&self.folder.join(format!("ids-{number}"))).ok().flatten()
    }

    /// Reserves a block; blocks on the file system.
    ///
    /// # Errors
    /// [`FileError`] if the file cannot be written or has other contents.
    pub(super) fn reserve_now(&self, request: BlockRequest) -> Result<u64, FileError> {
        let path = self.folder.join(format!("ids-{}", request.number));
        let failed = |error| FileError::Io { path: path.clone(), error };
        fs::create_dir_all(&self.folder).map_err(failed)?;
        let folder = File::open(&self.folder).map_err(failed)?;
        flock(&folder, FlockOperation::LockExclusive).map_err(|error| failed(error.into()))?;
        let bound = read(&path)?;
        let begin = bound.unwrap_or(request.floor).max(request.from);
        let end = if request.is_start { begin } else { begin.saturating_add(request.count) };
        // Also written at the start, to verify that it is writable.
        if request.is_start || bound.is_none_or(|bound| bound < end) {
            replace(&path, end).and_then(|()| folder.sync_all()).map_err(failed)?;
        }
        Ok(begin)
    }
}

/// Reads the bound; `None` if there is no file.
fn read(path: &Path) -> Result<Option<u64>, FileError> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => "bytes that are not UTF-8".to_owned(),
        Err(error) => return Err(FileError::Io { path: path.to_owned(), error }),
    };
    match text.trim_end().parse() {
        Ok(bound) => Ok(Some(bound)),
        Err(_) => Err(FileError::InvalidContents { path: path.to_owned(), got: text.chars().take(40).collect() }),
    }
}

fn replace(path: &Path, bound: u64) -> io::Result<()> {
    let temporary = path.with_extension("new");
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    writeln!(file, "{bound}")?;
    file.sync_all()?;
    fs::rename(temporary, path)
}

impl IdStore for FileIds {
    fn reserve(&self, request: BlockRequest) -> BoxFuture<'_, Result<u64, Unavailable>> {
        let files = self.clone();
        async move {
            let reserved = tokio::task::spawn_blocking(move || files.reserve_now(request)).await;
            let unavailable = |why: String| Unavailable { engine: "node.state", why };
            match reserved {
                Ok(reserved) => reserved.map_err(|error| unavailable(error.to_string())),
                Err(error) => Err(unavailable(error.to_string())),
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(from: u64, count: u64) -> BlockRequest {
        BlockRequest { number: 7, from, floor: 100, count, is_start: false }
    }

    #[test]
    fn blocks_in_a_file_follow_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let files = FileIds::new(&folder.path().join("a/b"));
        assert_eq!(files.reserve_now(request(0, 10)).unwrap(), 100);
        assert_eq!(files.reserve_now(request(0, 10)).unwrap(), 110, "the clock counts for the first block only");
        assert_eq!(files.reserve_now(request(500, 0)).unwrap(), 500);
        assert_eq!(FileIds::new(&folder.path().join("a/b")).reserve_now(request(0, 1)).unwrap(), 500);
        assert_eq!(fs::read_to_string(folder.path().join("a/b/ids-7")).unwrap(), "501\n");
        assert_eq!(files.reserve_now(BlockRequest { number: 8, ..request(0, 1) }).unwrap(), 100);
    }

    #[test]
    fn file_that_holds_no_bound_is_told_and_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ids-7");
        for text in ["", "12x\n", "-1"] {
            fs::write(&path, text).unwrap();
            let told = FileIds::new(folder.path()).reserve_now(request(0, 1)).unwrap_err().to_string();
            assert!(
                told.contains("ids-7: expected the bound of the node's ids") && told.contains(text.trim()),
                "{told}"
            );
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(FileIds::new(&file).reserve_now(request(0, 1)), Err(FileError::Io { .. })));
    }

    #[test]
    fn processes_that_reserve_at_once_get_different_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let begins: Vec<u64> = std::thread::scope(|scope| {
            let reserve = || FileIds::new(folder.path()).reserve_now(request(0, 5)).unwrap();
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(reserve)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let different: std::collections::BTreeSet<u64> = begins.iter().copied().collect();
        assert_eq!(different.into_iter().collect::<Vec<_>>(), (0..8).map(|n| 100 + 5 * n).collect::<Vec<_>>());
    }
}
