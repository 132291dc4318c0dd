//! The circuit breaker of one plugin version: after repeated failures it asks the guest nothing for a while.
//!
//! closed → open, when so many of at most twice as many successive calls failed → half-open, after a rest: one call is let
//! through as a canary → closed if the guest answers it, else open again. Knows no guest and no role: [`Circuit`] is told
//! the number of a call and the time. While it is closed, a call costs one load of a flag that nobody writes.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use super::failure::{Failure, Kind};

/// When a circuit opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rules {
    /// So many failures among at most twice as many successive calls open it.
    pub(super) failures: usize,
    /// How long it stays open before a canary is let through.
    pub(super) rest: Duration,
}

/// The pure part: what follows from what.
#[derive(Debug)]
struct Circuit {
    rules: Rules,
    state: State,
    /// The numbers of the last calls that failed while it was closed, at most as many as open it.
    failed: VecDeque<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open { until: Instant },
    HalfOpen,
}

/// What a call may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leave {
    Go,
    GoAsCanary,
    Stay,
}

impl Circuit {
    fn new(rules: Rules) -> Self {
        Self { rules, state: State::Closed, failed: VecDeque::new() }
    }

    fn ask(&mut self, now: Instant) -> Leave {
        match self.state {
            State::Closed => Leave::Go,
            State::Open { until } if now >= until => {
                self.state = State::HalfOpen;
                Leave::GoAsCanary
            }
            State::Open { .. } | State::HalfOpen => Leave::Stay,
        }
    }

    /// A call that went while it was closed has failed. Whether that opened it.
    fn failed(&mut self, call: u64, now: Instant) -> bool {
        if self.state != State::Closed {
            return false;
        }
        self.failed.push_back(call);
        if self.failed.len() < self.rules.failures {
            return false;
        }
        let oldest = self.failed.pop_front().unwrap_or(call);
        // Calls that run at the same time may fail in another order than they began.
        let calls = usize::try_from(call.saturating_sub(oldest)).unwrap_or(usize::MAX);
        let opens = calls < self.rules.failures.saturating_mul(2);
        if opens {
            self.open(now);
        }
        opens
    }

    fn answered(&mut self) {
        self.state = State::Closed;
        self.failed.clear();
    }

    fn open(&mut self, now: Instant) {
        self.state = State::Open { until: now + self.rules.rest };
        self.failed.clear();
    }
}

/// The breaker of one version, shared by its calls.
#[derive(Debug)]
pub(super) struct Breaker {
    /// Whether it is anything but closed; written under the lock.
    shut: AtomicBool,
    circuit: Mutex<Circuit>,
    opened: AtomicU64,
}

impl Breaker {
    pub(super) fn new(rules: Rules) -> Self {
        Self { shut: AtomicBool::new(false), circuit: Mutex::new(Circuit::new(rules)), opened: AtomicU64::new(0) }
    }

    /// Lets a call through, or tells that it has to be answered without the guest.
    pub(super) fn pass(&self) -> Result<Pass<'_>, Failure> {
        if !self.shut.load(Ordering::Relaxed) {
            return Ok(Pass { canary: None });
        }
        match self.circuit.lock().ask(Instant::now()) {
            Leave::Go => Ok(Pass { canary: None }),
            Leave::GoAsCanary => Ok(Pass { canary: Some(self) }),
            Leave::Stay => Err(Failure::new(Kind::Open, "it failed too often, and is not asked for a while")),
        }
    }

    /// The guest failed in call number `call`. Whether that opened the circuit.
    pub(super) fn failed(&self, call: u64) -> bool {
        let mut circuit = self.circuit.lock();
        let opens = circuit.failed(call, Instant::now());
        if opens {
            self.shut.store(true, Ordering::Relaxed);
            self.opened.fetch_add(1, Ordering::Relaxed);
        }
        opens
    }

    /// `closed`, `open` or `half-open`.
    pub(super) fn state(&self) -> &'static str {
        match self.circuit.lock().state {
            State::Closed => "closed",
            State::Open { .. } => "open",
            State::HalfOpen => "half-open",
        }
    }

    /// Whether the next call would get no leave; once the rest is over one does, so that traffic finds out.
    pub(super) fn rests(&self) -> bool {
        !self.is_closed()
            && match self.circuit.lock().state {
                State::Open { until } => Instant::now() < until,
                State::Closed | State::HalfOpen => false,
            }
    }

    /// Whether the guest is asked.
    pub(super) fn is_closed(&self) -> bool {
        !self.shut.load(Ordering::Relaxed)
    }

    /// How often it opened from closed.
    pub(super) fn times_opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }
}

/// The leave of one call. A canary whose leave ends without [`Pass::answered`], for whatever reason, opens it again.
#[derive(Debug)]
pub(super) struct Pass<'a> {
    canary: Option<&'a Breaker>,
}

impl Pass<'_> {
    /// The guest answered. Whether that closed the circuit.
    pub(super) fn answered(mut self) -> bool {
        let Some(breaker) = self.canary.take() else { return false };
        let mut circuit = breaker.circuit.lock();
        circuit.answered();
        breaker.shut.store(false, Ordering::Relaxed);
        true
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if let Some(breaker) = self.canary {
            breaker.circuit.lock().open(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const RULES: Rules = Rules { failures: 4, rest: Duration::from_secs(5) };

    #[tokio::test(start_paused = true)]
    async fn it_opens_on_repeated_failures_and_not_on_rare_ones() {
        let now = Instant::now();
        let mut circuit = Circuit::new(RULES);
        // Every third call fails: four failures stand nine calls apart, and eight calls are twice as many as four.
        for call in (0..300).step_by(3) {
            assert!(!circuit.failed(call, now), "{call}");
        }
        // Every second one is as often as it takes.
        let opened: Vec<u64> = (302..310).step_by(2).filter(|call| circuit.failed(*call, now)).collect();
        assert_eq!(opened, [308]);
        assert_eq!(circuit.ask(now), Leave::Stay);
        assert!(!circuit.failed(400, now), "calls that were under way open nothing twice");
    }

    #[tokio::test(start_paused = true)]
    async fn failures_in_another_order_count_too() {
        let mut circuit = Circuit::new(RULES);
        let opened: Vec<bool> = [13, 12, 11, 10].into_iter().map(|call| circuit.failed(call, Instant::now())).collect();
        assert_eq!(opened, [false, false, false, true]);
    }

    fn open() -> Breaker {
        let breaker = Breaker::new(RULES);
        for call in 0..4 {
            breaker.pass().unwrap();
            assert_eq!(breaker.failed(call), call == 3);
        }
        breaker
    }

    #[tokio::test(start_paused = true)]
    async fn one_canary_closes_it() {
        let breaker = open();
        assert_eq!((breaker.state(), breaker.pass().unwrap_err().kind), ("open", Kind::Open));
        assert!(breaker.rests());
        advance(RULES.rest - Duration::from_millis(1)).await;
        assert!(breaker.pass().is_err());
        advance(Duration::from_millis(1)).await;
        assert!(!breaker.rests(), "somebody has to ask");
        let canary = breaker.pass().unwrap();
        assert_eq!(breaker.state(), "half-open");
        assert!(breaker.pass().is_err(), "one canary at a time");
        assert!(canary.answered());
        assert!(!breaker.pass().unwrap().answered(), "an ordinary call closes nothing");
        assert_eq!((breaker.state(), breaker.is_closed(), breaker.times_opened()), ("closed", true, 1));
        assert!(!breaker.failed(100), "old failures are forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn a_canary_that_fails_or_goes_away_opens_it_again() {
        let breaker = open();
        for _ in 0..3 {
            advance(RULES.rest).await;
            drop(breaker.pass().unwrap());
            assert_eq!(breaker.state(), "open");
            assert!(breaker.pass().is_err());
        }
        assert_eq!(breaker.times_opened(), 1);
    }
}
