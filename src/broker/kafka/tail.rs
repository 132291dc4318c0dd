//! A topic of Skylark's own, read whole by every node: all its partitions, no group, no place that is committed.
//!
//! The place in each partition is kept here. One that was cut off goes on where it was; a place that Kafka does not have
//! any more is a loss, and told. Knows nothing of what the records say.

use std::sync::Arc;

use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{Offset, TopicPartitionList};

use super::link::{ASK, Heard, Link, Topic, backoff, partitions, told};
use crate::broker::Unavailable;

/// What holds unless the operator's properties say otherwise.
const DEFAULTS: &[(&str, &str)] = &[
    ("fetch.wait.max.ms", "100"),
    ("queued.max.messages.kbytes", "32768"),
    ("fetch.queue.backoff.ms", "50"),
    ("fetch.error.backoff.ms", "100"),
    ("statistics.interval.ms", "5000"),
];

/// Where a reader begins that was never there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Begin {
    /// With the oldest record.
    First,
    /// Behind the newest.
    End,
}

pub(super) struct Tail {
    link: Link,
    topic: Topic,
    begin: Begin,
    heard: Heard,
    pub(super) consumer: Arc<StreamConsumer<Heard>>,
    /// The next offset of each partition.
    places: Vec<i64>,
    /// The end of each when it was looked at last.
    ends: Vec<i64>,
}

impl Tail {
    /// `node` only names the reader: nobody joins a group.
    pub(super) fn new(link: &Link, topic: Topic, begin: Begin, node: &str, heard: Heard) -> Result<Self, Unavailable> {
        let group = format!("{}.{node}", topic.name);
        let fixed = [
            ("group.id", group.as_str()),
            ("enable.auto.commit", "false"),
            ("enable.auto.offset.store", "false"),
            // A place that is gone is told, never jumped over in silence.
            ("auto.offset.reset", "error"),
        ];
        let consumer = Arc::new(link.create(heard.clone(), DEFAULTS, &fixed)?);
        link.keep(&consumer);
        Ok(Self { link: link.clone(), topic, begin, heard, consumer, places: Vec::new(), ends: Vec::new() })
    }

    /// How many partitions it reads.
    pub(super) fn partitions(&self) -> usize {
        self.places.len()
    }

    /// Whether it has read what was there when it was looked at.
    pub(super) fn is_at_end(&self) -> bool {
        self.places.iter().zip(&self.ends).all(|(place, end)| place >= end)
    }

    /// Stands at its place in each partition, and creates the topic where it is missing. Tries until it does, and tells
    /// each fault; whether something was lost.
    pub(super) async fn stand(&mut self, tell: impl Fn(&Unavailable)) -> bool {
        let mut backoff = backoff();
        loop {
            let fault = match self.look().await {
                Ok(Some(found)) => match self.assign(&found) {
                    Ok(has_lost) => return has_lost,
                    Err(error) => self.heard.unavailable(&error),
                },
                Ok(None) => match self.link.create_topic(&self.topic).await {
                    // It takes Kafka a moment to tell everybody.
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

    /// Whether there are other partitions than those it reads. `false` where nobody answers.
    pub(super) async fn has_changed(&self) -> bool {
        match self.look().await {
            Ok(Some(found)) => found.len() != self.places.len(),
            Ok(None) => true,
            Err(_) => false,
        }
    }

    /// First and next offset of each partition; `None` where there is no topic.
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

    /// Notes that a record came; how many are missing before it, or `None` where it came before.
    pub(super) fn note(&mut self, message: &BorrowedMessage<'_>) -> Option<u64> {
        let place = usize::try_from(message.partition()).ok().and_then(|partition| self.places.get_mut(partition))?;
        let missing = u64::try_from(message.offset() - *place).ok()?;
        *place = message.offset() + 1;
        Some(missing)
    }

    /// Whether it still stands at its places after this error; most errors end by themselves.
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
            tracing::warn!(topic = self.topic.name, error = told(error), "the place in a topic has to be found again");
        }
        !has_gone
    }

    /// Letting go of a consumer waits for its threads.
    pub(super) async fn end(self) {
        let consumer = self.consumer;
        if tokio::task::spawn_blocking(move || drop(consumer)).await.is_err() {
            tracing::warn!(topic = self.topic.name, "the reader of a topic panicked");
        }
    }
}

/// Where to go on in a partition that holds `first..next`, and whether something of it was lost.
fn place(last: Option<i64>, begin: Begin, (first, next): (i64, i64)) -> (i64, bool) {
    match (last, begin) {
        (Some(place), _) if (first..=next).contains(&place) => (place, false),
        // Cut off behind its back, or made anew: what is there was not read.
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
