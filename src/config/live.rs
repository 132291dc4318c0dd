//! The configuration in force: one snapshot that all parts of the node read.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use tokio::sync::watch;

use super::Config;

/// Handle of the configuration in force. Clones share it. A reload swaps the whole snapshot.
#[derive(Clone)]
pub struct LiveConfig(Arc<Shared>);

struct Shared {
    snapshot: ArcSwap<Config>,
    swaps: watch::Sender<()>,
}

impl LiveConfig {
    /// Puts `config` in force.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self(Arc::new(Shared { snapshot: ArcSwap::from_pointee(config), swaps: watch::Sender::new(()) }))
    }

    /// The snapshot, for a short time: not across an await.
    #[must_use]
    pub fn load(&self) -> Guard<Arc<Config>> {
        self.0.snapshot.load()
    }

    /// The snapshot, for as long as one piece of work needs it.
    #[must_use]
    pub fn load_full(&self) -> Arc<Config> {
        self.0.snapshot.load_full()
    }

    /// Swaps the snapshot. [`Config::with_live`] ensures that only live keys change.
    pub fn store(&self, config: Arc<Config>) {
        self.0.snapshot.store(config);
        self.0.swaps.send_replace(());
    }

    /// Reports each swap from now on.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<()> {
        self.0.swaps.subscribe()
    }
}

/// Evaluates the rule of a `#[live(…)]` mark. Names the types of the closure.
pub(super) fn is_live_change<T>(rule: impl Fn(&T, &T) -> bool, old: &T, new: &T) -> bool {
    rule(old, new)
}
