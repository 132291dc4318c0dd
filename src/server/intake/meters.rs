//! Metrics of an intake. The handles are created once.

use metrics::{Counter, Gauge, counter, gauge};

use super::batch::DeadLetterKind;
use crate::clock;
use crate::telemetry::names;

/// The meters of one intake.
pub(super) struct Meters {
    taken: Counter,
    accepted: Counter,
    retried: Counter,
    dead: [Counter; DeadLetterKind::ALL.len()],
    lag: Gauge,
    up: Gauge,
    paused: Gauge,
    last_error: Gauge,
}

impl Meters {
    pub(super) fn new(intake: &str) -> Self {
        let name = || intake.to_owned();
        let dead = |kind: DeadLetterKind| counter!(names::INTAKE_DEAD, "intake" => name(), "reason" => kind.as_str());
        Self {
            taken: counter!(names::INTAKE_TAKEN, "intake" => name()),
            accepted: counter!(names::INTAKE_ACCEPTED, "intake" => name()),
            retried: counter!(names::INTAKE_RETRIED, "intake" => name()),
            dead: DeadLetterKind::ALL.map(dead),
            lag: gauge!(names::INTAKE_LAG, "intake" => name()),
            up: gauge!(names::INTAKE_UP, "intake" => name()),
            paused: gauge!(names::INTAKE_PAUSED, "intake" => name()),
            last_error: gauge!(names::INTAKE_LAST_ERROR, "intake" => name()),
        }
    }

    pub(super) fn taken(&self, records: usize) {
        self.taken.increment(records as u64);
    }

    pub(super) fn accepted(&self, messages: usize) {
        self.accepted.increment(messages as u64);
    }

    pub(super) fn retried(&self) {
        self.retried.increment(1);
    }

    pub(super) fn dead_lettered(&self, kind: DeadLetterKind) {
        let at = DeadLetterKind::ALL.iter().position(|other| *other == kind).unwrap_or_default();
        self.dead[at].increment(1);
    }

    pub(super) fn lag(&self, records: Option<u64>) {
        if let Some(records) = records {
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
            self.lag.set(records as f64);
        }
    }

    pub(super) fn up(&self, is_up: bool) {
        self.up.set(f64::from(u8::from(is_up)));
    }

    pub(super) fn paused(&self, is_paused: bool) {
        self.paused.set(f64::from(u8::from(is_paused)));
    }

    pub(super) fn failed(&self) {
        self.last_error.set(clock::since_1970().as_secs_f64());
    }
}
