//! The plugin directory on disk: its files, their changes and their bytes.
//!
//! Any file may change at any moment, and may have been put there carelessly. A file is therefore opened once, checked
//! by its descriptor, and read whole or not at all. Knows nothing about plugins.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat};

use crate::owners;

/// Largest component, bytes: a Python guest takes 18 MB.
const MAX_WASM_BYTES: u64 = 64 << 20;
/// Largest manifest, bytes.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;
/// Largest signature, bytes.
const MAX_SIGNATURE_BYTES: u64 = 4 << 10;
/// Longest plugin name, bytes.
const MAX_NAME_BYTES: usize = 64;

/// Identifies one state of a file without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plugin) struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(in crate::plugin) fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            length: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    pub(in crate::plugin) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// Required owner of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plugin) enum Owners {
    /// Files that a node may serve: root or the node's user owns them and their directory, and no other user may write
    /// there.
    Trusted,
    /// Files of an author, to be checked and tried.
    Anyone,
}

impl FileStamps {
    /// True if the file exists and is not empty: a file that is written in place is empty for a moment.
    pub(in crate::plugin) fn has_content(file: Option<Stamp>) -> bool {
        file.is_some_and(|stamp| stamp.length > 0)
    }
}

/// One plugin's files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::plugin) struct FileStamps {
    pub(in crate::plugin) wasm: Option<Stamp>,
    pub(in crate::plugin) manifest: Option<Stamp>,
    pub(in crate::plugin) signature: Option<Stamp>,
}

/// Files in the directory, by plugin name. Other files, and hidden or temporary names, are ignored.
///
/// # Errors
/// The directory cannot be read, or users other than its trusted owner may write in it.
pub(in crate::plugin) fn scan(dir: &Path) -> io::Result<BTreeMap<String, FileStamps>> {
    open_dir(dir, Owners::Trusted)?;
    let mut found: BTreeMap<String, FileStamps> = BTreeMap::new();
    let mut signatures = Vec::new();
    for entry in fs::read_dir(dir)? {
        let file = entry?.file_name();
        let Some((name, kind)) = file.to_str().and_then(|file| file.rsplit_once('.')) else { continue };
        let signed = name.strip_suffix(".wasm").filter(|_| kind == "sig");
        if !is_name(name) || (signed.is_none() && !matches!(kind, "wasm" | "toml")) {
            continue;
        }
        // Links are followed, since mounted configuration consists of links; a dangling link is no file.
        let Ok(meta) = fs::metadata(dir.join(&file)) else { continue };
        let stamp = Some(Stamp::of(&meta));
        if let Some(signed) = signed {
            signatures.push((signed.to_owned(), stamp));
            continue;
        }
        let seen = found.entry(name.to_owned()).or_default();
        if kind == "wasm" { seen.wasm = stamp } else { seen.manifest = stamp }
    }
    // A signature alone is no plugin.
    for (name, stamp) in signatures {
        if let Some(seen) = found.get_mut(&name) {
            seen.signature = stamp;
        }
    }
    Ok(found)
}

/// Names of dangling links in the directory that are named like a plugin's file.
pub(in crate::plugin) fn dangling(dir: &Path) -> io::Result<Vec<String>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let file = entry?.file_name();
        let Some(file) = file.to_str() else { continue };
        let is_ours = [".wasm", ".toml", ".wasm.sig"].iter().any(|kind| file.strip_suffix(kind).is_some_and(is_name));
        if is_ours && fs::metadata(dir.join(file)).is_err_and(|error| error.kind() == io::ErrorKind::NotFound) {
            found.push(file.to_owned());
        }
    }
    found.sort();
    Ok(found)
}

fn is_name(name: &str) -> bool {
    let first = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let all = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    first && all && name.len() <= MAX_NAME_BYTES
}

/// Files read for one plugin.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::plugin) struct RawFiles {
    pub(in crate::plugin) wasm: Option<Vec<u8>>,
    pub(in crate::plugin) manifest: Option<String>,
    /// Content of `NAME.wasm.sig`.
    pub(in crate::plugin) signature: Option<String>,
}

/// Why a plugin's files could not be read.
#[derive(Debug, thiserror::Error)]
pub(in crate::plugin) enum ReadError {
    /// The file changed while it was read: read it again.
    #[error("{0} changed while it was read")]
    Changed(String),
    /// The file must not be loaded.
    #[error("{file}: {why}")]
    Refused { file: String, why: String },
}

/// Reads the files of a plugin, through one descriptor of their directory.
pub(in crate::plugin) fn read(dir: &Path, name: &str, owners: Owners) -> Result<RawFiles, ReadError> {
    let refused = |error: io::Error| ReadError::Refused { file: dir.display().to_string(), why: error.to_string() };
    let folder = PluginDir { dir, fd: &open_dir(dir, owners).map_err(refused)?, owners };
    let wasm = folder.read_whole(&format!("{name}.wasm"), MAX_WASM_BYTES)?;
    let file = format!("{name}.toml");
    let manifest = match folder.read_whole(&file, MAX_MANIFEST_BYTES)? {
        Some(bytes) => {
            let text = String::from_utf8(bytes);
            Some(text.map_err(|_| ReadError::Refused { file, why: "expected UTF-8 text".to_owned() })?)
        }
        None => None,
    };
    let signature = match folder.read_whole(&format!("{name}.wasm.sig"), MAX_SIGNATURE_BYTES) {
        Ok(bytes) => bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        // An unreadable signature counts as an empty one, which fails every check.
        Err(ReadError::Refused { .. }) => Some(String::new()),
        Err(changed) => return Err(changed),
    };
    Ok(RawFiles { wasm, manifest, signature })
}

/// Opens the directory without blocking, because its name may belong to a pipe.
fn open_dir(dir: &Path, owners: Owners) -> io::Result<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let opened = File::from(rustix::fs::open(dir, flags, Mode::empty())?);
    if owners == Owners::Trusted {
        let with_path = |fault| io::Error::other(format!("{fault} {}", dir.display()));
        owners::check(&opened, &opened.metadata()?).map_err(with_path)?;
    }
    Ok(opened)
}

/// An open directory.
struct PluginDir<'a> {
    dir: &'a Path,
    fd: &'a File,
    owners: Owners,
}

impl PluginDir<'_> {
    fn read_whole(&self, file: &str, most: u64) -> Result<Option<Vec<u8>>, ReadError> {
        let refused = |why: String| ReadError::Refused { file: file.to_owned(), why };
        // Non-blocking: a pipe in the directory must not stall the loader.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let mut opened = match openat(self.fd, file, flags, Mode::empty()).map_err(io::Error::from) {
            Ok(opened) => File::from(opened),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(refused(error.to_string())),
        };
        let meta = opened.metadata().map_err(|error| refused(error.to_string()))?;
        self.check(file, &opened, &meta, most).map_err(refused)?;
        let bytes = read_bytes(&mut opened, &meta).map_err(|error| refused(error.to_string()))?;
        let after = opened.metadata().map_err(|error| refused(error.to_string()))?;
        if Stamp::of(&after) != Stamp::of(&meta) || bytes.len() as u64 != meta.len() {
            return Err(ReadError::Changed(file.to_owned()));
        }
        Ok(Some(bytes))
    }

    fn check(&self, file: &str, opened: &File, meta: &Metadata, most: u64) -> Result<(), String> {
        if !meta.is_file() {
            return Err("expected a regular file".to_owned());
        }
        if self.owners == Owners::Trusted {
            let path = self.dir.join(file);
            owners::check(opened, meta).map_err(|fault| format!("{fault} {}", path.display()))?;
        }
        if meta.len() > most {
            return Err(format!("expected at most {most} bytes, got {}", meta.len()));
        }
        Ok(())
    }
}

/// Reads one byte more than expected, so that a growing file is noticed.
fn read_bytes(file: &mut File, meta: &Metadata) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(usize::try_from(meta.len()).unwrap_or(0));
    file.take(meta.len() + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn hidden_temporary_and_foreign_names_are_not_seen() {
        let dir = tempfile::tempdir().unwrap();
        let names =
            ["a.wasm", "a.toml", "b.toml", ".c.wasm", "d.wasm.tmp", "e.wasm~", "#f.wasm", "README.md", "g h.wasm"];
        for name in names {
            fs::write(dir.path().join(name), "x").unwrap();
        }
        symlink("nowhere", dir.path().join("gone.wasm")).unwrap();
        let found = scan(dir.path()).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert!(found["a"].wasm.is_some() && found["a"].manifest.is_some());
        assert!(found["b"].wasm.is_none());
        symlink("nowhere", dir.path().join("a.wasm.sig")).unwrap();
        symlink("nowhere", dir.path().join(".d.wasm")).unwrap();
        assert_eq!(dangling(dir.path()).unwrap(), ["a.wasm.sig", "gone.wasm"]);
    }

    #[test]
    fn replaced_symlink_counts_as_a_change() {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in [("v1", "one"), ("v2", "two")] {
            fs::write(dir.path().join(name), text).unwrap();
        }
        let link = dir.path().join("p.wasm");
        symlink("v1", &link).unwrap();
        let before = scan(dir.path()).unwrap();
        fs::remove_file(&link).unwrap();
        symlink("v2", &link).unwrap();
        assert_ne!(scan(dir.path()).unwrap(), before);
        assert_eq!(trusted(dir.path(), "p").unwrap().wasm.as_deref(), Some(b"two".as_slice()));
    }

    fn set_mode(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn trusted(dir: &Path, name: &str) -> Result<RawFiles, ReadError> {
        read(dir, name, Owners::Trusted)
    }

    #[test]
    fn irregular_or_writable_plugin_file_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("folder.wasm")).unwrap();
        assert!(trusted(dir.path(), "folder").unwrap_err().to_string().contains("expected a regular file"));
        let open = dir.path().join("open.wasm");
        fs::write(&open, "x").unwrap();
        for mode in [0o666, 0o664, 0o646] {
            set_mode(&open, mode);
            let told = trusted(dir.path(), "open").unwrap_err().to_string();
            assert!(told.starts_with("open.wasm: expected owner root"), "{told}");
            assert!(told.ends_with(&format!("mode {mode:04o}: chmod go-w {}", open.display())), "{told}");
            assert!(read(dir.path(), "open", Owners::Anyone).is_ok(), "an author may try it");
        }
        assert_eq!(trusted(dir.path(), "none").unwrap(), RawFiles::default());
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("pipe.wasm"), Mode::from_raw_mode(0o600)).unwrap();
        assert!(trusted(dir.path(), "pipe").unwrap_err().to_string().contains("expected a regular file"));
    }

    #[test]
    fn a_directory_in_which_others_may_write_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("p.wasm"), "x").unwrap();
        for mode in [0o777, 0o775, 0o1777] {
            set_mode(dir.path(), mode);
            let told = [scan(dir.path()).unwrap_err().to_string(), trusted(dir.path(), "p").unwrap_err().to_string()];
            for told in told {
                assert!(told.contains("expected owner root") && told.contains(&format!("mode {mode:04o}")), "{told}");
            }
            assert!(read(dir.path(), "p", Owners::Anyone).is_ok(), "an author may try it");
        }
        set_mode(dir.path(), 0o755);
        assert!(scan(dir.path()).is_ok() && trusted(dir.path(), "p").is_ok());
    }

    /// As root, the test gives the files to another user.
    #[test]
    fn files_of_another_user_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("p.wasm");
        fs::write(&file, "x").unwrap();
        if let Err(error) = std::os::unix::fs::chown(&file, Some(65_534), None) {
            // Without root the test cannot create such a file. `owners` has the table of allowed owners.
            return assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        }
        let told = trusted(dir.path(), "p").unwrap_err().to_string();
        assert!(told.contains("got owner uid 65534"), "{told}");
        // A link of a trusted owner to another user's file.
        symlink(&file, dir.path().join("l.wasm")).unwrap();
        assert!(trusted(dir.path(), "l").unwrap_err().to_string().contains("got owner uid 65534"));
        std::os::unix::fs::chown(dir.path(), Some(65_534), None).unwrap();
        assert!(scan(dir.path()).unwrap_err().to_string().contains("got owner uid 65534"));
    }
}
