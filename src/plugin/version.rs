//! One version of one plugin as it serves: linked, warm, counted. Immutable but for its pool and its counters.

use std::sync::Arc;
use std::sync::Weak;
use std::time::Instant;

use metrics::counter;
use tokio::sync::mpsc;

use super::Role;
use super::breaker::{Breaker, Pass};
use super::failure::{Failure, Kind};
use super::instance::{Blueprint, Instance};
use super::load::Mark;
use super::manifest::Manifest;
use super::pool::Pool;
use super::stats::{Outcome, Stats};
use crate::telemetry::names;

/// A plugin version.
pub(super) struct Version {
    pub(super) name: Arc<str>,
    /// Grows by one with each version of the file that went live.
    pub(super) number: u64,
    /// The files that it was made of.
    pub(super) mark: Mark,
    pub(super) size: u64,
    /// Milliseconds since 1970.
    pub(super) since: i64,
    pub(super) manifest: Manifest,
    pub(super) roles: Vec<Role>,
    pub(super) keys: Vec<String>,
    pub(super) blueprint: Blueprint,
    pub(super) pool: Pool,
    pub(super) stats: Stats,
    pub(super) breaker: Breaker,
    pub(super) warmer: Warmer,
    pub(super) alarm: Alarm,
}

/// Asks for warm instances off the path of calls.
pub(super) type Warmer = mpsc::Sender<Weak<Version>>;

/// Tells the loader of a circuit that opened.
pub(super) type Alarm = mpsc::Sender<Opened>;

/// A version whose circuit has opened.
pub(super) struct Opened {
    pub(super) version: Arc<Version>,
    /// The failure that opened it.
    pub(super) failure: Failure,
}

/// A call that may go to the guest.
pub(super) struct Begun<'a> {
    version: &'a Version,
    at: Option<Instant>,
    pass: Pass<'a>,
}

impl Begun<'_> {
    /// The guest answered, and its answer holds.
    pub(super) fn answered(self, outcome: Outcome) {
        self.version.stats.answered(self.at, outcome);
        self.lives();
    }

    /// The guest is well, though this call has no answer of its role.
    pub(super) fn lives(self) {
        if self.pass.answered() {
            self.version.show_circuit();
            let version = self.version;
            tracing::info!(plugin = %version.name, hash = %version.mark.hash, "the plugin's circuit is closed: it answers again");
        }
    }
}

impl Version {
    /// Whether it stands guard: without it the role refuses.
    pub(super) fn is_gate(&self, role: Role) -> bool {
        self.roles.contains(&role) && is_gate(role, &self.manifest)
    }

    /// A call begins: without leave it gets the role's failure answer.
    pub(super) fn begin(&self) -> Result<Begun<'_>, Failure> {
        let pass = self.breaker.pass()?;
        Ok(Begun { version: self, at: self.stats.called(), pass })
    }

    /// A call in this role had no answer.
    pub(super) fn failed(self: &Arc<Self>, role: Role, failure: &Failure) {
        self.stats.failed(role, failure);
        let calls = self.stats.calls();
        if !failure.kind.is_guests_fault() || !self.breaker.failed(calls) {
            return;
        }
        self.show_circuit();
        counter!(names::PLUGIN_CIRCUITS, "plugin" => self.name.to_string()).increment(1);
        tracing::error!(
            plugin = %self.name, hash = %self.mark.hash, calls, failures = self.stats.failures(), %failure,
            "the plugin's circuit is open: it fails again and again, and its role answers without it for a while"
        );
        // Without the news the version is not taken back, and its circuit guards it still.
        let _ = self.alarm.try_send(Opened { version: Arc::clone(self), failure: failure.clone() });
    }

    fn show_circuit(&self) {
        let open = if self.breaker.is_closed() { 0.0 } else { 1.0 };
        metrics::gauge!(names::PLUGIN_CIRCUIT_OPEN, "plugin" => self.name.to_string()).set(open);
    }

    /// It serves no call any more, or none yet: its instances go, and come back when it is asked to warm.
    pub(super) fn cool(&self) {
        self.pool.drain();
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
        Role::Auth | Role::Access => true,
        Role::Filter => !manifest.allow_on_failure,
        Role::Handler | Role::Events => false,
    }
}

/// Makes the instances that calls asked for, one after the other.
pub(super) async fn warm_up(mut asked: mpsc::Receiver<Weak<Version>>) {
    while let Some(version) = asked.recv().await {
        let Some(version) = version.upgrade() else { continue };
        match version.warm().await {
            // Calls were quicker and have made what may live: theirs stay here when they are done.
            Err(failure) if failure.kind == Kind::Full => {
                tracing::debug!(plugin = %version.name, %failure, "no new instance");
            }
            Err(failure) => tracing::warn!(plugin = %version.name, %failure, "no new instance"),
            Ok(()) => {}
        }
    }
}
