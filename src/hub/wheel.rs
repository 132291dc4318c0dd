//! Timer wheel of a shard: at most one entry per connection, in doubly linked lists through the entries.
//!
//! Independent of clocks and connections: an entry is a slot index with a due tick. Moving an entry costs a few writes
//! and never allocates. An entry beyond the horizon fires early, and its owner arms it again.

use super::clock::Tick;

const BUCKETS: u32 = 64;
/// Maximum distance of an entry, in ticks.
const HORIZON: Tick = BUCKETS - 1;
const NONE: u32 = u32::MAX;

/// Due ticks of slots.
#[derive(Debug)]
pub(super) struct Wheel {
    now: Tick,
    heads: [u32; BUCKETS as usize],
    entries: Vec<Entry>,
}

/// Entry of a slot. `due` 0 = in no list.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    due: Tick,
    before: u32,
    after: u32,
}

impl Wheel {
    pub(super) fn new(now: Tick) -> Self {
        Self { now, heads: [NONE; BUCKETS as usize], entries: Vec::new() }
    }

    pub(super) fn now(&self) -> Tick {
        self.now
    }

    /// Sets the due tick of `index` to `due`, or to the next tick if `due` has passed. Replaces an earlier entry.
    pub(super) fn arm(&mut self, index: u32, due: Tick) {
        let at = index as usize;
        if at >= self.entries.len() {
            self.entries.resize(at + 1, Entry { due: 0, before: NONE, after: NONE });
        }
        let due = due.clamp(self.now.saturating_add(1), self.now.saturating_add(HORIZON));
        if self.entries[at].due == due {
            return;
        }
        self.disarm(index);
        let head = &mut self.heads[(due % BUCKETS) as usize];
        let after = std::mem::replace(head, index);
        self.entries[at] = Entry { due, before: NONE, after };
        if after != NONE {
            self.entries[after as usize].before = index;
        }
    }

    /// Makes `index` due at `due`, unless it is due earlier.
    pub(super) fn arm_earlier(&mut self, index: u32, due: Tick) {
        let armed = self.entries.get(index as usize).map_or(0, |entry| entry.due);
        if armed == 0 || due < armed {
            self.arm(index, due);
        }
    }

    pub(super) fn disarm(&mut self, index: u32) {
        let Some(entry) = self.entries.get_mut(index as usize).filter(|entry| entry.due != 0) else { return };
        let Entry { due, before, after } = std::mem::replace(entry, Entry { due: 0, before: NONE, after: NONE });
        if before == NONE {
            self.heads[(due % BUCKETS) as usize] = after;
        } else {
            self.entries[before as usize].after = after;
        }
        if after != NONE {
            self.entries[after as usize].before = before;
        }
    }

    /// Advances to `now` and removes the due entries, in no particular order within a tick.
    pub(super) fn advance(&mut self, now: Tick, due: &mut Vec<u32>) {
        while self.now < now {
            self.now += 1;
            let mut index = std::mem::replace(&mut self.heads[(self.now % BUCKETS) as usize], NONE);
            while index != NONE {
                let entry = &mut self.entries[index as usize];
                due.push(index);
                index = entry.after;
                *entry = Entry { due: 0, before: NONE, after: NONE };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turn(wheel: &mut Wheel, now: Tick) -> Vec<u32> {
        let mut due = Vec::new();
        wheel.advance(now, &mut due);
        due.sort_unstable();
        due
    }

    #[test]
    fn an_entry_is_small() {
        println!("wheel entry: {} bytes", size_of::<Entry>());
        assert_eq!(size_of::<Entry>(), 12);
    }

    #[test]
    fn entry_is_due_once_at_its_tick_or_at_the_horizon() {
        let mut wheel = Wheel::new(1);
        wheel.arm(0, 5);
        wheel.arm(1, 5);
        wheel.arm(2, 3);
        wheel.arm(3, 10_000);
        wheel.arm(1, 4);
        wheel.disarm(0);
        wheel.arm_earlier(2, 9);
        assert_eq!(turn(&mut wheel, 3), [2]);
        assert_eq!(turn(&mut wheel, 5), [1]);
        assert_eq!(turn(&mut wheel, 1 + HORIZON), [3]);
        assert!(turn(&mut wheel, 500).is_empty());
        wheel.arm(0, 7);
        assert_eq!(turn(&mut wheel, 501), [0], "what has passed is due at the next tick");
    }

    proptest! {
        #[test]
        fn wheel_matches_an_ordered_map(steps in prop::collection::vec((0u32..12, 0u32..70, 0u8..4), 1..200)) {
            let mut wheel = Wheel::new(1);
            let mut model = std::collections::BTreeMap::new();
            for (index, delta, what) in steps {
                let now = wheel.now();
                let at = (now + delta).clamp(now + 1, now + HORIZON);
                match what {
                    0 => {
                        wheel.arm(index, now + delta);
                        model.insert(index, at);
                    }
                    1 => {
                        wheel.disarm(index);
                        model.remove(&index);
                    }
                    2 => {
                        wheel.arm_earlier(index, now + delta);
                        let due = model.entry(index).or_insert(at);
                        *due = at.min(*due);
                    }
                    _ => {
                        let expected: Vec<u32> =
                            model.iter().filter(|(_, due)| **due <= now + delta).map(|(index, _)| *index).collect();
                        model.retain(|_, due| *due > now + delta);
                        prop_assert_eq!(turn(&mut wheel, now + delta), expected);
                    }
                }
            }
        }
    }
}
