//! Checks that a node can work with its Kafka: connects and performs the operations of a node.
//!
//! Used by `skylark check`. Leaves one record in each existing bus topic, which every node skips. Leaves nothing in the
//! topic or group of an intake.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};

use super::address::{AddressHeader, HEADER};
use super::clients::{ErrorContext, KafkaClients, REQUEST_TIMEOUT, code_text, error_text, partitions};
use super::codecs;
use crate::config::{Bus, KafkaConfig};
use crate::id::NodeId;

/// Time limit for reading at the end of a topic and for writing a record.
const CHECK_TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit of one poll.
const POLL_TIMEOUT: Duration = Duration::from_millis(500);

/// Returns one sentence for each fault of the Kafka of the bus. Empty if a node can work with it.
pub async fn check(bus: &Bus) -> Vec<String> {
    let mut kafka_check = match KafkaCheck::connect(&bus.kafka, &format!("{}.check", bus.prefix)).await {
        Ok(kafka_check) => kafka_check,
        Err(fault) => return vec![fault],
    };
    let (own, members) = (format!("{}.bus", bus.prefix), format!("{}.members", bus.prefix));
    let most = bus.record_bytes;
    let small = move |value: &str| value.parse::<usize>().is_ok_and(|bytes| bytes < most);
    if kafka_check.check_own_topic(&own).await.is_some() {
        kafka_check.codec(&own).await;
        kafka_check.setting(&own, "max.message.bytes", small, &format!("at least {most}, as bus.record_bytes")).await;
    }
    if let Some(count) = kafka_check.check_own_topic(&members).await {
        kafka_check.codec(&members).await;
        if count != 1 {
            kafka_check.fault(&format!(
                "topic {members}: expected 1 partition, got {count}: only one partition keeps the order of all records"
            ));
        }
        kafka_check.setting(&members, "cleanup.policy", |value| value != "compact", "compact").await;
    }
    kafka_check.faults
}

/// Returns one sentence for each fault that keeps an intake from reading `topic` as a member of `group`, or from
/// writing dead letters. Empty if the intake can do both.
pub async fn check_topic(kafka: &KafkaConfig, topic: &str, group: &str) -> Vec<String> {
    let mut kafka_check = match KafkaCheck::connect(kafka, &format!("{group}.check")).await {
        Ok(kafka_check) => kafka_check,
        Err(fault) => return vec![fault],
    };
    let count = match kafka_check.partitions(topic).await {
        Ok(Some(count)) => {
            kafka_check.check_read(topic).await;
            kafka_check.codec(topic).await;
            count
        }
        Ok(None) => {
            kafka_check.fault(&format!(
                "topic {topic} is missing: create it, because Skylark does not create topics that back ends publish to"
            ));
            0
        }
        Err(error) => {
            let why = error_text(&error);
            kafka_check.fault(&format!("the user may not describe topic {topic}: {why}: allow it READ on the topic"));
            0
        }
    };
    kafka_check.check_group(topic, count, group).await;
    kafka_check.check_dead_letter_topic(&format!("{topic}.dead")).await;
    kafka_check.faults
}

struct KafkaCheck {
    clients: KafkaClients,
    errors: ErrorContext,
    consumer: Arc<BaseConsumer<ErrorContext>>,
    faults: Vec<String>,
}

impl KafkaCheck {
    /// Connects. Fails with a description of the fault if no broker answers.
    async fn connect(kafka: &KafkaConfig, group: &str) -> Result<Self, String> {
        let node = NodeId::parse("check").expect("a valid name");
        let (clients, errors) = (KafkaClients::of(kafka, &node), ErrorContext::default());
        let fixed = [("group.id", group), ("enable.auto.commit", "false"), ("enable.partition.eof", "true")];
        let consumer: BaseConsumer<ErrorContext> =
            clients.create(errors.clone(), &[], &fixed).map_err(|fault| format!("kafka: {}", fault.why))?;
        let kafka_check = Self { clients, errors, consumer: Arc::new(consumer), faults: Vec::new() };
        let answered = kafka_check.run_blocking(|consumer| {
            let answer = consumer.fetch_metadata(None, REQUEST_TIMEOUT).map(|_| ());
            // A poll is needed to receive the errors that librdkafka reported.
            let until = Instant::now() + Duration::from_millis(500);
            while Instant::now() < until && consumer.poll(Duration::from_millis(50)).is_some() {}
            answer
        });
        match answered.await {
            Ok(()) => Ok(kafka_check),
            Err(error) => Err(with_hint(&kafka_check.clients, &kafka_check.errors.unavailable(&error).why)),
        }
    }

    async fn run_blocking<T: Send + 'static>(
        &self,
        request: impl FnOnce(&BaseConsumer<ErrorContext>) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, KafkaError> {
        let consumer = Arc::clone(&self.consumer);
        tokio::task::spawn_blocking(move || request(&consumer)).await.unwrap_or(Err(KafkaError::Canceled))
    }

    fn fault(&mut self, fault: &str) {
        self.faults.push(format!("kafka: {fault}"));
    }

    async fn partitions(&self, topic: &str) -> Result<Option<usize>, KafkaError> {
        let topic = topic.to_owned();
        self.run_blocking(move |consumer| partitions(consumer.client(), &topic)).await
    }

    /// Checks a topic that nodes read, write and create if missing. Returns its number of partitions if it exists.
    async fn check_own_topic(&mut self, topic: &str) -> Option<usize> {
        match self.partitions(topic).await {
            Ok(Some(count)) => {
                self.check_read(topic).await;
                self.check_write(topic).await;
                return Some(count);
            }
            Ok(None) => {
                if let Some(why) = self.creation_fault(topic).await {
                    let what = format!("topic {topic} is missing and may not be created: {why}");
                    self.fault(&format!("{what}: create it, or allow the user CREATE on it"));
                }
            }
            Err(error) => {
                let why = error_text(&error);
                self.fault(&format!(
                    "the user may not describe topic {topic}: {why}: allow it READ and WRITE on the topic"
                ));
            }
        }
        None
    }

    async fn creation_fault(&self, topic: &str) -> Option<String> {
        let admin: AdminClient<ErrorContext> = self.clients.create(ErrorContext::default(), &[], &[]).ok()?;
        let new = NewTopic::new(topic, 1, TopicReplication::Fixed(-1));
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT)).validate_only(true);
        match admin.create_topics([&new], &options).await {
            Ok(answers) => answers.into_iter().find_map(|answer| answer.err().map(|(_, code)| code_text(code))),
            Err(error) => Some(error_text(&error)),
        }
    }

    /// Reads at the end of the first partition. No record is there, but Kafka must permit the read and report the end.
    async fn check_read(&mut self, topic: &str) {
        let name = topic.to_owned();
        let read = self.run_blocking(move |consumer| {
            let (_, end) = consumer.fetch_watermarks(&name, 0, REQUEST_TIMEOUT)?;
            let mut offsets = TopicPartitionList::new();
            offsets.add_partition_offset(&name, 0, Offset::Offset(end))?;
            consumer.assign(&offsets)?;
            let until = Instant::now() + CHECK_TIMEOUT;
            while Instant::now() < until {
                match consumer.poll(Duration::from_millis(100)) {
                    Some(Ok(_) | Err(KafkaError::PartitionEOF(_))) => break,
                    Some(Err(error)) if is(&error, RDKafkaErrorCode::TopicAuthorizationFailed) => return Err(error),
                    Some(Err(_)) | None => {}
                }
            }
            consumer.unassign()
        });
        if let Err(error) = read.await {
            let why = error_text(&error);
            self.fault(&format!("the user may not read topic {topic}: {why}: allow it READ on the topic"));
        }
    }

    /// Checks the right to use the group without joining it, because a join moves its partitions. Commits an offset of
    /// a partition that does not exist: Kafka checks the rights before it refuses the commit.
    async fn check_group(&mut self, topic: &str, partitions: usize, group: &str) {
        let fixed = [("group.id", group), ("enable.auto.commit", "false"), ("session.timeout.ms", "6000")];
        let consumer: BaseConsumer<ErrorContext> = match self.clients.create(ErrorContext::default(), &[], &fixed) {
            Ok(consumer) => consumer,
            Err(fault) => return self.fault(&fault.why),
        };
        let (topic, partition) = (topic.to_owned(), i32::try_from(partitions).unwrap_or(i32::MAX));
        let committed = tokio::task::spawn_blocking(move || {
            let mut offsets = TopicPartitionList::new();
            offsets.add_partition_offset(&topic, partition, Offset::Offset(0))?;
            let until = Instant::now() + REQUEST_TIMEOUT;
            loop {
                let Err(error) = consumer.committed_offsets(offsets.clone(), POLL_TIMEOUT) else {
                    return consumer.commit(&offsets, CommitMode::Sync);
                };
                // A user without the right to find the coordinator gets this error from a poll; the commit itself is
                // never answered.
                let polled = consumer.poll(Duration::ZERO).and_then(Result::err);
                let error =
                    polled.filter(|polled| is(polled, RDKafkaErrorCode::GroupAuthorizationFailed)).unwrap_or(error);
                if is(&error, RDKafkaErrorCode::GroupAuthorizationFailed) || Instant::now() >= until {
                    return Err(error);
                }
            }
        });
        let Err(error) = committed.await.unwrap_or(Err(KafkaError::Canceled)) else { return };
        if is(&error, RDKafkaErrorCode::GroupAuthorizationFailed) {
            let why = error_text(&error);
            self.fault(&format!("the user may not use group {group}: {why}: allow it READ on the group"));
        } else if !error.rdkafka_error_code().is_some_and(|code| ALLOWED.contains(&code)) {
            self.fault(&format!("group {group}: {}", error_text(&error)));
        }
    }

    /// Checks the topic of dead letters. Writes nothing, because the record would be a dead letter.
    async fn check_dead_letter_topic(&mut self, topic: &str) {
        match self.partitions(topic).await {
            Ok(Some(_)) => {}
            Ok(None) => {
                if let Some(why) = self.creation_fault(topic).await {
                    let what = format!("dead-letter topic {topic} is missing and may not be created: {why}");
                    self.fault(&format!("{what}: create it, or allow the user CREATE on it"));
                }
            }
            Err(error) => {
                let why = error_text(&error);
                self.fault(&format!(
                    "the user may not describe dead-letter topic {topic}: {why}: allow it WRITE on it"
                ));
            }
        }
    }

    /// Writes a heartbeat of no process run, which no node reads.
    async fn check_write(&mut self, topic: &str) {
        let fixed = [("acks", "all"), ("enable.idempotence", "true"), ("message.timeout.ms", "5000")];
        let producer: FutureProducer<ErrorContext> = match self.clients.create(ErrorContext::default(), &[], &fixed) {
            Ok(producer) => producer,
            Err(fault) => return self.fault(&fault.why),
        };
        let to = AddressHeader::heartbeat(0);
        let headers = OwnedHeaders::new().insert(Header { key: HEADER, value: Some(&to.header[..]) });
        // Records with this key count only by their offset.
        let record: FutureRecord<'_, str, [u8]> =
            FutureRecord::to(topic).key("n").payload(&b"1"[..]).headers(headers).partition(0);
        let sent = producer.send(record, CHECK_TIMEOUT).await;
        tokio::task::spawn_blocking(move || drop(producer));
        if let Err((error, _)) = sent {
            let why = error_text(&error);
            self.fault(&format!("the user may not write to topic {topic}: {why}: allow it WRITE on the topic"));
        }
    }

    /// Checks that batches of the topic's codec are readable. A topic that takes the producer's codec tells nothing
    /// about it.
    async fn codec(&mut self, topic: &str) {
        let codecs = codecs::built_in();
        let expected = format!("producer, uncompressed, or a codec of this build ({})", codecs.join(", "));
        self.setting(topic, "compression.type", |value| codecs::is_missing(value, &codecs), &expected).await;
    }

    async fn setting(&mut self, topic: &str, name: &str, is_wrong: impl Fn(&str) -> bool, expected: &str) {
        let Ok(admin) = self.clients.create::<_, AdminClient<ErrorContext>>(ErrorContext::default(), &[], &[]) else {
            return;
        };
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        let found = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await;
        // A user without the right to read settings may still use the topic, so no fault is reported.
        let Some(Ok(found)) = found.ok().and_then(|found| found.into_iter().next()) else { return };
        let Some(value) = found.get(name).and_then(|entry| entry.value.clone()) else { return };
        if is_wrong(&value) {
            self.fault(&format!("topic {topic}: expected {name} to be {expected}, got {value:?}"));
        }
    }
}

fn is(error: &KafkaError, code: RDKafkaErrorCode) -> bool {
    error.rdkafka_error_code() == Some(code)
}

/// Errors of the refused commit that mean the user may read the group. The partition does not exist, or the group has
/// members and this client is not one of them. Missing rights on the topic have a check of their own.
const ALLOWED: &[RDKafkaErrorCode] = &[
    RDKafkaErrorCode::UnknownTopicOrPartition,
    RDKafkaErrorCode::UnknownMemberId,
    RDKafkaErrorCode::IllegalGeneration,
    RDKafkaErrorCode::RebalanceInProgress,
    RDKafkaErrorCode::TopicAuthorizationFailed,
];

/// Adds a hint with the remedy to common errors.
fn with_hint(clients: &KafkaClients, why: &str) -> String {
    let hint = match why {
        why if why.contains("certificate verify failed") => ": ssl.ca.location does not trust its certificate",
        why if why.contains("uthentication") || why.contains("SASL") => ": check user and password",
        why if why.contains("refused") => ": no process listens on this port",
        why if why.contains("resolve") => ": the host name cannot be resolved",
        _ => "",
    };
    format!("kafka at {} does not answer: {why}{hint}", clients.brokers())
}
