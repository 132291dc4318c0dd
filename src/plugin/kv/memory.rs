//! The store in this process's memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{Commit, Found, KvError, Share, Store, Write};
use crate::plugin::time::Time;

/// Keeps everything in this process's memory: lost when it ends.
#[derive(Debug, Default)]
pub struct MemoryStore {
    spaces: Mutex<HashMap<String, Arc<Mutex<Space>>>>,
    versions: AtomicU64,
    time: Time,
}

impl MemoryStore {
    /// The same store, with keys that expire by this time.
    #[must_use]
    pub fn with_time(self, time: Time) -> Self {
        Self { time, ..self }
    }

    fn space(&self, name: &str) -> Arc<Mutex<Space>> {
        let mut spaces = self.spaces.lock();
        if let Some(space) = spaces.get(name) {
            return Arc::clone(space);
        }
        Arc::clone(spaces.entry(name.to_owned()).or_default())
    }

    pub(super) fn apply(&self, space: &str, commit: Commit, share: Share) -> Result<(), KvError> {
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
            space.put(key, write, self.version(), now);
        }
        Ok(())
    }
}

/// A key and its content, loaded from a file.
pub(super) struct StoredKey {
    pub(super) space: String,
    pub(super) key: String,
    pub(super) value: Arc<[u8]>,
    /// Time to live; `None` = until deleted.
    pub(super) ttl: Option<Duration>,
}

impl MemoryStore {
    /// Replaces the whole content. Every key that was read before counts as changed.
    pub(super) fn replace(&self, held: impl IntoIterator<Item = StoredKey>) {
        let now = self.time.instant();
        let mut new: HashMap<String, Space> = HashMap::new();
        for StoredKey { space, key, value, ttl } in held {
            new.entry(space).or_default().put(key, Write { value: Some(value), ttl }, self.version(), now);
        }
        let mut spaces = self.spaces.lock();
        // In place, because a call may hold its space.
        for (name, space) in spaces.iter() {
            *space.lock() = new.remove(name).unwrap_or_default();
        }
        spaces.extend(new.into_iter().map(|(name, space)| (name, Arc::new(Mutex::new(space)))));
    }

    /// 0 is "absent", so the first version is 1.
    fn version(&self) -> u64 {
        1 + self.versions.fetch_add(1, Ordering::Relaxed)
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
        std::future::ready(self.apply(space, commit, share)).boxed()
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

    /// True if the commit fits, if necessary after expired keys are removed.
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

    fn write(key: &str, value: Option<&str>) -> Commit {
        let write = Write { value: value.map(|value| value.as_bytes().into()), ttl: None };
        Commit { writes: [(key.to_owned(), write)].into(), ..Commit::default() }
    }

    #[tokio::test]
    async fn counted_bytes_equal_stored_bytes() {
        let store = MemoryStore::default();
        let bytes = || store.space("p").lock().bytes;
        for (key, value, counted) in [("a", Some("12"), 3), ("b", Some("1"), 5), ("a", Some("1"), 4), ("b", None, 2)] {
            store.commit("p", write(key, value), SHARE).await.unwrap();
            assert_eq!(bytes(), counted);
        }
        let read = store.get("p", "a").await.unwrap();
        let held = |space: &str| StoredKey { space: space.into(), key: "a".into(), value: (*b"1").into(), ttl: None };
        store.replace([held("p"), held("q")]);
        assert_eq!(bytes(), 2);
        let found = store.get("q", "a").await.unwrap();
        assert_eq!(found.value, read.value);
        let late = Commit { reads: [("a".to_owned(), read.version)].into(), ..write("a", None) };
        assert_eq!(
            store.commit("p", late, SHARE).await,
            Err(KvError::Conflict),
            "the same value, and not the same key"
        );
    }
}
