//! Reads a topic of Skylark completely on every node: all partitions, without a group or committed offsets.
//!
//! Offsets are kept in memory. After an interruption the reader continues at its offsets. An offset that Kafka no
//! longer has means a loss, which is reported. Independent of the record format.

use std::sync::Arc;

use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::clients::{ErrorContext, KafkaClients, REQUEST_TIMEOUT, Topic, backoff, error_text, partitions};
use crate::broker::Unavailable;

/// Defaults that the operator's properties override.
const DEFAULTS: &[(&str, &str)] = &[
    ("fetch.wait.max.ms", "100"),
    ("queued.max.messages.kbytes", "32768"),
    ("fetch.queue.backoff.ms", "50"),
    ("fetch.error.backoff.ms", "100"),
    ("statistics.interval.ms", "5000"),
];

/// Start position of a new reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StartAt {
    /// At the oldest record.
    First,
    /// After the newest record.
    End,
}

pub(super) struct TopicReader {
    clients: KafkaClients,
    topic: Topic,
    start: StartAt,
    errors: ErrorContext,
    pub(super) consumer: Arc<StreamConsumer<ErrorContext>>,
    /// Next offset of each partition.
    offsets: Vec<i64>,
    /// End of each partition at the last look.
    ends: Vec<i64>,
}

impl TopicReader {
    /// Creates a reader. `node` only names it; the reader joins no group.
    pub(super) fn new(
        clients: &KafkaClients,
        topic: Topic,
        start: StartAt,
        node: &str,
        errors: ErrorContext,
    ) -> Result<Self, Unavailable> {
        let group = format!("{}.{node}", topic.name);
        let fixed = [
            ("group.id", group.as_str()),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            // A missing offset must be an error, never a silent jump.
            ("auto.offset.reset", "error"),
        ];
        let consumer = Arc::new(clients.create(errors.clone(), DEFAULTS, &fixed)?);
        clients.track(&consumer);
        Ok(Self { clients: clients.clone(), topic, start, errors, consumer, offsets: Vec::new(), ends: Vec::new() })
    }

    /// Number of partitions that are read.
    pub(super) fn partitions(&self) -> usize {
        self.offsets.len()
    }

    /// True once all records of the last look are read.
    pub(super) fn is_at_end(&self) -> bool {
        self.offsets.iter().zip(&self.ends).all(|(offset, end)| offset >= end)
    }

    /// Assigns every partition at its offset, and creates the topic if it is missing. Retries until it succeeds and
    /// passes each fault to `report`. Returns true if records were lost.
    pub(super) async fn assign_all(&mut self, report: impl Fn(&Unavailable)) -> bool {
        let mut backoff = backoff();
        loop {
            let fault = match self.fetch_offsets().await {
                Ok(Some(found)) => match self.assign(&found) {
                    Ok(has_lost) => return has_lost,
                    Err(error) => self.errors.unavailable(&error),
                },
                Ok(None) => match self.clients.create_topic(&self.topic).await {
                    // Kafka needs a moment to tell all brokers.
                    Ok(_) => {
                        Unavailable { why: format!("topic {} was just created", self.topic.name), engine: "kafka" }
                    }
                    Err(fault) => fault,
                },
                Err(error) => self.errors.unavailable(&error),
            };
            report(&fault);
            tokio::time::sleep(backoff.wait()).await;
        }
    }

    /// True if the number of partitions has changed. False if no broker answers.
    pub(super) async fn has_changed(&self) -> bool {
        match self.fetch_offsets().await {
            Ok(Some(found)) => found.len() != self.offsets.len(),
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Returns the first and next offset of each partition, or `None` if the topic is missing.
    async fn fetch_offsets(&self) -> Result<Option<Vec<(i64, i64)>>, KafkaError> {
        let (consumer, topic) = (Arc::clone(&self.consumer), self.topic.name.clone());
        let fetch = tokio::task::spawn_blocking(move || {
            let Some(count) = partitions(consumer.client(), &topic)? else { return Ok(None) };
            let ends = (0..i32::try_from(count).unwrap_or(i32::MAX))
                .map(|p| consumer.fetch_watermarks(&topic, p, REQUEST_TIMEOUT));
            ends.collect::<Result<Vec<_>, _>>().map(Some)
        });
        fetch.await.unwrap_or(Err(KafkaError::Canceled))
    }

    fn assign(&mut self, found: &[(i64, i64)]) -> Result<bool, KafkaError> {
        let start = if self.offsets.is_empty() { self.start } else { StartAt::First };
        let last = |partition: usize| self.offsets.get(partition).copied();
        let resumed = found.iter().enumerate().map(|(partition, ends)| resume_offset(last(partition), start, *ends));
        let (offsets, lost): (Vec<i64>, Vec<bool>) = resumed.unzip();
        let mut assigned = TopicPartitionList::new();
        for (partition, offset) in (0..).zip(&offsets) {
            assigned.add_partition_offset(&self.topic.name, partition, Offset::Offset(*offset))?;
        }
        self.consumer.assign(&assigned)?;
        self.ends = found.iter().map(|(_, next)| *next).collect();
        self.offsets = offsets;
        Ok(lost.contains(&true))
    }

    /// Notes a received record and returns the number of missing records before it. `None` if it was received before.
    pub(super) fn note(&mut self, message: &BorrowedMessage<'_>) -> Option<u64> {
        let offset = usize::try_from(message.partition()).ok().and_then(|partition| self.offsets.get_mut(partition))?;
        let missing = u64::try_from(message.offset() - *offset).ok()?;
        *offset = message.offset() + 1;
        Some(missing)
    }

    /// Returns true if the assignment survives this error. Most errors resolve by themselves.
    pub(super) fn keeps_assignment(&self, error: &KafkaError) -> bool {
        let is_gone = matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::AutoOffsetReset
                    | RDKafkaErrorCode::OffsetOutOfRange
                    | RDKafkaErrorCode::LogTruncation
                    | RDKafkaErrorCode::UnknownTopicOrPartition
                    | RDKafkaErrorCode::UnknownTopic
                    | RDKafkaErrorCode::UnknownPartition
            )
        );
        if is_gone {
            tracing::warn!(
                topic = self.topic.name,
                error = error_text(error),
                "partition or offset is gone; assigning the partitions again"
            );
        }
        !is_gone
    }

    /// Drops the consumer off the runtime, because the drop waits for its threads.
    pub(super) async fn close(self) {
        let consumer = self.consumer;
        if tokio::task::spawn_blocking(move || drop(consumer)).await.is_err() {
            tracing::warn!(topic = self.topic.name, "drop of the consumer panicked");
        }
    }
}

/// Returns the offset at which to continue in a partition with records `first..next`, and true if records were lost.
fn resume_offset(last: Option<i64>, start: StartAt, (first, next): (i64, i64)) -> (i64, bool) {
    match (last, start) {
        (Some(offset), _) if (first..=next).contains(&offset) => (offset, false),
        // The partition was truncated past the offset, or recreated: its records were not read.
        (Some(_), _) => (first, true),
        (None, StartAt::First) => (first, false),
        (None, StartAt::End) => (next, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_begins_as_it_should_and_goes_on_where_it_was() {
        assert_eq!(resume_offset(None, StartAt::End, (5, 9)), (9, false));
        assert_eq!(resume_offset(None, StartAt::First, (5, 9)), (5, false));
        assert_eq!(resume_offset(Some(7), StartAt::First, (5, 9)), (7, false));
        assert_eq!(resume_offset(Some(9), StartAt::First, (5, 9)), (9, false));
    }

    #[test]
    fn a_place_that_is_gone_is_a_loss() {
        assert_eq!(resume_offset(Some(4), StartAt::First, (5, 9)), (5, true), "cut off");
        assert_eq!(resume_offset(Some(10), StartAt::First, (0, 2)), (0, true), "made anew");
    }
}
