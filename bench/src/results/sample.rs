//! The result of one measurement, and the figures derived from it.

use serde::{Deserialize, Serialize};

use super::stats::{Latency, float};
use crate::subject::meter::Cost;
use crate::subject::proc::Memory;

/// One measurement.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Sample {
    pub(crate) work: Work,
    pub(crate) cost: Cost,
    /// Memory of the server at the end.
    pub(crate) memory: Memory,
    /// Memory that one connection adds.
    pub(crate) per_connection: Option<PerConnection>,
    pub(crate) latency: Option<Latency>,
    /// Reasons that make the sample invalid; empty = valid.
    pub(crate) invalid: Vec<String>,
}

/// The measured work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Work {
    pub(crate) unit: Unit,
    /// Number of units.
    pub(crate) count: u64,
    /// Messages published for it.
    pub(crate) publishes: u64,
    /// Requests that contained the messages.
    pub(crate) requests: u64,
    /// Bytes of the received frames, including headers.
    pub(crate) bytes: u64,
}

/// Unit of work.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Unit {
    #[default]
    Delivery,
    Connection,
    Call,
}

/// Memory that one connection adds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) struct PerConnection {
    pub(crate) resident: f64,
    pub(crate) anonymous: f64,
}

/// A figure of a sample, used to compare rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Figure {
    /// Deliveries (or connects) per second of server CPU.
    PerCpuSecond,
    /// Per second of wall-clock time.
    PerSecond,
    /// Microseconds of server CPU per unit.
    CpuMicros,
    /// Microseconds.
    P99,
    /// Bytes of anonymous memory that a connection adds.
    AnonymousPerConnection,
    /// Milliseconds of server CPU per second.
    CpuMillisPerSecond,
    AllocationsPerDelivery,
    AllocationsPerPublish,
    /// Microseconds of engine CPU per unit.
    EngineMicros,
    /// Round trips to the engine per request.
    RoundTripsPerRequest,
}

impl Sample {
    /// Computes the figure; NaN if the sample lacks it.
    pub(crate) fn figure(&self, figure: Figure) -> f64 {
        let cpu = self.cost.cpu();
        let some = |count: u64| if count == 0 { f64::NAN } else { float(count) };
        let count = some(self.work.count);
        let allocations = self.cost.allocations.unwrap_or(f64::NAN);
        match figure {
            Figure::PerCpuSecond => count / cpu,
            Figure::PerSecond => count / self.cost.wall,
            Figure::CpuMicros => cpu * 1e6 / count,
            Figure::P99 => self.latency.map_or(f64::NAN, |latency| latency.p99),
            Figure::AnonymousPerConnection => self.per_connection.map_or(f64::NAN, |each| each.anonymous),
            Figure::CpuMillisPerSecond => cpu * 1e3 / self.cost.wall,
            Figure::AllocationsPerDelivery => allocations / count,
            Figure::AllocationsPerPublish => allocations / some(self.work.publishes),
            Figure::EngineMicros => self.cost.engine.map_or(f64::NAN, |engine| engine.cpu * 1e6 / count),
            Figure::RoundTripsPerRequest => {
                self.cost.engine.map_or(f64::NAN, |engine| engine.round_trips / some(self.work.requests))
            }
        }
    }

    /// Cores used by the generator.
    pub(crate) fn generator_share(&self) -> f64 {
        self.cost.generator / self.cost.wall
    }
}

impl PerConnection {
    /// Memory added by `count` connections, per connection.
    pub(crate) fn added(before: Memory, after: Memory, count: u32) -> Self {
        let each = |before: u64, after: u64| (float(after) - float(before)) / f64::from(count);
        Self { resident: each(before.resident, after.resident), anonymous: each(before.anonymous, after.anonymous) }
    }
}

#[cfg(test)]
impl Sample {
    /// A sample of `count` deliveries in `cpu` seconds of CPU.
    pub(crate) fn of(count: u64, cpu: f64) -> Self {
        let work = Work { count, publishes: count, ..Work::default() };
        let cost = Cost { wall: 2.0, user: cpu / 4.0, system: cpu * 3.0 / 4.0, generator: 1.0, ..Cost::default() };
        Self { work, cost, ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_follow_from_counts() {
        let mut sample = Sample::of(1_000_000, 0.5);
        assert_eq!(sample.figure(Figure::PerCpuSecond), 2_000_000.0);
        assert_eq!(sample.figure(Figure::PerSecond), 500_000.0);
        assert_eq!(sample.figure(Figure::CpuMicros), 0.5);
        assert_eq!(sample.figure(Figure::CpuMillisPerSecond), 250.0);
        assert_eq!(sample.generator_share(), 0.5);
        assert!(sample.figure(Figure::P99).is_nan() && sample.figure(Figure::AllocationsPerPublish).is_nan());
        sample.work.publishes = 1_000;
        sample.cost.allocations = Some(500_000.0);
        let allocations = [Figure::AllocationsPerDelivery, Figure::AllocationsPerPublish].map(|f| sample.figure(f));
        assert_eq!(allocations, [0.5, 500.0]);
    }

    #[test]
    fn a_connection_adds_its_part_of_the_growth() {
        let memory = |resident, anonymous| Memory { resident, anonymous };
        let added = PerConnection::added(memory(1_000, 500), memory(21_000, 2_500), 10);
        assert_eq!((added.resident, added.anonymous), (2_000.0, 200.0));
    }
}
