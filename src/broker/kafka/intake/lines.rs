//! Partitions of one member of a consumer group, with the records that were read and are not completed.
//!
//! Written by the polling thread, the intake and librdkafka's rebalance callback. A partition is read in *readings*. A
//! new reading begins when the partition is assigned, when its offsets go back, or when its topic is recreated. A
//! record belongs to the reading that read it, so an old record never completes a new one at the same offset.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rdkafka::{Offset, TopicPartitionList};

/// Time that a revoked partition waits for the intake to complete its records.
const GOODBYE: Duration = Duration::from_secs(1);

/// One record of one reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Spot {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) reading: u64,
}

/// Result of noting a record that was just read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Noted {
    pub(super) spot: Spot,
    /// The offset is smaller than an earlier one: the log was truncated, or the topic was recreated.
    pub(super) went_back: bool,
}

/// Origin of a partition's first offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// The group's commit, which may be of an earlier topic with this name.
    Unproven,
    /// The beginning, because the commit is of another topic.
    Beginning,
    /// The commit is of this topic, or there is no commit.
    Proven,
}

/// Last offset that the group committed for a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Committed {
    /// Another member or an earlier assignment committed it.
    Unknown,
    /// Offset of a record that no longer exists. It must be corrected even if no record is completed.
    Wrong,
    At(i64),
}

struct Line {
    start: Start,
    reading: u64,
    /// Records read and not completed: the offset, with the reading that read it.
    open: BTreeMap<i64, u64>,
    /// Offset after the last record that was read.
    next: i64,
    /// Last committed offset, as far as this member knows.
    committed: Committed,
    /// Offset after the last record that the intake took.
    taken: i64,
    /// The partition is being revoked, so the intake gets no more of its records.
    is_leaving: bool,
}

/// The partitions of one member.
#[derive(Default)]
pub(super) struct Lines {
    inner: Mutex<Inner>,
    completed: Condvar,
}

#[derive(Default)]
struct Inner {
    lines: HashMap<i32, Line>,
    /// Number of readings so far.
    readings: u64,
}

impl Lines {
    pub(super) fn count(&self) -> usize {
        self.inner.lock().lines.len()
    }

    /// Adds a partition that was assigned to this member.
    pub(super) fn gain(&self, partition: i32) {
        let mut inner = self.inner.lock();
        inner.readings += 1;
        let line = Line {
            start: Start::Unproven,
            reading: inner.readings,
            open: BTreeMap::new(),
            next: 0,
            committed: Committed::Unknown,
            taken: 0,
            is_leaving: false,
        };
        inner.lines.insert(partition, line);
    }

    /// Removes revoked partitions. Waits at most [`GOODBYE`] for the intake to complete the records that it has taken.
    pub(super) fn lose(&self, partitions: &[i32]) {
        let until = Instant::now() + GOODBYE;
        let mut inner = self.inner.lock();
        for partition in partitions {
            inner.lines.entry(*partition).and_modify(|line| line.is_leaving = true);
        }
        let is_busy = |inner: &mut Inner| {
            partitions.iter().filter_map(|partition| inner.lines.get(partition)).any(Line::is_in_hand)
        };
        self.completed.wait_while_until(&mut inner, is_busy, until);
        for partition in partitions {
            inner.lines.remove(partition);
        }
    }

    /// Notes a record that was read. `None` if the partition is not assigned to this member. A tombstone is completed
    /// at once.
    pub(super) fn note(&self, partition: i32, offset: i64, is_tombstone: bool) -> Option<Noted> {
        let mut inner = self.inner.lock();
        let reading = inner.readings + 1;
        // Records from the wrong offset are dropped.
        let line = inner.lines.get_mut(&partition).filter(|line| line.start != Start::Beginning)?;
        let went_back = offset < line.next;
        if went_back {
            line.begin_again(offset, reading);
        }
        if !is_tombstone {
            line.open.insert(offset, line.reading);
        }
        line.next = offset + 1;
        let spot = Spot { partition, offset, reading: line.reading };
        if went_back {
            inner.readings = reading;
        }
        Some(Noted { spot, went_back })
    }

    /// Restarts every partition at its beginning, because the topic was recreated.
    pub(super) fn begin_all(&self) {
        let mut inner = self.inner.lock();
        let Inner { lines, readings } = &mut *inner;
        for line in lines.values_mut() {
            *readings += 1;
            line.begin_again(0, *readings);
            line.start = Start::Beginning;
        }
        self.completed.notify_all();
    }

    /// Restarts a partition at its beginning, because the group's commit is of another topic.
    pub(super) fn begin(&self, partition: i32) {
        let mut inner = self.inner.lock();
        let Inner { lines, readings } = &mut *inner;
        let Some(line) = lines.get_mut(&partition) else { return };
        *readings += 1;
        line.begin_again(0, *readings);
        line.start = Start::Beginning;
    }

    /// Marks the first offset of this partition as correct.
    pub(super) fn prove(&self, partition: i32) {
        self.inner.lock().lines.entry(partition).and_modify(|line| line.start = Start::Proven);
    }

    /// Partitions with a commit that is not checked yet.
    pub(super) fn unproven(&self) -> Vec<i32> {
        self.with_start(Start::Unproven)
    }

    /// Partitions that must be read from their beginning.
    pub(super) fn beginning(&self) -> Vec<i32> {
        self.with_start(Start::Beginning)
    }

    fn with_start(&self, start: Start) -> Vec<i32> {
        let inner = self.inner.lock();
        inner.lines.iter().filter(|(_, line)| line.start == start).map(|(partition, _)| *partition).collect()
    }

    /// Hands a record to the intake. Returns false if the record no longer belongs to this member.
    pub(super) fn take(&self, spot: Spot) -> bool {
        let mut inner = self.inner.lock();
        let Some(line) = inner.lines.get_mut(&spot.partition).filter(|line| !line.is_leaving && line.holds(spot))
        else {
            return false;
        };
        line.taken = line.taken.max(spot.offset + 1);
        true
    }

    /// True while the record is read, not completed, and its partition is assigned to this member.
    pub(super) fn holds(&self, spot: Spot) -> bool {
        self.inner.lock().lines.get(&spot.partition).is_some_and(|line| line.holds(spot))
    }

    /// Returns the offset to commit for each partition once `settled` is completed, each with `metadata`. Leaves out
    /// partitions that already stand at their last commit.
    pub(super) fn offsets_after(&self, topic: &str, metadata: &str, settled: &[Spot]) -> TopicPartitionList {
        let inner = self.inner.lock();
        let settled: HashSet<Spot> = settled.iter().copied().collect();
        let mut offsets = TopicPartitionList::new();
        for (partition, line) in &inner.lines {
            let is_settled =
                |offset: i64, reading: u64| settled.contains(&Spot { partition: *partition, offset, reading });
            let open = line.open.iter().find(|(offset, reading)| !is_settled(**offset, **reading));
            let next = open.map_or(line.next, |(offset, _)| *offset);
            if !line.has_news(next) {
                continue;
            }
            let mut place = offsets.add_partition(topic, *partition);
            if place.set_offset(Offset::Offset(next)).is_ok() && !metadata.is_empty() {
                place.set_metadata(metadata);
            }
        }
        offsets
    }

    /// Notes that the group committed these offsets.
    pub(super) fn committed(&self, offsets: &TopicPartitionList) {
        let mut inner = self.inner.lock();
        for place in offsets.elements() {
            if let (Some(line), Offset::Offset(offset)) = (inner.lines.get_mut(&place.partition()), place.offset()) {
                line.committed = Committed::At(offset);
            }
        }
    }

    pub(super) fn complete(&self, spots: &[Spot]) {
        let mut inner = self.inner.lock();
        for spot in spots {
            if let Some(line) = inner.lines.get_mut(&spot.partition).filter(|line| line.holds(*spot)) {
                line.open.remove(&spot.offset);
            }
        }
        self.completed.notify_all();
    }
}

impl Line {
    /// Starts a new reading at `offset`. Records behind it will be read again or no longer exist.
    fn begin_again(&mut self, offset: i64, reading: u64) {
        self.open.split_off(&offset);
        (self.reading, self.next, self.committed) = (reading, offset, Committed::Wrong);
        self.taken = self.taken.min(offset);
    }

    fn holds(&self, spot: Spot) -> bool {
        self.open.get(&spot.offset) == Some(&spot.reading)
    }

    /// True if the group must commit `next`. A reading without records has nothing to commit.
    fn has_news(&self, next: i64) -> bool {
        match self.committed {
            Committed::At(committed) => committed != next,
            Committed::Wrong => true,
            Committed::Unknown => self.next > 0 && self.open.keys().next() != Some(&next),
        }
    }

    fn is_in_hand(&self) -> bool {
        self.open.keys().next().is_some_and(|first| *first < self.taken)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn lines(partitions: &[i32]) -> Lines {
        let lines = Lines::default();
        partitions.iter().for_each(|partition| lines.gain(*partition));
        for offset in 5..8 {
            partitions.iter().for_each(|partition| assert!(lines.note(*partition, offset, false).is_some()));
        }
        lines
    }

    /// Spot of a record in the first reading of its partition.
    fn spot(partition: i32, offset: i64) -> Spot {
        Spot { partition, offset, reading: u64::try_from(partition).unwrap() + 1 }
    }

    fn next(lines: &Lines, spots: &[Spot]) -> Vec<(i32, Offset)> {
        let offsets = lines.offsets_after("t", "", spots);
        let mut next: Vec<_> = offsets.elements().iter().map(|e| (e.partition(), e.offset())).collect();
        next.sort_by_key(|(partition, _)| *partition);
        next
    }

    fn commit(lines: &Lines, spots: &[Spot]) -> Vec<(i32, Offset)> {
        let next = next(lines, spots);
        lines.committed(&lines.offsets_after("t", "", spots));
        lines.complete(spots);
        next
    }

    #[test]
    fn a_commit_never_passes_what_is_not_settled() {
        let lines = lines(&[0, 1]);
        assert_eq!(commit(&lines, &[spot(0, 6)]), [], "5 is open");
        assert_eq!(next(&lines, &[spot(0, 5), spot(1, 5)]), [(0, Offset::Offset(7)), (1, Offset::Offset(6))]);
        lines.complete(&[spot(0, 5)]);
        assert_eq!(commit(&lines, &[spot(0, 7)]), [(0, Offset::Offset(8))]);
        assert_eq!(next(&lines, &[]), [], "nothing new");
    }

    #[test]
    fn what_has_gone_is_neither_taken_nor_settled() {
        let lines = lines(&[0, 1]);
        lines.lose(&[1]);
        assert!(lines.take(spot(0, 5)) && !lines.take(spot(1, 5)));
        assert!(lines.holds(spot(0, 6)) && !lines.holds(spot(1, 6)));
        assert_eq!(next(&lines, &[spot(1, 5)]), []);
        assert!(lines.note(1, 8, false).is_none());
    }

    #[test]
    fn a_partition_leaves_when_what_is_in_hand_is_settled() {
        let lines = Arc::new(lines(&[0]));
        assert!(lines.take(spot(0, 5)));
        let other = Arc::clone(&lines);
        let leaving = std::thread::spawn(move || other.lose(&[0]));
        // A leaving partition gives out no more records, and leaves once the record in hand is completed.
        while lines.take(spot(0, 5)) {
            std::thread::yield_now();
        }
        assert_eq!(next(&lines, &[spot(0, 5)]).first().map(|(partition, _)| *partition), Some(0));
        lines.complete(&[spot(0, 5)]);
        leaving.join().unwrap();
        assert!(lines.note(0, 8, false).is_none());
    }

    #[test]
    fn an_offset_that_goes_back_takes_the_commit_with_it() {
        let lines = lines(&[0]);
        assert_eq!(commit(&lines, &[5, 6, 7].map(|offset| spot(0, offset))), [(0, Offset::Offset(8))]);
        assert_eq!(lines.note(0, 8, false).map(|noted| noted.went_back), Some(false));
        let again = lines.note(0, 2, false).unwrap();
        assert!(again.went_back && again.spot.reading > 1);
        assert_eq!(next(&lines, &[]), [(0, Offset::Offset(2))], "before anything of it is settled");
        lines.committed(&lines.offsets_after("t", "", &[]));
        // The record at 8 belonged to the truncated log; the present one is another record.
        assert!(!lines.holds(spot(0, 8)) && !lines.take(spot(0, 8)));
        (3..9).for_each(|offset| assert!(lines.note(0, offset, false).is_some_and(|noted| !noted.went_back)));
        lines.complete(&[spot(0, 8)]);
        let reading = again.spot.reading;
        let all: Vec<Spot> = (2..9).map(|offset| Spot { partition: 0, offset, reading }).collect();
        assert_eq!(next(&lines, &all[..6]), [(0, Offset::Offset(8))], "the old record settled nothing of the new log");
        assert_eq!(commit(&lines, &all), [(0, Offset::Offset(9))]);
    }

    #[test]
    fn a_topic_made_anew_is_read_from_its_beginning_and_nothing_else_of_it_is() {
        let lines = lines(&[0]);
        lines.prove(0);
        assert!(lines.take(spot(0, 5)));
        lines.begin_all();
        assert_eq!((lines.unproven(), lines.beginning()), (vec![], vec![0]));
        assert!(lines.note(0, 9, false).is_none(), "it stands at the place of the old topic");
        assert_eq!(commit(&lines, &[spot(0, 5)]), [(0, Offset::Offset(0))]);
        lines.prove(0);
        assert_eq!(lines.note(0, 0, false).map(|noted| noted.went_back), Some(false));
        assert_eq!(next(&lines, &[spot(0, 5)]), []);
    }

    #[test]
    fn tombstones_are_passed_over() {
        let lines = lines(&[0]);
        assert!(lines.note(0, 8, true).is_some());
        assert!(!lines.take(spot(0, 8)));
        assert_eq!(commit(&lines, &[5, 6, 7].map(|offset| spot(0, offset))), [(0, Offset::Offset(9))]);
        assert!(lines.note(0, 9, true).is_some());
        assert_eq!(commit(&lines, &[]), [(0, Offset::Offset(10))]);
    }
}
