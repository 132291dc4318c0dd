//! Files of the journal: numbered segments in a folder that one node has locked.
//!
//! Knows frames, but not the meaning of their records. [`Disk`] is the part that tests replace to let writes fail.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, FlockOperation, access, flock};

use super::record::{ReadError, Record, read};
use crate::owners;

/// Why a folder cannot hold the journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The folder or one of its files cannot be read or written. A missing folder is not created: it may be a disk that
    /// is not mounted.
    #[error("{}: {error}", path.display())]
    Io {
        /// The folder or the file.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
    /// Another process uses the folder.
    #[error("{}: another process uses the folder: give each node a folder of its own", .0.display())]
    InUse(PathBuf),
    /// A newer version of Skylark wrote the journal.
    #[error("{}: expected a journal of this version, got {got}: start the newer version, or empty the folder", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// The record that is unknown here.
        got: String,
    },
}

/// Writes segments.
pub(in crate::broker::history) trait Disk: Send {
    /// Begins a segment. Further bytes are appended to it.
    fn create(&mut self, number: u64) -> io::Result<()>;
    /// Appends to the current segment. After an error a part of the bytes may be there.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Returns once the current segment is on the disk.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the current segment to this length.
    fn cut(&mut self, length: u64) -> io::Result<()>;
    /// Removes a segment.
    fn remove(&mut self, number: u64) -> io::Result<()>;
}

/// A locked folder.
pub(in crate::broker::history) struct Folder {
    path: PathBuf,
    /// Open for its lock and its syncs.
    folder: File,
    current: Option<File>,
}

/// Contents of a segment.
pub(super) struct Segment {
    /// Number of the segment.
    pub(super) number: u64,
    /// The records before the first damaged one.
    pub(super) records: Vec<Record>,
    /// Length of these records, in bytes.
    pub(super) length: u64,
    /// Why the bytes after them are no record.
    pub(super) damage: Option<String>,
}

/// Checks that a node could keep its journal in the folder.
///
/// # Errors
/// [`JournalError`]. A lock of another process is no error here: it may be the node that is checked.
pub fn check(path: &Path) -> Result<(), JournalError> {
    open_folder(path).map(drop)
}

fn open_folder(path: &Path) -> Result<File, JournalError> {
    let failed = |error: io::Error| JournalError::Io { path: path.to_owned(), error };
    let folder = File::open(path).map_err(failed)?;
    let meta = folder.metadata().map_err(failed)?;
    if !meta.is_dir() {
        return Err(failed(io::Error::other("expected a folder, got a file")));
    }
    owners::check(&folder, &meta).map_err(|fault| failed(io::Error::other(fault)))?;
    access(path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).map_err(|error| failed(error.into()))?;
    Ok(folder)
}

impl Folder {
    /// Locks the folder, which must exist.
    pub(super) fn open(path: &Path) -> Result<Self, JournalError> {
        let folder = open_folder(path)?;
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { path: path.to_owned(), folder, current: None }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(JournalError::InUse(path.to_owned())),
            Err(error) => Err(JournalError::Io { path: path.to_owned(), error: error.into() }),
        }
    }

    /// Numbers of the segments, in order.
    pub(super) fn numbers(&self) -> Result<BTreeSet<u64>, JournalError> {
        let failed = |error| JournalError::Io { path: self.path.clone(), error };
        let mut numbers = BTreeSet::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            numbers
                .extend(name.to_str().and_then(|name| name.strip_prefix(PREFIX)).and_then(|n| n.parse::<u64>().ok()));
        }
        Ok(numbers)
    }

    /// Reads a segment. `is_last`: a damaged end is cut off, because the node ended during its last write.
    pub(super) fn read(&self, number: u64, is_last: bool) -> Result<Segment, JournalError> {
        let path = self.file(number);
        let failed = |error| JournalError::Io { path: path.clone(), error };
        let mut file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?;
        let meta = file.metadata().map_err(failed)?;
        owners::check(&file, &meta).map_err(|fault| failed(io::Error::other(fault)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(failed)?;
        let (mut at, mut records) = (0, Vec::new());
        let damage = loop {
            match read(&bytes[at..]) {
                Ok(None) => break None,
                Ok(Some((record, length))) => {
                    records.push(record);
                    at += length;
                }
                Err(ReadError::Damaged(why)) => break Some(why),
                Err(ReadError::Newer(got)) => return Err(JournalError::Newer { path, got }),
            }
        };
        let length = u64::try_from(at).unwrap_or(u64::MAX);
        if is_last && damage.is_some() {
            file.set_len(length).map_err(failed)?;
        }
        // The former process may have ended before its last sync.
        file.sync_data().map_err(failed)?;
        Ok(Segment { number, records, length, damage })
    }

    fn file(&self, number: u64) -> PathBuf {
        self.path.join(format!("{PREFIX}{number:010}"))
    }

    fn current(&mut self) -> io::Result<&mut File> {
        self.current.as_mut().ok_or_else(|| io::Error::other("no segment is open"))
    }
}

impl Disk for Folder {
    fn create(&mut self, number: u64) -> io::Result<()> {
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(self.file(number))?;
        self.folder.sync_all()?;
        self.current = Some(file);
        Ok(())
    }

    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.current()?.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.current()?.sync_data()
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        let Some(file) = &mut self.current else { return Ok(()) };
        file.set_len(length)?;
        file.seek(SeekFrom::Start(length)).map(drop)
    }

    fn remove(&mut self, number: u64) -> io::Result<()> {
        fs::remove_file(self.file(number))
    }
}

/// Name of a segment before its number.
const PREFIX: &str = "journal-";

#[cfg(test)]
mod tests {
    use std::fs::{Permissions, set_permissions};
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn folder_that_is_missing_a_file_or_open_to_others_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("missing");
        assert!(check(&missing).unwrap_err().to_string().contains("missing: No such file"), "not created");
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(check(&file).unwrap_err().to_string().contains("expected a folder, got a file"));
        set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        assert!(check(folder.path()).unwrap_err().to_string().contains("mode 0777: chmod go-w"));
        set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        check(folder.path()).unwrap();
    }

    #[test]
    fn folder_belongs_to_one_process() {
        let folder = tempfile::tempdir().unwrap();
        let first = Folder::open(folder.path()).unwrap();
        assert!(matches!(Folder::open(folder.path()), Err(JournalError::InUse(_))));
        check(folder.path()).unwrap();
        drop(first);
        Folder::open(folder.path()).unwrap();
    }
}
