//! The plugin directory as it lies on disk: what is there, whether it has changed, and its bytes.
//!
//! Everything in it may change at any moment, and may have been put there by someone careless: files are opened once,
//! checked by their descriptor, and read whole or not at all. Knows no plugin.

use std::collections::BTreeMap;
use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

/// Largest component, bytes: a Python guest takes 18 MB.
const MAX_WASM_BYTES: u64 = 64 << 20;
/// Largest manifest, bytes.
const MAX_MANIFEST_BYTES: u64 = 1 << 20;
/// Largest signature, bytes.
const MAX_SIGNATURE_BYTES: u64 = 4 << 10;
/// Longest plugin name, bytes.
const MAX_NAME_BYTES: usize = 64;

/// Tells one state of a file from another without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(meta: &Metadata) -> Self {
        Self {
            device: meta.dev(),
            inode: meta.ino(),
            length: meta.len(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    pub(super) fn is_same_file(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// One plugin's files.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) wasm: Option<Stamp>,
    pub(super) manifest: Option<Stamp>,
    pub(super) signature: Option<Stamp>,
}

/// What lies in the directory, by plugin name. Other files, hidden and temporary names are not looked at.
pub(super) fn scan(dir: &Path) -> io::Result<BTreeMap<String, Seen>> {
    let mut found: BTreeMap<String, Seen> = BTreeMap::new();
    let mut signatures = Vec::new();
    for entry in fs::read_dir(dir)? {
        let file = entry?.file_name();
        let Some((name, kind)) = file.to_str().and_then(|file| file.rsplit_once('.')) else { continue };
        let signed = name.strip_suffix(".wasm").filter(|_| kind == "sig");
        if !is_name(name) || (signed.is_none() && !matches!(kind, "wasm" | "toml")) {
            continue;
        }
        // Through links, since mounted configuration is made of them; a link to nothing is no file.
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

/// Names of links in the directory that should be plugins' files and lead nowhere.
pub(super) fn dangling(dir: &Path) -> io::Result<Vec<String>> {
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

/// What was read of one plugin.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) wasm: Option<Vec<u8>>,
    pub(super) manifest: Option<String>,
    /// What `NAME.wasm.sig` says.
    pub(super) signature: Option<String>,
}

/// Why a plugin's files could not be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    /// It changed meanwhile: look again.
    #[error("{0} changed while it was read")]
    Changed(String),
    /// It is not a file that may be loaded.
    #[error("{file}: {why}")]
    Unfit { file: String, why: String },
}

/// Reads the files of a plugin.
pub(super) fn read(dir: &Path, name: &str) -> Result<Files, ReadError> {
    let wasm = read_whole(dir, &format!("{name}.wasm"), MAX_WASM_BYTES)?;
    let file = format!("{name}.toml");
    let manifest = match read_whole(dir, &file, MAX_MANIFEST_BYTES)? {
        Some(bytes) => {
            let text = String::from_utf8(bytes);
            Some(text.map_err(|_| ReadError::Unfit { file, why: "it is not UTF-8".to_owned() })?)
        }
        None => None,
    };
    let signature = match read_whole(dir, &format!("{name}.wasm.sig"), MAX_SIGNATURE_BYTES) {
        Ok(bytes) => bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()),
        // Whoever asks for a signature finds that this is none.
        Err(ReadError::Unfit { .. }) => Some(String::new()),
        Err(changed) => return Err(changed),
    };
    Ok(Files { wasm, manifest, signature })
}

fn read_whole(dir: &Path, file: &str, most: u64) -> Result<Option<Vec<u8>>, ReadError> {
    let unfit = |why: String| ReadError::Unfit { file: file.to_owned(), why };
    // Without waiting: a pipe somebody put there must not hold the loader.
    let flags = i32::try_from(OFlags::NONBLOCK.bits()).expect("a flag of open fits an int");
    let mut opened = match OpenOptions::new().read(true).custom_flags(flags).open(dir.join(file)) {
        Ok(opened) => opened,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(unfit(error.to_string())),
    };
    let meta = opened.metadata().map_err(|error| unfit(error.to_string()))?;
    check(&meta, most).map_err(unfit)?;
    let bytes = read_bytes(&mut opened, &meta).map_err(|error| unfit(error.to_string()))?;
    let after = opened.metadata().map_err(|error| unfit(error.to_string()))?;
    if Stamp::of(&after) != Stamp::of(&meta) || bytes.len() as u64 != meta.len() {
        return Err(ReadError::Changed(file.to_owned()));
    }
    Ok(Some(bytes))
}

fn check(meta: &Metadata, most: u64) -> Result<(), String> {
    if !meta.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    if meta.mode() & 0o002 != 0 {
        return Err("everybody may write to it: chmod o-w".to_owned());
    }
    if meta.len() > most {
        return Err(format!("expected at most {most} bytes, got {}", meta.len()));
    }
    Ok(())
}

/// One byte more than there should be, so that a file that grows is noticed.
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
    fn a_swapped_link_is_a_change() {
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
        assert_eq!(read(dir.path(), "p").unwrap().wasm.as_deref(), Some(b"two".as_slice()));
    }

    #[test]
    fn only_fit_files_are_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("folder.wasm")).unwrap();
        assert!(read(dir.path(), "folder").unwrap_err().to_string().contains("not a regular file"));
        let open = dir.path().join("open.wasm");
        fs::write(&open, "x").unwrap();
        fs::set_permissions(&open, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(read(dir.path(), "open").unwrap_err().to_string().contains("chmod o-w"));
        assert_eq!(read(dir.path(), "none").unwrap(), Files::default());
    }
}
