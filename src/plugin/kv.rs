//! The small state of plugins: the trait [`Store`], its memory implementation, and the staging of one call.
//!
//! Optimistic: a call remembers the version of every key it read, and its writes are taken only if none has changed.
//! Knows no guest; a space is a plugin's name, so state survives a reload and no plugin sees another's.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::time::Time;

/// Longest key, bytes.
pub const MAX_KEY_BYTES: usize = 256;
/// Largest value, bytes.
pub const MAX_VALUE_BYTES: usize = 64 << 10;
/// Most keys that one call may read, and write.
pub const MAX_KEYS_PER_CALL: usize = 256;
/// Most bytes that one call may write.
pub const MAX_BYTES_PER_CALL: usize = 1 << 20;

/// What a key holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Different after each write of the key; 0 = absent.
    pub version: u64,
    /// The value.
    pub value: Option<Arc<[u8]>>,
}

/// A new value, or none to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The value; `None` deletes.
    pub value: Option<Arc<[u8]>>,
    /// It is gone after so long; `None` = until deleted.
    pub ttl: Option<Duration>,
}

/// All that one call wrote, on the condition of what it read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commit {
    /// Version of each key that was read.
    pub reads: BTreeMap<String, u64>,
    /// New values, the last one of each key.
    pub writes: BTreeMap<String, Write>,
}

/// Why a store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// A key that was read has changed since: run the call again.
    #[error("another call changed the same keys")]
    Conflict,
    /// The plugin's share is used up.
    #[error("the plugin's share of the key-value store is used up")]
    Full,
    /// The engine behind the store does not answer.
    #[error("the key-value store is unavailable: {0}")]
    Unavailable(String),
}

/// Keeps the small state of every plugin.
///
/// Guarantee: a commit is taken whole or not at all, and only while every key it read has the version it read.
pub trait Store: Send + Sync {
    /// What `key` holds.
    fn get<'a>(&'a self, space: &'a str, key: &'a str) -> BoxFuture<'a, Result<Found, KvError>>;
    /// Whether these writes would fit into `share` now. Only a hint: [`Store::commit`] decides.
    fn fits<'a>(&'a self, space: &'a str, commit: &'a Commit, share: Share) -> BoxFuture<'a, bool>;
    /// Takes all writes, or none; afterwards the space holds no more than `share`, or less than before.
    fn commit<'a>(&'a self, space: &'a str, commit: Commit, share: Share) -> BoxFuture<'a, Result<(), KvError>>;
}

/// Bounds of one plugin's share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Bytes of keys and values.
    pub bytes: usize,
    /// Number of keys.
    pub keys: usize,
}

impl Default for Share {
    fn default() -> Self {
        Self { bytes: 16 << 20, keys: 65_536 }
    }
}

/// Keeps everything in this process's memory: lost when it ends.
#[derive(Debug, Default)]
pub struct MemoryStore {
    spaces: Mutex<HashMap<String, Arc<Mutex<Space>>>>,
    versions: AtomicU64,
    time: Time,
}

impl MemoryStore {
    /// The same, whose keys end by this time.
    #[must_use]
    pub fn by(self, time: Time) -> Self {
        Self { time, ..self }
    }

    fn space(&self, name: &str) -> Arc<Mutex<Space>> {
        let mut spaces = self.spaces.lock();
        if let Some(space) = spaces.get(name) {
            return Arc::clone(space);
        }
        Arc::clone(spaces.entry(name.to_owned()).or_default())
    }

    fn take(&self, space: &str, commit: Commit, share: Share) -> Result<(), KvError> {
        let space = self.space(space);
        let mut space = space.lock();
        let now = self.time.instant();
        if commit.reads.iter().any(|(key, version)| space.version(key, now) != *version) {
            return Err(KvError::Conflict);
        }
        if !space.make_room_for(&commit, share, now) {
            return Err(KvError::Full);
        }
        for (key, write) in commit.writes {
            // 0 is "absent", so the first version is 1.
            space.put(key, write, 1 + self.versions.fetch_add(1, Ordering::Relaxed), now);
        }
        Ok(())
    }
}

impl Store for MemoryStore {
    fn get<'a>(&'a self, space: &'a str, key: &'a str) -> BoxFuture<'a, Result<Found, KvError>> {
        let found = self.space(space).lock().get(key, self.time.instant());
        std::future::ready(Ok(found)).boxed()
    }

    fn fits<'a>(&'a self, space: &'a str, commit: &'a Commit, share: Share) -> BoxFuture<'a, bool> {
        let fits = self.space(space).lock().make_room_for(commit, share, self.time.instant());
        std::future::ready(fits).boxed()
    }

    fn commit<'a>(&'a self, space: &'a str, commit: Commit, share: Share) -> BoxFuture<'a, Result<(), KvError>> {
        std::future::ready(self.take(space, commit, share)).boxed()
    }
}

/// One plugin's keys.
#[derive(Debug, Default)]
struct Space {
    entries: HashMap<String, Entry>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    version: u64,
    value: Arc<[u8]>,
    ends: Option<Instant>,
}

impl Entry {
    fn is_live(&self, now: Instant) -> bool {
        self.ends.is_none_or(|ends| now < ends)
    }
}

impl Space {
    fn get(&self, key: &str, now: Instant) -> Found {
        match self.entries.get(key) {
            Some(entry) if entry.is_live(now) => {
                Found { version: entry.version, value: Some(Arc::clone(&entry.value)) }
            }
            _ => Found::default(),
        }
    }

    fn version(&self, key: &str, now: Instant) -> u64 {
        self.entries.get(key).filter(|entry| entry.is_live(now)).map_or(0, |entry| entry.version)
    }

    /// Whether it fits, once what has ended is forgotten.
    fn make_room_for(&mut self, commit: &Commit, share: Share, now: Instant) -> bool {
        if self.has_room_for(commit, share) {
            return true;
        }
        self.sweep(now);
        self.has_room_for(commit, share)
    }

    fn has_room_for(&self, commit: &Commit, share: Share) -> bool {
        let (mut bytes, mut keys) = (self.bytes, self.entries.len());
        for (key, write) in &commit.writes {
            if let Some(old) = self.entries.get(key) {
                bytes -= key.len() + old.value.len();
                keys -= 1;
            }
            if let Some(value) = &write.value {
                bytes += key.len() + value.len();
                keys += 1;
            }
        }
        (bytes <= share.bytes && keys <= share.keys) || bytes <= self.bytes && keys <= self.entries.len()
    }

    fn put(&mut self, key: String, write: Write, version: u64, now: Instant) {
        let length = key.len();
        let old = match write.value {
            Some(value) => {
                self.bytes += length + value.len();
                let ends = write.ttl.and_then(|ttl| now.checked_add(ttl));
                self.entries.insert(key, Entry { version, value, ends })
            }
            None => self.entries.remove(&key),
        };
        if let Some(old) = old {
            self.bytes -= length + old.value.len();
        }
    }

    fn sweep(&mut self, now: Instant) {
        let bytes = &mut self.bytes;
        self.entries.retain(|key, entry| {
            let live = entry.is_live(now);
            if !live {
                *bytes -= key.len() + entry.value.len();
            }
            live
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHARE: Share = Share { bytes: 1 << 20, keys: 100 };

    fn write(key: &str, value: &str, ttl: Option<u64>) -> Commit {
        let write = Write { value: Some(value.as_bytes().into()), ttl: ttl.map(Duration::from_secs) };
        Commit { writes: BTreeMap::from([(key.to_owned(), write)]), ..Commit::default() }
    }

    async fn value(store: &MemoryStore, key: &str) -> Option<String> {
        let found = store.get("p", key).await.unwrap();
        found.value.map(|value| String::from_utf8(value.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_commit_on_a_changed_read_is_a_conflict_and_changes_nothing() {
        let store = MemoryStore::default();
        let read = store.get("p", "k").await.unwrap();
        assert_eq!(read.version, 0);
        store.commit("p", write("k", "one", None), SHARE).await.unwrap();
        let mut late = write("other", "two", None);
        late.reads.insert("k".into(), read.version);
        assert_eq!(store.commit("p", late, SHARE).await, Err(KvError::Conflict));
        assert_eq!(value(&store, "k").await.as_deref(), Some("one"));
        assert_eq!(value(&store, "other").await, None);
        assert_eq!(store.get("q", "k").await.unwrap(), Found::default(), "another plugin's space");
    }

    #[tokio::test(start_paused = true)]
    async fn an_entry_ends_with_its_time() {
        let store = MemoryStore::default();
        store.commit("p", write("k", "one", Some(30)), SHARE).await.unwrap();
        let read = store.get("p", "k").await.unwrap();
        tokio::time::advance(Duration::from_secs(30)).await;
        assert_eq!(value(&store, "k").await, None);
        let mut late = write("k", "two", None);
        late.reads.insert("k".into(), read.version);
        assert_eq!(store.commit("p", late, SHARE).await, Err(KvError::Conflict), "the end of an entry is a change");
    }

    #[tokio::test(start_paused = true)]
    async fn a_share_is_bounded_and_what_ended_makes_room() {
        let store = MemoryStore::default();
        let share = Share { bytes: 20, keys: 2 };
        store.commit("p", write("a", "123456789", Some(1)), share).await.unwrap();
        assert_eq!(store.commit("p", write("b", "12345678901", None), share).await, Err(KvError::Full));
        store.commit("p", write("b", "1", None), share).await.unwrap();
        assert!(!store.fits("p", &write("c", "1", None), share).await);
        assert!(store.fits("p", &write("b", "2", None), share).await, "in place of what is there");
        assert_eq!(store.commit("p", write("c", "1", None), share).await, Err(KvError::Full), "a third key");
        tokio::time::advance(Duration::from_secs(1)).await;
        store.commit("p", write("c", "1", None), share).await.unwrap();
        let delete = Commit {
            writes: BTreeMap::from([("b".to_owned(), Write { value: None, ttl: None })]),
            ..Commit::default()
        };
        store.commit("p", delete, share).await.unwrap();
        assert_eq!(store.space("p").lock().bytes, 2);
    }
}
