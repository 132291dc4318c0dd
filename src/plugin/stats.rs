//! What one plugin version did: counters for `GET /plugins` and metric handles, looked up once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use metrics::{Counter, Histogram, counter, histogram};
use parking_lot::Mutex;

use super::Role;
use super::failure::Failure;
use crate::telemetry::names;

/// One call in so many is timed.
const TIMED: u64 = 16;

/// So many failures of a version are logged each, then one in so many: a plugin that always fails must not fill a disk.
const LOGGED: u64 = 10;
const LOGGED_THEN: u64 = 1_000;

/// How a call that answered ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Admit,
    Refuse,
    Abstain,
    Allow,
    Replace,
    Reject,
    Drop,
    Handled,
    Told,
}

const OUTCOMES: [(Outcome, Role, &str); 9] = [
    (Outcome::Admit, Role::Auth, "admit"),
    (Outcome::Refuse, Role::Auth, "refuse"),
    (Outcome::Abstain, Role::Auth, "abstain"),
    (Outcome::Allow, Role::Filter, "allow"),
    (Outcome::Replace, Role::Filter, "replace"),
    (Outcome::Reject, Role::Filter, "reject"),
    (Outcome::Drop, Role::Filter, "drop"),
    (Outcome::Handled, Role::Handler, "done"),
    (Outcome::Told, Role::Events, "done"),
];

/// Counters of one version.
pub(super) struct Stats {
    plugin: String,
    calls: AtomicU64,
    failures: AtomicU64,
    last_failure: Mutex<Option<Failure>>,
    one_shots: Counter,
    outcomes: [Counter; OUTCOMES.len()],
    durations: [Histogram; Role::ALL.len()],
}

impl Stats {
    pub(super) fn new(plugin: &str, roles: &[Role]) -> Self {
        let outcome = |(_, role, label): (Outcome, Role, &'static str)| {
            let counted = || counter!(names::PLUGIN_CALLS, "plugin" => plugin.to_owned(), "role" => role.as_str(), "outcome" => label);
            if roles.contains(&role) { counted() } else { Counter::noop() }
        };
        let duration = |role: Role| {
            let timed = || histogram!(names::PLUGIN_SECONDS, "plugin" => plugin.to_owned(), "role" => role.as_str());
            if roles.contains(&role) { timed() } else { Histogram::noop() }
        };
        Self {
            plugin: plugin.to_owned(),
            calls: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            last_failure: Mutex::new(None),
            one_shots: counter!(names::PLUGIN_ONE_SHOTS, "plugin" => plugin.to_owned()),
            outcomes: OUTCOMES.map(outcome),
            durations: Role::ALL.map(duration),
        }
    }

    /// No warm instance was free.
    pub(super) fn one_shot(&self) {
        self.one_shots.increment(1);
    }

    /// A call begins; the answer is handed back to [`Stats::answered`].
    pub(super) fn called(&self) -> Option<Instant> {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        calls.is_multiple_of(TIMED).then(Instant::now)
    }

    pub(super) fn answered(&self, begun: Option<Instant>, outcome: Outcome) {
        self.outcomes[outcome as usize].increment(1);
        if let Some(begun) = begun {
            let (_, role, _) = OUTCOMES[outcome as usize];
            self.durations[role as usize].record(begun.elapsed());
        }
    }

    pub(super) fn failed(&self, role: Role, failure: &Failure) {
        let before = self.failures.fetch_add(1, Ordering::Relaxed);
        let (role, kind) = (role.as_str(), failure.kind.as_str());
        counter!(names::PLUGIN_CALLS, "plugin" => self.plugin.clone(), "role" => role, "outcome" => kind).increment(1);
        if before < LOGGED || before.is_multiple_of(LOGGED_THEN) {
            tracing::warn!(plugin = self.plugin, role, kind, %failure, failures = before + 1, "a plugin call failed");
        }
        *self.last_failure.lock() = Some(failure.clone());
    }

    /// The newest failure, if there was one since the last look.
    pub(super) fn take_last_failure(&self) -> Option<Failure> {
        self.last_failure.lock().take()
    }

    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_outcome_and_role_has_its_place() {
        for (index, (outcome, _, _)) in OUTCOMES.iter().enumerate() {
            assert_eq!(*outcome as usize, index);
        }
        for (index, role) in Role::ALL.into_iter().enumerate() {
            assert_eq!(role as usize, index);
        }
    }
}
