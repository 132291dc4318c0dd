//! Watches the plugin directory. An event only triggers a scan, which finds the change.

use std::path::Path;
use std::sync::Arc;

use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;

use super::disk::Stamp;

/// Keeps a watcher on the directory, even if another directory takes its name.
pub(in crate::plugin) struct Watch {
    events: Arc<Notify>,
    armed: Option<(Stamp, RecommendedWatcher)>,
}

impl Watch {
    pub(in crate::plugin) fn new() -> Self {
        Self { events: Arc::default(), armed: None }
    }

    /// Returns when something may have changed.
    pub(in crate::plugin) async fn changed(&self) {
        self.events.notified().await;
    }

    /// Watches `dir`, and watches again if it is another directory now. Without a watcher the rescan finds changes.
    pub(in crate::plugin) fn arm(&mut self, dir: &Path) {
        let Ok(meta) = std::fs::metadata(dir) else { return self.armed = None };
        let stamp = Stamp::of(&meta);
        if self.armed.as_ref().is_some_and(|(armed, _)| armed.is_same_file(&stamp)) {
            return;
        }
        let events = Arc::clone(&self.events);
        let noticed = move |event: notify::Result<Event>| {
            // A scan opens and reads files, too, which must not cause another scan.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                events.notify_one();
            }
        };
        let watcher = notify::recommended_watcher(noticed).and_then(|mut watcher| {
            watcher.watch(dir, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        match watcher {
            Ok(watcher) => self.armed = Some((stamp, watcher)),
            Err(error) => {
                tracing::warn!(%error, dir = %dir.display(), "plugin directory cannot be watched: it is scanned at plugins.rescan only");
                self.armed = None;
            }
        }
    }
}
