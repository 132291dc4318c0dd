//! Callbacks of librdkafka for a member of a consumer group: assigned and revoked partitions, errors, statistics.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};

use metrics::{Gauge, gauge};
use parking_lot::Mutex;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;
use rdkafka::{ClientContext, TopicPartitionList};

use super::super::clients::ErrorContext;
use super::partition_table::PartitionTable;
use crate::telemetry::names;

/// State shared by the polling thread, the intake and the callbacks of librdkafka.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) table: PartitionTable,
    /// Number of waiting records, by the latest statistics.
    pub(super) lag: AtomicU64,
    /// Tells the reader to end.
    pub(super) closing: AtomicBool,
    /// Kafka's id of the topic. `None` until it is known, empty if the brokers have no ids.
    pub(super) topic_id: Mutex<Option<String>>,
}

impl Shared {
    /// Metadata of a commit, which names the topic.
    pub(super) fn metadata(&self) -> String {
        self.topic_id.lock().as_deref().map(commit_metadata).unwrap_or_default()
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
pub(super) struct GroupContext {
    errors: ErrorContext,
    shared: Arc<Shared>,
    topic: String,
    /// Number of assigned partitions.
    partitions: Gauge,
}

impl GroupContext {
    /// Creates the context. `name` is the intake's label in the metrics.
    pub(super) fn new(errors: ErrorContext, shared: Arc<Shared>, topic: &str, name: &str) -> Self {
        let partitions = gauge!(names::INTAKE_PARTITIONS, "intake" => name.to_owned());
        Self { errors, shared, topic: topic.to_owned(), partitions }
    }
}

impl ClientContext for GroupContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.errors.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.errors.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        self.errors.stats(statistics);
    }
}

impl ConsumerContext for GroupContext {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let table = &self.shared.table;
        match rebalance {
            Rebalance::Assign(partitions) => {
                let gained = numbers(partitions);
                gained.iter().for_each(|partition| table.assign(*partition));
                tracing::info!(topic = self.topic, ?gained, "partitions assigned");
            }
            Rebalance::Revoke(partitions) => {
                let lost = numbers(partitions);
                table.revoke(&lost);
                tracing::info!(topic = self.topic, ?lost, "partitions revoked");
            }
            Rebalance::Error(error) => tracing::warn!(topic = self.topic, %error, "rebalance failed"),
        }
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        self.partitions.set(table.count() as f64);
    }

    /// Resumes assigned partitions, because a partition that was revoked while paused would still be paused. The
    /// polling thread pauses it again if the intake is blocked.
    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(partitions) = rebalance
            && let Err(error) = consumer.resume(partitions)
        {
            tracing::warn!(topic = self.topic, %error, "assigned partitions were not resumed");
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
}
