//! Watches the relevant files of a plugin's folder: sources, manifest, cases, component; not build output.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, bail};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

/// Changes within this time are reported as one, because builds and editors write several files.
const DEBOUNCE: Duration = Duration::from_millis(200);
/// Capacity of the queue; a full queue loses nothing, because one event is enough.
const QUEUE_CAPACITY: usize = 16;
/// Source folders of a plugin, besides its root.
const SOURCES: [&str; 3] = ["src", "wit", "skylark"];

/// Watches until dropped.
pub(super) struct Watch {
    changes: Receiver<()>,
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Watches the sources of a folder. Components are ignored as build output.
    ///
    /// # Errors
    /// The folder cannot be watched.
    pub(super) fn sources_of(dir: &Path) -> anyhow::Result<Self> {
        Self::of(dir, &["wasm"], &SOURCES)
    }

    /// Watches the files of a test: components, manifests, cases.
    ///
    /// # Errors
    /// The folder cannot be watched.
    pub(super) fn files_beside(path: &Path) -> anyhow::Result<Self> {
        let dir = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
        Self::of(dir, &[], &[])
    }

    fn of(dir: &Path, outputs: &'static [&'static str], below: &[&str]) -> anyhow::Result<Self> {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let (sender, changes) = sync_channel(QUEUE_CAPACITY);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| is_change(&event, outputs)) {
                // A full queue already signals a change.
                let _ = sender.try_send(());
            }
        })?;
        let failed = || format!("cannot watch the folder {}", dir.display());
        watcher.watch(dir, RecursiveMode::NonRecursive).with_context(failed)?;
        for folder in below.iter().map(|folder| dir.join(folder)).filter(|folder| folder.is_dir()) {
            watcher.watch(&folder, RecursiveMode::Recursive).with_context(failed)?;
        }
        Ok(Self { changes, _watcher: watcher })
    }

    /// Returns true if a file has changed within that time; waits until the changes have settled.
    ///
    /// # Errors
    /// The watcher has ended.
    pub(super) fn changed_within(&self, time: Duration) -> anyhow::Result<bool> {
        match self.changes.recv_timeout(time) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => return Ok(false),
            Err(RecvTimeoutError::Disconnected) => bail!("the watcher ended"),
        }
        while self.changes.recv_timeout(DEBOUNCE).is_ok() {}
        Ok(true)
    }
}

/// Ignores reads, folders, editor files, and build output.
fn is_change(event: &Event, outputs: &[&str]) -> bool {
    let matters = |path: &PathBuf| {
        let hidden = path
            .file_name()
            .and_then(|name| name.to_str())
            .is_none_or(|name| name.starts_with('.') || name.ends_with('~'));
        let kind = path.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
        !hidden && !path.is_dir() && !["tmp", "swp", "lock", ""].contains(&kind) && !outputs.contains(&kind)
    };
    !matches!(event.kind, EventKind::Access(_)) && event.paths.iter().any(matters)
}
