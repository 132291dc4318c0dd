//! Statistics of one plugin version: counters for `GET /plugins`, and metric handles that are looked up once.

mod durations;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};
use parking_lot::Mutex;

use super::stats::durations::Durations;
use crate::plugin::Role;
use crate::plugin::guest::failure::{Cause, Failure, Kind};
use crate::telemetry::names;

/// One call in this many is timed.
const TIMED: u64 = 16;

/// This many failures of a version are logged each, then one in `LOGGED_THEN`: a plugin that always fails must not fill
/// a disk.
const LOGGED: u64 = 10;
const LOGGED_THEN: u64 = 1_000;

/// Outcome of a call with an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plugin) enum CallOutcome {
    Admit,
    Refuse,
    Abstain,
    Allow,
    Replace,
    Reject,
    Drop,
    Handled,
    EventDelivered,
    TimerDelivered,
    ReceiptDelivered,
    Allowed,
    Refused,
    Abstained,
}

const OUTCOMES: [(CallOutcome, Role, &str); 14] = [
    (CallOutcome::Admit, Role::Auth, "admit"),
    (CallOutcome::Refuse, Role::Auth, "refuse"),
    (CallOutcome::Abstain, Role::Auth, "abstain"),
    (CallOutcome::Allow, Role::Filter, "allow"),
    (CallOutcome::Replace, Role::Filter, "replace"),
    (CallOutcome::Reject, Role::Filter, "reject"),
    (CallOutcome::Drop, Role::Filter, "drop"),
    (CallOutcome::Handled, Role::Handler, "done"),
    (CallOutcome::EventDelivered, Role::Events, "done"),
    (CallOutcome::TimerDelivered, Role::Events, "rang"),
    (CallOutcome::ReceiptDelivered, Role::Events, "receipt"),
    (CallOutcome::Allowed, Role::Access, "allow"),
    (CallOutcome::Refused, Role::Access, "refuse"),
    (CallOutcome::Abstained, Role::Access, "abstain"),
];

/// Counters of one version.
pub(in crate::plugin) struct Stats {
    plugin: String,
    calls: AtomicU64,
    failures: AtomicU64,
    input_log: LogLimiter,
    last_failure: Mutex<Option<Failure>>,
    /// Answered calls by outcome.
    verdicts: [AtomicU64; OUTCOMES.len()],
    /// Unanswered calls by reason.
    unanswered: Mutex<BTreeMap<&'static str, u64>>,
    took: Durations,
    /// Peak memory of one instance, bytes.
    memory: AtomicUsize,
    memory_shown: Gauge,
    one_shots: Counter,
    outcomes: [Counter; OUTCOMES.len()],
    durations: [Histogram; Role::ALL.len()],
}

impl Stats {
    /// `input_log` belongs to the plugin: all its versions share it.
    pub(in crate::plugin) fn new(plugin: &str, roles: &[Role], input_log: LogLimiter) -> Self {
        let outcome = |(outcome, role, label): (CallOutcome, Role, &'static str)| {
            let counted = || counter!(names::PLUGIN_CALLS, "plugin" => plugin.to_owned(), "role" => role.as_str(), "outcome" => label);
            // Handlers get timers, too.
            let may = roles.contains(&role) || outcome == CallOutcome::TimerDelivered && roles.contains(&Role::Handler);
            if may { counted() } else { Counter::noop() }
        };
        let duration = |role: Role| {
            let timed = || histogram!(names::PLUGIN_SECONDS, "plugin" => plugin.to_owned(), "role" => role.as_str());
            if roles.contains(&role) { timed() } else { Histogram::noop() }
        };
        Self {
            plugin: plugin.to_owned(),
            calls: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            input_log,
            last_failure: Mutex::new(None),
            verdicts: [const { AtomicU64::new(0) }; OUTCOMES.len()],
            unanswered: Mutex::default(),
            took: Durations::new(),
            memory: AtomicUsize::new(0),
            memory_shown: gauge!(names::PLUGIN_MEMORY, "plugin" => plugin.to_owned()),
            one_shots: counter!(names::PLUGIN_ONE_SHOTS, "plugin" => plugin.to_owned()),
            outcomes: OUTCOMES.map(outcome),
            durations: Role::ALL.map(duration),
        }
    }

    /// Counts a call for which no warm instance was free.
    pub(in crate::plugin) fn count_one_shot(&self) {
        self.one_shots.increment(1);
    }

    /// Begins a call; the result is handed to [`Stats::answered`].
    pub(in crate::plugin) fn start_call(&self) -> Option<Instant> {
        let calls = self.calls.fetch_add(1, Ordering::Relaxed);
        calls.is_multiple_of(TIMED).then(Instant::now)
    }

    pub(in crate::plugin) fn answered(&self, begun: Option<Instant>, outcome: CallOutcome) {
        self.outcomes[outcome as usize].increment(1);
        self.verdicts[outcome as usize].fetch_add(1, Ordering::Relaxed);
        if let Some(begun) = begun {
            let ((_, role, _), took) = (OUTCOMES[outcome as usize], begun.elapsed());
            self.durations[role as usize].record(took);
            self.took.record(took);
        }
    }

    /// Records the memory of an instance after a call.
    pub(in crate::plugin) fn record_memory(&self, bytes: usize) {
        if bytes > self.memory.load(Ordering::Relaxed) {
            self.memory.fetch_max(bytes, Ordering::Relaxed);
            #[allow(clippy::cast_precision_loss, reason = "a gauge is a float")]
            self.memory_shown.set(bytes as f64);
        }
    }

    pub(in crate::plugin) fn failed(&self, role: Role, failure: &Failure) {
        let (kind, cause) = (failure.kind, failure.cause());
        *self.unanswered.lock().entry(kind.as_str()).or_default() += 1;
        count_unanswered(&self.plugin, role, kind);
        if kind.guest_not_called() {
            // Logged once, when the circuit opened or the source was set apart.
            return;
        }
        let (role, kind) = (role.as_str(), kind.as_str());
        *self.last_failure.lock() = Some(failure.clone());
        if cause == Cause::Caller {
            if self.input_log.is_due() {
                tracing::warn!(plugin = self.plugin, role, %failure, "caller refused: its input is not valid for the plugin");
            }
            return;
        }
        let before = self.failures.fetch_add(1, Ordering::Relaxed);
        if before < LOGGED || before.is_multiple_of(LOGGED_THEN) {
            let cause = cause.as_str();
            tracing::warn!(plugin = self.plugin, role, kind, cause, %failure, failures = before + 1, "plugin call failed");
        }
    }

    /// The newest failure, if there was one since the last call of this function.
    pub(in crate::plugin) fn take_last_failure(&self) -> Option<Failure> {
        self.last_failure.lock().take()
    }

    pub(in crate::plugin) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Calls that the guest answered.
    pub(in crate::plugin) fn answers(&self) -> u64 {
        self.verdicts.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    pub(in crate::plugin) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Number of calls by outcome, with an answer or without. Lists only outcomes that occurred.
    pub(in crate::plugin) fn outcomes(&self) -> BTreeMap<&'static str, u64> {
        let mut outcomes = self.unanswered.lock().clone();
        for ((_, _, label), count) in OUTCOMES.iter().zip(&self.verdicts) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                *outcomes.entry(label).or_default() += count;
            }
        }
        outcomes
    }

    /// Microseconds within which `percent` per cent of the timed calls were answered.
    pub(in crate::plugin) fn percentile(&self, percent: u64) -> Option<f64> {
        self.took.percentile(percent).map(|took| took.as_secs_f64() * 1e6)
    }

    pub(in crate::plugin) fn memory(&self) -> usize {
        self.memory.load(Ordering::Relaxed)
    }
}

/// Counts a call that got no answer.
pub(in crate::plugin) fn count_unanswered(plugin: &str, role: Role, kind: Kind) {
    let (role, outcome, cause) = (role.as_str(), kind.as_str(), kind.cause().as_str());
    let plugin = plugin.to_owned();
    counter!(names::PLUGIN_CALLS, "plugin" => plugin, "role" => role, "outcome" => outcome, "cause" => cause)
        .increment(1);
}

/// Time of a plugin's last log line about a caller's input: at most one line a minute.
#[derive(Debug, Clone, Default)]
pub(in crate::plugin) struct LogLimiter(Arc<Mutex<Option<tokio::time::Instant>>>);

impl LogLimiter {
    const INTERVAL: Duration = Duration::from_secs(60);

    /// True if a line may be logged now; the next one then waits.
    pub(in crate::plugin) fn is_due(&self) -> bool {
        let (mut last, now) = (self.0.lock(), tokio::time::Instant::now());
        let is_due = last.is_none_or(|last| now.saturating_duration_since(last) >= Self::INTERVAL);
        if is_due {
            *last = Some(now);
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn log_limiter_of_a_plugin_is_due_once_a_minute() {
        let (limiter, other) = (LogLimiter::default(), LogLimiter::default());
        let same = limiter.clone();
        assert_eq!([limiter.is_due(), same.is_due(), other.is_due()], [true, false, true]);
        tokio::time::advance(LogLimiter::INTERVAL).await;
        assert_eq!([same.is_due(), limiter.is_due()], [true, false]);
    }

    #[test]
    fn every_outcome_and_role_has_its_index() {
        for (index, (outcome, _, _)) in OUTCOMES.iter().enumerate() {
            assert_eq!(*outcome as usize, index);
        }
        for (index, role) in Role::ALL.into_iter().enumerate() {
            assert_eq!(role as usize, index);
        }
    }
}
