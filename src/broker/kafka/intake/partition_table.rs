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
const REVOKE_WAIT: Duration = Duration::from_secs(1);

/// One record of one reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ReadPosition {
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) reading: u64,
}

/// Result of noting a record that was just read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Noted {
    pub(super) position: ReadPosition,
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

struct PartitionState {
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
    is_revoking: bool,
}

/// The partitions of one member.
#[derive(Default)]
pub(super) struct PartitionTable {
    inner: Mutex<Inner>,
    completed: Condvar,
}

#[derive(Default)]
struct Inner {
    states: HashMap<i32, PartitionState>,
    /// Number of readings so far.
    readings: u64,
}

impl PartitionTable {
    pub(super) fn count(&self) -> usize {
        self.inner.lock().states.len()
    }

    /// Adds a partition that was assigned to this member.
    pub(super) fn assign(&self, partition: i32) {
        let mut inner = self.inner.lock();
        inner.readings += 1;
        let state = PartitionState {
            start: Start::Unproven,
            reading: inner.readings,
            open: BTreeMap::new(),
            next: 0,
            committed: Committed::Unknown,
            taken: 0,
            is_revoking: false,
        };
        inner.states.insert(partition, state);
    }

    /// Removes revoked partitions. Waits at most [`REVOKE_WAIT`] for the intake to complete the records that it has
    /// taken.
    pub(super) fn revoke(&self, partitions: &[i32]) {
        let until = Instant::now() + REVOKE_WAIT;
        let mut inner = self.inner.lock();
        for partition in partitions {
            inner.states.entry(*partition).and_modify(|state| state.is_revoking = true);
        }
        let is_busy = |inner: &mut Inner| {
            partitions.iter().filter_map(|partition| inner.states.get(partition)).any(PartitionState::has_taken_records)
        };
        self.completed.wait_while_until(&mut inner, is_busy, until);
        for partition in partitions {
            inner.states.remove(partition);
        }
    }

    /// Notes a record that was read. `None` if the partition is not assigned to this member. A tombstone is completed
    /// at once.
    pub(super) fn note(&self, partition: i32, offset: i64, is_tombstone: bool) -> Option<Noted> {
        let mut inner = self.inner.lock();
        let reading = inner.readings + 1;
        // Records from the wrong offset are dropped.
        let state = inner.states.get_mut(&partition).filter(|state| state.start != Start::Beginning)?;
        let went_back = offset < state.next;
        if went_back {
            state.restart_at(offset, reading);
        }
        if !is_tombstone {
            state.open.insert(offset, state.reading);
        }
        state.next = offset + 1;
        let position = ReadPosition { partition, offset, reading: state.reading };
        if went_back {
            inner.readings = reading;
        }
        Some(Noted { position, went_back })
    }

    /// Restarts every partition at its beginning, because the topic was recreated.
    pub(super) fn restart_all(&self) {
        let mut inner = self.inner.lock();
        let Inner { states, readings } = &mut *inner;
        for state in states.values_mut() {
            *readings += 1;
            state.restart_at(0, *readings);
            state.start = Start::Beginning;
        }
        self.completed.notify_all();
    }

    /// Restarts a partition at its beginning, because the group's commit is of another topic.
    pub(super) fn restart(&self, partition: i32) {
        let mut inner = self.inner.lock();
        let Inner { states, readings } = &mut *inner;
        let Some(state) = states.get_mut(&partition) else { return };
        *readings += 1;
        state.restart_at(0, *readings);
        state.start = Start::Beginning;
    }

    /// Marks the first offset of this partition as correct.
    pub(super) fn mark_proven(&self, partition: i32) {
        self.inner.lock().states.entry(partition).and_modify(|state| state.start = Start::Proven);
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
        inner.states.iter().filter(|(_, state)| state.start == start).map(|(partition, _)| *partition).collect()
    }

    /// Hands a record to the intake. Returns false if the record no longer belongs to this member.
    pub(super) fn take(&self, position: ReadPosition) -> bool {
        let mut inner = self.inner.lock();
        let Some(state) =
            inner.states.get_mut(&position.partition).filter(|state| !state.is_revoking && state.is_current(position))
        else {
            return false;
        };
        state.taken = state.taken.max(position.offset + 1);
        true
    }

    /// True while the record is read, not completed, and its partition is assigned to this member.
    pub(super) fn is_current(&self, position: ReadPosition) -> bool {
        self.inner.lock().states.get(&position.partition).is_some_and(|state| state.is_current(position))
    }

    /// Returns the offset to commit for each partition once `completed` is completed, each with `metadata`. Leaves out
    /// partitions that are already at their last commit.
    pub(super) fn offsets_after(&self, topic: &str, metadata: &str, completed: &[ReadPosition]) -> TopicPartitionList {
        let inner = self.inner.lock();
        let completed: HashSet<ReadPosition> = completed.iter().copied().collect();
        let mut offsets = TopicPartitionList::new();
        for (partition, state) in &inner.states {
            let is_completed = |offset: i64, reading: u64| {
                completed.contains(&ReadPosition { partition: *partition, offset, reading })
            };
            let open = state.open.iter().find(|(offset, reading)| !is_completed(**offset, **reading));
            let next = open.map_or(state.next, |(offset, _)| *offset);
            if !state.needs_commit(next) {
                continue;
            }
            let mut element = offsets.add_partition(topic, *partition);
            if element.set_offset(Offset::Offset(next)).is_ok() && !metadata.is_empty() {
                element.set_metadata(metadata);
            }
        }
        offsets
    }

    /// Notes that the group committed these offsets.
    pub(super) fn committed(&self, offsets: &TopicPartitionList) {
        let mut inner = self.inner.lock();
        for element in offsets.elements() {
            if let (Some(state), Offset::Offset(offset)) =
                (inner.states.get_mut(&element.partition()), element.offset())
            {
                state.committed = Committed::At(offset);
            }
        }
    }

    pub(super) fn complete(&self, positions: &[ReadPosition]) {
        let mut inner = self.inner.lock();
        for position in positions {
            if let Some(state) = inner.states.get_mut(&position.partition).filter(|state| state.is_current(*position)) {
                state.open.remove(&position.offset);
            }
        }
        self.completed.notify_all();
    }
}

impl PartitionState {
    /// Starts a new reading at `offset`. Records behind it will be read again or no longer exist.
    fn restart_at(&mut self, offset: i64, reading: u64) {
        self.open.split_off(&offset);
        (self.reading, self.next, self.committed) = (reading, offset, Committed::Wrong);
        self.taken = self.taken.min(offset);
    }

    fn is_current(&self, position: ReadPosition) -> bool {
        self.open.get(&position.offset) == Some(&position.reading)
    }

    /// True if the group must commit `next`. A reading without records has nothing to commit.
    fn needs_commit(&self, next: i64) -> bool {
        match self.committed {
            Committed::At(committed) => committed != next,
            Committed::Wrong => true,
            Committed::Unknown => self.next > 0 && self.open.keys().next() != Some(&next),
        }
    }

    fn has_taken_records(&self) -> bool {
        self.open.keys().next().is_some_and(|first| *first < self.taken)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn table(partitions: &[i32]) -> PartitionTable {
        let table = PartitionTable::default();
        partitions.iter().for_each(|partition| table.assign(*partition));
        for offset in 5..8 {
            partitions.iter().for_each(|partition| assert!(table.note(*partition, offset, false).is_some()));
        }
        table
    }

    /// Position of a record in the first reading of its partition.
    fn position(partition: i32, offset: i64) -> ReadPosition {
        ReadPosition { partition, offset, reading: u64::try_from(partition).unwrap() + 1 }
    }

    fn next(table: &PartitionTable, positions: &[ReadPosition]) -> Vec<(i32, Offset)> {
        let offsets = table.offsets_after("t", "", positions);
        let mut next: Vec<_> = offsets.elements().iter().map(|e| (e.partition(), e.offset())).collect();
        next.sort_by_key(|(partition, _)| *partition);
        next
    }

    fn commit(table: &PartitionTable, positions: &[ReadPosition]) -> Vec<(i32, Offset)> {
        let next = next(table, positions);
        table.committed(&table.offsets_after("t", "", positions));
        table.complete(positions);
        next
    }

    #[test]
    fn a_commit_never_passes_what_is_not_settled() {
        let table = table(&[0, 1]);
        assert_eq!(commit(&table, &[position(0, 6)]), [], "5 is open");
        assert_eq!(next(&table, &[position(0, 5), position(1, 5)]), [(0, Offset::Offset(7)), (1, Offset::Offset(6))]);
        table.complete(&[position(0, 5)]);
        assert_eq!(commit(&table, &[position(0, 7)]), [(0, Offset::Offset(8))]);
        assert_eq!(next(&table, &[]), [], "nothing new");
    }

    #[test]
    fn what_has_gone_is_neither_taken_nor_settled() {
        let table = table(&[0, 1]);
        table.revoke(&[1]);
        assert!(table.take(position(0, 5)) && !table.take(position(1, 5)));
        assert!(table.is_current(position(0, 6)) && !table.is_current(position(1, 6)));
        assert_eq!(next(&table, &[position(1, 5)]), []);
        assert!(table.note(1, 8, false).is_none());
    }

    #[test]
    fn a_partition_leaves_when_what_is_in_hand_is_settled() {
        let table = Arc::new(table(&[0]));
        assert!(table.take(position(0, 5)));
        let other = Arc::clone(&table);
        let leaving = std::thread::spawn(move || other.revoke(&[0]));
        // A leaving partition gives out no more records, and leaves once the record in hand is completed.
        while table.take(position(0, 5)) {
            std::thread::yield_now();
        }
        assert_eq!(next(&table, &[position(0, 5)]).first().map(|(partition, _)| *partition), Some(0));
        table.complete(&[position(0, 5)]);
        leaving.join().unwrap();
        assert!(table.note(0, 8, false).is_none());
    }

    #[test]
    fn an_offset_that_goes_back_takes_the_commit_with_it() {
        let table = table(&[0]);
        assert_eq!(commit(&table, &[5, 6, 7].map(|offset| position(0, offset))), [(0, Offset::Offset(8))]);
        assert_eq!(table.note(0, 8, false).map(|noted| noted.went_back), Some(false));
        let again = table.note(0, 2, false).unwrap();
        assert!(again.went_back && again.position.reading > 1);
        assert_eq!(next(&table, &[]), [(0, Offset::Offset(2))], "before anything of it is settled");
        table.committed(&table.offsets_after("t", "", &[]));
        // The record at 8 belonged to the truncated log; the present one is another record.
        assert!(!table.is_current(position(0, 8)) && !table.take(position(0, 8)));
        (3..9).for_each(|offset| assert!(table.note(0, offset, false).is_some_and(|noted| !noted.went_back)));
        table.complete(&[position(0, 8)]);
        let reading = again.position.reading;
        let all: Vec<ReadPosition> = (2..9).map(|offset| ReadPosition { partition: 0, offset, reading }).collect();
        assert_eq!(next(&table, &all[..6]), [(0, Offset::Offset(8))], "the old record settled nothing of the new log");
        assert_eq!(commit(&table, &all), [(0, Offset::Offset(9))]);
    }

    #[test]
    fn a_topic_made_anew_is_read_from_its_beginning_and_nothing_else_of_it_is() {
        let table = table(&[0]);
        table.mark_proven(0);
        assert!(table.take(position(0, 5)));
        table.restart_all();
        assert_eq!((table.unproven(), table.beginning()), (vec![], vec![0]));
        assert!(table.note(0, 9, false).is_none(), "it stands at the place of the old topic");
        assert_eq!(commit(&table, &[position(0, 5)]), [(0, Offset::Offset(0))]);
        table.mark_proven(0);
        assert_eq!(table.note(0, 0, false).map(|noted| noted.went_back), Some(false));
        assert_eq!(next(&table, &[position(0, 5)]), []);
    }

    #[test]
    fn tombstones_are_passed_over() {
        let table = table(&[0]);
        assert!(table.note(0, 8, true).is_some());
        assert!(!table.take(position(0, 8)));
        assert_eq!(commit(&table, &[5, 6, 7].map(|offset| position(0, offset))), [(0, Offset::Offset(9))]);
        assert!(table.note(0, 9, true).is_some());
        assert_eq!(commit(&table, &[]), [(0, Offset::Offset(10))]);
    }
}
