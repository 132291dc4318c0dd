//! Settings of the plugin host that the configuration file does not contain, and the reasons why it cannot start.

use std::path::PathBuf;
use std::sync::Arc;

use super::fetch::Fetch;
use super::history::HistoryReader;
use super::kv::{MemoryStore, Store};
use super::time::Time;
use crate::vital::Vitals;

/// Settings that the configuration file does not contain.
pub struct Options {
    /// Store for the small state of plugins.
    pub kv: Arc<dyn Store>,
    /// Kept messages; `None` = the node keeps none.
    pub history: Option<Arc<dyn HistoryReader>>,
    /// The network of plugins; `None` = plugins cannot send requests.
    pub fetch: Option<Arc<dyn Fetch>>,
    /// The time that guests see.
    pub time: Time,
    /// Where plugins are compiled.
    pub compile: CompileIn,
    /// Seed that makes the guests' random numbers repeatable; `None` takes the system's.
    pub seed: Option<u64>,
    /// Registry for the host's tasks and threads.
    pub vitals: Vitals,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kv: Arc::new(MemoryStore::default()),
            history: None,
            fetch: None,
            time: Time::default(),
            compile: CompileIn::default(),
            seed: None,
            vitals: Vitals::default(),
        }
    }
}

/// Where plugins are compiled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CompileIn {
    /// In this process, without limits: for an author's commands, and for programs other than `skylark`.
    #[default]
    ThisProcess,
    /// In a child process of this binary, which must be `skylark`, within the limits of `plugins.compile`.
    Child,
}

/// Why the plugin host cannot start.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The directory cannot be read.
    #[error("plugins.dir: {}: {error}", path.display())]
    Dir {
        /// The directory.
        path: PathBuf,
        /// The cause.
        error: std::io::Error,
    },
    /// wasmtime cannot be set up on this machine.
    #[error("the plugin engine cannot be created: {0}")]
    Engine(String),
    /// The system cannot create a thread.
    #[error("the thread of the plugin ticker cannot be created: {0}")]
    Thread(std::io::Error),
}
