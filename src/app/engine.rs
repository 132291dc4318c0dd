//! Creates the configured bus engine behind the traits that the other modules use.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::broker::history::HistoryStore;
use crate::broker::history::journal::{self, JournalError};
use crate::broker::history::memory::MemoryHistory;
use crate::broker::ids::IdStore;
use crate::broker::kafka::check::{check as check_kafka, check_topic};
use crate::broker::kafka::{KafkaClients, KafkaEngine, KafkaSource};
use crate::broker::memory::{MemoryBroker, MemoryRoster};
use crate::broker::redis::check::check as check_redis;
use crate::broker::redis::{
    ChannelSettings, ChannelSource, Client, RedisEngine, Servers, StreamSettings, StreamSource, UrlError,
    check_channel, check_stream,
};
use crate::broker::roster::Roster;
use crate::broker::source::Source;
use crate::broker::{Broker, Deliver, Unavailable};
use crate::config::{Bus, BusKind, Config, Intake, IntakeKind, intake_names};
use crate::plugin::kv::Store;
use crate::server::intake::IntakeSource;
use crate::vital::Vitals;

use super::kv::RedisStore;

/// The bus engine of this node.
pub struct Engine {
    /// Transport between nodes.
    pub broker: Arc<dyn Broker>,
    /// Members of the cluster.
    pub roster: Arc<dyn Roster>,
    /// State of plugins, if the engine stores it for all nodes.
    pub store: Option<Arc<dyn Store>>,
    /// Reservation of ids, if the engine provides it.
    pub ids: Option<Arc<dyn IdStore>>,
    /// Kept messages, unless `history` is off.
    pub history: Option<Arc<dyn HistoryStore>>,
    /// The same, if this process keeps them.
    memory: Option<Arc<MemoryHistory>>,
    servers: Servers,
    logins: Mutex<Vec<Login>>,
}

/// Components that an engine provides.
type Parts = (Arc<dyn Broker>, Arc<dyn Roster>, Option<Arc<dyn Store>>, Option<Arc<dyn IdStore>>);

/// A client with credentials that a reload replaces.
enum Login {
    BusRedis(Arc<Client>),
    /// Index of the intake, and its client.
    IntakeRedis(usize, Arc<Client>),
    BusKafka(KafkaClients),
    /// Index of the intake, and its client.
    IntakeKafka(usize, KafkaClients),
}

/// The engine is unusable. An engine that is only unreachable does not cause this error.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The address of Redis is invalid.
    #[error(transparent)]
    Redis(#[from] UrlError),
    /// The Kafka client rejects a property.
    #[error("kafka: {}", .0.why)]
    Kafka(#[from] Unavailable),
    /// The folder of the history's journal is unusable.
    #[error("history.journal: {0}")]
    Journal(#[from] JournalError),
}

impl Engine {
    /// Starts the engine of `config`. Messages for this node go to `receiver`. Tasks are registered in `vitals`.
    ///
    /// # Errors
    /// [`EngineError`] if the address or the properties are invalid, or the journal of the history cannot be opened.
    pub fn start(config: &Config, receiver: Arc<dyn Deliver>, vitals: &Vitals) -> Result<Self, EngineError> {
        let (servers, mut logins) = (Servers::default(), Vec::new());
        let is_on = config.history.is_on(&config.bus.kind);
        let memory = is_on.then(|| MemoryHistory::open(config.history.clone(), vitals)).transpose()?;
        let (broker, roster, store, ids): Parts = match config.bus.kind {
            BusKind::Memory => {
                let bus = MemoryBroker::new(config.node.id.clone(), receiver, memory.clone());
                (Arc::new(bus), Arc::new(MemoryRoster::default()), None, None)
            }
            BusKind::Redis => {
                let RedisEngine { bus, roster, spaces, ids, client } =
                    RedisEngine::start(config, &servers, receiver, vitals)?;
                logins.push(Login::BusRedis(client));
                (bus, roster, Some(Arc::new(RedisStore::new(spaces))), Some(ids))
            }
            BusKind::Kafka => {
                let KafkaEngine { bus, roster, clients } = KafkaEngine::start(config, receiver, vitals)?;
                logins.push(Login::BusKafka(clients));
                (bus, Arc::clone(&roster) as _, None, Some(roster))
            }
        };
        let history = memory.clone().map(|memory| memory as Arc<dyn HistoryStore>);
        Ok(Self { broker, roster, store, ids, history, memory, servers, logins: Mutex::new(logins) })
    }

    /// Keeps the history within its bounds; never ends.
    pub fn history_upkeep(&self) -> impl Future<Output = ()> + use<> {
        let memory = self.memory.clone();
        async move {
            match memory {
                Some(memory) => memory.upkeep().await,
                None => std::future::pending().await,
            }
        }
    }

    /// Creates the sources of the intakes of `config`. Must run within the runtime: each lease spawns a task,
    /// registered in `vitals`.
    ///
    /// # Errors
    /// [`EngineError`] if the address or the properties are invalid.
    pub fn intake_sources(&self, config: &Config, vitals: &Vitals) -> Result<Vec<IntakeSource>, EngineError> {
        let names = intake_names(&config.intakes, &config.bus);
        let named = config.intakes.iter().zip(names).enumerate();
        named.map(|(index, (intake, name))| self.intake_source(config, index, (intake, name), vitals)).collect()
    }

    /// Sets the users and passwords of `config` for all connections dialled from now on.
    pub fn reconfigure(&self, config: &Config) {
        for login in &*self.logins.lock() {
            match login {
                Login::BusRedis(client) => client.set_login(&config.bus.redis),
                Login::IntakeRedis(index, client) => {
                    if let Some(intake) = config.intakes.get(*index) {
                        client.set_login(&intake.redis(&config.bus));
                    }
                }
                Login::BusKafka(clients) => clients.set_login(&config.bus.kafka),
                Login::IntakeKafka(index, clients) => {
                    if let Some(intake) = config.intakes.get(*index) {
                        clients.set_login(&intake.kafka(&config.bus));
                    }
                }
            }
        }
    }

    fn intake_source(
        &self,
        config: &Config,
        index: usize,
        (intake, name): (&Intake, String),
        vitals: &Vitals,
    ) -> Result<IntakeSource, EngineError> {
        let (topic, node) = (intake.topic.clone(), config.node.id.to_string());
        let client = || {
            let client = self.servers.client(&intake.redis(&config.bus))?;
            self.logins.lock().push(Login::IntakeRedis(index, Arc::clone(&client)));
            Ok::<_, EngineError>(client)
        };
        let source: Box<dyn Source> = match intake.kind {
            IntakeKind::Redis => {
                let prefix = config.bus.prefix.clone();
                Box::new(ChannelSource::start(
                    client()?,
                    &ChannelSettings { topic, prefix, node, label: name.clone() },
                    vitals,
                ))
            }
            IntakeKind::RedisStream => {
                let (group, prefix, label) = (intake.group.clone(), config.bus.prefix.clone(), name.clone());
                Box::new(StreamSource::new(client()?, StreamSettings { topic, group, node, prefix, label }))
            }
            IntakeKind::Kafka => {
                let clients = KafkaClients::of(&intake.kafka(&config.bus), &config.node.id);
                self.logins.lock().push(Login::IntakeKafka(index, clients.clone()));
                Box::new(KafkaSource::join(&clients, &topic, &intake.group, &name, vitals)?)
            }
        };
        Ok(IntakeSource { name, source })
    }
}

/// The fault that would keep a node from its journal of the history, if any.
#[must_use]
pub fn journal_fault(config: &Config) -> Option<String> {
    let dir = &config.history.journal.dir;
    let is_used = config.history.is_on(&config.bus.kind) && !dir.as_os_str().is_empty();
    is_used.then(|| journal::check(dir).err())?.map(|error| format!("history.journal.dir: {error}"))
}

/// Connects to the engine of `bus` and returns the faults that would keep a node from using it, one sentence each.
pub async fn faults(bus: &Bus) -> Vec<String> {
    match bus.kind {
        BusKind::Memory => Vec::new(),
        BusKind::Kafka => check_kafka(bus).await,
        BusKind::Redis => check_redis(bus).await.unwrap_or_else(|error| vec![error.to_string()]),
    }
}

/// Connects to the engine of `intake` and returns the faults that would keep it from reading, one sentence each.
pub async fn intake_faults(config: &Config, intake: &Intake) -> Vec<String> {
    let redis = intake.redis(&config.bus);
    let found = match intake.kind {
        IntakeKind::Redis => check_channel(&redis, &config.bus.prefix, &intake.topic).await,
        IntakeKind::RedisStream => check_stream(&redis, &intake.topic).await,
        IntakeKind::Kafka => return check_topic(&intake.kafka(&config.bus), &intake.topic, &intake.group).await,
    };
    found.unwrap_or_else(|error| vec![error.to_string()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{History, HistoryKind};
    use crate::fate::Fate;
    use crate::hub::Hub;
    use crate::id::{IdSequence, Uid};
    use crate::message::{Message, Origin, Publication, Target};
    use crate::node::deliver::Delivery;

    #[tokio::test]
    async fn engine_of_one_node_keeps_messages_unless_history_is_off() {
        let uid = Uid::parse("a").unwrap();
        for (kind, is_on) in [(HistoryKind::Auto, true), (HistoryKind::Memory, true), (HistoryKind::Off, false)] {
            let config = Config { history: History { kind, ..History::default() }, ..Config::default() };
            let (hub, _shards) = Hub::new(&(&config).into(), Arc::new(IdSequence::empty(1)));
            let receiver = Arc::new(Delivery::new(Arc::new(hub)));
            let engine = Engine::start(&config, receiver, &Vitals::default()).unwrap();
            assert_eq!(engine.history.is_some(), is_on, "{kind:?}");
            let publication = Publication::new(Message::default(), Target::User(uid.clone()), Origin::Http);
            let fates = engine.broker.publish([publication.into_envelope(1, 0)].into()).await;
            let [Fate::Accepted { positions, .. }] = &fates[..] else { panic!("{fates:?}") };
            assert_eq!(positions.len(), usize::from(is_on), "{kind:?}");
        }
    }
}
