//! What one measurement found, and the figures that follow from it.

use serde::{Deserialize, Serialize};

use super::stats::{Latency, float};

/// What is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Unit {
    Delivery,
    Connection,
}

/// One measurement. Times in seconds, memory in bytes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Sample {
    pub(super) unit: Unit,
    pub(super) count: u64,
    pub(super) requests: u64,
    /// Bytes of the frames that came, heads included.
    pub(super) bytes: u64,
    pub(super) wall: f64,
    /// CPU of the server.
    pub(super) user: f64,
    pub(super) system: f64,
    /// CPU of the generator.
    pub(super) generator: f64,
    pub(super) resident: f64,
    pub(super) anonymous: f64,
    /// Memory that one connection adds.
    pub(super) per_connection: Option<PerConnection>,
    pub(super) latency: Option<Latency>,
    /// Why it does not count; empty = it does.
    pub(super) invalid: Vec<String>,
}

/// Memory that one idle connection adds, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct PerConnection {
    pub(super) resident: f64,
    pub(super) anonymous: f64,
}

/// A figure of a sample, by which rows are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Figure {
    /// Deliveries (or connects) per second of server CPU.
    PerCpuSecond,
    /// Per second of time.
    PerSecond,
    /// Microseconds of server CPU for one.
    CpuMicros,
    /// Microseconds.
    P99,
    /// Bytes of anonymous memory that a connection adds.
    AnonymousPerConnection,
    /// Milliseconds of server CPU per second.
    CpuMillisPerSecond,
    /// Bytes of anonymous memory of the whole process.
    Anonymous,
}

impl Sample {
    /// NaN where the sample has no such figure.
    pub(super) fn figure(&self, figure: Figure) -> f64 {
        let cpu = self.user + self.system;
        let count = if self.count == 0 { f64::NAN } else { float(self.count) };
        match figure {
            Figure::PerCpuSecond => count / cpu,
            Figure::PerSecond => count / self.wall,
            Figure::CpuMicros => cpu * 1e6 / count,
            Figure::P99 => self.latency.map_or(f64::NAN, |latency| latency.p99),
            Figure::AnonymousPerConnection => self.per_connection.map_or(f64::NAN, |each| each.anonymous),
            Figure::CpuMillisPerSecond => cpu * 1e3 / self.wall,
            Figure::Anonymous => self.anonymous,
        }
    }

    /// Cores that the generator used.
    pub(super) fn generator_share(&self) -> f64 {
        self.generator / self.wall
    }
}

#[cfg(test)]
pub(super) fn example(count: u64, cpu: f64) -> Sample {
    Sample {
        unit: Unit::Delivery,
        count,
        requests: count,
        bytes: 200 * count,
        wall: 2.0,
        user: cpu / 4.0,
        system: cpu * 3.0 / 4.0,
        generator: 1.0,
        resident: 0.0,
        anonymous: 0.0,
        per_connection: None,
        latency: None,
        invalid: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_follow_from_counts() {
        let sample = example(1_000_000, 0.5);
        assert_eq!(sample.figure(Figure::PerCpuSecond), 2_000_000.0);
        assert_eq!(sample.figure(Figure::PerSecond), 500_000.0);
        assert_eq!(sample.figure(Figure::CpuMicros), 0.5);
        assert_eq!(sample.figure(Figure::CpuMillisPerSecond), 250.0);
        assert_eq!(sample.generator_share(), 0.5);
        assert!(sample.figure(Figure::P99).is_nan());
    }
}
