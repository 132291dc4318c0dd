//! The engine of the bus that the configuration chose, as the traits that the rest knows.

use std::sync::Arc;

use crate::broker::memory::{MemoryBroker, MemoryRoster};
use crate::broker::redis::{RedisEngine, UrlError};
use crate::broker::roster::Roster;
use crate::broker::{Broker, Deliver};
use crate::config::{BusKind, Config};

/// What nodes share, and the way between them.
pub struct Engine {
    /// Node to node.
    pub broker: Arc<dyn Broker>,
    /// Who belongs to the cluster.
    pub roster: Arc<dyn Roster>,
}

/// Why an engine cannot be used at all; one that is only away is no reason.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Redis cannot be named.
    #[error(transparent)]
    Redis(#[from] UrlError),
}

impl Engine {
    /// As `config` says; what comes for this node goes to `receiver`.
    ///
    /// # Errors
    /// [`EngineError`].
    pub fn start(config: &Config, receiver: Arc<dyn Deliver>) -> Result<Self, EngineError> {
        Ok(match config.bus.kind {
            BusKind::Memory => Self {
                broker: Arc::new(MemoryBroker::new(config.node.id.clone(), receiver)),
                roster: Arc::new(MemoryRoster::default()),
            },
            BusKind::Redis => {
                let RedisEngine { bus, roster, .. } = RedisEngine::start(config, receiver)?;
                Self { broker: bus, roster }
            }
        })
    }
}
