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

use super::super::clients::ErrorContext;
use super::super::native::{broker, leader_epoch, topic_id};
use super::group::{GroupContext, Shared, topic_of_commit};
use super::partition_table::ReadPosition;
use crate::broker::Unavailable;
use crate::broker::source::{Record, RecordPosition};

/// Maximum number of records handed over at once, and the approximate maximum of their bytes.
const MAX_RECORDS: usize = 256;
const MAX_BYTES: usize = 4 << 20;
/// Time that the thread waits for a record before it checks for other work.
const POLL: Duration = Duration::from_millis(100);
/// Time after which the partitions are paused if the intake takes no records.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time limit for Kafka to tell the topic id and the offsets of the group.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(2);
/// Interval of the topic check while no records arrive. A recreated topic may have records waiting.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum number of cached line names, one per partition and leader epoch.
const MAX_NAMES: usize = 4_096;

/// Records for the intake. An empty list means that Kafka answers again.
pub(super) type ReadResult = Result<Vec<ReadRecord>, Unavailable>;

/// A record with the fields that only this source needs.
#[derive(Debug, Clone)]
pub(super) struct ReadRecord {
    pub(super) record: Record,
    pub(super) read_position: ReadPosition,
    pub(super) head: RecordHead,
}

/// Fields of a Kafka record besides its value.
#[derive(Debug, Clone, Default)]
pub(super) struct RecordHead {
    pub(super) key: Option<Bytes>,
    pub(super) headers: Option<OwnedHeaders>,
    /// Milliseconds since 1970.
    pub(super) timestamp: Option<i64>,
}

/// A record with an unconfirmed topic.
struct RawRecord {
    read_position: ReadPosition,
    epoch: i32,
    payload: Bytes,
    head: RecordHead,
}

pub(super) struct Poller {
    consumer: Arc<BaseConsumer<GroupContext>>,
    /// Client for the topic id. The consumer's connections are not used: there a request waits behind the fetch in
    /// flight, half a second if no records arrive.
    admin: Arc<AdminClient<ErrorContext>>,
    shared: Arc<Shared>,
    errors: ErrorContext,
    sender: mpsc::Sender<ReadResult>,
    topic: String,
    tombstones: Counter,
    raw: Vec<RawRecord>,
    raw_bytes: usize,
    /// Id of the cluster, once it is known.
    cluster: Option<String>,
    /// Broker that the last record came from.
    broker: Option<i32>,
    partition_names: HashMap<(i32, i32), Arc<str>>,
    next_check: Instant,
    /// An offset went back, or only tombstones arrived, so a commit is due now.
    is_commit_due: bool,
    has_reported: bool,
    /// True if the intake was last told that records cannot be read.
    has_reported_unreadable: bool,
}

impl Poller {
    pub(super) fn new(
        (consumer, admin): (Arc<BaseConsumer<GroupContext>>, Arc<AdminClient<ErrorContext>>),
        shared: Arc<Shared>,
        errors: ErrorContext,
        sender: mpsc::Sender<ReadResult>,
        (topic, tombstones): (&str, Counter),
    ) -> Self {
        Self {
            consumer,
            admin,
            shared,
            errors,
            sender,
            topic: topic.to_owned(),
            tombstones,
            raw: Vec::new(),
            raw_bytes: 0,
            cluster: None,
            broker: None,
            partition_names: HashMap::new(),
            next_check: Instant::now(),
            is_commit_due: false,
            has_reported: false,
            has_reported_unreadable: false,
        }
    }

    pub(super) fn run(mut self, runtime: &Handle) {
        while !self.is_closing() {
            if let Err(error) = self.poll_records() {
                self.report(&error);
            }
            if !self.is_check_due() {
                continue;
            }
            self.next_check = Instant::now() + CHECK_INTERVAL;
            if let Err(error) = self.check_topic() {
                self.report(&error);
                continue;
            }
            self.commit_where_due();
            let reads = self.with_positions();
            let is_unreadable = self.errors.unreadable().is_some();
            if !reads.is_empty() || self.has_reported || self.has_reported_unreadable != is_unreadable {
                self.has_reported_unreadable = is_unreadable;
                self.hand_over(Ok(reads), runtime);
            }
        }
    }

    fn is_closing(&self) -> bool {
        self.shared.closing.load(Ordering::Relaxed) || self.sender.is_closed()
    }

    /// Reads the available records in order; waits up to [`POLL`] if there are none. Records read before a fault are
    /// kept.
    fn poll_records(&mut self) -> Result<(), KafkaError> {
        let consumer = Arc::clone(&self.consumer);
        let mut wait = POLL;
        // At least one poll is needed, because it serves the group.
        loop {
            match consumer.poll(wait) {
                None => return Ok(()),
                Some(message) => self.add_record(&message?),
            }
            if self.raw.len() >= MAX_RECORDS || self.raw_bytes >= MAX_BYTES {
                return Ok(());
            }
            wait = Duration::ZERO;
        }
    }

    fn add_record(&mut self, message: &BorrowedMessage<'_>) {
        let payload = message.payload();
        let noted = self.shared.table.note(message.partition(), message.offset(), payload.is_none());
        let Some(noted) = noted else { return };
        if noted.went_back {
            let (partition, offset) = (noted.position.partition, noted.position.offset);
            tracing::warn!(topic = self.topic, partition, offset, "offset went back; committing the lower offset");
            self.is_commit_due = true;
        }
        let Some(payload) = payload else {
            self.tombstones.increment(1);
            self.is_commit_due = true;
            return;
        };
        let head = RecordHead {
            key: message.key().map(Bytes::copy_from_slice),
            headers: message.headers().map(rdkafka::message::BorrowedHeaders::detach),
            timestamp: message.timestamp().to_millis(),
        };
        self.broker = Some(broker(message)).filter(|broker| *broker >= 0);
        self.raw_bytes += payload.len();
        let (payload, epoch) = (Bytes::copy_from_slice(payload), leader_epoch(message));
        self.raw.push(RawRecord { read_position: noted.position, epoch, payload, head });
    }

    fn is_check_due(&self) -> bool {
        let table = &self.shared.table;
        let is_unsure = || !table.unproven().is_empty() || !table.beginning().is_empty();
        !self.raw.is_empty() || table.count() > 0 && (Instant::now() >= self.next_check || is_unsure())
    }

    /// Determines the topic of the records, and makes every partition read from the correct offset.
    fn check_topic(&mut self) -> Result<(), KafkaError> {
        let id = self.fetch_topic_id()?;
        if self.cluster.is_none() {
            // The id is known by now, unless the brokers have none.
            self.cluster = Some(self.admin.inner().fetch_cluster_id(REQUEST_TIMEOUT).unwrap_or_default());
        }
        let before = self.shared.topic_id.lock().replace(id.clone());
        let is_known = |id: &String| !id.is_empty();
        if let Some(before) = before.filter(|before| is_known(before) && is_known(&id) && *before != id) {
            tracing::warn!(topic = self.topic, before, id, "topic was recreated; reading it from the beginning");
            self.partition_names.clear();
            self.shared.table.restart_all();
            self.is_commit_due = true;
        }
        self.check_commits(&id)?;
        self.seek_to_start()
    }

    /// Asks the broker that sent the last record for the topic id, because its answer fits the records best. Empty if
    /// brokers have no ids.
    fn fetch_topic_id(&mut self) -> Result<String, KafkaError> {
        let broker = match self.broker {
            Some(broker) => broker,
            None => self.leader()?,
        };
        let answer = topic_id(self.admin.inner(), &self.topic, broker, REQUEST_TIMEOUT);
        self.broker = Some(broker).filter(|_| answer.is_ok());
        match answer {
            Err(error) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::UnsupportedFeature) => Ok(String::new()),
            answer => Ok(answer?.unwrap_or_default()),
        }
    }

    /// Returns any broker that leads a partition of the topic.
    fn leader(&self) -> Result<i32, KafkaError> {
        let metadata = self.admin.inner().fetch_metadata(Some(&self.topic), REQUEST_TIMEOUT)?;
        let partitions = metadata.topics().iter().flat_map(MetadataTopic::partitions);
        let leader = partitions.map(MetadataPartition::leader).find(|leader| *leader >= 0);
        leader.ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::LeaderNotAvailable))
    }

    /// Compares the commits of the group with the topic. A commit of another topic with this name does not count.
    fn check_commits(&mut self, id: &str) -> Result<(), KafkaError> {
        let unproven = self.shared.table.unproven();
        if unproven.is_empty() {
            return Ok(());
        }
        let committed =
            self.consumer.committed_offsets(self.partition_list(&unproven, Offset::Invalid)?, REQUEST_TIMEOUT)?;
        for element in committed.elements() {
            element.error()?;
            let partition = element.partition();
            match topic_of_commit(element.metadata()) {
                Some(other) if other != id && !id.is_empty() => {
                    let offset = element.offset().to_raw();
                    tracing::warn!(
                        topic = self.topic,
                        partition,
                        offset,
                        other,
                        id,
                        "committed offset belongs to an earlier topic of this name; reading from the beginning"
                    );
                    self.shared.table.restart(partition);
                    self.is_commit_due = true;
                }
                _ => self.shared.table.mark_proven(partition),
            }
        }
        Ok(())
    }

    fn seek_to_start(&self) -> Result<(), KafkaError> {
        let beginning = self.shared.table.beginning();
        if beginning.is_empty() {
            return Ok(());
        }
        let seeked =
            self.consumer.seek_partitions(self.partition_list(&beginning, Offset::Beginning)?, REQUEST_TIMEOUT)?;
        for element in seeked.elements() {
            element.error()?;
            self.shared.table.mark_proven(element.partition());
        }
        Ok(())
    }

    fn partition_list(&self, partitions: &[i32], offset: Offset) -> Result<TopicPartitionList, KafkaError> {
        let mut partition_list = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            partition_list.add_partition_offset(&self.topic, *partition, offset)?;
        }
        Ok(partition_list)
    }

    /// Commits offsets that no intake completes: tombstones, and offsets that went back. A failed commit is repeated
    /// with the next completed record.
    fn commit_where_due(&mut self) {
        if !std::mem::take(&mut self.is_commit_due) {
            return;
        }
        let offsets = self.shared.table.offsets_after(&self.topic, &self.shared.metadata(), &[]);
        if offsets.count() == 0 {
            return;
        }
        match self.consumer.commit(&offsets, CommitMode::Sync) {
            Ok(()) => self.shared.table.committed(&offsets),
            Err(error) => tracing::debug!(topic = self.topic, %error, "offsets not committed"),
        }
    }

    /// Takes the records that were read and adds their positions.
    fn with_positions(&mut self) -> Vec<ReadRecord> {
        self.raw_bytes = 0;
        let raw = std::mem::take(&mut self.raw);
        raw.into_iter().map(|raw| self.with_position(raw)).collect()
    }

    fn with_position(&mut self, RawRecord { read_position, epoch, payload, head }: RawRecord) -> ReadRecord {
        if self.partition_names.len() >= MAX_NAMES {
            self.partition_names.clear();
        }
        let name = self.partition_names.entry((read_position.partition, epoch)).or_insert_with(|| {
            let id = self.shared.topic_id.lock().clone().unwrap_or_default();
            let cluster = self.cluster.as_deref().unwrap_or_default();
            partition_name(cluster, (&self.topic, &id), read_position.partition, epoch)
        });
        let position = RecordPosition { partition: Arc::clone(name), offset: u64::try_from(read_position.offset).ok() };
        ReadRecord { record: Record { payload, position, tries: 0 }, read_position, head }
    }

    /// Waits until the intake takes the records. After [`PATIENCE`] it pauses the partitions and continues to serve the
    /// group.
    fn hand_over(&mut self, reads: ReadResult, runtime: &Handle) {
        let Ok(wait) = runtime.block_on(async { timeout(PATIENCE, self.sender.reserve()).await.map(Result::ok) })
        else {
            return self.pause_until_taken(reads);
        };
        if let Some(permit) = wait {
            permit.send(reads);
            self.has_reported = false;
        }
    }

    fn pause_until_taken(&mut self, reads: ReadResult) {
        tracing::info!(topic = self.topic, "intake accepts no records; its partitions are paused");
        let consumer = Arc::clone(&self.consumer);
        while !self.is_closing() {
            // Includes partitions that were assigned meanwhile.
            self.apply_to_assignment(Consumer::pause);
            match consumer.poll(POLL) {
                Some(Ok(message)) => self.add_record(&message),
                Some(Err(error)) => self.report(&error),
                None => {}
            }
            if let Ok(permit) = self.sender.try_reserve() {
                permit.send(reads);
                self.has_reported = false;
                break;
            }
        }
        self.apply_to_assignment(Consumer::resume);
    }

    fn apply_to_assignment(
        &self,
        act: impl Fn(&BaseConsumer<GroupContext>, &TopicPartitionList) -> Result<(), KafkaError>,
    ) {
        let done = self.consumer.assignment().and_then(|partitions| act(&self.consumer, &partitions));
        if let Err(error) = done {
            tracing::debug!(topic = self.topic, %error, "partitions were not paused or resumed");
        }
    }

    /// Sends the fault to the intake, unless the previous result is still waiting there. librdkafka retries by itself.
    fn report(&mut self, error: &KafkaError) {
        let fault = self.errors.unavailable(error);
        tracing::debug!(topic = self.topic, %fault, "kafka error");
        self.has_reported |= self.sender.try_send(Err(fault)).is_ok();
    }
}

/// Name of a line. Records with the same line and offset are the same record. The leader epoch distinguishes records at
/// the same offset before and after a truncation.
fn partition_name(cluster: &str, (topic, id): (&str, &str), partition: i32, epoch: i32) -> Arc<str> {
    format!("kafka {cluster} {topic} {id} {partition} {epoch}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_differ_by_cluster_topic_id_partition_and_epoch() {
        let all = [
            partition_name("c1", ("t", "i1"), 0, 0),
            partition_name("c2", ("t", "i1"), 0, 0),
            partition_name("c1", ("u", "i1"), 0, 0),
            partition_name("c1", ("t", "i2"), 0, 0),
            partition_name("c1", ("t", "i1"), 1, 0),
            partition_name("c1", ("t", "i1"), 0, 1),
        ];
        let distinct: std::collections::HashSet<&Arc<str>> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
    }
}
