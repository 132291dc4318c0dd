//! What librdkafka tells a member of a consumer group: partitions that come and go, errors, statistics.

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

/// librdkafka tries a batch that it cannot read twice a second; after so long without an error it has read it.
const UNREADABLE: Duration = Duration::from_secs(5);

/// What the polling thread, the intake and librdkafka's callbacks share.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) lines: Lines,
    /// Records that wait, as far as the statistics told.
    pub(super) lag: AtomicU64,
    /// The reader is to end.
    pub(super) closing: AtomicBool,
    /// Kafka's id of the topic that is read; `None` until it is known, empty where the brokers give none.
    pub(super) topic_id: Mutex<Option<String>>,
    /// When and why a batch of records could not be read last.
    unreadable: Mutex<Option<(Instant, String)>>,
}

impl Shared {
    /// What a commit says about its topic.
    pub(super) fn metadata(&self) -> String {
        self.topic_id.lock().as_deref().map(commit_metadata).unwrap_or_default()
    }

    /// Why some records cannot be read while others still come.
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

/// The metadata of a commit: it names the topic by its id, so that the offset counts for no other topic of this name.
pub(super) fn commit_metadata(topic_id: &str) -> String {
    if topic_id.is_empty() { String::new() } else { format!("{TOPIC_ID}{topic_id}") }
}

/// The id of the topic that a commit is of; `None` where its writer named none.
pub(super) fn topic_of_commit(metadata: &str) -> Option<&str> {
    metadata.strip_prefix(TOPIC_ID)
}

const TOPIC_ID: &str = "topic-id=";

/// The context of a member's client.
pub(super) struct Group {
    heard: Heard,
    shared: Arc<Shared>,
    topic: String,
    /// How many partitions it has.
    partitions: Gauge,
}

impl Group {
    /// `name` is what the metrics call the intake.
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

    /// A partition that left while it was paused would still be so when it comes back. Where the intake takes nothing, the
    /// polling thread pauses it again.
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
