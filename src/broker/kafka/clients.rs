//! Connection to Kafka: librdkafka settings, reported errors, and creation of topics.
//!
//! Independent of the record format.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::Client;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::{Partition, Statistics};
use rdkafka::types::RDKafkaRespErr;
use tokio::sync::Notify;

use super::login::Login;
use crate::backoff::Backoff;
use crate::broker::Unavailable;
use crate::config::{Credential, KafkaConfig};
use crate::id::NodeId;

/// Name of the engine in faults.
pub(super) const ENGINE: &str = "kafka";
/// Time limit of one request to a broker.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Time without an error after which a batch counts as readable. librdkafka retries an unreadable batch twice a second.
const UNREADABLE: Duration = Duration::from_secs(5);

/// Defaults of each librdkafka client, which the operator's properties override. librdkafka adds jitter to its
/// reconnect back-off.
const DEFAULTS: &[(&str, &str)] = &[
    ("socket.keepalive.enable", "true"),
    ("socket.nagle.disable", "true"),
    ("reconnect.backoff.ms", "100"),
    ("reconnect.backoff.max.ms", "2000"),
    ("socket.connection.setup.timeout.ms", "5000"),
    ("topic.metadata.refresh.interval.ms", "30000"),
];

/// Brokers, credentials and properties of Kafka clients.
#[derive(Clone)]
pub struct KafkaClients {
    brokers: String,
    /// True if the configuration names a user. SASL PLAIN is then the default of the properties.
    has_user: bool,
    login: Arc<Login>,
    properties: BTreeMap<String, Credential>,
    name: String,
}

impl KafkaClients {
    /// Connects to `brokers` (`host:port`, comma-separated) as `user` (anonymous if empty) with the operator's
    /// librdkafka `properties`. `name` is the client name in the logs of Kafka.
    #[must_use]
    pub fn new(
        brokers: &str,
        user: &str,
        password: impl Into<Credential>,
        properties: BTreeMap<String, Credential>,
        name: &str,
    ) -> Self {
        let login = Arc::new(Login::new(user, password.into(), &properties));
        let (brokers, name) = (brokers.to_owned(), name.to_owned());
        Self { brokers, has_user: !user.is_empty(), login, properties, name }
    }

    /// Creates the client settings from the configuration. The logs of Kafka name the client `skylark-NODE`.
    #[must_use]
    pub fn of(config: &KafkaConfig, node: &NodeId) -> Self {
        let KafkaConfig { brokers, user, password, properties, .. } = config;
        Self::new(brokers, user, password.clone(), properties.0.clone(), &format!("skylark-{node}"))
    }

    /// Brokers, as shown in faults.
    #[must_use]
    pub fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Replaces the password with the one in `config`, also for running clients, which use it for their next
    /// connection.
    pub fn set_login(&self, config: &KafkaConfig) {
        self.login.set(config);
    }

    /// Gives later passwords to a running client. Must run within a Tokio runtime.
    pub(super) fn track<T: super::login::Client + 'static>(&self, client: &Arc<T>) {
        let client: Arc<dyn super::login::Client> = Arc::<T>::clone(client);
        self.login.track(Arc::downgrade(&client));
    }

    /// Creates a client. The operator's properties override `defaults`, and `fixed` overrides the properties.
    ///
    /// # Errors
    /// A property is unknown to librdkafka or not supported by this build.
    pub(super) fn create<C, T>(
        &self,
        context: C,
        defaults: &[(&str, &str)],
        fixed: &[(&str, &str)],
    ) -> Result<T, Unavailable>
    where
        C: ClientContext,
        T: FromClientConfigAndContext<C>,
    {
        self.settings(defaults, fixed).create_with_context(context).map_err(|error| unavailable(error_text(&error)))
    }

    fn settings(&self, defaults: &[(&str, &str)], fixed: &[(&str, &str)]) -> ClientConfig {
        let mut settings = ClientConfig::new();
        settings.set("client.id", &self.name).set_log_level(RDKafkaLogLevel::Info);
        if self.has_user {
            settings.set("security.protocol", "sasl_plaintext").set("sasl.mechanisms", "PLAIN");
        }
        for (name, value) in DEFAULTS.iter().chain(defaults) {
            settings.set(*name, *value);
        }
        for (name, value) in &self.properties {
            settings.set(name, value.text());
        }
        if let Some((user, password)) = self.login.current() {
            settings.set("sasl.username", user).set("sasl.password", password);
        }
        for (name, value) in fixed {
            settings.set(*name, *value);
        }
        settings.set("bootstrap.servers", &self.brokers);
        settings
    }

    /// Creates the topic. Returns false if it exists already.
    pub(super) async fn create_topic(&self, topic: &Topic) -> Result<bool, Unavailable> {
        let errors = ErrorContext::default();
        let admin: AdminClient<ErrorContext> = self.create(errors.clone(), &[], &[])?;
        let options =
            AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).operation_timeout(Some(REQUEST_TIMEOUT));
        let mut new = NewTopic::new(&topic.name, topic.partitions, TopicReplication::Fixed(-1));
        for (name, value) in &topic.settings {
            new = new.set(name, value);
        }
        let answers = admin.create_topics([&new], &options).await;
        // The drop waits for the client's thread.
        tokio::task::spawn_blocking(move || drop(admin));
        match answers.map(|answers| answers.into_iter().next()) {
            Ok(Some(Ok(_))) => Ok(true),
            Ok(Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists)))) => Ok(false),
            Ok(Some(Err((_, code)))) => {
                let why = format!("topic {} is missing and cannot be created: {}", topic.name, code_text(code));
                Err(unavailable(why))
            }
            Ok(None) => Err(unavailable(format!("topic {} was not created: the answer is empty", topic.name))),
            Err(error) => Err(errors.unavailable(&error)),
        }
    }
}

/// Settings for a topic that Skylark creates if it is missing.
pub(super) struct Topic {
    pub(super) name: String,
    /// −1 = the default of Kafka.
    pub(super) partitions: i32,
    pub(super) settings: Vec<(&'static str, String)>,
}

/// Last error that librdkafka reported about the connection. Serves as the context of the clients.
#[derive(Clone, Default)]
pub(super) struct ErrorContext {
    last: Arc<Mutex<Option<String>>>,
    /// Time and reason of the last unreadable batch.
    unreadable: Arc<Mutex<Option<(Instant, String)>>>,
    on_statistics: Option<Arc<StatisticsCallback>>,
    /// Notified by each error.
    error_signal: Option<Arc<Notify>>,
}

/// Callback for the statistics of librdkafka.
type StatisticsCallback = dyn Fn(&Statistics) + Send + Sync;

impl ErrorContext {
    /// Creates the context for clients with these settings. An error triggers a re-read of their password.
    pub(super) fn of(clients: &KafkaClients) -> Self {
        Self { error_signal: Some(clients.login.error_signal()), ..Self::default() }
    }

    /// Returns a context with the same last error, which passes statistics to `callback` at every
    /// `statistics.interval.ms`.
    pub(super) fn with_statistics(&self, callback: impl Fn(&Statistics) + Send + Sync + 'static) -> Self {
        Self { on_statistics: Some(Arc::new(callback)), ..self.clone() }
    }

    pub(super) fn last(&self) -> Option<String> {
        self.last.lock().clone()
    }

    pub(super) fn clear(&self) {
        *self.last.lock() = None;
    }

    /// Reason why a partition is not read while others are: a batch is damaged, or the build lacks its codec.
    pub(super) fn unreadable(&self) -> Option<String> {
        let last = self.unreadable.lock();
        last.as_ref().filter(|(at, _)| at.elapsed() < UNREADABLE).map(|(_, why)| why.clone())
    }

    /// Converts `error` to a fault. The last reported error explains more than a bare time-out.
    pub(super) fn unavailable(&self, error: &KafkaError) -> Unavailable {
        let vague = matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::BrokerTransportFailure
                    | RDKafkaErrorCode::AllBrokersDown
                    | RDKafkaErrorCode::OperationTimedOut
            )
        );
        unavailable(self.last().filter(|_| vague).unwrap_or_else(|| error_text(error)))
    }
}

impl ClientContext for ErrorContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // librdkafka repeats this while a broker is unreachable. Callers report the fault to the operator once.
        tracing::debug!(?level, facility, message, "librdkafka");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "librdkafka");
        if let Some(error_signal) = &self.error_signal {
            error_signal.notify_one();
        }
        if is_unreadable(&error) {
            *self.unreadable.lock() = Some((Instant::now(), format!("records cannot be read: {reason}")));
        }
        // This error does not tell why the brokers are down.
        if error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown) {
            *self.last.lock() = Some(reason.to_owned());
        }
    }

    fn stats(&self, statistics: Statistics) {
        if let Some(callback) = &self.on_statistics {
            callback(&statistics);
        }
    }
}

impl ConsumerContext for ErrorContext {}

fn is_unreadable(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::BadCompression
                | RDKafkaErrorCode::NotImplemented
                | RDKafkaErrorCode::BadMessage
                | RDKafkaErrorCode::InvalidMessage
                | RDKafkaErrorCode::UnsupportedCompressionType
        )
    )
}

/// Number of records in the member's partitions that the group has not committed.
pub(super) fn uncommitted(statistics: &Statistics) -> u64 {
    read_partitions(statistics).filter_map(uncommitted_of).sum()
}

/// Uncommitted records of one partition. librdkafka reports no lag (−1) if the group committed nothing, or committed an
/// offset that does not exist. Then all records from the oldest one, or from the next one to fetch, are uncommitted.
fn uncommitted_of(partition: &Partition) -> Option<u64> {
    if let Ok(lag) = u64::try_from(partition.consumer_lag) {
        return Some(lag);
    }
    let first = if partition.next_offset >= 0 { partition.next_offset } else { partition.lo_offset.max(0) };
    u64::try_from(partition.hi_offset - first).ok().filter(|_| partition.desired && partition.hi_offset >= 0)
}

/// Number of records behind the last one that a reader without a group has received. Before the first one, counts the
/// records from the next one to fetch.
pub(super) fn unread_records(statistics: &Statistics) -> u64 {
    let got =
        |partition: &Partition| [partition.app_offset, partition.next_offset].into_iter().find(|offset| *offset >= 0);
    let waits = |partition: &Partition| u64::try_from(partition.hi_offset - got(partition)?).ok();
    read_partitions(statistics).filter_map(waits).sum()
}

fn read_partitions(statistics: &Statistics) -> impl Iterator<Item = &Partition> {
    statistics.topics.values().flat_map(|topic| topic.partitions.values())
}

/// Number of established connections that have ended.
pub(super) fn ended_connections(statistics: &Statistics) -> u64 {
    let ended = statistics.brokers.values().filter_map(|broker| broker.disconnects);
    ended.filter_map(|count| u64::try_from(count).ok()).sum()
}

/// Returns the number of partitions of a topic, or `None` if it is missing. Blocks.
pub(super) fn partitions<C: ClientContext>(client: &Client<C>, topic: &str) -> Result<Option<usize>, KafkaError> {
    let metadata = client.fetch_metadata(Some(topic), REQUEST_TIMEOUT)?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else { return Ok(None) };
    match found.error() {
        None => {}
        Some(RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART) => return Ok(None),
        Some(error) => return Err(KafkaError::MetadataFetch(error.into())),
    }
    if found.partitions().is_empty() || found.partitions().iter().any(|partition| partition.leader() < 0) {
        return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable));
    }
    Ok(Some(found.partitions().len()))
}

pub(super) fn unavailable(why: impl Into<String>) -> Unavailable {
    Unavailable { engine: ENGINE, why: why.into() }
}

/// Text of the error, as reported by the engine.
pub(super) fn error_text(error: &KafkaError) -> String {
    match error {
        KafkaError::ClientConfig(_, why, name, _) if why.contains("OpenSSL not available") => {
            format!("property {name}: {why}: use a build with the cargo feature kafka-tls")
        }
        KafkaError::ClientConfig(_, why, name, _) => format!("property {name}: {why}"),
        KafkaError::ClientCreation(why) => why.clone(),
        _ => error.rdkafka_error_code().map_or_else(|| error.to_string(), code_text),
    }
}

pub(super) fn code_text(code: RDKafkaErrorCode) -> String {
    // `TopicAuthorizationFailed (Broker: Topic authorization failed)`
    let text = code.to_string();
    let reason = text.split_once(": ").map_or(text.as_str(), |(_, reason)| reason.trim_end_matches(')'));
    reason.to_lowercase()
}

/// Back-off between attempts: from 100 ms to two seconds.
pub(super) fn backoff() -> Backoff {
    Backoff::new(Duration::from_millis(100), Duration::from_secs(2))
}

/// Mixes the bits of `number` (SplitMix64).
pub(super) fn mix_bits(number: u64) -> u64 {
    let mut x = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(properties: &[(&str, &str)]) -> KafkaClients {
        let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect();
        KafkaClients::new("h:1", "u", "p", properties, "n1")
    }

    #[test]
    fn the_operators_properties_stand_between_defaults_and_what_is_fixed() {
        let clients = clients(&[("security.protocol", "ssl"), ("linger.ms", "7"), ("acks", "0")]);
        let settings = clients.settings(&[("linger.ms", "1"), ("retries", "3")], &[("acks", "all")]);
        let is = |name: &str| settings.get(name).unwrap_or_default().to_owned();
        assert_eq!([is("security.protocol"), is("linger.ms"), is("retries"), is("acks")], ["ssl", "7", "3", "all"]);
        assert_eq!([is("bootstrap.servers"), is("sasl.username"), is("client.id")], ["h:1", "u", "n1"]);
    }

    #[test]
    fn a_property_that_nobody_knows_is_told_by_its_name() {
        let clients = clients(&[("linger.mss", "7")]);
        let refused = clients
            .create::<_, rdkafka::consumer::BaseConsumer<ErrorContext>>(ErrorContext::default(), &[], &[])
            .err()
            .unwrap();
        assert!(refused.why.starts_with("property linger.mss: "), "{refused}");
        assert_eq!(refused.engine, "kafka");
    }

    #[test]
    fn what_librdkafka_has_counted_is_added_up() {
        use rdkafka::statistics::{Broker, Topic};

        let partition = |consumer_lag, app_offset, (next_offset, hi_offset)| Partition {
            consumer_lag,
            app_offset,
            next_offset,
            hi_offset,
            ..Partition::default()
        };
        // Partition -1 is librdkafka's internal one, and offset -1001 means no offset.
        let partitions = [
            (-1, partition(-1, -1001, (-1001, -1001))),
            (0, partition(3, 7, (12, 12))),
            (1, partition(-1, 9, (9, 9))),
            (2, partition(-1, -1001, (4, 6))),
        ]
        .into();
        let mut statistics = Statistics::default();
        statistics.topics.insert("t".to_owned(), Topic { partitions, ..Topic::default() });
        for (name, disconnects) in [("h:1/1", Some(2)), ("h:1/bootstrap", None), ("h:2/2", Some(1))] {
            statistics.brokers.insert(name.to_owned(), Broker { disconnects, ..Broker::default() });
        }
        assert_eq!((uncommitted(&statistics), unread_records(&statistics), ended_connections(&statistics)), (3, 7, 3));
    }

    #[test]
    fn a_partition_that_was_never_committed_has_a_lag() {
        let partition = |desired, committed_offset, next_offset, (lo_offset, hi_offset)| Partition {
            desired,
            consumer_lag: -1,
            committed_offset,
            next_offset,
            lo_offset,
            hi_offset,
            ..Partition::default()
        };
        let none = -1_001;
        assert_eq!(uncommitted_of(&partition(true, none, 0, (none, 7))), Some(7), "stuck at the first record");
        assert_eq!(uncommitted_of(&partition(true, none, 5, (2, 7))), Some(2), "stuck at record 5");
        assert_eq!(uncommitted_of(&partition(true, none, none, (2, 7))), Some(5));
        assert_eq!(uncommitted_of(&partition(true, 10, 0, (none, 5))), Some(5), "committed past the end");
        assert_eq!(uncommitted_of(&partition(false, none, 0, (none, 7))), None, "another member's");
        assert_eq!(uncommitted_of(&partition(true, none, none, (none, none))), None, "nothing is known");
    }

    #[test]
    fn a_batch_that_cannot_be_read_is_a_fault_and_a_lost_connection_is_none() {
        let errors = ErrorContext::default();
        errors.error(KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure), "connection refused");
        assert_eq!(errors.unreadable(), None);
        errors.with_statistics(|_| {}).error(KafkaError::Global(RDKafkaErrorCode::NotImplemented), "codec 0x4");
        assert_eq!(errors.unreadable().unwrap(), "records cannot be read: codec 0x4");
    }

    #[cfg(not(feature = "kafka-tls"))]
    #[test]
    fn tls_tells_which_build_has_it() {
        let clients = clients(&[("security.protocol", "sasl_ssl")]);
        let refused = clients
            .create::<_, rdkafka::consumer::BaseConsumer<ErrorContext>>(ErrorContext::default(), &[], &[])
            .err()
            .unwrap();
        assert!(refused.why.ends_with("use a build with the cargo feature kafka-tls"), "{refused}");
    }

    #[test]
    fn attempts_come_later_and_never_all_at_once() {
        let mut waits = backoff();
        assert!((50..=100).contains(&waits.wait().as_millis()));
        let later: Vec<u128> = (1..100).map(|_| waits.wait().as_millis()).collect();
        assert!((1_000..=2_000).contains(&later[8]) && (1_000..=2_000).contains(&later[98]));
        let sixth = |_| {
            let mut waits = backoff();
            (0..6).map(|_| waits.wait()).last()
        };
        let distinct: std::collections::HashSet<_> = (0..50).map(sixth).collect();
        assert!(distinct.len() > 40);
    }
}
