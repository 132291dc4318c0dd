//! What a member of a consumer group holds: its partitions, and of each the records that are read and not settled.
//!
//! Written by the polling thread, by the intake that settles, and by librdkafka when partitions come and go.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

use metrics::{Gauge, gauge};
use parking_lot::{Condvar, Mutex};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::statistics::Statistics;
use rdkafka::{ClientContext, Offset, TopicPartitionList};

use super::super::link::Heard;
use crate::broker::source::Place;
use crate::telemetry::names;

/// So long what the intake has in hand of a partition may hold up its leaving.
const GOODBYE: Duration = Duration::from_secs(1);

/// The partitions of one reader.
#[derive(Default)]
pub(super) struct Lines {
    lines: Mutex<HashMap<i32, Line>>,
    settled: Condvar,
    /// Records that wait, as far as the statistics told.
    pub(super) lag: AtomicU64,
    /// The reader is to end.
    pub(super) closing: AtomicBool,
}

struct Line {
    name: Arc<str>,
    /// Read and not settled.
    open: BTreeSet<i64>,
    /// One behind the last that was read.
    next: i64,
    /// One behind the last that the intake took.
    taken: i64,
    /// It is to be given away: the intake gets no more of it.
    is_leaving: bool,
}

impl Lines {
    fn count(&self) -> usize {
        self.lines.lock().len()
    }

    fn gain(&self, topic: &str, partition: i32) {
        let name = format!("{topic}/{partition}").into();
        let line = Line { name, open: BTreeSet::new(), next: 0, taken: 0, is_leaving: false };
        self.lines.lock().insert(partition, line);
    }

    /// Waits until what the intake has of these is settled, but not for long; then they are somebody else's.
    fn lose(&self, partitions: &[i32]) {
        let until = Instant::now() + GOODBYE;
        let mut lines = self.lines.lock();
        for partition in partitions {
            lines.entry(*partition).and_modify(|line| line.is_leaving = true);
        }
        let is_busy = |lines: &mut HashMap<i32, Line>| {
            partitions.iter().filter_map(|partition| lines.get(partition)).any(Line::is_in_hand)
        };
        self.settled.wait_while_until(&mut lines, is_busy, until);
        for partition in partitions {
            lines.remove(partition);
        }
    }

    /// A record was read; its line, unless the partition is not this reader's.
    pub(super) fn note(&self, partition: i32, offset: i64) -> Option<Arc<str>> {
        let mut lines = self.lines.lock();
        let line = lines.get_mut(&partition)?;
        line.open.insert(offset);
        line.next = line.next.max(offset + 1);
        Some(Arc::clone(&line.name))
    }

    /// The intake takes a record; `false` where it has gone to somebody else.
    pub(super) fn take(&self, place: &Place) -> bool {
        let mut lines = self.lines.lock();
        let Some((partition, offset)) = split(place) else { return false };
        let Some(line) = lines.get_mut(&partition).filter(|line| !line.is_leaving && line.open.contains(&offset))
        else {
            return false;
        };
        line.taken = line.taken.max(offset + 1);
        true
    }

    /// Whether it was read here, is not settled, and its partition is still here.
    pub(super) fn holds(&self, place: &Place) -> bool {
        let lines = self.lines.lock();
        let Some((partition, offset)) = split(place) else { return false };
        lines.get(&partition).is_some_and(|line| line.open.contains(&offset))
    }

    /// Where the group would go on in each partition if these were settled. What is not here any more is left out.
    pub(super) fn offsets_after(&self, topic: &str, places: &[Place]) -> TopicPartitionList {
        let lines = self.lines.lock();
        let mut settled: HashMap<i32, BTreeSet<i64>> = HashMap::new();
        for (partition, offset) in places.iter().filter_map(split) {
            settled.entry(partition).or_default().insert(offset);
        }
        let mut offsets = TopicPartitionList::new();
        for (partition, settled) in settled {
            let Some(line) = lines.get(&partition) else { continue };
            let next = line.open.iter().find(|offset| !settled.contains(offset)).copied().unwrap_or(line.next);
            let is_ahead = line.open.first().is_some_and(|first| next > *first);
            if is_ahead && offsets.add_partition_offset(topic, partition, Offset::Offset(next)).is_err() {
                tracing::debug!(topic, partition, next, "an offset that Kafka does not take");
            }
        }
        offsets
    }

    pub(super) fn settle(&self, places: &[Place]) {
        let mut lines = self.lines.lock();
        for (partition, offset) in places.iter().filter_map(split) {
            lines.entry(partition).and_modify(|line| {
                line.open.remove(&offset);
            });
        }
        self.settled.notify_all();
    }
}

impl Line {
    fn is_in_hand(&self) -> bool {
        self.open.first().is_some_and(|first| *first < self.taken)
    }
}

/// Partition and offset of a place.
fn split(place: &Place) -> Option<(i32, i64)> {
    let (_, partition) = place.line.rsplit_once('/')?;
    Some((partition.parse().ok()?, i64::try_from(place.offset?).ok()?))
}

/// What librdkafka tells a member.
pub(super) struct Group {
    heard: Heard,
    lines: Arc<Lines>,
    topic: String,
    /// How many partitions it has.
    partitions: Gauge,
}

impl Group {
    /// `name` is what the metrics call the intake.
    pub(super) fn new(heard: Heard, lines: Arc<Lines>, topic: &str, name: &str) -> Self {
        let partitions = gauge!(names::INTAKE_PARTITIONS, "intake" => name.to_owned());
        Self { heard, lines, topic: topic.to_owned(), partitions }
    }
}

impl ClientContext for Group {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.heard.log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.heard.error(error, reason);
    }

    fn stats(&self, statistics: Statistics) {
        self.heard.stats(statistics);
    }
}

impl ConsumerContext for Group {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        match rebalance {
            Rebalance::Assign(partitions) => {
                let gained = numbers(partitions);
                gained.iter().for_each(|partition| self.lines.gain(&self.topic, *partition));
                tracing::info!(topic = self.topic, ?gained, "partitions came");
            }
            Rebalance::Revoke(partitions) => {
                let lost = numbers(partitions);
                self.lines.lose(&lost);
                tracing::info!(topic = self.topic, ?lost, "partitions went");
            }
            Rebalance::Error(error) => tracing::warn!(topic = self.topic, %error, "partitions could not be shared out"),
        }
        #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
        self.partitions.set(self.lines.count() as f64);
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

    fn place(partition: i32, offset: u64) -> Place {
        Place { line: format!("t/{partition}").into(), offset: Some(offset) }
    }

    fn lines(partitions: &[i32]) -> Lines {
        let lines = Lines::default();
        partitions.iter().for_each(|partition| lines.gain("t", *partition));
        for offset in 5..8 {
            partitions.iter().for_each(|partition| assert!(lines.note(*partition, offset).is_some()));
        }
        lines
    }

    fn next(lines: &Lines, places: &[Place]) -> Vec<(i32, Offset)> {
        let mut next: Vec<_> =
            lines.offsets_after("t", places).elements().iter().map(|e| (e.partition(), e.offset())).collect();
        next.sort_by_key(|(partition, _)| *partition);
        next
    }

    #[test]
    fn a_commit_never_passes_what_is_not_settled() {
        let lines = lines(&[0, 1]);
        assert_eq!(next(&lines, &[place(0, 6)]), [], "5 is open");
        lines.settle(&[place(0, 6)]);
        assert_eq!(next(&lines, &[place(0, 5), place(1, 5)]), [(0, Offset::Offset(7)), (1, Offset::Offset(6))]);
        lines.settle(&[place(0, 5)]);
        assert_eq!(next(&lines, &[place(0, 7)]), [(0, Offset::Offset(8))]);
    }

    #[test]
    fn what_has_gone_is_neither_taken_nor_settled() {
        let lines = lines(&[0, 1]);
        lines.lose(&[1]);
        assert!(lines.take(&place(0, 5)) && !lines.take(&place(1, 5)));
        assert!(lines.holds(&place(0, 6)) && !lines.holds(&place(1, 6)));
        assert_eq!(next(&lines, &[place(1, 5)]), []);
        assert!(lines.note(1, 8).is_none());
    }

    #[test]
    fn a_partition_leaves_when_what_is_in_hand_is_settled() {
        let lines = Arc::new(lines(&[0]));
        assert!(lines.take(&place(0, 5)));
        let other = Arc::clone(&lines);
        let leaving = std::thread::spawn(move || other.lose(&[0]));
        // It gives no more away as soon as it is leaving, and leaves as soon as the one in hand is settled.
        while lines.take(&place(0, 5)) {
            std::thread::yield_now();
        }
        assert_eq!(next(&lines, &[place(0, 5)]).first().map(|(partition, _)| *partition), Some(0));
        lines.settle(&[place(0, 5)]);
        leaving.join().unwrap();
        assert!(lines.note(0, 8).is_none());
    }
}
