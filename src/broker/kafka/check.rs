//! What would keep a node from working with its Kafka: asked by connecting and by doing what a node does.
//!
//! For `skylark check`. Leaves behind a record in each topic that is there, which every node skips.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};

use super::address::{HEADER, To};
use super::link::{ASK, Heard, Link, code_told, partitions, told};
use crate::config::{Bus, KafkaConfig};
use crate::id::NodeId;

/// Reading what is at the end of a topic, and writing behind it, get no longer.
const TRIAL: Duration = Duration::from_secs(5);

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
        trial.setting(&own, "max.message.bytes", small, &format!("at least {most}, as bus.record_bytes")).await;
    }
    if let Some(count) = trial.own_topic(&members).await {
        if count != 1 {
            trial.fault(&format!("topic {members} has {count} partitions, expected 1: only one makes one order"));
        }
        trial.setting(&members, "cleanup.policy", |value| value != "compact", "compact").await;
    }
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
            Err(error) => self.fault(&format!("the user may not see topic {topic}: {}", told(&error))),
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
                    Some(Err(error)) if is_refusal(&error) => return Err(error),
                    Some(Err(_)) | None => {}
                }
            }
            consumer.unassign()
        });
        if let Err(error) = read.await {
            self.fault(&format!("the user may not read topic {topic}: {}", told(&error)));
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
            self.fault(&format!("the user may not write to topic {topic}: {}", told(&error)));
        }
    }

    async fn setting(&mut self, topic: &str, name: &str, is_wrong: impl Fn(&str) -> bool, expected: &str) {
        let Ok(admin) = self.link.create::<_, AdminClient<Heard>>(Heard::default(), &[], &[]) else { return };
        let options = AdminOptions::new().request_timeout(Some(ASK));
        let found = admin.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await;
        // Who may not ask for settings may still work with the topic.
        let Some(Ok(found)) = found.ok().and_then(|found| found.into_iter().next()) else { return };
        let value = found.get(name).and_then(|entry| entry.value.clone()).unwrap_or_default();
        if is_wrong(&value) {
            self.fault(&format!("topic {topic}: expected {name} to be {expected}, got {value:?}"));
        }
    }
}

fn is_refusal(error: &KafkaError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::GroupAuthorizationFailed)
    )
}

/// The usual reasons in words that say what to do.
fn plain(link: &Link, why: &str) -> String {
    let hint = match why {
        why if why.contains("uthentication") || why.contains("SASL") => ": user and password are not what it expects",
        why if why.contains("refused") => ": nobody listens there",
        why if why.contains("resolve") => ": that name is not known",
        _ => "",
    };
    format!("kafka at {} does not answer: {why}{hint}", link.brokers())
}
