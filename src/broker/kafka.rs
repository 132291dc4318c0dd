//! Kafka as the engine: the bus between nodes, the roster of the cluster and the topics of intakes. librdkafka's types
//! stay in this module.
//!
//! Independent of connections and plugins. docs/decisions/0011 describes how it keeps the contracts and its limits.

mod address;
mod bus;
pub mod check;
mod clients;
mod codecs;
mod intake;
mod live_nodes;
mod login;
mod native;
mod roster;
mod topic_reader;

pub use bus::{BusOptions, KafkaBus, skipping};
pub use clients::KafkaClients;
pub use intake::KafkaSource;
pub use live_nodes::LiveNodes;
pub use roster::KafkaRoster;

use std::sync::Arc;

use super::{Deliver, Unavailable};
use crate::config::Config;
use crate::vital::Vitals;

/// Kafka implementations of one node.
pub struct KafkaEngine {
    /// Bus between nodes.
    pub bus: Arc<KafkaBus>,
    /// Membership of the cluster.
    pub roster: Arc<KafkaRoster>,
    /// Connection settings of Kafka.
    pub clients: KafkaClients,
}

impl KafkaEngine {
    /// Starts the engine as configured, delivers to `receiver` and registers its tasks in `vitals`. Kafka need not be
    /// reachable: calls that depend on it wait and report it as unavailable. Must run within a Tokio runtime.
    ///
    /// # Errors
    /// A property is unknown to librdkafka or not supported by this build.
    pub fn start(config: &Config, receiver: Arc<dyn Deliver>, vitals: &Vitals) -> Result<Self, Unavailable> {
        let (node, bus) = (&config.node, &config.bus);
        let clients = KafkaClients::of(&bus.kafka, &node.id);
        let live_nodes = Arc::new(LiveNodes::default());
        let options = BusOptions {
            node: node.id.clone(),
            number: node.number,
            prefix: bus.prefix.clone(),
            record_bytes: bus.record_bytes,
            partitions: bus.kafka.partitions,
        };
        Ok(Self {
            roster: Arc::new(KafkaRoster::start(&clients, &bus.prefix, &node.id, Arc::clone(&live_nodes), vitals)?),
            bus: Arc::new(KafkaBus::start(&clients, options, live_nodes, receiver, vitals)?),
            clients,
        })
    }
}
