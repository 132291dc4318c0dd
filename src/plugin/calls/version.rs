//! One version of one plugin as it serves: linked, warm, counted. Immutable except for its pool and its counters.

pub(in crate::plugin) mod extra_calls;
pub(in crate::plugin) mod stats;

use std::sync::Arc;
use std::sync::Weak;
use std::time::Instant;

use metrics::counter;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::breaker::{Breaker, CallPermit, Consequence};
use super::pool::Pool;
use super::source::{CallSource, SourceId};
use super::version::extra_calls::ExtraCalls;
use super::version::stats::{CallOutcome, Stats};
use crate::plugin::Role;
use crate::plugin::guest::failure::{Failure, Kind};
use crate::plugin::guest::files::FilesId;
use crate::plugin::guest::instance::{Blueprint, Instance};
use crate::plugin::guest::manifest::Manifest;
use crate::telemetry::names;

/// A plugin version.
pub(in crate::plugin) struct Version {
    pub(in crate::plugin) name: Arc<str>,
    /// Grows by one with each version of the file that went live.
    pub(in crate::plugin) number: u64,
    /// The files from which it was made.
    pub(in crate::plugin) files_id: FilesId,
    pub(in crate::plugin) size: u64,
    /// Milliseconds since 1970.
    pub(in crate::plugin) since: i64,
    pub(in crate::plugin) manifest: Manifest,
    pub(in crate::plugin) roles: Vec<Role>,
    pub(in crate::plugin) keys: Vec<String>,
    pub(in crate::plugin) blueprint: Blueprint,
    pub(in crate::plugin) pool: Pool,
    pub(in crate::plugin) stats: Stats,
    pub(in crate::plugin) breaker: Breaker,
    /// The node's bound on extra calls.
    pub(in crate::plugin) extra_calls: Arc<ExtraCalls>,
    /// The version to go back to, while this one is on probation.
    pub(in crate::plugin) previous: Mutex<Option<Weak<Version>>>,
    pub(in crate::plugin) warmer: Warmer,
    pub(in crate::plugin) rollbacks: RollbackSender,
}

/// Requests warm instances off the path of calls.
pub(in crate::plugin) type Warmer = mpsc::Sender<Weak<Version>>;

/// Reports a version to the loader that should be rolled back.
pub(in crate::plugin) type RollbackSender = mpsc::Sender<RollbackRequest>;

/// A version on probation that fails on inputs that the previous version can answer.
pub(in crate::plugin) struct RollbackRequest {
    pub(in crate::plugin) version: Arc<Version>,
    /// The last of the failures.
    pub(in crate::plugin) failure: Failure,
}

/// This many sources that are set apart are logged each, then one in `LOGGED_THEN`: a client may connect with ever new
/// credentials.
const LOGGED: u64 = 10;
const LOGGED_THEN: u64 = 1_000;

/// A call that may reach the guest.
pub(in crate::plugin) struct StartedCall<'a> {
    version: &'a Version,
    at: Option<Instant>,
    permit: CallPermit<'a>,
}

impl StartedCall<'_> {
    /// The guest answered, and its answer is valid.
    pub(in crate::plugin) fn answered(self, outcome: CallOutcome) {
        self.version.stats.answered(self.at, outcome);
        self.guest_works();
    }

    /// The guest works, although this call has no answer of its role.
    pub(in crate::plugin) fn guest_works(self) {
        if self.permit.answered() {
            self.version.update_circuit_gauge();
            let version = self.version;
            tracing::info!(plugin = %version.name, hash = %version.files_id.hash, "plugin circuit closed: the plugin answers again");
        }
    }
}

impl Version {
    /// True if the plugin is fail-closed in this role: without it the role refuses.
    pub(in crate::plugin) fn is_fail_closed(&self, role: Role) -> bool {
        self.roles.contains(&role) && is_fail_closed(role, &self.manifest)
    }

    /// True if it gets the receipts of kept messages.
    pub(in crate::plugin) fn has_receipts(&self) -> bool {
        self.roles.contains(&Role::Events) && self.blueprint.exports.has_receipts()
    }

    /// Its roles as operators see them, with `receipts` after `events` if it is exported.
    pub(in crate::plugin) fn shown_roles(&self) -> Vec<&'static str> {
        let optional = |role: &Role| (*role == Role::Events && self.has_receipts()).then_some("receipts");
        self.roles.iter().flat_map(|role| std::iter::once(role.as_str()).chain(optional(role))).collect()
    }

    /// Begins a call for this source. An error is answered with the failure answer of the role.
    pub(in crate::plugin) fn begin<'s>(
        &self,
        source: impl FnOnce() -> CallSource<'s>,
    ) -> Result<StartedCall<'_>, Failure> {
        let permit = self.breaker.permit(self.stats.calls(), source)?;
        Ok(StartedCall { version: self, at: self.stats.start_call(), permit })
    }

    /// Records a call in this role without an answer. A failure of the guest is evidence against a version on
    /// probation.
    pub(in crate::plugin) fn failed(self: &Arc<Self>, role: Role, failure: &Failure, source: &CallSource<'_>) {
        if self.count(role, failure, source) && self.has_previous() {
            self.record_evidence(source.id(), failure);
        }
    }

    /// Counts a call without an answer; true if the guest is the cause.
    pub(in crate::plugin) fn count(self: &Arc<Self>, role: Role, failure: &Failure, source: &CallSource<'_>) -> bool {
        self.stats.failed(role, failure);
        if !failure.kind.counts() {
            return false;
        }
        let Consequence { opened, apart } = self.breaker.failed(self.stats.calls(), source);
        if apart {
            self.report_set_apart(source);
        }
        if opened {
            self.report_circuit_opened(failure);
            self.check_evidence(failure);
        }
        true
    }

    /// Records that the guest alone caused a failure of this source.
    pub(in crate::plugin) fn record_evidence(self: &Arc<Self>, source: SourceId, failure: &Failure) {
        self.breaker.record_evidence(source);
        self.check_evidence(failure);
    }

    /// Asks the loader to go back to the previous version, if the evidence is enough.
    fn check_evidence(self: &Arc<Self>, failure: &Failure) {
        if self.has_previous() && self.breaker.warrants_rollback() {
            self.request_rollback(failure);
        }
    }

    /// Asks the loader to go back to the previous version.
    pub(in crate::plugin) fn request_rollback(self: &Arc<Self>, failure: &Failure) {
        // If this message is lost, the version is not rolled back, and its circuit still protects its callers.
        let _ = self.rollbacks.try_send(RollbackRequest { version: Arc::clone(self), failure: failure.clone() });
    }

    /// True while this version is on probation and the previous one is kept.
    pub(in crate::plugin) fn has_previous(&self) -> bool {
        self.previous.lock().is_some()
    }

    /// The previous version, while this one is on probation.
    pub(in crate::plugin) fn previous(&self) -> Option<Arc<Self>> {
        self.previous.lock().as_ref()?.upgrade()
    }

    /// Begins the probation, or ends it with `None`.
    pub(in crate::plugin) fn set_previous(&self, previous: Option<&Arc<Self>>) {
        *self.previous.lock() = previous.map(Arc::downgrade);
    }

    fn report_set_apart(&self, source: &CallSource<'_>) {
        counter!(names::PLUGIN_SET_APART, "plugin" => self.name.to_string()).increment(1);
        let times = self.breaker.times_set_apart();
        if times <= LOGGED || times.is_multiple_of(LOGGED_THEN) {
            tracing::warn!(
                plugin = %self.name, hash = %self.files_id.hash, %source, times,
                "source set apart: the plugin failed repeatedly on its calls"
            );
        }
    }

    fn report_circuit_opened(&self, failure: &Failure) {
        let calls = self.stats.calls();
        self.update_circuit_gauge();
        counter!(names::PLUGIN_CIRCUITS, "plugin" => self.name.to_string()).increment(1);
        tracing::error!(
            plugin = %self.name, hash = %self.files_id.hash, calls, failures = self.stats.failures(), %failure,
            "plugin circuit opened: calls of several sources failed, and its role gives the failure answer"
        );
    }

    fn update_circuit_gauge(&self) {
        let open = if self.breaker.is_closed() { 0.0 } else { 1.0 };
        metrics::gauge!(names::PLUGIN_CIRCUIT_OPEN, "plugin" => self.name.to_string()).set(open);
    }

    /// Drops the warm instances of a version that serves no call. The next `warm` makes new ones.
    pub(in crate::plugin) fn drop_instances(&self) {
        self.pool.drain();
    }

    /// Requests warm instances. A lost request does no harm: the next call makes its own instance and returns it to the
    /// pool.
    pub(in crate::plugin) fn request_warm_up(self: &Arc<Self>) {
        let _ = self.warmer.try_send(Arc::downgrade(self));
    }

    /// Fills every empty slot.
    pub(in crate::plugin) async fn warm(&self) -> Result<(), Failure> {
        for _ in 0..self.pool.empty_slots() {
            self.pool.put(Box::new(Instance::new(&self.blueprint).await?));
        }
        Ok(())
    }
}

/// True if a plugin of this role and manifest is fail-closed, so that the role refuses without it.
pub(in crate::plugin) fn is_fail_closed(role: Role, manifest: &Manifest) -> bool {
    match role {
        Role::Auth | Role::Access => true,
        Role::Filter => !manifest.allow_on_failure,
        Role::Handler | Role::Events => false,
    }
}

/// Makes the instances that calls requested, for one version after the other.
pub(in crate::plugin) async fn warm_up(mut asked: mpsc::Receiver<Weak<Version>>) {
    while let Some(version) = asked.recv().await {
        let Some(version) = version.upgrade() else { continue };
        match version.warm().await {
            // Calls were quicker and made as many instances as may live. Their instances stay here after the calls.
            Err(failure) if failure.kind == Kind::Full => {
                tracing::debug!(plugin = %version.name, %failure, "plugin instance not created");
            }
            Err(failure) => tracing::warn!(plugin = %version.name, %failure, "plugin instance not created"),
            Ok(()) => {}
        }
    }
}
