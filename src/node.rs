//! The only place that sees hub, broker and plugins together.
//!
//! Every way in calls [`Node::publish`]; nothing else reaches a broker, and only the broker's loop back
//! ([`deliver::Delivery`]) reaches the hub. Knows no socket, no HTTP and no wasmtime.

mod connect;
pub mod deliver;
mod devices;
mod drain;
pub mod effects;
#[cfg(test)]
pub(crate) mod fake;
mod meters;
mod publish;
mod query;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::Semaphore;

pub use crate::broker::Unavailable;
pub use crate::broker::source::{Place, Record, Source};
pub use crate::hub::{Binding, Connection, Socket};
pub use crate::plugin::{Call, Identity, Rejected, Status, Transport, Word, WordFault};
pub use publish::{Fate, Published};

use crate::broker::Broker;
use crate::clock;
use crate::config::Config;
use crate::hub::Hub;
use crate::id::{IdSequence, NodeId};
use crate::plugin::PluginHost;

/// One running node.
pub struct Node {
    id: NodeId,
    number: u16,
    /// What clients are told; empty = only their listener knows.
    address: String,
    ids: Arc<IdSequence>,
    hub: Arc<Hub>,
    broker: Arc<dyn Broker>,
    plugins: Arc<dyn PluginHost>,
    auth_calls: Semaphore,
    rooms_per_connection: AtomicUsize,
    draining: AtomicBool,
    /// What is wrong with the ways in, by the name of the way.
    ailing: Mutex<BTreeMap<Arc<str>, String>>,
    started_at: i64,
    meters: meters::Meters,
}

impl Node {
    /// Puts the three together, as `config` says.
    #[must_use]
    pub fn new(
        config: &Config,
        ids: Arc<IdSequence>,
        hub: Arc<Hub>,
        broker: Arc<dyn Broker>,
        plugins: Arc<dyn PluginHost>,
    ) -> Self {
        Self {
            id: config.node.id.clone(),
            number: config.node.number,
            address: config.node.address.clone(),
            ids,
            hub,
            broker,
            plugins,
            auth_calls: Semaphore::new(config.limits.auth_calls),
            rooms_per_connection: AtomicUsize::new(config.clients.rooms),
            draining: AtomicBool::new(false),
            ailing: Mutex::default(),
            started_at: clock::now_millis(),
            meters: meters::Meters::new(),
        }
    }

    /// Takes what of `config` a running node can take.
    pub fn reconfigure(&self, config: &Config) {
        self.rooms_per_connection.store(config.clients.rooms, Ordering::Relaxed);
    }

    /// This node's name.
    #[must_use]
    pub fn id(&self) -> &NodeId {
        &self.id
    }

    /// The number inside the ids that it makes.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.number
    }

    /// When it started, milliseconds since 1970.
    #[must_use]
    pub fn started_at(&self) -> i64 {
        self.started_at
    }

    /// Every plugin, by name.
    #[must_use]
    pub fn plugins(&self) -> Vec<Status> {
        self.plugins.status()
    }

    /// Tells one plugin what the operator wants of it; its status afterwards.
    ///
    /// # Errors
    /// [`WordFault`] where it is not done.
    pub async fn tell_plugin(&self, name: &str, word: Word) -> Result<Status, WordFault> {
        self.plugins.obey(name, word).await
    }

    /// Whether the node should get traffic.
    ///
    /// # Errors
    /// One short sentence for each reason why it should not.
    pub fn readiness(&self) -> Result<(), Vec<String>> {
        let mut reasons = Vec::new();
        if self.is_draining() {
            reasons.push("the node is draining".to_owned());
        }
        let plugins = self.plugins.status();
        if !plugins.iter().any(|p| p.state == "live" && p.roles.contains(&"auth")) {
            reasons.push("no auth plugin is live: every client is refused".to_owned());
        }
        for plugin in plugins.iter().filter(|p| p.state == "missing") {
            reasons.push(format!("plugin {}: its file is gone and its role refuses", plugin.name));
        }
        reasons.extend(self.plugins.faults());
        reasons.extend(self.ailing.lock().iter().map(|(way, why)| format!("{way}: {why}")));
        reasons.extend(self.broker.faults());
        if reasons.is_empty() { Ok(()) } else { Err(reasons) }
    }

    /// A way in says why it does not work just now, or `None`: it does. As long as one ails the node is not ready.
    pub fn set_ailing(&self, way: &Arc<str>, why: Option<String>) {
        let mut ailing = self.ailing.lock();
        match why {
            Some(why) => ailing.insert(Arc::clone(way), why),
            None => ailing.remove(way),
        };
    }

    fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }
}
