//! Cost of a time span: CPU of the server, of the generator and of the bus engine, and allocations.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::engine::{Engine, Usage};
use super::proc::{Cpu, own_cpu};
use super::stats::float;
use super::subject::Subject;

/// The start of a measured span.
#[derive(Debug)]
pub(super) struct Meter {
    at: Instant,
    cpu: Cpu,
    own: Duration,
    allocations: Option<u64>,
    engine: Option<Usage>,
}

/// Times in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Cost {
    pub(super) wall: f64,
    /// CPU of the server.
    pub(super) user: f64,
    pub(super) system: f64,
    /// CPU of the generator.
    pub(super) generator: f64,
    /// Allocations of the server, if it counts them.
    pub(super) allocations: Option<f64>,
    /// Usage of the engine between two nodes.
    pub(super) engine: Option<EngineCost>,
}

/// Usage of the bus engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct EngineCost {
    /// CPU in seconds.
    pub(super) cpu: f64,
    /// Reads from clients; each may hold many commands.
    pub(super) round_trips: f64,
    pub(super) commands: f64,
}

impl Meter {
    /// # Errors
    /// The server is gone.
    pub(super) fn start(subject: &Subject) -> anyhow::Result<Self> {
        let allocations = subject.allocations()?;
        let engine = subject.engine().map(Engine::usage).transpose()?;
        Ok(Self { at: Instant::now(), cpu: subject.cpu()?, own: own_cpu(), allocations, engine })
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.at.elapsed()
    }

    /// The cost from the start until now.
    ///
    /// # Errors
    /// The server is gone.
    pub(super) fn stop(&self, subject: &Subject) -> anyhow::Result<Cost> {
        let (wall, own) = (self.at.elapsed(), own_cpu());
        let used = subject.cpu()?.since(&self.cpu);
        let allocations = subject.allocations()?.zip(self.allocations);
        let engine = subject.engine().map(Engine::usage).transpose()?;
        Ok(Cost {
            wall: wall.as_secs_f64(),
            user: used.user.as_secs_f64(),
            system: used.system.as_secs_f64(),
            generator: (own - self.own).as_secs_f64(),
            allocations: allocations.map(|(now, then)| float(now - then)),
            engine: engine.zip(self.engine.as_ref()).map(|(now, then)| now.since(then)),
        })
    }
}

impl Cost {
    /// CPU of the server.
    pub(super) fn cpu(&self) -> f64 {
        self.user + self.system
    }
}
