//! Sources with calls that the guest failed: failure counts, the sources set apart, and evidence against the guest.
//!
//! Pure and bounded: a full table drops the source with the oldest failure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::super::source::SourceId;
use super::seen::{Seconds, is_recent, slot};
use crate::plugin::Apart;

/// Most sources in the table.
const SOURCES: usize = 4_096;
/// Failures that set a source apart.
const APART: u32 = 3;

/// The table of one version.
#[derive(Debug, Default)]
pub(super) struct FailingSources {
    sources: HashMap<u64, Record>,
    /// Sources by the number of their last failure; the lowest number is dropped first.
    order: BTreeMap<u64, u64>,
    number: u64,
}

#[derive(Debug)]
struct Record {
    source: SourceId,
    /// Text that an operator is shown.
    label: String,
    number: u64,
    failures: u32,
    /// Second of its last failure.
    failed: Seconds,
    apart_until: Option<Instant>,
    /// Second in which the guest alone was last found to blame: evidence against a version on probation.
    evidence: Seconds,
}

/// Number of failing sources, exact and in the slots by which seen sources are counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct SourceCount {
    pub(super) sources: usize,
    pub(super) slots: usize,
    pub(super) groups: usize,
}

impl FailingSources {
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    pub(super) fn contains(&self, source: SourceId) -> bool {
        self.sources.contains_key(&source.source_hash)
    }

    pub(super) fn is_set_apart(&self, source: SourceId, now: Instant) -> bool {
        let until = self.sources.get(&source.source_hash).and_then(|record| record.apart_until);
        until.is_some_and(|until| now < until)
    }

    /// Records a failed call of the source. Returns true if the failure sets the source apart.
    pub(super) fn add(
        &mut self,
        source: SourceId,
        label: impl FnOnce() -> String,
        (now, second): (Instant, Seconds),
        rest: Duration,
    ) -> bool {
        self.number += 1;
        let number = self.number;
        if !self.sources.contains_key(&source.source_hash) && self.sources.len() >= SOURCES {
            self.forget_oldest();
        }
        let record = self.sources.entry(source.source_hash).or_insert_with(|| Record {
            source,
            label: label(),
            number,
            failures: 0,
            failed: second,
            apart_until: None,
            evidence: 0,
        });
        if !is_recent(record.failed, second) {
            record.failures = 0;
        }
        self.order.remove(&record.number);
        self.order.insert(number, source.source_hash);
        (record.number, record.failed) = (number, second);
        record.failures = record.failures.saturating_add(1);
        let sets_apart = record.failures >= APART && source.can_be_set_apart;
        if sets_apart {
            record.apart_until = Some(now + rest);
        }
        sets_apart
    }

    /// Records that the guest alone is to blame for a failure of the source.
    pub(super) fn record_evidence(&mut self, source: SourceId, second: Seconds) {
        if let Some(record) = self.sources.get_mut(&source.source_hash) {
            record.evidence = second;
        }
    }

    /// Records that the guest answered a call of the source. If the source was set apart and its rest is over, its
    /// failures are forgotten.
    pub(super) fn answered(&mut self, source: SourceId, now: Instant) {
        if let Some(record) = self.sources.get_mut(&source.source_hash)
            && record.apart_until.is_some_and(|until| now >= until)
        {
            (record.failures, record.apart_until) = (0, None);
        }
    }

    /// Sources that failed within the window, each once.
    pub(super) fn failed(&self, second: Seconds) -> SourceCount {
        self.count(|record| is_recent(record.failed, second))
    }

    /// Sources for which the guest alone was found to blame within the window, each once.
    pub(super) fn evidence(&self, second: Seconds) -> SourceCount {
        self.count(|record| is_recent(record.evidence, second))
    }

    fn count(&self, counts: impl Fn(&Record) -> bool) -> SourceCount {
        let (mut sources, mut slots, mut groups) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for record in self.sources.values().filter(|record| counts(record)) {
            sources.insert(record.source.circuit_hash);
            slots.insert(slot(record.source.circuit_hash));
            groups.insert(slot(record.source.group_hash));
        }
        SourceCount { sources: sources.len(), slots: slots.len(), groups: groups.len() }
    }

    /// The number of sources that are set apart now, and the newest of them.
    pub(super) fn apart(&self, now: Instant, most: usize) -> (usize, Vec<Apart>) {
        let newest = self.order.values().rev().filter_map(|source_hash| self.sources.get(source_hash));
        let apart = |record: &Record| {
            let left = record.apart_until?.checked_duration_since(now).filter(|left| !left.is_zero())?;
            let left = u64::try_from(left.as_millis()).unwrap_or(u64::MAX).max(1);
            Some(Apart { source: record.label.clone(), failures: record.failures, left })
        };
        let mut shown: Vec<Apart> = newest.filter_map(apart).collect();
        let count = shown.len();
        shown.truncate(most);
        (count, shown)
    }

    pub(super) fn clear(&mut self) {
        self.sources.clear();
        self.order.clear();
    }

    fn forget_oldest(&mut self) {
        if let Some((_, source_hash)) = self.order.pop_first() {
            self.sources.remove(&source_hash);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugin::calls::source::CallSource;

    const REST: Duration = Duration::from_secs(5);

    fn user(name: &str) -> SourceId {
        CallSource::User(name).id()
    }

    fn fails(failing: &mut FailingSources, name: &str, at: (Instant, Seconds)) -> bool {
        failing.add(user(name), || format!("user {name}"), at, REST)
    }

    #[tokio::test(start_paused = true)]
    async fn source_is_set_apart_after_three_failures() {
        let (mut failing, now) = (FailingSources::default(), Instant::now());
        assert_eq!([1, 1, 1].map(|second| fails(&mut failing, "a", (now, second))), [false, false, true]);
        assert!(failing.is_set_apart(user("a"), now) && !failing.is_set_apart(user("b"), now));
        let (count, shown) = failing.apart(now, 10);
        assert_eq!((count, shown), (1, vec![Apart { source: "user a".into(), failures: 3, left: 5_000 }]));
        assert!(!failing.is_set_apart(user("a"), now + REST));
        // The first call afterwards decides.
        assert!(fails(&mut failing, "a", (now + REST, 6)), "once more, at once");
        failing.answered(user("a"), now + 2 * REST);
        assert!(!fails(&mut failing, "a", (now + 2 * REST, 11)), "an answer has let it in again");
        assert!(!fails(&mut failing, "b", (now, 1)) && !fails(&mut failing, "b", (now, 1)));
        assert!(!fails(&mut failing, "b", (now, 1 + super::super::seen::WINDOW)), "old failures are forgotten");
    }

    #[tokio::test(start_paused = true)]
    async fn answer_between_failures_keeps_the_count() {
        let (mut failing, now) = (FailingSources::default(), Instant::now());
        for _ in 0..2 {
            fails(&mut failing, "a", (now, 1));
            failing.answered(user("a"), now);
        }
        assert!(fails(&mut failing, "a", (now, 1)));
    }

    #[tokio::test(start_paused = true)]
    async fn full_table_forgets_the_oldest_source() {
        let (mut failing, now) = (FailingSources::default(), Instant::now());
        for n in 0..SOURCES {
            fails(&mut failing, &n.to_string(), (now, 1));
        }
        fails(&mut failing, "0", (now, 1));
        fails(&mut failing, "new", (now, 1));
        assert_eq!((failing.sources.len(), failing.order.len()), (SOURCES, SOURCES));
        assert!(failing.contains(user("0")) && failing.contains(user("new")) && !failing.contains(user("1")));
    }

    #[tokio::test(start_paused = true)]
    async fn senders_of_one_key_count_as_one_failed_source() {
        let (mut failing, now) = (FailingSources::default(), Instant::now());
        for sender in ["a", "b", "c"] {
            let source = CallSource::Key { name: "shop", sender }.id();
            failing.add(source, String::new, (now, 1), REST);
            failing.record_evidence(source, 1);
        }
        fails(&mut failing, "u", (now, 1));
        assert_eq!((failing.failed(1).sources, failing.evidence(1).sources), (2, 1));
        assert_eq!(failing.failed(1 + super::super::seen::WINDOW), SourceCount::default());
    }
}
