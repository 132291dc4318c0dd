//! The log file: rotates by the hour or day and keeps a bounded number of files.
//!
//! Deletes only files that it could have written itself, because the directory may be shared, such as `/var/log`.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;
use tracing_appender::rolling;

use crate::config::{Log, Rotation};

/// Writes to the current log file.
pub(super) struct LogFile {
    file: rolling::RollingFileAppender,
    old: Option<OldFiles>,
    /// The hour of the last removal of old files.
    hour: u64,
    next: Next,
}

/// Slot for a reopened file. The writer thread takes it with its next line.
pub(super) type Next = Arc<Mutex<Option<LogFile>>>;

impl LogFile {
    /// Opens `logs/skylark.2026-01-31.log` for `logs/skylark.log`, or that path itself without rotation.
    pub(super) fn open(log: &Log) -> io::Result<Self> {
        let part = |part: Option<&std::ffi::OsStr>| part.unwrap_or_default().to_string_lossy().into_owned();
        let directory = log.file.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(directory)?;
        let rotation = match log.rotation {
            Rotation::Hourly => rolling::Rotation::HOURLY,
            Rotation::Daily => rolling::Rotation::DAILY,
            Rotation::Never => rolling::Rotation::NEVER,
        };
        let (stem, extension) = (part(log.file.file_stem()), log.file.extension().map(|e| part(Some(e))));
        let mut builder = rolling::Builder::new().rotation(rotation).filename_prefix(&stem);
        if let Some(extension) = &extension {
            builder = builder.filename_suffix(extension);
        }
        let file = builder.build(directory).map_err(io::Error::other)?;
        let ending = extension.map(|extension| format!(".{extension}")).unwrap_or_default();
        let old = OldFiles { directory: directory.to_owned(), beginning: format!("{stem}."), ending, keep: log.keep };
        let old = (log.rotation != Rotation::Never).then_some(old);
        let mut opened = Self { file, old, hour: 0, next: Next::default() };
        opened.prune();
        Ok(opened)
    }

    /// The slot for a reopened file.
    pub(super) fn next(&self) -> Next {
        Arc::clone(&self.next)
    }

    /// Switches to the reopened file. The previous one may have been renamed or removed (logrotate).
    fn take_next(&mut self) {
        let next = self.next.lock().take();
        if let Some(next) = next {
            *self = Self { next: Arc::clone(&self.next), ..next };
        }
    }

    /// Removes old files at most once an hour, the shortest rotation interval.
    fn prune(&mut self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs() / 3600;
        if let Some(old) = self.old.as_ref().filter(|_| now != self.hour) {
            self.hour = now;
            old.remove();
        }
    }
}

impl Write for LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.take_next();
        let written = self.file.write(bytes)?;
        self.prune();
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// Selects old log files and how many of them stay, the newest included.
struct OldFiles {
    directory: PathBuf,
    beginning: String,
    ending: String,
    keep: usize,
}

impl OldFiles {
    /// Removes old files. A failed removal is retried in an hour.
    fn remove(&self) {
        let Ok(entries) = fs::read_dir(&self.directory) else { return };
        let is_file = |entry: &fs::DirEntry| entry.file_type().is_ok_and(|kind| kind.is_file());
        let names =
            entries.filter_map(Result::ok).filter(is_file).filter_map(|entry| entry.file_name().into_string().ok());
        let mut names: Vec<String> = names.filter(|name| self.is_ours(name)).collect();
        // Dates in this format sort chronologically.
        names.sort_unstable();
        let most = names.len().saturating_sub(self.keep.max(1));
        for name in names.drain(..most) {
            drop(fs::remove_file(self.directory.join(name)));
        }
    }

    /// True if exactly `2026-01-31` or `2026-01-31-07` is between beginning and ending.
    fn is_ours(&self, name: &str) -> bool {
        let date = name.strip_prefix(&self.beginning).and_then(|rest| rest.strip_suffix(&self.ending));
        let looks = |date: &str, shape: &str| {
            date.len() == shape.len()
                && date.bytes().zip(shape.bytes()).all(|(b, s)| if s == b'0' { b.is_ascii_digit() } else { b == s })
        };
        date.is_some_and(|date| looks(date, "0000-00-00") || looks(date, "0000-00-00-00"))
    }
}
