//! One version of one plugin as it serves: linked, warm, counted. Immutable but for its pool and its counters.

use std::sync::Arc;
use std::sync::Weak;
use std::time::Instant;

use metrics::counter;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::Role;
use super::breaker::{Breaker, Consequence, Pass};
use super::failure::{Failure, Kind};
use super::instance::{Blueprint, Instance};
use super::load::Mark;
use super::manifest::Manifest;
use super::opinions::SecondOpinions;
use super::pool::Pool;
use super::source::{CallSource, SourceId};
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
    /// The node's bound on extra calls.
    pub(super) opinions: Arc<SecondOpinions>,
    /// The version to go back to, while this one is on probation.
    pub(super) previous: Mutex<Option<Weak<Version>>>,
    pub(super) warmer: Warmer,
    pub(super) alarm: Alarm,
}

/// Asks for warm instances off the path of calls.
pub(super) type Warmer = mpsc::Sender<Weak<Version>>;

/// Tells the loader of a version that should be taken back.
pub(super) type Alarm = mpsc::Sender<Condemned>;

/// A version on probation that fails by its own fault.
pub(super) struct Condemned {
    pub(super) version: Arc<Version>,
    /// The last of the failures.
    pub(super) failure: Failure,
}

/// So many sources that are set apart are logged each, then one in so many: a client may dial with ever new credentials.
const LOGGED: u64 = 10;
const LOGGED_THEN: u64 = 1_000;

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

    /// A call begins for this source: without leave it gets the role's failure answer.
    pub(super) fn begin<'s>(&self, source: impl FnOnce() -> CallSource<'s>) -> Result<Begun<'_>, Failure> {
        let pass = self.breaker.pass(self.stats.calls(), source)?;
        Ok(Begun { version: self, at: self.stats.called(), pass })
    }

    /// A call in this role had no answer. What the guest did is evidence against a version on probation.
    pub(super) fn failed(self: &Arc<Self>, role: Role, failure: &Failure, source: &CallSource<'_>) {
        if self.count(role, failure, source) && self.has_previous() {
            self.blame(source.id(), failure);
        }
    }

    /// Counts a call that had no answer; true if that was the guest's fault.
    pub(super) fn count(self: &Arc<Self>, role: Role, failure: &Failure, source: &CallSource<'_>) -> bool {
        self.stats.failed(role, failure);
        if !failure.kind.counts() {
            return false;
        }
        let Consequence { opened, apart } = self.breaker.failed(self.stats.calls(), source);
        if apart {
            self.tell_apart(source);
        }
        if opened {
            self.tell_opened(failure);
            self.accuse(failure);
        }
        true
    }

    /// The guest alone is to blame for a failure of this source.
    pub(super) fn blame(self: &Arc<Self>, source: SourceId, failure: &Failure) {
        self.breaker.blame(source);
        self.accuse(failure);
    }

    /// Asks the loader to go back to the version before, if the evidence is enough.
    fn accuse(self: &Arc<Self>, failure: &Failure) {
        if self.has_previous() && self.breaker.is_condemned() {
            self.give_up(failure);
        }
    }

    /// Asks the loader to go back to the version before.
    pub(super) fn give_up(self: &Arc<Self>, failure: &Failure) {
        // Without the news the version is not taken back, and its circuit guards it still.
        let _ = self.alarm.try_send(Condemned { version: Arc::clone(self), failure: failure.clone() });
    }

    /// True while this version is on probation and the one before is kept.
    pub(super) fn has_previous(&self) -> bool {
        self.previous.lock().is_some()
    }

    /// The version before, while this one is on probation.
    pub(super) fn previous(&self) -> Option<Arc<Self>> {
        self.previous.lock().as_ref()?.upgrade()
    }

    /// Begins or ends its probation.
    pub(super) fn set_previous(&self, previous: Option<&Arc<Self>>) {
        *self.previous.lock() = previous.map(Arc::downgrade);
    }

    fn tell_apart(&self, source: &CallSource<'_>) {
        counter!(names::PLUGIN_SET_APART, "plugin" => self.name.to_string()).increment(1);
        let times = self.breaker.times_set_apart();
        if times <= LOGGED || times.is_multiple_of(LOGGED_THEN) {
            tracing::warn!(
                plugin = %self.name, hash = %self.mark.hash, %source, times,
                "the plugin failed again and again for one source, which is set apart for a while"
            );
        }
    }

    fn tell_opened(&self, failure: &Failure) {
        let calls = self.stats.calls();
        self.show_circuit();
        counter!(names::PLUGIN_CIRCUITS, "plugin" => self.name.to_string()).increment(1);
        tracing::error!(
            plugin = %self.name, hash = %self.mark.hash, calls, failures = self.stats.failures(), %failure,
            "the plugin's circuit is open: it fails for many sources, and its role answers without it for a while"
        );
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
