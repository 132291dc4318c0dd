//! Reads a topic of Skylark completely on every node: all partitions, without a group or committed offsets.
//!
//! Offsets are kept in memory. After an interruption the reader continues at its offsets. An offset that Kafka no
//! longer has means a loss, which is reported. Independent of the record format.

use std::sync::Arc;

use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::link::{ASK, Heard, Link, Topic, backoff, partitions, told};
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
pub(super) enum Begin {
    /// At the oldest record.
    First,
    /// After the newest record.
    End,
}

pub(super) struct Tail {
    link: Link,
    topic: Topic,
    begin: Begin,
    heard: Heard,
    pub(super) consumer: Arc<StreamConsumer<Heard>>,
    /// Next offset of each partition.
    places: Vec<i64>,
    /// End of each partition at the last look.
    ends: Vec<i64>,
}

impl Tail {
    /// Creates a reader. `node` only names it; the reader joins no group.
    pub(super) fn new(link: &Link, topic: Topic, begin: Begin, node: &str, heard: Heard) -> Result<Self, Unavailable> {
        let group = format!("{}.{node}", topic.name);
        let fixed = [
            ("group.id", group.as_str()),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            // A missing offset must be an error, never a silent jump.
            ("auto.offset.reset", "error"),
        ];
        let consumer = Arc::new(link.create(heard.clone(), DEFAULTS, &fixed)?);
        link.keep(&consumer);
        Ok(Self { link: link.clone(), topic, begin, heard, consumer, places: Vec::new(), ends: Vec::new() })
    }

    /// Number of partitions that are read.
    pub(super) fn partitions(&self) -> usize {
        self.places.len()
    }

    /// True once all records of the last look are read.
    pub(super) fn is_at_end(&self) -> bool {
        self.places.iter().zip(&self.ends).all(|(place, end)| place >= end)
    }

    /// Assigns every partition at its offset, and creates the topic if it is missing. Retries until it succeeds and
    /// passes each fault to `tell`. Returns true if records were lost.
    pub(super) async fn stand(&mut self, tell: impl Fn(&Unavailable)) -> bool {
        let mut backoff = backoff();
        loop {
            let fault = match self.look().await {
                Ok(Some(found)) => match self.assign(&found) {
                    Ok(has_lost) => return has_lost,
                    Err(error) => self.heard.unavailable(&error),
                },
                Ok(None) => match self.link.create_topic(&self.topic).await {
                    // Kafka needs a moment to tell all brokers.
                    Ok(_) => {
                        Unavailable { why: format!("topic {} was just created", self.topic.name), engine: "kafka" }
                    }
                    Err(fault) => fault,
                },
                Err(error) => self.heard.unavailable(&error),
            };
            tell(&fault);
            tokio::time::sleep(backoff.wait()).await;
        }
    }

    /// True if the number of partitions has changed. False if no broker answers.
    pub(super) async fn has_changed(&self) -> bool {
        match self.look().await {
            Ok(Some(found)) => found.len() != self.places.len(),
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// Returns the first and next offset of each partition, or `None` if the topic is missing.
    async fn look(&self) -> Result<Option<Vec<(i64, i64)>>, KafkaError> {
        let (consumer, topic) = (Arc::clone(&self.consumer), self.topic.name.clone());
        let look = tokio::task::spawn_blocking(move || {
            let Some(count) = partitions(consumer.client(), &topic)? else { return Ok(None) };
            let ends = (0..i32::try_from(count).unwrap_or(i32::MAX)).map(|p| consumer.fetch_watermarks(&topic, p, ASK));
            ends.collect::<Result<Vec<_>, _>>().map(Some)
        });
        look.await.unwrap_or(Err(KafkaError::Canceled))
    }

    fn assign(&mut self, found: &[(i64, i64)]) -> Result<bool, KafkaError> {
        let begin = if self.places.is_empty() { self.begin } else { Begin::First };
        let last = |partition: usize| self.places.get(partition).copied();
        let found_places = found.iter().enumerate().map(|(partition, ends)| place(last(partition), begin, *ends));
        let (places, lost): (Vec<i64>, Vec<bool>) = found_places.unzip();
        let mut assigned = TopicPartitionList::new();
        for (partition, place) in (0..).zip(&places) {
            assigned.add_partition_offset(&self.topic.name, partition, Offset::Offset(*place))?;
        }
        self.consumer.assign(&assigned)?;
        self.ends = found.iter().map(|(_, next)| *next).collect();
        self.places = places;
        Ok(lost.contains(&true))
    }

    /// Notes a received record and returns the number of missing records before it. `None` if it was received before.
    pub(super) fn note(&mut self, message: &BorrowedMessage<'_>) -> Option<u64> {
        let place = usize::try_from(message.partition()).ok().and_then(|partition| self.places.get_mut(partition))?;
        let missing = u64::try_from(message.offset() - *place).ok()?;
        *place = message.offset() + 1;
        Some(missing)
    }

    /// Returns true if the assignment survives this error. Most errors resolve by themselves.
    pub(super) fn stands_after(&self, error: &KafkaError) -> bool {
        let has_gone = matches!(
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
        if has_gone {
            tracing::warn!(
                topic = self.topic.name,
                error = told(error),
                "partition or offset is gone; assigning the partitions again"
            );
        }
        !has_gone
    }

    /// Drops the consumer off the runtime, because the drop waits for its threads.
    pub(super) async fn end(self) {
        let consumer = self.consumer;
        if tokio::task::spawn_blocking(move || drop(consumer)).await.is_err() {
            tracing::warn!(topic = self.topic.name, "drop of the consumer panicked");
        }
    }
}

/// Returns the offset at which to continue in a partition with records `first..next`, and true if records were lost.
fn place(last: Option<i64>, begin: Begin, (first, next): (i64, i64)) -> (i64, bool) {
    match (last, begin) {
        (Some(place), _) if (first..=next).contains(&place) => (place, false),
        // The partition was truncated past the offset, or recreated: its records were not read.
        (Some(_), _) => (first, true),
        (None, Begin::First) => (first, false),
        (None, Begin::End) => (next, false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_begins_as_it_should_and_goes_on_where_it_was() {
        assert_eq!(place(None, Begin::End, (5, 9)), (9, false));
        assert_eq!(place(None, Begin::First, (5, 9)), (5, false));
        assert_eq!(place(Some(7), Begin::First, (5, 9)), (7, false));
        assert_eq!(place(Some(9), Begin::First, (5, 9)), (9, false));
    }

    #[test]
    fn a_place_that_is_gone_is_a_loss() {
        assert_eq!(place(Some(4), Begin::First, (5, 9)), (5, true), "cut off");
        assert_eq!(place(Some(10), Begin::First, (0, 2)), (0, true), "made anew");
    }
}
