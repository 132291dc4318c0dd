//! Cost of a time span: CPU of the server, of the generator and of the bus engine, and allocations.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::Subject;
use super::engine::{Engine, Usage};
use super::proc::{Cpu, own_cpu};
use crate::results::stats::float;

/// The start of a measured span.
#[derive(Debug)]
pub(crate) struct Meter {
    at: Instant,
    cpu: Cpu,
    own: Duration,
    allocations: Option<u64>,
    engine: Option<Usage>,
}

/// Times in seconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Cost {
    pub(crate) wall: f64,
    /// CPU of the server.
    pub(crate) user: f64,
    pub(crate) system: f64,
    /// CPU of the generator.
    pub(crate) generator: f64,
    /// Allocations of the server, if it counts them.
    pub(crate) allocations: Option<f64>,
    /// Usage of the engine between two nodes.
    pub(crate) engine: Option<EngineCost>,
}

/// Usage of the bus engine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct EngineCost {
    /// CPU in seconds.
    pub(crate) cpu: f64,
    /// Reads from clients; each may hold many commands.
    pub(crate) round_trips: f64,
    pub(crate) commands: f64,
}

impl Meter {
    /// # Errors
    /// The server is gone.
    pub(crate) fn start(subject: &Subject) -> anyhow::Result<Self> {
        let allocations = subject.allocations()?;
        let engine = subject.engine().map(Engine::usage).transpose()?;
        Ok(Self { at: Instant::now(), cpu: subject.cpu()?, own: own_cpu(), allocations, engine })
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.at.elapsed()
    }

    /// The cost from the start until now.
    ///
    /// # Errors
    /// The server is gone.
    pub(crate) fn stop(&self, subject: &Subject) -> anyhow::Result<Cost> {
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
    pub(crate) fn cpu(&self) -> f64 {
        self.user + self.system
    }
}
