//! Everything over Kafka: the bus between nodes, the roster of the cluster, an intake's topic. librdkafka's types stay here.
//!
//! Knows no connection and no plugin. How it keeps the contracts, and where it cannot: docs/decisions/0011.

mod address;
mod bus;
mod census;
pub mod check;
mod codecs;
mod link;
mod login;
mod native;
mod roster;
pub mod skipping;
mod source;
mod tail;

pub use bus::{BusOptions, KafkaBus};
pub use census::Census;
pub use link::Link;
pub use roster::KafkaRoster;
pub use source::KafkaSource;

use std::sync::Arc;

use super::{Deliver, Unavailable};
use crate::config::Config;
use crate::vital::Vitals;

/// One node's ends of everything that nodes share over Kafka.
pub struct KafkaEngine {
    /// Node to node.
    pub bus: Arc<KafkaBus>,
    /// Who belongs to the cluster.
    pub roster: Arc<KafkaRoster>,
    /// The way to Kafka.
    pub link: Link,
}

impl KafkaEngine {
    /// As `config` says, receiving for `receiver`, with its tasks registered in `vitals`. Kafka need not be there: what has to wait for it waits, and says so.
    /// Within a runtime only.
    ///
    /// # Errors
    /// A property that librdkafka does not know, or cannot do in this build.
    pub fn start(config: &Config, receiver: Arc<dyn Deliver>, vitals: &Vitals) -> Result<Self, Unavailable> {
        let (node, bus) = (&config.node, &config.bus);
        let link = Link::of(&bus.kafka, &node.id);
        let census = Arc::new(Census::default());
        let options = BusOptions {
            node: node.id.clone(),
            number: node.number,
            prefix: bus.prefix.clone(),
            record_bytes: bus.record_bytes,
            partitions: bus.kafka.partitions,
        };
        Ok(Self {
            roster: Arc::new(KafkaRoster::start(&link, &bus.prefix, &node.id, Arc::clone(&census), vitals)?),
            bus: Arc::new(KafkaBus::start(&link, options, census, receiver, vitals)?),
            link,
        })
    }
}
