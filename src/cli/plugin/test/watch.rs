//! Does something again whenever a file of a folder changes.

use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

use anyhow::Context as _;
use notify::{Event, EventKind, RecursiveMode, Watcher as _};

/// A build and an editor write more than one file: news within so long are one.
const GATHER: Duration = Duration::from_millis(200);
/// News that wait; one is as good as many.
const NEWS: usize = 16;

/// Runs `work` now and after each change around `path`, until the process is ended. Its failures are told.
///
/// # Errors
/// The folder cannot be watched.
pub(super) fn again_and_again(path: &Path, work: impl Fn() -> anyhow::Result<()>) -> anyhow::Result<()> {
    let dir = if path.is_dir() { path } else { path.parent().unwrap_or(path) };
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let (news, waiting) = sync_channel(NEWS);
    let mut watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if event.is_ok_and(|event| is_change(&event)) {
            // A full queue says already what this one would.
            let _ = news.try_send(());
        }
    })?;
    watcher
        .watch(dir, RecursiveMode::NonRecursive)
        .with_context(|| format!("cannot watch the folder {}", dir.display()))?;
    loop {
        if let Err(error) = work() {
            eprintln!("{error:#}");
        }
        eprintln!("waiting for a change in {}", dir.display());
        waiting.recv().context("the watcher ended")?;
        while waiting.recv_timeout(GATHER) != Err(RecvTimeoutError::Timeout) {}
    }
}

/// Reading is no change, and neither is what leaves every case as it was.
fn is_change(event: &Event) -> bool {
    let matters = |path: &std::path::PathBuf| {
        path.extension().is_some_and(|kind| ["yaml", "yml", "wasm", "toml"].iter().any(|known| kind == *known))
    };
    !matches!(event.kind, EventKind::Access(_)) && event.paths.iter().any(matters)
}
