//! An intake's topic, read by a consumer group.
//!
//! A thread of its own polls, so that the group never waits for this node, however long a publish takes. What is
//! settled is committed, nothing else is. Partitions move one by one (cooperative-sticky unless the operator's
//! properties say otherwise); before one is given away, what the intake has in hand of it gets a second to be settled.
//! Knows nothing of what a record says.

mod group;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Header, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

use self::group::{Group, Lines};
use super::link::{Heard, Link, Topic, partitions, told, unavailable, uncommitted};
use crate::broker::Unavailable;
use crate::broker::source::{Place, Record, Source};

/// Most records, and about as many bytes, that are handed over at once.
const MOST: usize = 256;
const MOST_BYTES: usize = 4 << 20;
/// So long the thread waits for a record before it looks at what else there is to do.
const POLL: Duration = Duration::from_millis(100);
/// When the intake takes nothing for so long, its partitions are paused.
const PATIENCE: Duration = Duration::from_secs(1);
/// A commit, and the burial of a record, get no longer.
const COMMIT: Duration = Duration::from_secs(2);
const BURY: Duration = Duration::from_secs(5);

/// What holds unless the operator's properties say otherwise. A group that is new to its topic starts at the beginning:
/// partitions that are added later would lose their first records otherwise.
const DEFAULTS: &[(&str, &str)] = &[
    ("auto.offset.reset", "earliest"),
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("session.timeout.ms", "10000"),
    ("queued.max.messages.kbytes", "16384"),
    ("fetch.queue.backoff.ms", "50"),
    ("statistics.interval.ms", "5000"),
];

type Handed = Result<Vec<Record>, Unavailable>;

/// One topic, read as a member of a consumer group.
pub struct KafkaSource {
    link: Link,
    topic: String,
    lines: Arc<Lines>,
    consumer: Option<Arc<BaseConsumer<Group>>>,
    handed: mpsc::Receiver<Handed>,
    /// Handed out and not settled.
    taken: Vec<Record>,
    reader: Option<JoinHandle<()>>,
    /// Where records are buried; made with the first.
    dead: Option<FutureProducer<Heard>>,
}

impl KafkaSource {
    /// Joins `group` to read `topic`; `name` is what the metrics call the intake. Asks nobody yet: a Kafka that is away is no error. Within a runtime only.
    ///
    /// # Errors
    /// A property that librdkafka does not know, or cannot do in this build.
    pub fn join(link: &Link, topic: &str, group: &str, name: &str) -> Result<Self, Unavailable> {
        let lines = Arc::new(Lines::default());
        let counted = Arc::clone(&lines);
        let heard = Heard::counting(move |statistics| counted.lag.store(uncommitted(statistics), Ordering::Relaxed));
        let fixed = [("group.id", group), ("enable.auto.commit", "false"), ("enable.auto.offset.store", "false")];
        let context = Group::new(heard.clone(), Arc::clone(&lines), topic, name);
        let consumer: BaseConsumer<Group> = link.create(context, DEFAULTS, &fixed)?;
        consumer.subscribe(&[topic]).map_err(|error| unavailable(told(&error)))?;
        let consumer = Arc::new(consumer);
        let (sender, handed) = mpsc::channel(1);
        let poll =
            Poll { consumer: Arc::clone(&consumer), lines: Arc::clone(&lines), heard, sender, topic: topic.into() };
        let runtime = Handle::current();
        let reader = thread::Builder::new()
            .name(format!("kafka-{topic}"))
            .spawn(move || poll.run(&runtime))
            .map_err(|error| unavailable(format!("no thread for topic {topic}: {error}")))?;
        Ok(Self {
            link: link.clone(),
            topic: topic.to_owned(),
            lines,
            consumer: Some(consumer),
            handed,
            taken: Vec::new(),
            reader: Some(reader),
            dead: None,
        })
    }

    async fn next(&mut self) -> Handed {
        self.taken.retain(|record| self.lines.holds(&record.place));
        if !self.taken.is_empty() {
            self.taken.iter_mut().for_each(|record| record.tries = record.tries.saturating_add(1));
            return Ok(self.taken.clone());
        }
        loop {
            let mut records = self.handed.recv().await.ok_or_else(|| unavailable("closed"))??;
            // A partition may have gone while they waited here.
            records.retain(|record| self.lines.take(&record.place));
            if !records.is_empty() {
                self.taken.clone_from(&records);
                return Ok(records);
            }
        }
    }

    async fn commit(&mut self, places: &[Place]) -> Result<(), Unavailable> {
        let consumer = self.consumer.clone().ok_or_else(|| unavailable("closed"))?;
        self.taken.retain(|record| !places.contains(&record.place));
        let offsets = self.lines.offsets_after(&self.topic, places);
        let (lines, places) = (Arc::clone(&self.lines), places.to_vec());
        // Done whole even where nobody waits for it any more.
        let commit = tokio::task::spawn_blocking(move || {
            let done = if offsets.count() == 0 { Ok(()) } else { consumer.commit(&offsets, CommitMode::Sync) };
            // Accepted is accepted: where this failed, the next commit says it, too.
            lines.settle(&places);
            done
        });
        match timeout(COMMIT, commit).await {
            Ok(Ok(done)) => done.map_err(|error| unavailable(format!("offsets not committed: {}", told(&error)))),
            Ok(Err(_)) | Err(_) => Err(unavailable("offsets not committed: no answer in time")),
        }
    }

    /// A record that does not fit beside its headers is told without its payload.
    async fn write_dead(&mut self, record: &Record, reason: &str) -> Result<(), Unavailable> {
        let topic = format!("{}.dead", self.topic);
        let producer = self.undertaker(&topic).await?;
        let origin = format!("{}/{}", record.place.line, record.place.offset.unwrap_or_default());
        let mut payload = Some(&record.payload[..]);
        loop {
            let mut headers = OwnedHeaders::new()
                .insert(Header { key: "reason", value: Some(reason) })
                .insert(Header { key: "origin", value: Some(&origin) });
            if payload.is_none() {
                let left_out = record.payload.len().to_string();
                headers = headers.insert(Header { key: "left-out-bytes", value: Some(&left_out) });
            }
            let mut dead: FutureRecord<'_, (), [u8]> = FutureRecord::to(&topic).headers(headers);
            dead.payload = payload.take();
            let has_payload = dead.payload.is_some();
            match producer.send(dead, BURY).await {
                Ok(_) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) if has_payload => {}
                Err((error, _)) => return Err(unavailable(format!("topic {topic}: {}", told(&error)))),
            }
        }
    }

    /// The first time, it looks for the topic, and creates it where it is missing.
    async fn undertaker(&mut self, topic: &str) -> Result<FutureProducer<Heard>, Unavailable> {
        if let Some(dead) = &self.dead {
            return Ok(dead.clone());
        }
        let (heard, bound) = (Heard::default(), BURY.as_millis().to_string());
        let fixed = [("enable.idempotence", "true"), ("acks", "all"), ("message.timeout.ms", bound.as_str())];
        let producer: FutureProducer<Heard> =
            self.link.create(heard.clone(), &[("message.max.bytes", "67108864")], &fixed)?;
        let (asked, name) = (producer.clone(), topic.to_owned());
        let found = tokio::task::spawn_blocking(move || partitions(asked.client(), &name)).await;
        match found.unwrap_or(Err(KafkaError::Canceled)).map_err(|error| heard.unavailable(&error))? {
            Some(_) => {}
            None => {
                let topic = Topic { name: topic.to_owned(), partitions: -1, settings: Vec::new() };
                self.link.create_topic(&topic).await?;
            }
        }
        Ok(self.dead.insert(producer).clone())
    }

    async fn leave(&mut self) {
        self.lines.closing.store(true, Ordering::Relaxed);
        self.handed.close();
        let (consumer, reader, dead) = (self.consumer.take(), self.reader.take(), self.dead.take());
        // Whoever lets go of a client last waits for it.
        let ended = tokio::task::spawn_blocking(move || {
            reader.map(JoinHandle::join);
            drop(consumer);
            dead.map(|dead| dead.flush(COMMIT));
        });
        if ended.await.is_err() {
            tracing::warn!(topic = self.topic, "the reader of a Kafka topic panicked");
        }
    }
}

impl Source for KafkaSource {
    fn take(&mut self) -> BoxFuture<'_, Result<Vec<Record>, Unavailable>> {
        self.next().boxed()
    }

    fn settle<'a>(&'a mut self, places: &'a [Place]) -> BoxFuture<'a, Result<(), Unavailable>> {
        self.commit(places).boxed()
    }

    fn bury<'a>(&'a mut self, record: &'a Record, reason: &'a str) -> BoxFuture<'a, Result<(), Unavailable>> {
        self.write_dead(record, reason).boxed()
    }

    fn lag(&self) -> Option<u64> {
        Some(self.lines.lag.load(Ordering::Relaxed))
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        self.leave().boxed()
    }
}

/// Who forgets to close it gives its partitions back a little later.
impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.lines.closing.store(true, Ordering::Relaxed);
    }
}

/// The thread that polls.
struct Poll {
    consumer: Arc<BaseConsumer<Group>>,
    lines: Arc<Lines>,
    heard: Heard,
    sender: mpsc::Sender<Handed>,
    topic: String,
}

impl Poll {
    fn run(self, runtime: &Handle) {
        while !self.is_closing() {
            match self.gather() {
                Ok(records) if records.is_empty() => {}
                Ok(records) => self.hand(Ok(records), runtime),
                Err(error) => self.tell(&error),
            }
        }
    }

    fn is_closing(&self) -> bool {
        self.lines.closing.load(Ordering::Relaxed) || self.sender.is_closed()
    }

    /// What is there, in order; waits a moment where nothing is. Records that came before a fault are handed over first.
    fn gather(&self) -> Result<Vec<Record>, KafkaError> {
        let (mut records, mut bytes, mut wait) = (Vec::new(), 0, POLL);
        while records.len() < MOST && bytes < MOST_BYTES {
            match self.consumer.poll(wait) {
                None => break,
                Some(Ok(message)) => {
                    bytes += message.payload_len();
                    records.extend(self.record(&message));
                }
                Some(Err(error)) if records.is_empty() => return Err(error),
                Some(Err(error)) => {
                    self.tell(&error);
                    break;
                }
            }
            wait = Duration::ZERO;
        }
        Ok(records)
    }

    fn record(&self, message: &BorrowedMessage<'_>) -> Option<Record> {
        let line = self.lines.note(message.partition(), message.offset())?;
        let payload = Bytes::copy_from_slice(message.payload().unwrap_or_default());
        let place = Place { line, offset: u64::try_from(message.offset()).ok() };
        Some(Record { payload, place, tries: 0 })
    }

    /// Waits for the intake. When that takes long, the partitions are paused, and the group is still served.
    fn hand(&self, records: Handed, runtime: &Handle) {
        let Ok(wait) = runtime.block_on(async { timeout(PATIENCE, self.sender.reserve()).await.map(Result::ok) })
        else {
            return self.hold(records);
        };
        if let Some(room) = wait {
            room.send(records);
        }
    }

    fn hold(&self, records: Handed) {
        tracing::info!(topic = self.topic, "the intake waits: its partitions are paused");
        let mut records = records;
        while !self.is_closing() {
            // Those that came meanwhile, too.
            self.steer(Consumer::pause);
            match self.consumer.poll(POLL) {
                Some(Ok(message)) => {
                    if let Ok(records) = &mut records {
                        records.extend(self.record(&message));
                    }
                }
                Some(Err(error)) => self.tell(&error),
                None => {}
            }
            if let Ok(room) = self.sender.try_reserve() {
                room.send(records);
                break;
            }
        }
        self.steer(Consumer::resume);
    }

    fn steer(&self, act: impl Fn(&BaseConsumer<Group>, &rdkafka::TopicPartitionList) -> Result<(), KafkaError>) {
        let done = self.consumer.assignment().and_then(|partitions| act(&self.consumer, &partitions));
        if let Err(error) = done {
            tracing::debug!(topic = self.topic, %error, "partitions not paused or resumed");
        }
    }

    /// Tells the intake, unless it has not even heard the last news. librdkafka tries again by itself.
    fn tell(&self, error: &KafkaError) {
        let fault = self.heard.unavailable(error);
        tracing::debug!(topic = self.topic, %fault, "Kafka");
        let _ = self.sender.try_send(Err(fault));
    }
}
