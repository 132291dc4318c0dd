//! Callbacks of librdkafka for a member of a consumer group: assigned and revoked partitions, errors, statistics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use metrics::{Gauge, gauge};
use parking_lot::Mutex;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::statistics::Statistics;
use rdkafka::{ClientContext, TopicPartitionList};

use super::super::link::Heard;
use super::lines::Lines;
use crate::telemetry::names;

/// Time without an error after which a batch counts as readable. librdkafka retries an unreadable batch twice a second.
const UNREADABLE: Duration = Duration::from_secs(5);

/// State shared by the polling thread, the intake and the callbacks of librdkafka.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) lines: Lines,
    /// Number of waiting records, by the latest statistics.
    pub(super) lag: AtomicU64,
    /// Tells the reader to end.
    pub(super) closing: AtomicBool,
    /// Kafka's id of the topic. `None` until it is known, empty if the brokers have no ids.
    pub(super) topic_id: Mutex<Option<String>>,
    /// Time and reason of the last unreadable batch.
    unreadable: Mutex<Option<(Instant, String)>>,
}

impl Shared {
    /// Metadata of a commit, which names the topic.
    pub(super) fn metadata(&self) -> String {
        self.topic_id.lock().as_deref().map(commit_metadata).unwrap_or_default()
    }

    /// Reason why some records cannot be read while others still arrive.
    pub(super) fn unreadable(&self) -> Option<String> {
        let last = self.unreadable.lock();
        last.as_ref().filter(|(at, _)| at.elapsed() < UNREADABLE).map(|(_, why)| why.clone())
    }

    fn note_unreadable(&self, error: &KafkaError, reason: &str) {
        let is_unreadable = matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::BadCompression
                    | RDKafkaErrorCode::NotImplemented
                    | RDKafkaErrorCode::BadMessage
                    | RDKafkaErrorCode::InvalidMessage
                    | RDKafkaErrorCode::UnsupportedCompressionType
            )
        );
        if is_unreadable {
            *self.unreadable.lock() = Some((Instant::now(), format!("records that cannot be read: {reason}")));
        }
    }
}

/// Builds the metadata of a commit. It contains the topic id, so that the offset is not used for another topic of the
/// same name.
pub(super) fn commit_metadata(topic_id: &str) -> String {
    if topic_id.is_empty() { String::new() } else { format!("{TOPIC_ID}{topic_id}") }
}

/// Returns the topic id in the metadata of a commit. `None` if the commit names none.
pub(super) fn topic_of_commit(metadata: &str) -> Option<&str> {
    metadata.strip_prefix(TOPIC_ID)
}

const TOPIC_ID: &str = "topic-id=";

/// Client context of a member.
pub(super) struct Group {
    heard: Heard,
    shared: Arc<Shared>,
    topic: String,
    /// Number of assigned partitions.
    partitions: Gauge,
}

impl Group {
    /// Creates the context. `name` is the intake's label in the metrics.
    pub(super) fn new(heard: Heard, shared: Arc<Shared>, topic: &str, name: &str) -> Self {
        let partitions = gauge!(names::INTAKE_PARTITIONS, "intake" => name.to_owned());
        Self { heard, shared, topic: topic.to_owned(), partitions }
    }
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.heard.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.shared.note_unreadable(&error, reason);
        self.heard.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        self.heard.stats(statistics);
    }
}

impl ConsumerContext for Group {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let lines = &self.shared.lines;
        match rebalance {
            Rebalance::Assign(partitions) => {
                let gained = numbers(partitions);
                gained.iter().for_each(|partition| lines.gain(*partition));
                tracing::info!(topic = self.topic, ?gained, "partitions came");
            }
            Rebalance::Revoke(partitions) => {
                let lost = numbers(partitions);
                lines.lose(&lost);
                tracing::info!(topic = self.topic, ?lost, "partitions went");
            }
            Rebalance::Error(error) => tracing::warn!(topic = self.topic, %error, "partitions could not be shared out"),
        }
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        self.partitions.set(lines.count() as f64);
    }

    /// Resumes assigned partitions, because a partition that was revoked while paused would still be paused. The
    /// polling thread pauses it again if the intake is blocked.
    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(partitions) = rebalance
            && let Err(error) = consumer.resume(partitions)
        {
            tracing::warn!(topic = self.topic, %error, "partitions that came were not resumed");
        }
    }
}

fn numbers(partitions: &TopicPartitionList) -> Vec<i32> {
    partitions.elements().iter().map(rdkafka::topic_partition_list::TopicPartitionListElem::partition).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_names_its_topic() {
        assert_eq!(topic_of_commit(&commit_metadata("7sV")), Some("7sV"));
        assert_eq!(commit_metadata(""), "");
        assert_eq!([topic_of_commit(""), topic_of_commit("by hand")], [None; 2], "another tool's commit");
    }

    #[test]
    fn a_batch_that_cannot_be_read_is_a_fault_and_a_lost_connection_is_none() {
        let shared = Shared::default();
        shared.note_unreadable(&KafkaError::Global(RDKafkaErrorCode::BrokerTransportFailure), "connection refused");
        assert_eq!(shared.unreadable(), None);
        shared.note_unreadable(&KafkaError::Global(RDKafkaErrorCode::NotImplemented), "codec 0x4");
        assert_eq!(shared.unreadable().unwrap(), "records that cannot be read: codec 0x4");
    }
}
