//! Tells when a file of a plugin's folder changes that matters: sources, manifest, cases, component; not what a build leaves.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, bail};
use notify::{Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

/// A build and an editor write more than one file: news within so long are one.
const GATHER: Duration = Duration::from_millis(200);
/// News that wait; one is as good as many.
const NEWS: usize = 16;
/// Folders of a plugin that hold sources, besides itself.
const SOURCES: [&str; 3] = ["src", "wit", "skylark"];

/// Watches while it lives.
pub(super) struct Watch {
    news: Receiver<()>,
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Of a folder's sources. Components are what a build makes of them.
    ///
    /// # Errors
    /// The folder cannot be watched.
    pub(super) fn around(dir: &Path) -> anyhow::Result<Self> {
        Self::of(dir, &["wasm"], &SOURCES)
    }

    /// Of what is played: components, manifests, cases.
    ///
    /// # Errors
    /// The folder cannot be watched.
    pub(super) fn beside(path: &Path) -> anyhow::Result<Self> {
        let dir = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
        Self::of(dir, &[], &[])
    }

    fn of(dir: &Path, made: &'static [&'static str], below: &[&str]) -> anyhow::Result<Self> {
        let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
        let (sender, news) = sync_channel(NEWS);
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.is_ok_and(|event| is_change(&event, made)) {
                // A full queue says already what this one would.
                let _ = sender.try_send(());
            }
        })?;
        let failed = || format!("cannot watch the folder {}", dir.display());
        watcher.watch(dir, RecursiveMode::NonRecursive).with_context(failed)?;
        for folder in below.iter().map(|folder| dir.join(folder)).filter(|folder| folder.is_dir()) {
            watcher.watch(&folder, RecursiveMode::Recursive).with_context(failed)?;
        }
        Ok(Self { news, _watcher: watcher })
    }

    /// Whether something has changed within that time; waits until the change has settled.
    ///
    /// # Errors
    /// The watcher ended.
    pub(super) fn changed_within(&self, time: Duration) -> anyhow::Result<bool> {
        match self.news.recv_timeout(time) {
            Ok(()) => {}
            Err(RecvTimeoutError::Timeout) => return Ok(false),
            Err(RecvTimeoutError::Disconnected) => bail!("the watcher ended"),
        }
        while self.news.recv_timeout(GATHER).is_ok() {}
        Ok(true)
    }
}

/// Reading is no change, and neither is a folder, a file of an editor, or what a build made.
fn is_change(event: &Event, made: &[&str]) -> bool {
    let matters = |path: &PathBuf| {
        let hidden = path
            .file_name()
            .and_then(|name| name.to_str())
            .is_none_or(|name| name.starts_with('.') || name.ends_with('~'));
        let kind = path.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
        !hidden && !path.is_dir() && !["tmp", "swp", "lock", ""].contains(&kind) && !made.contains(&kind)
    };
    !matches!(event.kind, EventKind::Access(_)) && event.paths.iter().any(matters)
}
