//! One version of one plugin as it serves: linked, warm, counted. Immutable but for its pool and its counters.

use std::sync::Arc;
use std::sync::Weak;

use tokio::sync::mpsc;

use super::Role;
use super::failure::Failure;
use super::instance::{Blueprint, Instance};
use super::manifest::Manifest;
use super::pool::Pool;
use super::stats::Stats;

/// A plugin version.
pub(super) struct Version {
    pub(super) name: Arc<str>,
    /// Grows by one with each version of the file that went live.
    pub(super) number: u64,
    pub(super) hash: Arc<str>,
    pub(super) size: u64,
    /// Milliseconds since 1970.
    pub(super) since: i64,
    pub(super) manifest: Manifest,
    pub(super) roles: Vec<Role>,
    pub(super) keys: Vec<String>,
    pub(super) blueprint: Blueprint,
    pub(super) pool: Pool,
    pub(super) stats: Stats,
    pub(super) warmer: Warmer,
}

/// Asks for warm instances off the path of calls.
pub(super) type Warmer = mpsc::Sender<Weak<Version>>;

impl Version {
    /// Whether it stands guard: without it the role refuses.
    pub(super) fn is_gate(&self, role: Role) -> bool {
        self.roles.contains(&role) && is_gate(role, &self.manifest)
    }

    /// A lost request does no harm: the next call makes its own instance and leaves it here.
    pub(super) fn ask_to_warm(self: &Arc<Self>) {
        let _ = self.warmer.try_send(Arc::downgrade(self));
    }

    /// Fills every empty slot.
    pub(super) async fn warm(&self) -> Result<(), Failure> {
        for _ in 0..self.pool.gaps() {
            self.pool.put(Box::new(Instance::new(&self.blueprint).await?));
        }
        Ok(())
    }
}

/// Whether a plugin of this role and manifest must not just disappear.
pub(super) fn is_gate(role: Role, manifest: &Manifest) -> bool {
    match role {
        Role::Auth => true,
        Role::Filter => !manifest.allow_on_failure,
        Role::Handler | Role::Events => false,
    }
}

/// Makes the instances that calls asked for, one after the other.
pub(super) async fn warm_up(mut asked: mpsc::Receiver<Weak<Version>>) {
    while let Some(version) = asked.recv().await {
        let Some(version) = version.upgrade() else { continue };
        if let Err(failure) = version.warm().await {
            tracing::warn!(plugin = %version.name, %failure, "no new instance");
        }
    }
}
