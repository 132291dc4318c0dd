//! The thread that polls a topic for an intake.
//!
//! It hands records over only after it has asked Kafka for the topic's id. Ids never come back, so an answer that is the
//! id of before says that the records are of that topic. Another id says that the topic was deleted and created again:
//! what was read is dropped, and every partition is read from its beginning.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bytes::Bytes;
use metrics::Counter;
use rdkafka::admin::AdminClient;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message, OwnedHeaders};
use rdkafka::metadata::{MetadataPartition, MetadataTopic};
use rdkafka::{Offset, TopicPartitionList};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::super::link::Heard;
use super::super::native::{broker, leader_epoch, topic_id};
use super::group::{Group, Shared, topic_of_commit};
use super::lines::Spot;
use crate::broker::Unavailable;
use crate::broker::source::{Place, Record};

/// Most records, and about as many bytes, that are handed over at once.
const MOST: usize = 256;
const MOST_BYTES: usize = 4 << 20;
/// So long the thread waits for a record before it looks at what else there is to do.
const POLL: Duration = Duration::from_millis(100);
/// When the intake takes nothing for so long, its partitions are paused.
const PATIENCE: Duration = Duration::from_secs(1);
/// Kafka gets so long to say which topic it has, and where the group stands in it.
const LOOK: Duration = Duration::from_secs(2);
/// While nothing comes the topic is looked at so often: one that was made anew may wait with records.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Names of lines that are remembered: one for each partition and leader epoch.
const MOST_NAMES: usize = 4_096;

/// Records for the intake; an empty list says that Kafka is there again.
pub(super) type Handed = Result<Vec<Read>, Unavailable>;

/// A record with what only its own source needs.
#[derive(Debug, Clone)]
pub(super) struct Read {
    pub(super) record: Record,
    pub(super) spot: Spot,
    pub(super) around: Around,
}

/// What Kafka keeps of a record besides its value.
#[derive(Debug, Clone, Default)]
pub(super) struct Around {
    pub(super) key: Option<Bytes>,
    pub(super) headers: Option<OwnedHeaders>,
    /// Milliseconds since 1970.
    pub(super) timestamp: Option<i64>,
}

/// A record whose topic is not proven yet.
struct Raw {
    spot: Spot,
    epoch: i32,
    payload: Bytes,
    around: Around,
}

pub(super) struct Poll {
    consumer: Arc<BaseConsumer<Group>>,
    /// Asks for the topic's id. Not the consumer: on its connections a question waits behind the fetch under way, half a
    /// second where nothing comes.
    asker: Arc<AdminClient<Heard>>,
    shared: Arc<Shared>,
    heard: Heard,
    sender: mpsc::Sender<Handed>,
    topic: String,
    tombstones: Counter,
    raw: Vec<Raw>,
    raw_bytes: usize,
    /// The cluster's id, once it is known.
    cluster: Option<String>,
    /// The broker that the last record came from.
    broker: Option<i32>,
    names: HashMap<(i32, i32), Arc<str>>,
    look_at: Instant,
    /// An offset went back, or only tombstones came: the commit has to follow now.
    is_commit_due: bool,
    has_told: bool,
}

impl Poll {
    pub(super) fn new(
        (consumer, asker): (Arc<BaseConsumer<Group>>, Arc<AdminClient<Heard>>),
        shared: Arc<Shared>,
        heard: Heard,
        sender: mpsc::Sender<Handed>,
        (topic, tombstones): (&str, Counter),
    ) -> Self {
        Self {
            consumer,
            asker,
            shared,
            heard,
            sender,
            topic: topic.to_owned(),
            tombstones,
            raw: Vec::new(),
            raw_bytes: 0,
            cluster: None,
            broker: None,
            names: HashMap::new(),
            look_at: Instant::now(),
            is_commit_due: false,
            has_told: false,
        }
    }

    pub(super) fn run(mut self, runtime: &Handle) {
        while !self.is_closing() {
            if let Err(error) = self.gather() {
                self.tell(&error);
            }
            if !self.has_to_look() {
                continue;
            }
            self.look_at = Instant::now() + LOOK_AGAIN;
            if let Err(error) = self.prove() {
                self.tell(&error);
                continue;
            }
            self.commit_where_due();
            let reads = self.named();
            if !reads.is_empty() || self.has_told {
                self.hand(Ok(reads), runtime);
            }
        }
    }

    fn is_closing(&self) -> bool {
        self.shared.closing.load(Ordering::Relaxed) || self.sender.is_closed()
    }

    /// Reads what is there, in order; waits [`POLL`] where nothing is. Records that came before a fault are kept.
    fn gather(&mut self) -> Result<(), KafkaError> {
        let consumer = Arc::clone(&self.consumer);
        let mut wait = POLL;
        // Once at least: the group is served by it.
        loop {
            match consumer.poll(wait) {
                None => return Ok(()),
                Some(message) => self.note(&message?),
            }
            if self.raw.len() >= MOST || self.raw_bytes >= MOST_BYTES {
                return Ok(());
            }
            wait = Duration::ZERO;
        }
    }

    fn note(&mut self, message: &BorrowedMessage<'_>) {
        let payload = message.payload();
        let noted = self.shared.lines.note(message.partition(), message.offset(), payload.is_none());
        let Some(noted) = noted else { return };
        if noted.went_back {
            let (partition, offset) = (noted.spot.partition, noted.spot.offset);
            tracing::warn!(topic = self.topic, partition, offset, "the offset went back: the commit goes with it");
            self.is_commit_due = true;
        }
        let Some(payload) = payload else {
            self.tombstones.increment(1);
            self.is_commit_due = true;
            return;
        };
        let around = Around {
            key: message.key().map(Bytes::copy_from_slice),
            headers: message.headers().map(rdkafka::message::BorrowedHeaders::detach),
            timestamp: message.timestamp().to_millis(),
        };
        self.broker = Some(broker(message)).filter(|broker| *broker >= 0);
        self.raw_bytes += payload.len();
        let (payload, epoch) = (Bytes::copy_from_slice(payload), leader_epoch(message));
        self.raw.push(Raw { spot: noted.spot, epoch, payload, around });
    }

    fn has_to_look(&self) -> bool {
        let lines = &self.shared.lines;
        let is_unsure = || !lines.unproven().is_empty() || !lines.beginning().is_empty();
        !self.raw.is_empty() || lines.count() > 0 && (Instant::now() >= self.look_at || is_unsure())
    }

    /// Learns which topic the records are of, and sees to it that every partition is read from where it should be.
    fn prove(&mut self) -> Result<(), KafkaError> {
        let id = self.ask_for_id()?;
        if self.cluster.is_none() {
            // Known by now, unless the brokers have none.
            self.cluster = Some(self.asker.inner().fetch_cluster_id(LOOK).unwrap_or_default());
        }
        let before = self.shared.topic_id.lock().replace(id.clone());
        let is_known = |id: &String| !id.is_empty();
        if let Some(before) = before.filter(|before| is_known(before) && is_known(&id) && *before != id) {
            tracing::warn!(topic = self.topic, before, id, "the topic was created anew: it is read from its beginning");
            self.names.clear();
            self.shared.lines.begin_all();
            self.is_commit_due = true;
        }
        self.look_at_commits(&id)?;
        self.seek_to_beginnings()
    }

    /// Asks the broker that the records came from: it knows best which topic they are of. Empty = brokers give no ids.
    fn ask_for_id(&mut self) -> Result<String, KafkaError> {
        let broker = match self.broker {
            Some(broker) => broker,
            None => self.leader()?,
        };
        let asked = topic_id(self.asker.inner(), &self.topic, broker, LOOK);
        self.broker = Some(broker).filter(|_| asked.is_ok());
        match asked {
            Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnsupportedFeature) => Ok(String::new()),
            asked => Ok(asked?.unwrap_or_default()),
        }
    }

    /// Any broker that leads a partition of the topic.
    fn leader(&self) -> Result<i32, KafkaError> {
        let metadata = self.asker.inner().fetch_metadata(Some(&self.topic), LOOK)?;
        let partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions);
        let leader = partitions.map(MetadataPartition::leader).find(|leader| *leader >= 0);
        leader.ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable))
    }

    /// A commit of another topic of this name says nothing about this one.
    fn look_at_commits(&mut self, id: &str) -> Result<(), KafkaError> {
        let unproven = self.shared.lines.unproven();
        if unproven.is_empty() {
            return Ok(());
        }
        let committed = self.consumer.committed_offsets(self.places(&unproven, Offset::Invalid)?, LOOK)?;
        for place in committed.elements() {
            place.error()?;
            let partition = place.partition();
            match topic_of_commit(place.metadata()) {
                Some(other) if other != id && !id.is_empty() => {
                    let offset = place.offset().to_raw();
                    tracing::warn!(topic = self.topic, partition, offset, other, id, "the commit is of another topic");
                    self.shared.lines.begin(partition);
                    self.is_commit_due = true;
                }
                _ => self.shared.lines.prove(partition),
            }
        }
        Ok(())
    }

    fn seek_to_beginnings(&self) -> Result<(), KafkaError> {
        let beginning = self.shared.lines.beginning();
        if beginning.is_empty() {
            return Ok(());
        }
        let sought = self.consumer.seek_partitions(self.places(&beginning, Offset::Beginning)?, LOOK)?;
        for place in sought.elements() {
            place.error()?;
            self.shared.lines.prove(place.partition());
        }
        Ok(())
    }

    fn places(&self, partitions: &[i32], offset: Offset) -> Result<TopicPartitionList, KafkaError> {
        let mut places = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            places.add_partition_offset(&self.topic, *partition, offset)?;
        }
        Ok(places)
    }

    /// Commits what no intake settles: tombstones, and offsets that went back. A commit that fails here is tried again
    /// with the next record that is settled.
    fn commit_where_due(&mut self) {
        if !std::mem::take(&mut self.is_commit_due) {
            return;
        }
        let offsets = self.shared.lines.offsets_after(&self.topic, &self.shared.metadata(), &[]);
        if offsets.count() == 0 {
            return;
        }
        match self.consumer.commit(&offsets, CommitMode::Sync) {
            Ok(()) => self.shared.lines.committed(&offsets),
            Err(error) => tracing::debug!(topic = self.topic, %error, "offsets not committed"),
        }
    }

    /// The records that were read, each with its place.
    fn named(&mut self) -> Vec<Read> {
        self.raw_bytes = 0;
        let raw = std::mem::take(&mut self.raw);
        raw.into_iter().map(|raw| self.name(raw)).collect()
    }

    fn name(&mut self, Raw { spot, epoch, payload, around }: Raw) -> Read {
        if self.names.len() >= MOST_NAMES {
            self.names.clear();
        }
        let line = self.names.entry((spot.partition, epoch)).or_insert_with(|| {
            let id = self.shared.topic_id.lock().clone().unwrap_or_default();
            let cluster = self.cluster.as_deref().unwrap_or_default();
            line(cluster, (&self.topic, &id), spot.partition, epoch)
        });
        let place = Place { line: Arc::clone(line), offset: u64::try_from(spot.offset).ok() };
        Read { record: Record { payload, place, tries: 0 }, spot, around }
    }

    /// Waits for the intake. When that takes long, the partitions are paused, and the group is still served.
    fn hand(&mut self, reads: Handed, runtime: &Handle) {
        let Ok(wait) = runtime.block_on(async { timeout(PATIENCE, self.sender.reserve()).await.map(Result::ok) })
        else {
            return self.hold(reads);
        };
        if let Some(room) = wait {
            room.send(reads);
            self.has_told = false;
        }
    }

    fn hold(&mut self, reads: Handed) {
        tracing::info!(topic = self.topic, "the intake waits: its partitions are paused");
        let consumer = Arc::clone(&self.consumer);
        while !self.is_closing() {
            // Those that came meanwhile, too.
            self.steer(Consumer::pause);
            match consumer.poll(POLL) {
                Some(Ok(message)) => self.note(&message),
                Some(Err(error)) => self.tell(&error),
                None => {}
            }
            if let Ok(room) = self.sender.try_reserve() {
                room.send(reads);
                self.has_told = false;
                break;
            }
        }
        self.steer(Consumer::resume);
    }

    fn steer(&self, act: impl Fn(&BaseConsumer<Group>, &TopicPartitionList) -> Result<(), KafkaError>) {
        let done = self.consumer.assignment().and_then(|partitions| act(&self.consumer, &partitions));
        if let Err(error) = done {
            tracing::debug!(topic = self.topic, %error, "partitions not paused or resumed");
        }
    }

    /// Tells the intake, unless it has not even heard the last news. librdkafka tries again by itself.
    fn tell(&mut self, error: &KafkaError) {
        let fault = self.heard.unavailable(error);
        tracing::debug!(topic = self.topic, %fault, "Kafka");
        self.has_told |= self.sender.try_send(Err(fault)).is_ok();
    }
}

/// What tells a line of records from every other: a record of the same line and offset is the same record. The leader
/// epoch tells records apart that stood at one offset before and after the log was truncated.
fn line(cluster: &str, (topic, id): (&str, &str), partition: i32, epoch: i32) -> Arc<str> {
    format!("kafka {cluster} {topic} {id} {partition} {epoch}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_differ_by_cluster_topic_id_partition_and_epoch() {
        let all = [
            line("c1", ("t", "i1"), 0, 0),
            line("c2", ("t", "i1"), 0, 0),
            line("c1", ("u", "i1"), 0, 0),
            line("c1", ("t", "i2"), 0, 0),
            line("c1", ("t", "i1"), 1, 0),
            line("c1", ("t", "i1"), 0, 1),
        ];
        let distinct: std::collections::HashSet<&Arc<str>> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
