//! The thread that polls a topic for an intake.
//!
//! The thread hands records over only after it has asked Kafka for the topic's id. Ids are never reused, so an
//! unchanged id proves that the records belong to the same topic. A changed id means that the topic was deleted and
//! created again. Then the read records are dropped and every partition is read from its beginning.

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
use crate::broker::source::{Record, RecordPosition};

/// Maximum number of records handed over at once, and the approximate maximum of their bytes.
const MOST: usize = 256;
const MOST_BYTES: usize = 4 << 20;
/// Time that the thread waits for a record before it checks for other work.
const POLL: Duration = Duration::from_millis(100);
/// Time after which the partitions are paused if the intake takes no records.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time limit for Kafka to tell the topic id and the offsets of the group.
const LOOK: Duration = Duration::from_secs(2);
/// Interval of the topic check while no records arrive. A recreated topic may have records waiting.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Maximum number of cached line names, one per partition and leader epoch.
const MOST_NAMES: usize = 4_096;

/// Records for the intake. An empty list means that Kafka answers again.
pub(super) type Handed = Result<Vec<Read>, Unavailable>;

/// A record with the fields that only this source needs.
#[derive(Debug, Clone)]
pub(super) struct Read {
    pub(super) record: Record,
    pub(super) spot: Spot,
    pub(super) around: Around,
}

/// Fields of a Kafka record besides its value.
#[derive(Debug, Clone, Default)]
pub(super) struct Around {
    pub(super) key: Option<Bytes>,
    pub(super) headers: Option<OwnedHeaders>,
    /// Milliseconds since 1970.
    pub(super) timestamp: Option<i64>,
}

/// A record with an unconfirmed topic.
struct Raw {
    spot: Spot,
    epoch: i32,
    payload: Bytes,
    around: Around,
}

pub(super) struct Poll {
    consumer: Arc<BaseConsumer<Group>>,
    /// Client for the topic id. The consumer's connections are not used: there a request waits behind the fetch in
    /// flight, half a second if no records arrive.
    asker: Arc<AdminClient<Heard>>,
    shared: Arc<Shared>,
    heard: Heard,
    sender: mpsc::Sender<Handed>,
    topic: String,
    tombstones: Counter,
    raw: Vec<Raw>,
    raw_bytes: usize,
    /// Id of the cluster, once it is known.
    cluster: Option<String>,
    /// Broker that the last record came from.
    broker: Option<i32>,
    names: HashMap<(i32, i32), Arc<str>>,
    look_at: Instant,
    /// An offset went back, or only tombstones arrived, so a commit is due now.
    is_commit_due: bool,
    has_told: bool,
    /// True if the intake was told last while records could not be read.
    has_told_unreadable: bool,
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
            has_told_unreadable: false,
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
            let is_unreadable = self.heard.unreadable().is_some();
            if !reads.is_empty() || self.has_told || self.has_told_unreadable != is_unreadable {
                self.has_told_unreadable = is_unreadable;
                self.hand(Ok(reads), runtime);
            }
        }
    }

    fn is_closing(&self) -> bool {
        self.shared.closing.load(Ordering::Relaxed) || self.sender.is_closed()
    }

    /// Reads the available records in order; waits up to [`POLL`] if there are none. Records read before a fault are
    /// kept.
    fn gather(&mut self) -> Result<(), KafkaError> {
        let consumer = Arc::clone(&self.consumer);
        let mut wait = POLL;
        // At least one poll is needed, because it serves the group.
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
            tracing::warn!(topic = self.topic, partition, offset, "offset went back; committing the lower offset");
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

    /// Determines the topic of the records, and makes every partition read from the correct offset.
    fn prove(&mut self) -> Result<(), KafkaError> {
        let id = self.ask_for_id()?;
        if self.cluster.is_none() {
            // The id is known by now, unless the brokers have none.
            self.cluster = Some(self.asker.inner().fetch_cluster_id(LOOK).unwrap_or_default());
        }
        let before = self.shared.topic_id.lock().replace(id.clone());
        let is_known = |id: &String| !id.is_empty();
        if let Some(before) = before.filter(|before| is_known(before) && is_known(&id) && *before != id) {
            tracing::warn!(topic = self.topic, before, id, "topic was recreated; reading it from the beginning");
            self.names.clear();
            self.shared.lines.begin_all();
            self.is_commit_due = true;
        }
        self.look_at_commits(&id)?;
        self.seek_to_beginnings()
    }

    /// Asks the broker that sent the last record for the topic id, because its answer fits the records best. Empty if
    /// brokers have no ids.
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

    /// Returns any broker that leads a partition of the topic.
    fn leader(&self) -> Result<i32, KafkaError> {
        let metadata = self.asker.inner().fetch_metadata(Some(&self.topic), LOOK)?;
        let partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions);
        let leader = partitions.map(MetadataPartition::leader).find(|leader| *leader >= 0);
        leader.ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable))
    }

    /// Compares the commits of the group with the topic. A commit of another topic with this name does not count.
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
                    tracing::warn!(
                        topic = self.topic,
                        partition,
                        offset,
                        other,
                        id,
                        "committed offset belongs to an earlier topic of this name; reading from the beginning"
                    );
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

    /// Commits offsets that no intake completes: tombstones, and offsets that went back. A failed commit is repeated
    /// with the next completed record.
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

    /// Takes the records that were read and adds their positions.
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
        let position = RecordPosition { partition: Arc::clone(line), offset: u64::try_from(spot.offset).ok() };
        Read { record: Record { payload, position, tries: 0 }, spot, around }
    }

    /// Waits until the intake takes the records. After [`PATIENCE`] it pauses the partitions and continues to serve the
    /// group.
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
        tracing::info!(topic = self.topic, "intake accepts no records; its partitions are paused");
        let consumer = Arc::clone(&self.consumer);
        while !self.is_closing() {
            // Includes partitions that were assigned meanwhile.
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
            tracing::debug!(topic = self.topic, %error, "partitions were not paused or resumed");
        }
    }

    /// Sends the fault to the intake, unless the previous result is still waiting there. librdkafka retries by itself.
    fn tell(&mut self, error: &KafkaError) {
        let fault = self.heard.unavailable(error);
        tracing::debug!(topic = self.topic, %fault, "kafka error");
        self.has_told |= self.sender.try_send(Err(fault)).is_ok();
    }
}

/// Name of a line. Records with the same line and offset are the same record. The leader epoch distinguishes records at
/// the same offset before and after a truncation.
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
