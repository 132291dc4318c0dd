//! What would keep a node from working with its Kafka: asked by connecting and by doing what a node does.
//!
//! For `skylark check`. Leaves behind a record in each topic of the bus that is there, which every node skips; nothing in
//! an intake's topic or group.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};

use super::address::{HEADER, To};
use super::codecs;
use super::link::{ASK, Heard, Link, code_told, partitions, told};
use crate::config::{Bus, KafkaConfig};
use crate::id::NodeId;

/// Reading what is at the end of a topic, and writing behind it, get no longer.
const TRIAL: Duration = Duration::from_secs(5);
/// One look at what is said on the way.
const LOOK: Duration = Duration::from_millis(500);

/// One sentence for each thing that is wrong with the Kafka of the bus; none = a node can work.
pub async fn check(bus: &Bus) -> Vec<String> {
    let mut trial = match Trial::begin(&bus.kafka, &format!("{}.check", bus.prefix)).await {
        Ok(trial) => trial,
        Err(fault) => return vec![fault],
    };
    let (own, members) = (format!("{}.bus", bus.prefix), format!("{}.members", bus.prefix));
    let most = bus.record_bytes;
    let small = move |value: &str| value.parse::<usize>().is_ok_and(|bytes| bytes < most);
    if trial.own_topic(&own).await.is_some() {
        trial.codec(&own).await;
        trial.setting(&own, "max.message.bytes", small, &format!("at least {most}, as bus.record_bytes")).await;
    }
    if let Some(count) = trial.own_topic(&members).await {
        trial.codec(&members).await;
        if count != 1 {
            trial.fault(&format!("topic {members} has {count} partitions, expected 1: only one makes one order"));
        }
        trial.setting(&members, "cleanup.policy", |value| value != "compact", "compact").await;
    }
    trial.faults
}

/// One sentence for each thing that would keep an intake from reading `topic` as a member of `group`, and from burying
/// what can never be accepted; none = it can.
pub async fn check_topic(kafka: &KafkaConfig, topic: &str, group: &str) -> Vec<String> {
    let mut trial = match Trial::begin(kafka, &format!("{group}.check")).await {
        Ok(trial) => trial,
        Err(fault) => return vec![fault],
    };
    let count = match trial.partitions(topic).await {
        Ok(Some(count)) => {
            trial.reads(topic).await;
            trial.codec(topic).await;
            count
        }
        Ok(None) => {
            trial.fault(&format!(
                "topic {topic} is missing: create it, for Skylark never makes what back ends publish to"
            ));
            0
        }
        Err(error) => {
            let why = told(&error);
            trial.fault(&format!("the user may not see topic {topic}: {why}: allow it READ on the topic"));
            0
        }
    };
    trial.belongs(topic, count, group).await;
    trial.buries(&format!("{topic}.dead")).await;
    trial.faults
}

struct Trial {
    link: Link,
    heard: Heard,
    consumer: Arc<BaseConsumer<Heard>>,
    faults: Vec<String>,
}

impl Trial {
    /// Connects; what is wrong where nobody answers.
    async fn begin(kafka: &KafkaConfig, group: &str) -> Result<Self, String> {
        let node = NodeId::parse("check").expect("a valid name");
        let (link, heard) = (Link::of(kafka, &node), Heard::default());
        let fixed = [("group.id", group), ("enable.auto.commit", "false"), ("enable.partition.eof", "true")];
        let consumer: BaseConsumer<Heard> =
            link.create(heard.clone(), &[], &fixed).map_err(|fault| format!("kafka: {}", fault.why))?;
        let trial = Self { link, heard, consumer: Arc::new(consumer), faults: Vec::new() };
        let answered = trial.ask(|consumer| {
            let answer = consumer.fetch_metadata(None, ASK).map(|_| ());
            // What was said on the way is heard by asking for it.
            let until = Instant::now() + Duration::from_millis(500);
            while Instant::now() < until && consumer.poll(Duration::from_millis(50)).is_some() {}
            answer
        });
        match answered.await {
            Ok(()) => Ok(trial),
            Err(error) => Err(plain(&trial.link, &trial.heard.unavailable(&error).why)),
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&BaseConsumer<Heard>) -> Result<T, KafkaError> + Send + 'static,
    ) -> Result<T, KafkaError> {
        let consumer = Arc::clone(&self.consumer);
        tokio::task::spawn_blocking(move || ask(&consumer)).await.unwrap_or(Err(KafkaError::Canceled))
    }

    fn fault(&mut self, fault: &str) {
        self.faults.push(format!("kafka: {fault}"));
    }

    async fn partitions(&self, topic: &str) -> Result<Option<usize>, KafkaError> {
        let topic = topic.to_owned();
        self.ask(move |consumer| partitions(consumer.client(), &topic)).await
    }

    /// A topic that nodes read and write, and create where it is missing; its partitions, where it is there.
    async fn own_topic(&mut self, topic: &str) -> Option<usize> {
        match self.partitions(topic).await {
            Ok(Some(count)) => {
                self.reads(topic).await;
                self.writes(topic).await;
                return Some(count);
            }
            Ok(None) => {
                if let Some(why) = self.creation_fault(topic).await {
                    self.fault(&format!("topic {topic} is missing and may not be created: {why}"));
                }
            }
            Err(error) => {
                let why = told(&error);
                self.fault(&format!("the user may not see topic {topic}: {why}: allow it READ and WRITE on the topic"));
            }
        }
        None
    }

    async fn creation_fault(&self, topic: &str) -> Option<String> {
        let admin: AdminClient<Heard> = self.link.create(Heard::default(), &[], &[]).ok()?;
        let new = NewTopic::new(topic, 1, TopicReplication::Fixed(-1));
        let options = AdminOptions::new().request_timeout(Some(ASK)).validate_only(true);
        match admin.create_topics([&new], &options).await {
            Ok(answers) => answers.into_iter().find_map(|answer| answer.err().map(|(_, code)| code_told(code))),
            Err(error) => Some(told(&error)),
        }
    }

    /// Reads at the end of the first partition: nothing is there, but it has to be allowed to say so.
    async fn reads(&mut self, topic: &str) {
        let name = topic.to_owned();
        let read = self.ask(move |consumer| {
            let (_, end) = consumer.fetch_watermarks(&name, 0, ASK)?;
            let mut place = TopicPartitionList::new();
            place.add_partition_offset(&name, 0, Offset::Offset(end))?;
            consumer.assign(&place)?;
            let until = Instant::now() + TRIAL;
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
            let why = told(&error);
            self.fault(&format!("the user may not read topic {topic}: {why}: allow it READ on the topic"));
        }
    }

    /// Asks whether the user may be of the group without becoming a member, which would move its partitions: by
    /// committing a place in a partition that is not there. Only the rights are looked at before that is refused.
    async fn belongs(&mut self, topic: &str, partitions: usize, group: &str) {
        let fixed = [("group.id", group), ("enable.auto.commit", "false"), ("session.timeout.ms", "6000")];
        let consumer: BaseConsumer<Heard> = match self.link.create(Heard::default(), &[], &fixed) {
            Ok(consumer) => consumer,
            Err(fault) => return self.fault(&fault.why),
        };
        let (topic, partition) = (topic.to_owned(), i32::try_from(partitions).unwrap_or(i32::MAX));
        let asked = tokio::task::spawn_blocking(move || {
            let mut place = TopicPartitionList::new();
            place.add_partition_offset(&topic, partition, Offset::Offset(0))?;
            let until = Instant::now() + ASK;
            loop {
                let Err(error) = consumer.committed_offsets(place.clone(), LOOK) else {
                    return consumer.commit(&place, CommitMode::Sync);
                };
                // Who may not even know the group's keeper hears that beside the answer, which never comes.
                let heard = consumer.poll(Duration::ZERO).and_then(Result::err);
                let error =
                    heard.filter(|heard| is(heard, RDKafkaErrorCode::GroupAuthorizationFailed)).unwrap_or(error);
                if is(&error, RDKafkaErrorCode::GroupAuthorizationFailed) || Instant::now() >= until {
                    return Err(error);
                }
            }
        });
        let Err(error) = asked.await.unwrap_or(Err(KafkaError::Canceled)) else { return };
        if is(&error, RDKafkaErrorCode::GroupAuthorizationFailed) {
            let why = told(&error);
            self.fault(&format!("the user may not read as group {group}: {why}: allow it READ on the group"));
        } else if !error.rdkafka_error_code().is_some_and(|code| ALLOWED.contains(&code)) {
            self.fault(&format!("group {group}: {}", told(&error)));
        }
    }

    /// Where dead letters go. Nothing is written there: it would be one.
    async fn buries(&mut self, topic: &str) {
        match self.partitions(topic).await {
            Ok(Some(_)) => {}
            Ok(None) => {
                if let Some(why) = self.creation_fault(topic).await {
                    let what = format!("topic {topic}, for dead letters, is missing and may not be created: {why}");
                    self.fault(&format!("{what}: create it, or allow the user CREATE on it"));
                }
            }
            Err(error) => {
                let why = told(&error);
                self.fault(&format!(
                    "the user may not see topic {topic}, for dead letters: {why}: allow it WRITE on it"
                ));
            }
        }
    }

    /// Writes a sign of life of nobody: no node reads it.
    async fn writes(&mut self, topic: &str) {
        let fixed = [("acks", "all"), ("enable.idempotence", "true"), ("message.timeout.ms", "5000")];
        let producer: FutureProducer<Heard> = match self.link.create(Heard::default(), &[], &fixed) {
            Ok(producer) => producer,
            Err(fault) => return self.fault(&fault.why),
        };
        let to = To::echo(0);
        let headers = OwnedHeaders::new().insert(Header { key: HEADER, value: Some(&to.header[..]) });
        // The key is the one whose records count by their place only.
        let record: FutureRecord<'_, str, [u8]> =
            FutureRecord::to(topic).key("n").payload(&b"1"[..]).headers(headers).partition(0);
        let sent = producer.send(record, TRIAL).await;
        tokio::task::spawn_blocking(move || drop(producer));
        if let Err((error, _)) = sent {
            let why = told(&error);
            self.fault(&format!("the user may not write to topic {topic}: {why}: allow it WRITE on the topic"));
        }
    }

    /// Batches of the topic's codec have to be readable. Topics that take a producer's own codec say nothing about it.
    async fn codec(&mut self, topic: &str) {
        let codecs = codecs::built_in();
        let expected = format!("producer, uncompressed, or a codec of this build ({})", codecs.join(", "));
        self.setting(topic, "compression.type", |value| codecs::is_missing(value, &codecs), &expected).await;
    }

    async fn setting(&mut self, topic: &str, name: &str, is_wrong: impl Fn(&str) -> bool, expected: &str) {
        let Ok(admin) = self.link.create::<_, AdminClient<Heard>>(Heard::default(), &[], &[]) else { return };
        let options = AdminOptions::new().request_timeout(Some(ASK));
        let found = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await;
        // Who may not ask for settings may still work with the topic, and is told none.
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

/// What a commit that must not be done is answered with where the group is the user's to read: the partition is not
/// there, the group has members and this is none of them, or the topic's rights are missing, which is told by itself.
const ALLOWED: &[RDKafkaErrorCode] = &[
    RDKafkaErrorCode::UnknownTopicOrPartition,
    RDKafkaErrorCode::UnknownMemberId,
    RDKafkaErrorCode::IllegalGeneration,
    RDKafkaErrorCode::RebalanceInProgress,
    RDKafkaErrorCode::TopicAuthorizationFailed,
];

/// The usual reasons in words that say what to do.
fn plain(link: &Link, why: &str) -> String {
    let hint = match why {
        why if why.contains("certificate verify failed") => ": its certificate is not one that ssl.ca.location trusts",
        why if why.contains("uthentication") || why.contains("SASL") => ": user and password are not what it expects",
        why if why.contains("refused") => ": nobody listens there",
        why if why.contains("resolve") => ": that name is not known",
        _ => "",
    };
    format!("kafka at {} does not answer: {why}{hint}", link.brokers())
}
