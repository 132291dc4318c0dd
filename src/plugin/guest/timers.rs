//! Timers of plugins: their state and due times.
//!
//! Timers belong to a plugin's name, so they survive its reload. They live in memory, so they end with the node.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Most timers of one plugin, and most bytes of their names and data.
const MAX_TIMERS: usize = 10_000;
const MAX_BYTES: usize = 4 << 20;
/// Most data of one timer, bytes.
pub(in crate::plugin) const MAX_DATA: usize = 4 << 10;

/// Change that a call makes to its plugin's timers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::plugin) enum TimerChange {
    /// Starts a timer of this name that is due after `after`; it replaces an earlier one.
    Start { name: String, after: Duration, data: Vec<u8> },
    /// Cancels the timer of this name.
    Cancel { name: String },
}

/// The timers of every plugin.
#[derive(Debug, Default)]
pub(in crate::plugin) struct Timers {
    set: Mutex<TimerQueue>,
    /// Notified when the first due timer may have changed.
    first_changed: Notify,
}

#[derive(Debug, Default)]
struct TimerQueue {
    due: BTreeMap<(Instant, u64), (Arc<str>, String)>,
    plugins: HashMap<Arc<str>, PluginTimers>,
    number: u64,
}

/// Timers of one plugin.
#[derive(Debug, Default)]
struct PluginTimers {
    timers: HashMap<String, Timer>,
    bytes: usize,
}

#[derive(Debug)]
struct Timer {
    due: (Instant, u64),
    data: Vec<u8>,
}

/// A timer that is due.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::plugin) struct DueTimer {
    pub(in crate::plugin) plugin: Arc<str>,
    pub(in crate::plugin) name: String,
    pub(in crate::plugin) data: Vec<u8>,
}

impl Timers {
    /// True if all staged timers fit. Calls that end at the same time may together exceed the bounds by their staged
    /// timers.
    pub(in crate::plugin) fn fits(&self, plugin: &str, staged: &[TimerChange]) -> bool {
        let set = self.set.lock();
        let (mut count, mut bytes) = set.plugins.get(plugin).map_or((0, 0), |own| (own.timers.len(), own.bytes));
        for change in staged {
            if let TimerChange::Start { name, data, .. } = change {
                (count, bytes) = (count + 1, bytes + name.len() + data.len());
            }
        }
        count <= MAX_TIMERS && bytes <= MAX_BYTES
    }

    /// Applies all changes.
    pub(in crate::plugin) fn apply(&self, plugin: &Arc<str>, changes: Vec<TimerChange>, now: Instant) {
        let mut set = self.set.lock();
        for change in changes {
            match change {
                TimerChange::Cancel { name } => drop(set.remove(plugin, &name)),
                TimerChange::Start { name, after, data } => set.start(plugin, name, now + after, data),
            }
        }
        drop(set);
        self.first_changed.notify_one();
    }

    pub(in crate::plugin) fn take_due(&self, now: Instant) -> Option<DueTimer> {
        let mut set = self.set.lock();
        let ((at, _), (plugin, name)) = set.due.first_key_value()?;
        if *at > now {
            return None;
        }
        let (plugin, name) = (Arc::clone(plugin), name.clone());
        let data = set.remove(&plugin, &name)?.data;
        Some(DueTimer { plugin, name, data })
    }

    /// Waits until the first due timer may have changed.
    pub(in crate::plugin) async fn changed(&self) {
        self.first_changed.notified().await;
    }

    /// Due time of the first timer.
    pub(in crate::plugin) fn next(&self) -> Option<Instant> {
        self.set.lock().due.first_key_value().map(|((at, _), _)| *at)
    }
}

impl Timers {
    /// Timers of one plugin: names and due times.
    pub(in crate::plugin) fn timers_of(&self, plugin: &str) -> Vec<(String, Instant)> {
        let set = self.set.lock();
        let own = set.plugins.get(plugin).into_iter().flat_map(|own| &own.timers);
        own.map(|(name, timer)| (name.clone(), timer.due.0)).collect()
    }
}

impl TimerQueue {
    fn start(&mut self, plugin: &Arc<str>, name: String, at: Instant, data: Vec<u8>) {
        self.remove(plugin, &name);
        self.number += 1;
        let due = (at, self.number);
        self.due.insert(due, (Arc::clone(plugin), name.clone()));
        let own = self.plugins.entry(Arc::clone(plugin)).or_default();
        own.bytes += name.len() + data.len();
        own.timers.insert(name, Timer { due, data });
    }

    fn remove(&mut self, plugin: &str, name: &str) -> Option<Timer> {
        let own = self.plugins.get_mut(plugin)?;
        let timer = own.timers.remove(name)?;
        own.bytes -= name.len() + timer.data.len();
        if own.timers.is_empty() {
            self.plugins.remove(plugin);
        }
        self.due.remove(&timer.due);
        Some(timer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(name: &str, seconds: u64, data: &[u8]) -> TimerChange {
        TimerChange::Start { name: name.to_owned(), after: Duration::from_secs(seconds), data: data.to_vec() }
    }

    #[tokio::test]
    async fn timers_are_due_in_order_once_and_replaced_by_name() {
        let (timers, now) = (Timers::default(), Instant::now());
        let (p, q): (Arc<str>, Arc<str>) = ("p".into(), "q".into());
        timers.apply(&p, vec![start("a", 5, b"1"), start("b", 3, b"2"), start("a", 2, b"3")], now);
        timers.apply(&q, vec![start("a", 2, b"4"), start("c", 1, b"5")], now);
        timers.apply(
            &q,
            vec![TimerChange::Cancel { name: "c".to_owned() }, TimerChange::Cancel { name: "b".to_owned() }],
            now,
        );
        assert_eq!(timers.next(), Some(now + Duration::from_secs(2)));
        assert_eq!(timers.take_due(now + Duration::from_secs(1)), None);
        let later = now + Duration::from_secs(10);
        let due: Vec<_> =
            std::iter::from_fn(|| timers.take_due(later)).map(|due| (due.plugin, due.name, due.data)).collect();
        let told = |plugin: &Arc<str>, name: &str, data: &[u8]| (Arc::clone(plugin), name.to_owned(), data.to_vec());
        assert_eq!(due, [told(&p, "a", b"3"), told(&q, "a", b"4"), told(&p, "b", b"2")]);
        assert!(timers.next().is_none() && timers.set.lock().plugins.is_empty());
    }

    #[tokio::test]
    async fn timers_beyond_the_limit_of_a_plugin_do_not_fit() {
        let (timers, now, p) = (Timers::default(), Instant::now(), Arc::<str>::from("p"));
        timers.apply(&p, (0..MAX_TIMERS).map(|n| start(&n.to_string(), 9, b"")).collect(), now);
        assert!(!timers.fits("p", &[start("more", 1, b"")]) && timers.fits("q", &[start("more", 1, b"")]));
        timers.apply(&p, vec![TimerChange::Cancel { name: "7".to_owned() }], now);
        assert!(timers.fits("p", &[start("more", 1, b"")]));
        let large: Vec<_> = (0..=MAX_BYTES / MAX_DATA).map(|n| start(&n.to_string(), 1, &[0; MAX_DATA])).collect();
        assert!(!timers.fits("q", &large));
    }
}
