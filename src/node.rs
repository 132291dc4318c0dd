//! Connects hub, broker and plugins. No other module uses all three.
//!
//! Every entry point calls [`Node::publish`], which alone hands messages to the broker. Only the broker's delivery
//! ([`deliver::Delivery`]) reaches the hub. Knowledge about other nodes is in [`cluster`]. Independent of sockets, HTTP
//! and wasmtime.

pub mod cluster;
mod connect;
pub mod deliver;
mod devices;
mod drain;
pub mod effects;
#[cfg(test)]
pub(crate) mod fake;
mod kick;
mod meters;
mod presence;
mod publish;
mod query;
mod rooms;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

pub use crate::broker::Unavailable;
pub use crate::broker::roster::Member;
pub use crate::broker::source::{Delay, Place, Record, Source};
pub use crate::fate::{Fate, Published, Unjudged};
pub use crate::hub::{Binding, Connection, Socket};
pub use crate::plugin::{Call, Identity, Rejected, Status, Transport, Word, WordFault};
pub use query::{Counts, Filter, Seen, SeenUser};

use crate::broker::Broker;
use crate::broker::roster::Roster;
use crate::claim::Refusal;
use crate::code::Code;
use crate::config::Config;
use crate::hub::Hub;
use crate::id::{IdSequence, NodeId};
use crate::plugin::PluginHost;
use cluster::Cluster;
use presence::Turns;
use rooms::OpenRooms;

/// A running node.
pub struct Node {
    ids: Arc<IdSequence>,
    hub: Arc<Hub>,
    broker: Arc<dyn Broker>,
    plugins: Arc<dyn PluginHost>,
    cluster: Cluster,
    turns: Turns,
    auth_calls: Semaphore,
    access_calls: Semaphore,
    open_rooms: ArcSwap<OpenRooms>,
    rooms_per_connection: AtomicUsize,
    draining: AtomicBool,
    /// Faults of components (intakes, id reservation, the node itself), by name of the component.
    ailing: Mutex<BTreeMap<Arc<str>, String>>,
    meters: meters::Meters,
}

impl Node {
    /// Creates a node from `config`. The node joins no cluster yet: see [`Node::join_cluster`].
    #[must_use]
    pub fn new(
        config: &Config,
        ids: Arc<IdSequence>,
        hub: Arc<Hub>,
        (broker, roster): (Arc<dyn Broker>, Arc<dyn Roster>),
        plugins: Arc<dyn PluginHost>,
    ) -> Self {
        Self {
            ids,
            hub,
            broker,
            plugins,
            cluster: Cluster::new(config, roster),
            turns: Turns::default(),
            auth_calls: Semaphore::new(config.limits.auth_calls),
            access_calls: Semaphore::new(config.limits.auth_calls),
            open_rooms: ArcSwap::from_pointee(OpenRooms::new(&config.clients.open_rooms)),
            rooms_per_connection: AtomicUsize::new(config.clients.rooms),
            draining: AtomicBool::new(false),
            ailing: Mutex::default(),
            meters: meters::Meters::new(),
        }
    }

    /// Applies the part of `config` that can change at run time.
    pub fn reconfigure(&self, config: &Config) {
        self.rooms_per_connection.store(config.clients.rooms, Ordering::Relaxed);
        self.open_rooms.store(Arc::new(OpenRooms::new(&config.clients.open_rooms)));
    }

    /// Name of this node.
    #[must_use]
    pub fn id(&self) -> &NodeId {
        &self.cluster.me.id
    }

    /// Node number, part of the ids that this node creates.
    #[must_use]
    pub fn number(&self) -> u16 {
        self.cluster.me.number
    }

    /// Start time, in milliseconds since 1970.
    #[must_use]
    pub fn started_at(&self) -> i64 {
        self.cluster.me.started_at
    }

    /// Status of every plugin, by name.
    #[must_use]
    pub fn plugins(&self) -> Vec<Status> {
        self.plugins.status()
    }

    /// Sends an operator command to one plugin and returns the plugin's new status.
    ///
    /// # Errors
    /// [`WordFault`]: the command failed.
    pub async fn tell_plugin(&self, name: &str, word: Word) -> Result<Status, WordFault> {
        self.plugins.obey(name, word).await
    }

    /// Succeeds if the node should get traffic.
    ///
    /// # Errors
    /// One short sentence for each reason against it.
    pub fn readiness(&self) -> Result<(), Vec<String>> {
        let mut reasons = Vec::new();
        if self.is_draining() {
            reasons.push("the node is draining".to_owned());
        }
        reasons.extend(self.broker.faults());
        reasons.extend(self.cluster.lease.trouble());
        let plugins = self.plugins.status();
        if !plugins.iter().any(|p| p.state == "live" && p.roles.contains(&"auth")) {
            reasons.push("no auth plugin is live: every client is refused".to_owned());
        }
        for plugin in plugins.iter().filter(|p| p.state == "missing") {
            reasons.push(format!("plugin {}: its file is gone and its role refuses", plugin.name));
        }
        reasons.extend(self.plugins.faults());
        reasons.extend(self.ailing.lock().iter().map(|(way, why)| format!("{way}: {why}")));
        if reasons.is_empty() { Ok(()) } else { Err(reasons) }
    }

    /// Sets the fault of a component, or clears it with `None`. With any fault the node is not ready.
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

/// Refusal for a client whose request needs an engine that does not answer. The log has the engine's address and error;
/// the client does not see them.
fn unavailable(why: &Unavailable) -> Refusal {
    tracing::debug!(%why, "a client is refused");
    Refusal::new(Code::UNAVAILABLE, "unavailable: try again later")
}
