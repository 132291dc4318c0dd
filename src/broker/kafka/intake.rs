//! The topic of an intake, read by a consumer group.
//!
//! A dedicated thread polls the consumer, so that a slow publish never delays the group. Only completed records are
//! committed. Partitions move one by one (cooperative-sticky, unless the operator's properties say otherwise). Before a
//! partition is revoked, the intake has one second to complete its records. Does not look into the payload of a record.

mod dead;
mod group;
mod partition_table;
mod poll;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use metrics::counter;
use rdkafka::admin::AdminClient;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::statistics::Statistics;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::timeout;

use self::dead::DeadLetters;
use self::group::{GroupContext, Shared};
use self::partition_table::ReadPosition;
use self::poll::{Poller, ReadRecord, ReadResult};
use super::clients::{ErrorContext, KafkaClients, error_text, unavailable, uncommitted};
use crate::broker::Unavailable;
use crate::broker::source::{Record, RecordPosition, Source};
use crate::telemetry::names;
use crate::vital::Vitals;

/// Time limit of a commit.
const COMMIT: Duration = Duration::from_secs(2);

/// Defaults that the operator's properties override. A new group starts at the beginning of the topic, because
/// partitions that are added later would otherwise lose their first records.
const DEFAULTS: &[(&str, &str)] = &[
    ("auto.offset.reset", "earliest"),
    ("partition.assignment.strategy", "cooperative-sticky"),
    ("session.timeout.ms", "10000"),
    ("queued.max.messages.kbytes", "16384"),
    ("fetch.queue.backoff.ms", "50"),
    ("statistics.interval.ms", "5000"),
];

/// Source that reads one topic as a member of a consumer group.
pub struct KafkaSource {
    topic: String,
    shared: Arc<Shared>,
    errors: ErrorContext,
    consumer: Option<Arc<BaseConsumer<GroupContext>>>,
    results: mpsc::Receiver<ReadResult>,
    /// Records that were returned and are not completed.
    taken: Vec<ReadRecord>,
    reader: Option<JoinHandle<()>>,
    dead: Option<DeadLetters>,
}

impl KafkaSource {
    /// Joins `group` to read `topic`. `name` is the intake's label in the metrics. Sends no request yet, so an
    /// unreachable Kafka is no error. Must run within a Tokio runtime.
    ///
    /// # Errors
    /// A property is unknown to librdkafka or not supported by this build.
    pub fn join(
        clients: &KafkaClients,
        topic: &str,
        group: &str,
        name: &str,
        vitals: &Vitals,
    ) -> Result<Self, Unavailable> {
        let shared = Arc::new(Shared::default());
        let counted = Arc::clone(&shared);
        let count = move |statistics: &Statistics| counted.lag.store(uncommitted(statistics), Ordering::Relaxed);
        let error_context = ErrorContext::of(clients);
        let errors = error_context.with_statistics(count);
        let fixed = [("group.id", group), ("enable.auto.commit", "false"), ("enable.auto.offset.store", "false")];
        let context = GroupContext::new(errors.clone(), Arc::clone(&shared), topic, name);
        let consumer: BaseConsumer<GroupContext> = clients.create(context, DEFAULTS, &fixed)?;
        consumer.subscribe(&[topic]).map_err(|error| unavailable(error_text(&error)))?;
        let consumer = Arc::new(consumer);
        clients.track(&consumer);
        let admin: Arc<AdminClient<ErrorContext>> = Arc::new(clients.create(error_context, &[], &[])?);
        clients.track(&admin);
        let (sender, results) = mpsc::channel(1);
        let tombstones = counter!(names::INTAKE_TOMBSTONES, "intake" => name.to_owned());
        let poll = Poller::new(
            (Arc::clone(&consumer), admin),
            Arc::clone(&shared),
            errors.clone(),
            sender,
            (topic, tombstones),
        );
        let runtime = Handle::current();
        let vital = vitals.watch(format!("intake reader {topic}"));
        let reader = thread::Builder::new()
            .name(format!("kafka-{topic}"))
            .spawn(move || {
                poll.run(&runtime);
                vital.done();
            })
            .map_err(|error| unavailable(format!("the reader thread of topic {topic} cannot be started: {error}")))?;
        Ok(Self {
            topic: topic.to_owned(),
            shared,
            errors,
            consumer: Some(consumer),
            results,
            taken: Vec::new(),
            reader: Some(reader),
            dead: Some(DeadLetters::new(clients, topic)),
        })
    }

    async fn next(&mut self) -> Result<Vec<Record>, Unavailable> {
        self.taken.retain(|read| self.shared.table.is_current(read.read_position));
        if !self.taken.is_empty() {
            self.taken.iter_mut().for_each(|read| read.record.tries = read.record.tries.saturating_add(1));
            return Ok(self.records());
        }
        loop {
            let mut reads = self.results.recv().await.ok_or_else(|| unavailable("closed"))??;
            let is_keepalive = reads.is_empty();
            // While the records waited here, their partition may have been revoked or its reading may have restarted.
            reads.retain(|read| self.shared.table.take(read.read_position));
            if is_keepalive || !reads.is_empty() {
                self.taken = reads;
                return Ok(self.records());
            }
        }
    }

    fn records(&self) -> Vec<Record> {
        self.taken.iter().map(|read| read.record.clone()).collect()
    }

    async fn commit(&mut self, positions: &[RecordPosition]) -> Result<(), Unavailable> {
        let consumer = self.consumer.clone().ok_or_else(|| unavailable("closed"))?;
        let completed = self.taken.extract_if(.., |read| positions.contains(&read.record.position));
        let read_positions: Vec<ReadPosition> = completed.map(|read| read.read_position).collect();
        let offsets = self.shared.table.offsets_after(&self.topic, &self.shared.metadata(), &read_positions);
        let shared = Arc::clone(&self.shared);
        // The blocking task completes even if the caller stops waiting.
        let commit = tokio::task::spawn_blocking(move || {
            let done = if offsets.count() == 0 { Ok(()) } else { consumer.commit(&offsets, CommitMode::Sync) };
            if done.is_ok() {
                shared.table.committed(&offsets);
            }
            // The records were accepted in any case: if this commit failed, the next one includes them.
            shared.table.complete(&read_positions);
            done
        });
        match timeout(COMMIT, commit).await {
            Ok(Ok(done)) => done.map_err(|error| unavailable(format!("offsets not committed: {}", error_text(&error)))),
            Ok(Err(_)) | Err(_) => Err(unavailable("offsets not committed: no answer in time")),
        }
    }

    async fn write_dead_letter(&mut self, record: &Record, reason: &str) -> Result<(), Unavailable> {
        let read = self.taken.iter().find(|read| read.record.position == record.position);
        let (Some(read), Some(dead)) = (read, &mut self.dead) else {
            // The partition belongs to another member, which reads the record and dead-letters it.
            return Ok(());
        };
        dead.add(read, reason).await
    }

    async fn close_reader(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
        self.results.close();
        let (consumer, reader, dead) = (self.consumer.take(), self.reader.take(), self.dead.take());
        // The last drop of a client blocks until its threads end.
        let ended = tokio::task::spawn_blocking(move || {
            reader.map(JoinHandle::join);
            drop(consumer);
            if let Some(dead) = dead {
                dead.flush(COMMIT);
            }
        });
        if ended.await.is_err() {
            tracing::warn!(topic = self.topic, "intake reader panicked");
        }
    }
}

impl Source for KafkaSource {
    fn take(&mut self) -> BoxFuture<'_, Result<Vec<Record>, Unavailable>> {
        self.next().boxed()
    }

    fn complete<'a>(&'a mut self, positions: &'a [RecordPosition]) -> BoxFuture<'a, Result<(), Unavailable>> {
        self.commit(positions).boxed()
    }

    fn dead_letter<'a>(&'a mut self, record: &'a Record, reason: &'a str) -> BoxFuture<'a, Result<(), Unavailable>> {
        self.write_dead_letter(record, reason).boxed()
    }

    fn lag(&self) -> Option<u64> {
        Some(self.shared.lag.load(Ordering::Relaxed))
    }

    fn fault(&self) -> Option<Unavailable> {
        self.errors.unreadable().map(unavailable)
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        self.close_reader().boxed()
    }
}

/// A source that is dropped without `close` gives its partitions back a little later.
impl Drop for KafkaSource {
    fn drop(&mut self) {
        self.shared.closing.store(true, Ordering::Relaxed);
    }
}
