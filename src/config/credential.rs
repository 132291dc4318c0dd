//! A secret that remembers its file, so that a running node reads a rotated password without a restart.
//!
//! Independent of engines: the client of each engine decides when to read the secret again.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::read::secret_distance::as_written;
use super::read::value::{Kind, Value};
use super::read::{Codec, Reader, Secret};

/// Maximum size of a file that holds a text, in bytes.
const MAX_FILE_BYTES: u64 = 64 << 10;

/// A secret of the configuration. `Debug` never shows it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Credential {
    text: String,
    file: Option<PathBuf>,
}

impl Credential {
    pub(super) fn new(text: String, file: Option<PathBuf>) -> Self {
        Self { text, file }
    }

    /// The secret as it was when the configuration was read.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// True if the configuration names no secret.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty() && self.file.is_none()
    }

    /// The file that holds the secret (`{file: PATH}`); `None` if the configuration itself holds it.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The current secret: the contents of its file, or the text of the configuration. Blocks on the file system.
    ///
    /// # Errors
    /// The file cannot be read, is no regular file, or is larger than 64 KiB. The error names the file, never its
    /// contents.
    pub fn read(&self) -> io::Result<String> {
        match &self.file {
            Some(file) => read_text(file).map_err(|error| {
                io::Error::new(error.kind(), format!("expected a file to read, got {}: {error}", file.display()))
            }),
            None => Ok(self.text.clone()),
        }
    }
}

impl From<&str> for Credential {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl From<String> for Credential {
    fn from(text: String) -> Self {
        Self { text, file: None }
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_empty() { "\"\"" } else { "***" })
    }
}

/// Reads a text from its own file.
///
/// # Errors
/// The file cannot be read, is no regular file, or is larger than 64 KiB.
pub(super) fn read_text(file: &Path) -> io::Result<String> {
    let metadata = std::fs::metadata(file)?;
    if !metadata.is_file() || metadata.len() > MAX_FILE_BYTES {
        return Err(io::Error::other(format!("expected a file of at most {MAX_FILE_BYTES} bytes")));
    }
    std::fs::read_to_string(file).map(|text| as_written(&text).to_owned())
}

impl Codec<Credential> for Secret {
    fn expected(&self) -> String {
        Codec::<String>::expected(self)
    }

    fn read(&self, value: &Value, reader: &mut Reader<'_>) -> Option<Credential> {
        let text = Codec::<String>::read(self, value, reader)?;
        Some(Credential::new(text, reader.file_of(value)))
    }

    fn show(&self, value: &Credential) -> Value {
        match value.is_empty() {
            true => Value::text(""),
            false => Value::built_in(Kind::Secret(value.text.clone())),
        }
    }

    fn is_secret(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credential_in_a_file_is_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "\u{feff}first \n").unwrap();
        let credential = Credential::new(read_text(&file).unwrap(), Some(file.clone()));
        assert_eq!((credential.text(), credential.read().unwrap().as_str()), ("first ", "first "));
        std::fs::write(&file, "second\r\n").unwrap();
        assert_eq!((credential.text(), credential.read().unwrap().as_str()), ("first ", "second"));
        std::fs::remove_file(&file).unwrap();
        let told = credential.read().unwrap_err().to_string();
        assert!(told.contains(file.to_str().unwrap()) && !told.contains("first"), "{told}");
    }

    #[test]
    fn one_line_break_and_a_byte_order_mark_are_trimmed() {
        for (text, secret) in
            [("a", "a"), ("a\n", "a"), ("a\r\n", "a"), ("a\n\n", "a\n"), ("\u{feff}a", "a"), (" a ", " a "), ("\n", "")]
        {
            assert_eq!(as_written(text), secret, "{text:?}");
        }
    }

    #[test]
    fn debug_of_a_credential_shows_nothing() {
        let credential = Credential::from("canary");
        assert_eq!(format!("{credential:?} {:?}", Credential::default()), "*** \"\"");
    }
}
