//! A real Kafka, shared by all tests or started for one test, and a client that bypasses Skylark.
//!
//! `tests/run` starts the shared one and passes its addresses. Without it, the first test that needs Kafka starts one
//! with the same script, which stops Kafka with this process.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::{Offset, TopicPartitionList};
use rustix::process::{Pid, Signal, kill_process};
use skylark::broker::kafka::KafkaClients;

use crate::support::client::within;

const PATIENCE: Duration = Duration::from_secs(100);

/// A running Kafka.
pub struct Kafka {
    /// Address for anonymous clients, which have all rights.
    pub bootstrap: String,
    /// Address for users: `skylark` (`lark-secret`) has all rights, `stranger` (`strange-secret`) has none.
    pub users: String,
}

/// A cluster of one test, which may break it. Ends with this value or with the process.
pub struct KafkaCluster {
    pub kafka: Kafka,
    work: PathBuf,
}

/// A record of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub payload: Vec<u8>,
    pub headers: Vec<(String, Vec<u8>)>,
}

/// The replicas of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replicas {
    /// The leading broker; −1 = none.
    pub leader: i32,
    /// Replicas that have every record.
    pub in_sync: Vec<i32>,
}

/// The Kafka of this test run.
pub fn kafka() -> &'static Kafka {
    static SHARED: OnceLock<Kafka> = OnceLock::new();
    SHARED.get_or_init(|| match (std::env::var("SKYLARK_TEST_KAFKA"), std::env::var("SKYLARK_TEST_KAFKA_USERS")) {
        (Ok(bootstrap), Ok(users)) => Kafka { bootstrap, users },
        _ => up(&folder("shared"), 1),
    })
}

/// A name that no other test uses.
pub fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Kafka {
    /// Settings of Skylark's clients for this Kafka.
    pub fn clients(&self, name: &str) -> KafkaClients {
        self.clients_with(name, &[])
    }

    /// Like [`Self::clients`], with properties of librdkafka.
    pub fn clients_with(&self, name: &str, properties: &[(&str, &str)]) -> KafkaClients {
        let properties = properties.iter().map(|(name, value)| ((*name).to_owned(), (*value).into()));
        KafkaClients::new(&self.bootstrap, "", "", properties.collect(), name)
    }

    /// Configuration text that makes this Kafka the bus of a node.
    pub fn bus(&self, prefix: &str) -> String {
        format!("bus: {{kind: kafka, prefix: {prefix}, kafka: {{brokers: {:?}}}}}", self.bootstrap)
    }

    /// Grants rights to a user. Each right has operations, a kind and a name, such as `read,write`, `topic`, `chat`.
    /// The brokers apply it a moment later.
    pub async fn allow(&self, user: &str, rights: &[[&str; 3]]) {
        let mut command = script(&folder("shared"));
        command.args(["allow", &self.bootstrap, user]).args(rights.iter().flatten());
        let allowed = tokio::task::spawn_blocking(move || command.status().unwrap()).await.unwrap();
        assert!(allowed.success(), "cannot grant rights to {user}");
    }

    fn settings(&self) -> ClientConfig {
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", &self.bootstrap).set("message.timeout.ms", "20000");
        settings
    }

    /// Creates a topic and waits until it exists.
    pub async fn create_topic(&self, name: &str, partitions: i32) {
        self.create(NewTopic::new(name, partitions, TopicReplication::Fixed(-1))).await;
    }

    /// Creates a topic for records larger than 1 MiB.
    pub async fn create_large_topic(&self, name: &str) {
        self.create(NewTopic::new(name, 1, TopicReplication::Fixed(-1)).set("max.message.bytes", "4194304")).await;
    }

    /// Creates a topic of one partition with these settings.
    pub async fn create_topic_with(&self, name: &str, settings: &[(&str, &str)]) {
        let mut topic = NewTopic::new(name, 1, TopicReplication::Fixed(-1));
        for (setting, value) in settings {
            topic = topic.set(setting, value);
        }
        self.create(topic).await;
    }

    async fn create(&self, topic: NewTopic<'_>) {
        let admin: AdminClient<DefaultClientContext> = self.settings().create().unwrap();
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        within("the new topic", admin.create_topics([&topic], &options)).await.unwrap()[0].as_ref().unwrap();
    }

    /// Deletes a topic and creates it again with the same name.
    pub async fn create_topic_anew(&self, name: &str, partitions: i32) {
        let admin: AdminClient<DefaultClientContext> = self.settings().create().unwrap();
        let options = AdminOptions::new().operation_timeout(Some(PATIENCE));
        within("the deletion of the topic", admin.delete_topics(&[name], &options)).await.unwrap()[0].as_ref().unwrap();
        let topic = NewTopic::new(name, partitions, TopicReplication::Fixed(-1));
        // The broker may still be deleting the topic.
        let create = async {
            while let Err((_, code)) = &admin.create_topics([&topic], &options).await.unwrap()[0] {
                assert_eq!(*code, RDKafkaErrorCode::TopicAlreadyExists);
            }
        };
        within("the topic to exist again", create).await;
    }

    /// The offset that a group committed in a partition, with the commit's metadata; `None` without a commit.
    pub async fn committed(&self, group: &str, topic: &str, partition: i32) -> Option<(i64, String)> {
        let mut settings = self.settings();
        let consumer: BaseConsumer = settings.set("group.id", group).create().unwrap();
        let mut place = TopicPartitionList::new();
        place.add_partition(topic, partition);
        let look = move || {
            let found = consumer.committed_offsets(place, PATIENCE).unwrap();
            let found = &found.elements()[0];
            found.offset().to_raw().filter(|offset| *offset >= 0).map(|offset| (offset, found.metadata().to_owned()))
        };
        tokio::task::spawn_blocking(look).await.unwrap()
    }

    /// Commits for a group without members, as `kafka-consumer-groups --reset-offsets` does.
    pub async fn commit(&self, group: &str, topic: &str, (partition, offset): (i32, i64), metadata: &str) {
        let mut settings = self.settings();
        let consumer: BaseConsumer = settings.set("group.id", group).create().unwrap();
        let mut places = TopicPartitionList::new();
        let mut place = places.add_partition(topic, partition);
        place.set_offset(Offset::Offset(offset)).unwrap();
        place.set_metadata(metadata);
        // The broker may still list a member that has just left.
        let commit = move || {
            let until = Instant::now() + PATIENCE;
            while let Err(error) = consumer.commit(&places, CommitMode::Sync) {
                assert!(Instant::now() < until, "{error}");
            }
        };
        tokio::task::spawn_blocking(commit).await.unwrap();
    }

    /// A producer that is not Skylark's.
    pub fn producer(&self) -> FutureProducer {
        self.settings().set("acks", "all").set("linger.ms", "0").set("message.max.bytes", "4194304").create().unwrap()
    }

    /// Sends these payloads in order under one key and waits for their acknowledgement.
    pub async fn send(&self, topic: &str, key: &str, payloads: &[&str]) {
        let producer = self.producer();
        let send = |payload| producer.send(FutureRecord::to(topic).key(key).payload(payload), PATIENCE);
        for sent in futures_util::future::join_all(payloads.iter().map(|payload| send(*payload))).await {
            sent.unwrap();
        }
    }

    /// Sends one record with a key and headers; without a payload it is a tombstone.
    pub async fn send_with(&self, topic: &str, key: &str, headers: &[(&str, &str)], payload: Option<&str>) {
        let mut all = OwnedHeaders::new();
        for (key, value) in headers {
            all = all.insert(Header { key, value: Some(*value) });
        }
        let mut record: FutureRecord<'_, str, str> = FutureRecord::to(topic).key(key).headers(all);
        record.payload = payload;
        self.producer().send(record, PATIENCE).await.unwrap();
    }

    /// Sends these payloads in order as batches compressed with this codec.
    pub async fn send_compressed(&self, topic: &str, codec: &str, payloads: &[&str]) {
        let mut settings = self.settings();
        let producer: FutureProducer =
            settings.set("compression.codec", codec).set("linger.ms", "50").create().unwrap();
        let send = |payload| producer.send(FutureRecord::to(topic).key("k").payload(payload), PATIENCE);
        for sent in futures_util::future::join_all(payloads.iter().map(|payload| send(*payload))).await {
            sent.unwrap();
        }
    }

    /// Sends a record without key and headers to a topic.
    pub async fn put(&self, topic: &str, payload: &[u8]) {
        let record: FutureRecord<'_, (), [u8]> = FutureRecord::to(topic).payload(payload);
        self.producer().send(record, PATIENCE).await.unwrap();
    }

    /// Sends a record with another payload to the partition of this one, with its headers.
    pub async fn put_beside(&self, topic: &str, found: &Found, payload: &[u8]) {
        let mut headers = OwnedHeaders::new();
        for (key, value) in &found.headers {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let record: FutureRecord<'_, (), [u8]> = FutureRecord::to(topic).payload(payload).headers(headers);
        self.producer().send(record.partition(found.partition), PATIENCE).await.unwrap();
    }

    /// The replicas of each partition of a topic, as the brokers report them now; empty if no broker answers.
    pub async fn replicas(&self, topic: &str) -> Vec<Replicas> {
        let (consumer, topic) = (self.settings().create::<BaseConsumer>().unwrap(), topic.to_owned());
        let look = move || {
            let Ok(metadata) = consumer.fetch_metadata(Some(&topic), PATIENCE) else { return Vec::new() };
            let mut partitions: Vec<_> = metadata.topics()[0].partitions().iter().collect();
            partitions.sort_by_key(|partition| partition.id());
            let told = partitions.iter().map(|p| Replicas { leader: p.leader(), in_sync: p.isr().to_vec() });
            told.collect()
        };
        tokio::task::spawn_blocking(look).await.unwrap()
    }

    /// Returns all records of a topic.
    pub async fn all(&self, topic: &str) -> Vec<Found> {
        let mut settings = self.settings();
        settings.set("group.id", unique("reader"));
        let (consumer, topic) = (settings.create::<BaseConsumer>().unwrap(), topic.to_owned());
        let read = move || {
            let count = consumer.fetch_metadata(Some(&topic), PATIENCE).unwrap().topics()[0].partitions().len();
            let (mut places, mut open) = (TopicPartitionList::new(), HashMap::new());
            for partition in 0..i32::try_from(count).unwrap() {
                let (first, next) = consumer.fetch_watermarks(&topic, partition, PATIENCE).unwrap();
                places.add_partition_offset(&topic, partition, Offset::Offset(first)).unwrap();
                if first < next {
                    open.insert(partition, next);
                }
            }
            consumer.assign(&places).unwrap();
            let (mut found, until) = (Vec::new(), Instant::now() + PATIENCE);
            while !open.is_empty() && Instant::now() < until {
                let Some(Ok(message)) = consumer.poll(Duration::from_millis(200)) else { continue };
                found.push(Found::of(&message));
                open.retain(|partition, next| *partition != message.partition() || message.offset() + 1 < *next);
            }
            assert!(open.is_empty(), "partitions of {topic} not read to these offsets: {open:?}");
            found
        };
        tokio::task::spawn_blocking(read).await.unwrap()
    }

    /// Reads a topic from its beginning until it holds `count` records.
    pub async fn read(&self, topic: &str, count: usize) -> Vec<Found> {
        let mut settings = self.settings();
        settings.set("group.id", unique("reader")).set("auto.offset.reset", "earliest");
        settings.set("topic.metadata.refresh.interval.ms", "100");
        let consumer: BaseConsumer = settings.create().unwrap();
        let topic = topic.to_owned();
        let read = tokio::task::spawn_blocking(move || {
            consumer.subscribe(&[&topic]).unwrap();
            let mut found = Vec::new();
            let until = Instant::now() + PATIENCE;
            while found.len() < count && Instant::now() < until {
                // A missing topic is an error that passes once the topic exists.
                found.extend(consumer.poll(Duration::from_millis(200)).and_then(Result::ok).map(|m| Found::of(&m)));
            }
            found
        });
        let found = read.await.unwrap();
        assert!(found.len() >= count, "expected {count} records, got {}: {found:?}", found.len());
        found
    }
}

impl Found {
    fn of(message: &BorrowedMessage<'_>) -> Self {
        let value = |header: &Header<'_, &[u8]>| header.value.unwrap_or_default().to_vec();
        let headers = message
            .headers()
            .map(|headers| headers.iter().map(|header| (header.key.to_owned(), value(&header))).collect());
        Self {
            partition: message.partition(),
            offset: message.offset(),
            key: message.key().map(<[u8]>::to_vec),
            payload: message.payload().unwrap_or_default().to_vec(),
            headers: headers.unwrap_or_default(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        let (_, value) = self.headers.iter().find(|(key, _)| key == name)?;
        std::str::from_utf8(value).ok()
    }
}

impl KafkaCluster {
    /// Starts one node, or three nodes with RF 3 and min.insync.replicas 2.
    pub fn start(nodes: u8) -> Self {
        let work = folder(&unique("own"));
        Self { kafka: up(&work, nodes), work }
    }

    /// Starts a cluster that serves users over TLS, and returns the certificate to trust.
    #[cfg(feature = "kafka-tls")]
    pub fn start_over_tls() -> (Self, PathBuf) {
        let work = folder(&unique("tls"));
        let mut script = script(&work);
        script.env("TLS", "1");
        let ca = work.join("ca.pem");
        (Self { kafka: up_by(script, 1), work }, ca)
    }

    /// Crashes node `node`, counted from 1; its data stays.
    pub fn kill9(&self, node: u8) {
        self.script(&["kill9", &node.to_string()]);
    }

    /// Starts the same node again; returns when it serves.
    pub fn start_node(&self, node: u8) {
        self.script(&["start", &node.to_string()]);
    }

    /// Changes the password of the user `skylark`; the node applies it at its next start.
    pub fn set_password(&self, node: u8, password: &str) {
        let file = self.work.join(format!("node-{node}.properties"));
        let text = std::fs::read_to_string(&file).unwrap();
        let (head, rest) = text.split_once("user_skylark=\"").unwrap();
        let (_, tail) = rest.split_once('"').unwrap();
        std::fs::write(file, format!("{head}user_skylark=\"{password}\"{tail}")).unwrap();
    }

    /// Sends a signal to the process of a node. After SIGSTOP, each thread of the process has stopped when this returns.
    pub fn signal(&self, node: u8, signal: Signal) {
        let pid = std::fs::read_to_string(self.work.join(format!("node-{node}.pid"))).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
        if signal == Signal::STOP {
            let deadline = Instant::now() + PATIENCE;
            while !has_stopped(pid) {
                assert!(Instant::now() < deadline, "node {node} of Kafka did not stop");
                std::thread::yield_now();
            }
        }
    }

    fn script(&self, arguments: &[&str]) {
        let status = script(&self.work).args(arguments).status().unwrap();
        assert!(status.success(), "tests/kafka/kafka {arguments:?}: {status}");
    }
}

impl Drop for KafkaCluster {
    fn drop(&mut self) {
        let _ = script(&self.work).arg("down").status();
    }
}

/// True once each thread of the process has stopped. A thread that waits for its share of a core stops late.
fn has_stopped(pid: Pid) -> bool {
    std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).unwrap().all(|thread| {
        // A thread that has exited answers no more requests.
        let Ok(stat) = std::fs::read_to_string(thread.unwrap().path().join("stat")) else { return true };
        stat.rsplit_once(')').unwrap().1.trim_start().starts_with('T')
    })
}

fn folder(name: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().unwrap();
    target.join("kafka").join(format!("{name}-{}", std::process::id()))
}

fn script(work: &Path) -> Command {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kafka/kafka"));
    command.env("WORK", work);
    command
}

fn up(work: &Path, nodes: u8) -> Kafka {
    up_by(script(work), nodes)
}

fn up_by(mut command: Command, nodes: u8) -> Kafka {
    command.args(["up", &nodes.to_string(), &std::process::id().to_string()]);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "Kafka does not start: {said}");
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(&format!("{name}="))).unwrap().to_owned();
    Kafka { bootstrap: value("BOOTSTRAP"), users: value("BOOTSTRAP_USERS") }
}
