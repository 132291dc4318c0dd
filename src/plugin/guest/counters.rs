//! Approximate sliding windows: the state behind the interface `counters`.
//!
//! Each plugin has a fixed number of counters, found by a keyed hash in small groups. A full group replaces its least
//! recently used counter. Each call takes the same time. The table stores the hash of a name, not the name.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use parking_lot::Mutex;

/// Counters of one plugin: `GROUPS` times `WAYS`.
const GROUPS: usize = 2_048;
const WAYS: usize = 8;
/// Parts of a window. One more is kept: the part that is leaving the window.
const SLOTS: u64 = 16;
const KEPT: usize = 17;
/// Longest window, seconds.
const MAX_WINDOW: u32 = 86_400;

/// Additions of one call: the counter's keyed hash and the amount.
#[derive(Debug, Default)]
pub(in crate::plugin) struct CounterAdditions(Vec<(u64, u32)>);

impl CounterAdditions {
    /// Most additions that one call remembers. Additions beyond them count twice if the call fails and is repeated.
    const MOST: usize = 256;

    /// Remembers one addition.
    pub(in crate::plugin) fn record(&mut self, hash: u64, amount: u32) {
        if self.0.len() < Self::MOST {
            self.0.push((hash, amount));
        }
    }

    /// Removes one addition; true if it was there.
    pub(in crate::plugin) fn take(&mut self, hash: u64, amount: u32) -> bool {
        let found = self.0.iter().position(|added| *added == (hash, amount));
        found.map(|at| self.0.swap_remove(at)).is_some()
    }
}

/// The counters of all plugins, by plugin name. They survive a reload.
#[derive(Debug, Default)]
pub(in crate::plugin) struct Counters {
    plugins: Mutex<HashMap<Arc<str>, Arc<CounterTable>>>,
}

impl Counters {
    /// The counters of one plugin.
    pub(in crate::plugin) fn of(&self, plugin: &Arc<str>) -> Arc<CounterTable> {
        Arc::clone(self.plugins.lock().entry(Arc::clone(plugin)).or_default())
    }
}

/// The counters of one plugin.
#[derive(Debug)]
pub(in crate::plugin) struct CounterTable {
    /// Its keys are secret, so a guest cannot choose names that collide.
    hasher: RandomState,
    groups: Box<[Mutex<Vec<Window>>]>,
}

impl Default for CounterTable {
    fn default() -> Self {
        let groups = std::iter::repeat_with(Mutex::default).take(GROUPS).collect();
        Self { hasher: RandomState::new(), groups }
    }
}

impl CounterTable {
    /// Keyed hash that identifies a counter.
    pub(in crate::plugin) fn hash(&self, name: &str, window: u32) -> u64 {
        self.hasher.hash_one((name, window.clamp(1, MAX_WINDOW)))
    }

    /// Adds `amount` and returns the count of the `window` seconds up to `now`, which never goes back by much.
    pub(in crate::plugin) fn add_and_read(&self, name: &str, window: u32, amount: u32, now: Duration) -> u64 {
        let window = window.clamp(1, MAX_WINDOW);
        let hash = self.hash(name, window);
        // The lowest bits choose the group, and the whole hash finds the counter in it.
        let group = usize::try_from(hash % GROUPS as u64).expect("a group index fits into usize");
        let mut group = self.groups[group].lock();
        let at = group.iter().position(|counter| counter.hash == hash).unwrap_or_else(|| {
            let fresh = Window { hash, length: slot_length(window), used: now, newest: 0, slots: [0; KEPT] };
            if group.len() < WAYS {
                group.push(fresh);
                return group.len() - 1;
            }
            let oldest = (0..WAYS).min_by_key(|at| group[*at].used).expect("a full group is not empty");
            group[oldest] = fresh;
            oldest
        });
        group[at].add_and_read(amount, now)
    }
}

/// One counter.
#[derive(Debug)]
struct Window {
    hash: u64,
    length: Duration,
    used: Duration,
    /// Number of the newest slot since time began.
    newest: u64,
    slots: [u32; KEPT],
}

fn slot_length(window: u32) -> Duration {
    Duration::from_secs(window.into()) / 16
}

impl Window {
    fn add_and_read(&mut self, amount: u32, now: Duration) -> u64 {
        let length = self.length.as_micros();
        let slot = u64::try_from(now.as_micros() / length).unwrap_or(u64::MAX);
        // Slots that another thread has already advanced stay as they are.
        let passed = slot.saturating_sub(self.newest).min(KEPT as u64);
        for step in 1..=passed {
            self.slots[slot_index(self.newest + step)] = 0;
        }
        if passed == KEPT as u64 {
            self.slots = [0; KEPT];
        }
        self.newest = self.newest.max(slot);
        self.used = self.used.max(now);
        let newest = &mut self.slots[slot_index(self.newest)];
        *newest = newest.saturating_add(amount);
        self.read(now.as_micros() % length, length)
    }

    /// Sum of all slots. The oldest one counts by the part that is still in the window, rounded up.
    fn read(&self, into_newest: u128, length: u128) -> u64 {
        let whole: u64 = self.slots.iter().map(|count| u64::from(*count)).sum();
        let oldest = u64::from(self.slots[slot_index(self.newest + 1)]);
        let gone = u128::from(oldest) * into_newest / length;
        whole - u64::try_from(gone).unwrap_or(oldest)
    }
}

/// Index of a slot: the one after the newest is the oldest.
fn slot_index(slot: u64) -> usize {
    usize::try_from(slot % (SLOTS + 1)).expect("a slot index fits into usize")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counter_sums_only_additions_within_its_window() {
        let table = CounterTable::default();
        assert_eq!(table.add_and_read("a", 16, 3, Duration::from_millis(0)), 3);
        assert_eq!(table.add_and_read("a", 16, 2, Duration::from_millis(8_000)), 5);
        assert_eq!(table.add_and_read("a", 16, 0, Duration::from_millis(15_999)), 5, "0 only reads");
        assert_eq!(table.add_and_read("a", 16, 0, Duration::from_millis(16_999)), 3, "the first slot has nearly left");
        assert_eq!(table.add_and_read("a", 16, 0, Duration::from_millis(17_000)), 2);
        assert_eq!(
            table.add_and_read("a", 16, 1, Duration::from_millis(1_000_000)),
            1,
            "long after all of it has left"
        );
        assert_eq!(table.add_and_read("b", 16, 1, Duration::from_millis(1_000_000)), 1, "another name");
        assert_eq!(table.add_and_read("a", 60, 1, Duration::from_millis(1_000_000)), 1, "another window");
    }

    /// Compares random events with a list of all of them.
    #[test]
    fn counter_differs_from_the_exact_sum_by_at_most_one_slot() {
        let table = CounterTable::default();
        let (mut events, mut seed, mut now) = (Vec::new(), 7_u64, 0_u64);
        let mut next = |bound: u64| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (seed >> 33) % bound
        };
        for _ in 0..5_000 {
            now += next(150);
            let amount = u32::try_from(next(4)).unwrap();
            events.push((now, u64::from(amount)));
            let told = table.add_and_read("a", 8, amount, Duration::from_millis(now));
            let since = |age: u64| events.iter().filter(|(at, _)| *at + age > now).map(|(_, n)| n).sum::<u64>();
            // A slot of an eight-second window is half a second long.
            let slot = now / 500;
            let oldest: u64 = events.iter().filter(|(at, _)| at / 500 + 16 == slot).map(|(_, n)| n).sum();
            let truth = since(8_000);
            assert!(told.abs_diff(truth) <= oldest, "at {now}: told {told}, truth {truth}, oldest slot {oldest}");
        }
    }

    #[test]
    fn flood_of_counter_names_is_bounded_and_keeps_used_counters() {
        let table = CounterTable::default();
        for n in 0..100_000_u64 {
            table.add_and_read(&format!("name {n}"), 60, 1, Duration::from_millis(n));
            table.add_and_read("kept", 3_600, 1, Duration::from_millis(n));
        }
        let held: usize = table.groups.iter().map(|group| group.lock().len()).sum();
        assert!(held <= GROUPS * WAYS && held > GROUPS * WAYS / 2, "{held}");
        assert_eq!(table.add_and_read("kept", 3_600, 0, Duration::from_millis(100_000)), 100_000);
        assert!(size_of::<Window>() <= 128, "{}", size_of::<Window>());
    }

    #[test]
    fn a_window_out_of_range_is_the_nearest_one() {
        let table = CounterTable::default();
        assert_eq!(table.add_and_read("a", 0, 1, Duration::from_millis(0)), 1);
        assert_eq!(table.add_and_read("a", 1, 1, Duration::from_millis(0)), 2);
        assert_eq!(table.add_and_read("a", u32::MAX, 1, Duration::from_millis(0)), 1);
        assert_eq!(table.add_and_read("a", MAX_WINDOW, 1, Duration::from_millis(0)), 2);
    }
}
