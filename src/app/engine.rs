//! The engine of the bus that the configuration chose, as the traits that the rest knows.

use std::sync::Arc;

use crate::broker::kafka::check::{check as check_kafka, check_topic};
use crate::broker::kafka::{KafkaEngine, KafkaSource, Link};
use crate::broker::memory::{MemoryBroker, MemoryRoster};
use crate::broker::redis::check::check as check_redis;
use crate::broker::redis::check_intake::{check_channel, check_stream};
use crate::broker::redis::{Channel, ChannelSettings, Client, RedisEngine, Stream, StreamSettings, UrlError};
use crate::broker::roster::Roster;
use crate::broker::source::Source;
use crate::broker::{Broker, Deliver, Unavailable};
use crate::config::{Bus, BusKind, Config, Intake, IntakeKind};
use crate::plugin::kv::Store;
use crate::server::intake::Feed;

use super::kv::RedisStore;

/// What nodes share, and the way between them.
pub struct Engine {
    /// Node to node.
    pub broker: Arc<dyn Broker>,
    /// Who belongs to the cluster.
    pub roster: Arc<dyn Roster>,
    /// What plugins keep, where the engine keeps it for all nodes.
    pub store: Option<Arc<dyn Store>>,
}

/// Why an engine cannot be used at all; one that is only away is no reason.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// Redis cannot be named.
    #[error(transparent)]
    Redis(#[from] UrlError),
    /// Kafka's client refuses a property.
    #[error("kafka: {}", .0.why)]
    Kafka(#[from] Unavailable),
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
                store: None,
            },
            BusKind::Redis => {
                let RedisEngine { bus, roster, spaces, .. } = RedisEngine::start(config, receiver)?;
                Self { broker: bus, roster, store: Some(Arc::new(RedisStore::new(spaces))) }
            }
            BusKind::Kafka => {
                let KafkaEngine { bus, roster } = KafkaEngine::start(config, receiver)?;
                Self { broker: bus, roster, store: None }
            }
        })
    }
}

/// What the intakes of `config` read. To be called within the runtime: a lease has a task of its own.
///
/// # Errors
/// [`EngineError`].
pub fn feeds(config: &Config) -> Result<Vec<Feed>, EngineError> {
    config.intakes.iter().map(|intake| feed(config, intake)).collect()
}

fn feed(config: &Config, intake: &Intake) -> Result<Feed, EngineError> {
    let name = format!("{} {}", intake.kind.as_str(), intake.topic);
    let (topic, node) = (intake.topic.clone(), config.node.id.to_string());
    let client = || Client::new(&intake.redis(&config.bus)).map(Arc::new);
    let source: Box<dyn Source> = match intake.kind {
        IntakeKind::Redis => {
            let prefix = config.bus.prefix.clone();
            Box::new(Channel::start(client()?, &ChannelSettings { topic, prefix, node, label: name.clone() }))
        }
        IntakeKind::RedisStream => {
            let (group, prefix, label) = (intake.group.clone(), config.bus.prefix.clone(), name.clone());
            Box::new(Stream::new(client()?, StreamSettings { topic, group, node, prefix, label }))
        }
        IntakeKind::Kafka => {
            let link = Link::of(&intake.kafka(&config.bus), &config.node.id);
            Box::new(KafkaSource::join(&link, &topic, &intake.group, &name)?)
        }
    };
    Ok(Feed { name, source })
}

/// What would keep a node from working with the engine that `bus` names, by connecting to it: one sentence each.
pub async fn faults(bus: &Bus) -> Vec<String> {
    match bus.kind {
        BusKind::Memory => Vec::new(),
        BusKind::Kafka => check_kafka(bus).await,
        BusKind::Redis => check_redis(bus).await.unwrap_or_else(|error| vec![error.to_string()]),
    }
}

/// What would keep `intake` from reading its topic, by connecting to its engine: one sentence each.
pub async fn intake_faults(config: &Config, intake: &Intake) -> Vec<String> {
    let redis = intake.redis(&config.bus);
    let found = match intake.kind {
        IntakeKind::Redis => check_channel(&redis, &config.bus.prefix, &intake.topic).await,
        IntakeKind::RedisStream => check_stream(&redis, &intake.topic).await,
        IntakeKind::Kafka => return check_topic(&intake.kafka(&config.bus), &intake.topic, &intake.group).await,
    };
    found.unwrap_or_else(|error| vec![error.to_string()])
}
