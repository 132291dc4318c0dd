//! Circuit breaker of one plugin version. It stops calling a guest that fails for many sources, and sets apart a source
//! if only that source's calls fail.
//!
//! - closed → open: the configured number of failures occurred among at most twice as many successive calls. They came
//!   from at least three sources and from more than half of those seen lately.
//! - open → half-open: after a rest, one call is let through as a canary.
//! - half-open → closed if the guest answers the canary, else open again.
//!
//! The breaker knows no guest and no role. It receives the number of a call, its source and the time.
//!
//! While nothing fails, a call costs one load of a flag that no call writes, and a sample of the sources is marked as
//! seen. After a failure the sources of all calls are marked, until a minute has passed without another one.

mod failing;
mod seen;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::source::{CallSource, SourceId};
use crate::plugin::Apart;
use crate::plugin::guest::failure::{Failure, Kind};
use failing::{FailingSources, SourceCount};
use seen::{RecentSources, Sampler, Seconds, WINDOW};

/// When a circuit opens, and for how long it stays open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plugin) struct Rules {
    /// This many failures among at most twice as many successive calls open the circuit.
    pub(in crate::plugin) failures: usize,
    /// How long the circuit stays open before a canary is let through, and how long a source is set apart.
    pub(in crate::plugin) rest: Duration,
}

/// Fewest failing sources that can open a circuit.
const SOURCES: usize = 3;
/// Failures that set a source apart. Where few sources call, each one need not fail more often to open the circuit.
const FAILURES_OF_ONE: usize = 3;

/// No call failed lately.
const QUIET: u8 = 0;
/// A call failed lately: the sources of all calls are marked.
const WATCHING: u8 = 1;
/// The circuit is not closed.
const NOT_CLOSED: u8 = 2;

/// The state under the lock.
#[derive(Debug)]
struct Circuit {
    state: State,
    /// Numbers of the last calls that failed while the circuit was closed, at most as many as open it.
    failed: VecDeque<u64>,
    sources: FailingSources,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Instant },
    HalfOpen,
}

/// Decision about a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CallDecision {
    Call,
    CallAsCanary,
    CircuitOpen,
    SourceSetApart,
}

/// Consequence of a failure.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::plugin) struct Consequence {
    /// It opened the circuit.
    pub(in crate::plugin) opened: bool,
    /// It set the source apart.
    pub(in crate::plugin) apart: bool,
}

impl Circuit {
    fn decide(&mut self, source: SourceId, now: Instant, rest: Duration) -> CallDecision {
        match self.state {
            State::Closed if self.sources.is_set_apart(source, now) => CallDecision::SourceSetApart,
            State::Closed => CallDecision::Call,
            // A source that failed becomes the canary only if no other source calls: its failure says nothing about the
            // others.
            State::Open { until } if now >= until && (now >= until + rest || !self.sources.contains(source)) => {
                self.state = State::HalfOpen;
                CallDecision::CallAsCanary
            }
            State::Open { .. } | State::HalfOpen => CallDecision::CircuitOpen,
        }
    }

    /// Records a failed call that was let through while the circuit was closed. Keeps the newest `most` of them.
    fn remember(&mut self, call: u64, most: usize) {
        self.failed.push_back(call);
        while self.failed.len() > most {
            self.failed.pop_front();
        }
    }

    /// True if the last `needed` failures were among at most twice as many successive calls, `call` being the newest.
    fn is_dense(&self, call: u64, needed: usize) -> bool {
        let oldest = self.failed.len().checked_sub(needed).and_then(|at| self.failed.get(at));
        // Concurrent calls may fail in another order than they began.
        let span = |oldest: &u64| usize::try_from(call.saturating_sub(*oldest)).unwrap_or(usize::MAX);
        oldest.is_some_and(|oldest| span(oldest) < needed.saturating_mul(2))
    }

    fn open(&mut self, until: Instant) {
        self.state = State::Open { until };
        self.failed.clear();
    }
}

/// The breaker of one version, shared by its calls.
#[derive(Debug)]
pub(in crate::plugin) struct Breaker {
    rules: Rules,
    /// QUIET, WATCHED or SHUT; written under the lock.
    mode: AtomicU8,
    sampler: Sampler,
    started: Instant,
    recent: RecentSources,
    /// Second at which the breaker is quiet again.
    quiet_at: AtomicU32,
    circuit: Mutex<Circuit>,
    opened: AtomicU64,
    set_apart: AtomicU64,
    evidence: AtomicU64,
}

impl Breaker {
    pub(in crate::plugin) fn new(rules: Rules) -> Self {
        Self {
            rules,
            mode: AtomicU8::new(QUIET),
            sampler: Sampler::new(),
            started: Instant::now(),
            recent: RecentSources::new(),
            quiet_at: AtomicU32::new(0),
            circuit: Mutex::new(Circuit {
                state: State::Closed,
                failed: VecDeque::new(),
                sources: FailingSources::default(),
            }),
            opened: AtomicU64::new(0),
            set_apart: AtomicU64::new(0),
            evidence: AtomicU64::new(0),
        }
    }

    /// Lets call number `call` through, or returns the failure to answer instead of calling the guest.
    pub(in crate::plugin) fn permit<'a>(
        &self,
        call: u64,
        source: impl FnOnce() -> CallSource<'a>,
    ) -> Result<CallPermit<'_>, Failure> {
        if self.mode.load(Ordering::Relaxed) != QUIET {
            return self.permit_watched(source().id());
        }
        if self.sampler.is_due(call) {
            let (source, now) = (source().id(), Instant::now());
            self.recent.mark(source, self.second(now));
            self.sampler.took(call, now.saturating_duration_since(self.started), source.source_hash);
        }
        Ok(CallPermit { breaker: None, source: None })
    }

    fn permit_watched(&self, source: SourceId) -> Result<CallPermit<'_>, Failure> {
        let now = Instant::now();
        let second = self.second(now);
        self.recent.mark(source, second);
        let mut circuit = self.circuit.lock();
        if circuit.state == State::Closed && second >= self.quiet_at.load(Ordering::Relaxed) {
            circuit.sources.clear();
            self.mode.store(QUIET, Ordering::Relaxed);
            return Ok(CallPermit { breaker: None, source: None });
        }
        match circuit.decide(source, now, self.rules.rest) {
            CallDecision::Call => {
                let known = circuit.sources.contains(source).then_some(source);
                Ok(CallPermit { breaker: known.map(|_| self), source: known })
            }
            CallDecision::CallAsCanary => Ok(CallPermit { breaker: Some(self), source: None }),
            CallDecision::CircuitOpen => {
                Err(Failure::new(Kind::Open, "its circuit is open: calls of several sources failed"))
            }
            CallDecision::SourceSetApart => {
                Err(Failure::new(Kind::Apart, "this source is set apart: its last calls failed"))
            }
        }
    }

    /// Records that the guest failed in call number `call`.
    pub(in crate::plugin) fn failed(&self, call: u64, source: &CallSource<'_>) -> Consequence {
        let (id, now) = (source.id(), Instant::now());
        let second = self.second(now);
        self.recent.mark(id, second);
        let mut circuit = self.circuit.lock();
        let apart = circuit.sources.add(id, || source.to_string(), (now, second), self.rules.rest);
        self.quiet_at.store(second + WINDOW, Ordering::Relaxed);
        self.set_apart.fetch_add(u64::from(apart), Ordering::Relaxed);
        if circuit.state != State::Closed {
            return Consequence { opened: false, apart };
        }
        self.mode.store(WATCHING, Ordering::Relaxed);
        // Where few sources call, each of them is set apart before it can fail more often.
        let failing = circuit.sources.failed(second);
        let needed = self.rules.failures.min(FAILURES_OF_ONE * failing.sources.max(1));
        circuit.remember(call, self.rules.failures);
        let opened = circuit.is_dense(call, needed) && self.is_general(failing, second);
        if opened {
            circuit.open(now + self.rules.rest);
            self.mode.store(NOT_CLOSED, Ordering::Relaxed);
            self.opened.fetch_add(1, Ordering::Relaxed);
        }
        Consequence { opened, apart }
    }

    /// True if the failure is general: at least three sources failed, and more than half of those seen.
    fn is_general(&self, failing: SourceCount, second: Seconds) -> bool {
        let (sources, groups) = self.recent.count(second);
        failing.sources >= SOURCES && failing.slots * 2 > sources && failing.groups * 2 > groups
    }

    /// Records that the guest alone caused a failure of this source: evidence against a version on probation.
    pub(in crate::plugin) fn record_evidence(&self, source: SourceId) {
        let second = self.second(Instant::now());
        self.circuit.lock().sources.record_evidence(source, second);
        self.evidence.fetch_add(1, Ordering::Relaxed);
    }

    /// How often evidence was recorded.
    pub(in crate::plugin) fn evidence_count(&self) -> u64 {
        self.evidence.load(Ordering::Relaxed)
    }

    /// True if the evidence is enough for a rollback: the circuit is not closed, and the guest alone caused the
    /// failures of so many sources that the rule would open it.
    pub(in crate::plugin) fn warrants_rollback(&self) -> bool {
        let second = self.second(Instant::now());
        let circuit = self.circuit.lock();
        circuit.state != State::Closed && self.is_general(circuit.sources.evidence(second), second)
    }

    /// `closed`, `open` or `half-open`.
    pub(in crate::plugin) fn state(&self) -> &'static str {
        match self.circuit.lock().state {
            State::Closed => "closed",
            State::Open { .. } => "open",
            State::HalfOpen => "half-open",
        }
    }

    /// True if the next call would be refused. False once the rest is over, so that traffic can probe the guest.
    pub(in crate::plugin) fn refuses_calls(&self) -> bool {
        !self.is_closed()
            && match self.circuit.lock().state {
                State::Open { until } => Instant::now() < until,
                State::Closed | State::HalfOpen => false,
            }
    }

    /// True while calls reach the guest.
    pub(in crate::plugin) fn is_closed(&self) -> bool {
        self.mode.load(Ordering::Relaxed) != NOT_CLOSED
    }

    /// How often the circuit opened from closed.
    pub(in crate::plugin) fn times_opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// How often a source was set apart.
    pub(in crate::plugin) fn times_set_apart(&self) -> u64 {
        self.set_apart.load(Ordering::Relaxed)
    }

    /// The number of sources that are set apart now, and at most `most` of them, newest first.
    pub(in crate::plugin) fn apart(&self, most: usize) -> (usize, Vec<Apart>) {
        match self.mode.load(Ordering::Relaxed) {
            QUIET => (0, Vec::new()),
            _ => self.circuit.lock().sources.apart(Instant::now(), most),
        }
    }

    /// Serves every source again and forgets its failures. An open circuit stays open.
    pub(in crate::plugin) fn readmit(&self) {
        let mut circuit = self.circuit.lock();
        circuit.sources.clear();
        circuit.failed.clear();
    }

    fn second(&self, now: Instant) -> Seconds {
        let seconds = now.saturating_duration_since(self.started).as_secs();
        Seconds::try_from(seconds).unwrap_or(Seconds::MAX - WINDOW - 1).saturating_add(1)
    }
}

/// Permission of one call. If a canary's permission is dropped without [`CallPermit::answered`], the circuit opens
/// again.
#[derive(Debug)]
pub(in crate::plugin) struct CallPermit<'a> {
    /// Set for a canary, and for a source that failed lately.
    breaker: Option<&'a Breaker>,
    /// The source that failed lately; none for a canary.
    source: Option<SourceId>,
}

impl CallPermit<'_> {
    /// Records that the guest answered. Returns true if the answer closed the circuit.
    pub(in crate::plugin) fn answered(mut self) -> bool {
        let Some(breaker) = self.breaker.take() else { return false };
        let mut circuit = breaker.circuit.lock();
        if let Some(source) = self.source {
            circuit.sources.answered(source, Instant::now());
            return false;
        }
        circuit.state = State::Closed;
        circuit.failed.clear();
        breaker.mode.store(WATCHING, Ordering::Relaxed);
        true
    }
}

impl Drop for CallPermit<'_> {
    fn drop(&mut self) {
        if let (Some(breaker), None) = (self.breaker, self.source) {
            let until = Instant::now() + breaker.rules.rest;
            breaker.circuit.lock().open(until);
        }
    }
}

#[cfg(test)]
mod tests;
