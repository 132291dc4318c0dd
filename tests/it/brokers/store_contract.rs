//! The contract of every store of plugins' keys: one suite for all of them.
//!
//! The suite uses only the trait. A new store implements [`Bed`] and calls [`holds`].

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use skylark::plugin::host::Time;
use skylark::plugin::kv::{Commit, FileStore, Found, KvError, MemoryStore, Share, Store, Write};
use skylark::vital::Vitals;

use crate::support::brokers::bus::Seat;
use crate::support::brokers::redis::Redis;
use crate::support::brokers::resp::Reply;

/// A store and the control of its time.
pub trait Bed: Sync {
    fn store(&self) -> Arc<dyn Store>;

    /// Completes when this much of the store's time has passed.
    fn pass(&self, time: Duration) -> BoxFuture<'_, ()>;
}

const SHARE: Share = Share { bytes: 1 << 20, keys: 100 };

/// Tests one store on the whole contract. Each rule has its own spaces, so an earlier suite may have used the store.
pub async fn holds(bed: &dyn Bed) {
    a_commit_is_taken_whole_or_not_at_all(&*bed.store()).await;
    a_changed_read_is_a_conflict(&*bed.store()).await;
    a_read_alone_is_judged_too(&*bed.store()).await;
    spaces_do_not_share_keys(&*bed.store()).await;
    any_bytes_are_a_value_and_any_text_a_key(&*bed.store()).await;
    an_entry_ends_with_its_time(bed).await;
    a_share_is_bounded(&*bed.store()).await;
    expired_keys_free_the_share(bed).await;
    adds_at_once_are_all_counted(bed.store()).await;
}

fn write(key: &str, value: &str) -> Commit {
    ending(key, value, None)
}

fn ending(key: &str, value: &str, ttl: Option<Duration>) -> Commit {
    let write = Write { value: Some(value.as_bytes().into()), ttl };
    Commit { writes: [(key.to_owned(), write)].into(), ..Commit::default() }
}

fn delete(key: &str) -> Commit {
    Commit { writes: [(key.to_owned(), Write { value: None, ttl: None })].into(), ..Commit::default() }
}

trait Reading {
    fn having_read(self, key: &str, found: &Found) -> Self;
}

impl Reading for Commit {
    fn having_read(mut self, key: &str, found: &Found) -> Self {
        self.reads.insert(key.to_owned(), found.version);
        self
    }
}

async fn value(store: &dyn Store, space: &str, key: &str) -> Option<String> {
    let found = store.get(space, key).await.unwrap();
    assert_eq!(found.value.is_none(), found.version == 0, "version 0 must mean absence");
    found.value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

async fn a_commit_is_taken_whole_or_not_at_all(store: &dyn Store) {
    let (space, share) = ("whole", Share { bytes: 100, keys: 2 });
    let mut three = write("a", "1");
    three.writes.extend(write("b", "2").writes);
    store.commit(space, three.clone(), share).await.unwrap();
    assert_eq!((value(store, space, "a").await, value(store, space, "b").await), (Some("1".into()), Some("2".into())));
    let mut more = write("a", "changed");
    more.writes.extend(write("c", "3").writes);
    assert_eq!(store.commit(space, more, share).await, Err(KvError::Full));
    assert_eq!((value(store, space, "a").await, value(store, space, "c").await), (Some("1".into()), None));
    let mut both = delete("a");
    both.writes.extend(write("b", "4").writes);
    store.commit(space, both, share).await.unwrap();
    assert_eq!((value(store, space, "a").await, value(store, space, "b").await), (None, Some("4".into())));
}

async fn a_changed_read_is_a_conflict(store: &dyn Store) {
    let space = "conflict";
    let absent = store.get(space, "k").await.unwrap();
    assert_eq!(absent, Found::default());
    store.commit(space, write("k", "one").having_read("k", &absent), SHARE).await.unwrap();
    let late = write("other", "two").having_read("k", &absent);
    assert_eq!(
        store.commit(space, late, SHARE).await,
        Err(KvError::Conflict),
        "a key read as absent was written meanwhile"
    );
    assert_eq!(value(store, space, "other").await, None);

    let first = store.get(space, "k").await.unwrap();
    store.commit(space, write("k", "one"), SHARE).await.unwrap();
    let late = write("k", "two").having_read("k", &first);
    assert_eq!(store.commit(space, late, SHARE).await, Err(KvError::Conflict), "the same value was written again");

    let second = store.get(space, "k").await.unwrap();
    store.commit(space, delete("k"), SHARE).await.unwrap();
    assert_eq!(
        store.commit(space, write("k", "two").having_read("k", &second), SHARE).await,
        Err(KvError::Conflict),
        "the key was deleted"
    );
    store.commit(space, write("k", "one"), SHARE).await.unwrap();
    for old in [&first, &second] {
        let late = write("k", "two").having_read("k", old);
        assert_eq!(
            store.commit(space, late, SHARE).await,
            Err(KvError::Conflict),
            "the key was deleted and written again"
        );
    }
    let now = store.get(space, "k").await.unwrap();
    store.commit(space, write("k", "two").having_read("k", &now), SHARE).await.unwrap();
    assert_eq!(value(store, space, "k").await.as_deref(), Some("two"));
}

async fn a_read_alone_is_judged_too(store: &dyn Store) {
    let space = "reads";
    let absent = store.get(space, "k").await.unwrap();
    let reading = |found: &Found| Commit::default().having_read("k", found);
    assert_eq!(store.commit(space, reading(&absent), SHARE).await, Ok(()));
    store.commit(space, write("k", "1"), SHARE).await.unwrap();
    assert_eq!(store.commit(space, reading(&absent), SHARE).await, Err(KvError::Conflict));
    let found = store.get(space, "k").await.unwrap();
    assert_eq!(store.commit(space, reading(&found), SHARE).await, Ok(()));
    assert_eq!(store.get(space, "k").await.unwrap(), found, "a commit that only reads changed the entry");
}

async fn spaces_do_not_share_keys(store: &dyn Store) {
    store.commit("here", write("k", "here's"), SHARE).await.unwrap();
    assert_eq!(value(store, "there", "k").await, None);
    store.commit("there", write("k", "there's"), Share { bytes: 8, keys: 1 }).await.unwrap();
    store.commit("there", delete("k"), SHARE).await.unwrap();
    assert_eq!(value(store, "here", "k").await.as_deref(), Some("here's"));
}

async fn any_bytes_are_a_value_and_any_text_a_key(store: &dyn Store) {
    let bytes: Arc<[u8]> = (0..=255).collect();
    let keys = ["", " ", "a:b", "a{b}c", "*", "[x]?", "\\", "é€😀", "line\nline", &"k".repeat(256)];
    for (key, number) in keys.into_iter().zip(0_u8..) {
        let own: Arc<[u8]> = bytes.iter().copied().chain([number]).collect();
        let write = Write { value: Some(own), ttl: None };
        let commit = Commit { writes: [(key.to_owned(), write)].into(), ..Commit::default() };
        store.commit("bytes", commit, SHARE).await.unwrap();
    }
    for (key, number) in keys.into_iter().zip(0_u8..) {
        let found = store.get("bytes", key).await.unwrap().value.unwrap();
        assert_eq!((&found[..256], found[256]), (&*bytes, number), "{key:?}");
    }
    store.commit("bytes", write("empty", ""), SHARE).await.unwrap();
    assert_eq!(value(store, "bytes", "empty").await.as_deref(), Some(""), "an empty value must count as a value");
}

async fn an_entry_ends_with_its_time(bed: &dyn Bed) {
    let (store, space, second) = (bed.store(), "time", Duration::from_secs(1));
    store.commit(space, ending("k", "one", Some(second)), SHARE).await.unwrap();
    store.commit(space, ending("stays", "one", Some(second)), SHARE).await.unwrap();
    let found = store.get(space, "k").await.unwrap();
    assert!(found.value.is_some());
    store.commit(space, write("stays", "two"), SHARE).await.unwrap();
    bed.pass(second).await;
    assert_eq!(value(&*store, space, "k").await, None);
    assert_eq!(
        value(&*store, space, "stays").await.as_deref(),
        Some("two"),
        "a write without expiry must remove the expiry"
    );
    let late = write("k", "two").having_read("k", &found);
    assert_eq!(
        store.commit(space, late, SHARE).await,
        Err(KvError::Conflict),
        "the expiry of an entry must be a conflict"
    );
    store.commit(space, write("k", "three").having_read("k", &Found::default()), SHARE).await.unwrap();
    assert_eq!(value(&*store, space, "k").await.as_deref(), Some("three"));
}

async fn a_share_is_bounded(store: &dyn Store) {
    let (space, share) = ("share", Share { bytes: 20, keys: 2 });
    store.commit(space, write("a", "123456789"), share).await.unwrap();
    assert_eq!(
        store.commit(space, write("b", "12345678901"), share).await,
        Err(KvError::Full),
        "22 bytes exceed the share of 20"
    );
    store.commit(space, write("b", "1"), share).await.unwrap();
    assert!(!store.fits(space, &write("c", "1"), share).await);
    assert!(store.fits(space, &write("b", "2"), share).await, "a replaced value does not fit");
    assert_eq!(
        store.commit(space, write("c", "1"), share).await,
        Err(KvError::Full),
        "three keys exceed the share of 2"
    );
    let smaller = Share { bytes: 5, keys: 1 };
    store.commit(space, write("a", "1234"), smaller).await.unwrap();
    assert_eq!(
        value(store, space, "a").await.as_deref(),
        Some("1234"),
        "a smaller value must be accepted above the share"
    );
    store.commit(space, delete("b"), share).await.unwrap();
    store.commit(space, write("c", "12345678901234"), share).await.unwrap();
    assert_eq!(
        store.commit(space, write("c", "123456789012345"), share).await,
        Err(KvError::Full),
        "21 bytes exceed the share of 20"
    );
}

async fn expired_keys_free_the_share(bed: &dyn Bed) {
    let (store, space, second) = (bed.store(), "room", Duration::from_secs(1));
    let share = Share { bytes: 100, keys: 3 };
    for key in ["a", "b", "c"] {
        store.commit(space, ending(key, "1", Some(second)), share).await.unwrap();
    }
    assert_eq!(store.commit(space, write("d", "1"), share).await, Err(KvError::Full));
    bed.pass(second).await;
    for key in ["d", "e", "f"] {
        store.commit(space, write(key, "1"), share).await.unwrap();
    }
    assert_eq!(store.commit(space, write("g", "1"), share).await, Err(KvError::Full));
}

async fn adds_at_once_are_all_counted(store: Arc<dyn Store>) {
    const ADDERS: usize = 8;
    const EACH: usize = 20;
    let adder = |store: Arc<dyn Store>| async move {
        let mut added = 0;
        while added < EACH {
            let found = store.get("sum", "k").await.unwrap();
            let held: usize = found.value.as_ref().map_or(0, |v| String::from_utf8_lossy(v).parse().unwrap());
            let sum = write("k", &(held + 1).to_string()).having_read("k", &found);
            match store.commit("sum", sum, SHARE).await {
                Ok(()) => added += 1,
                Err(error) => assert_eq!(error, KvError::Conflict),
            }
        }
    };
    let adders: Vec<_> = (0..ADDERS).map(|_| tokio::spawn(adder(Arc::clone(&store)))).collect();
    for adder in adders {
        adder.await.unwrap();
    }
    assert_eq!(value(&*store, "sum", "k").await, Some((ADDERS * EACH).to_string()));
}

/// A store with a clock that only moves on request.
struct Still<S>(Arc<S>, Time);

impl<S: Store + 'static> Bed for Still<S> {
    fn store(&self) -> Arc<dyn Store> {
        Arc::clone(&self.0) as _
    }

    fn pass(&self, time: Duration) -> BoxFuture<'_, ()> {
        self.1.advance(time);
        Box::pin(std::future::ready(()))
    }
}

/// The shared store in a real Redis, with the server's time.
struct Shared {
    redis: Redis,
    seat: Seat,
}

impl Shared {
    async fn now(&self) -> Duration {
        let time = self.redis.line().await.ask("TIME").await.unwrap();
        let Reply::List(parts) = time else { panic!("expected seconds and microseconds, got {time:?}") };
        let [seconds, micros] = [0, 1].map(|at| parts[at].text().parse().unwrap());
        Duration::from_secs(seconds) + Duration::from_micros(micros)
    }
}

impl Bed for Shared {
    fn store(&self) -> Arc<dyn Store> {
        self.seat.engine.store.clone().expect("the engine has a store")
    }

    fn pass(&self, time: Duration) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let end = self.now().await + time;
            let mut looks = tokio::time::interval(Duration::from_millis(10));
            while self.now().await <= end {
                looks.tick().await;
            }
        })
    }
}

const NOW: Duration = Duration::from_secs(1_767_225_600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_in_memory_holds_it() {
    let time = Time::fixed(NOW);
    holds(&Still(Arc::new(MemoryStore::default().with_time(time.clone())), time)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_in_redis_holds_it_and_keeps_it_for_the_next_node() {
    let redis = Redis::start();
    let seat = Seat::take(&redis, "n1", 1).await;
    let shared = Shared { redis, seat };
    holds(&shared).await;
    let next = Seat::take(&shared.redis, "n2", 2).await.engine.store.expect("the engine has a store");
    assert_eq!(value(&*next, "sum", "k").await.as_deref(), Some("160"));
    assert_eq!(value(&*next, "conflict", "k").await.as_deref(), Some("two"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_in_a_file_holds_it_and_begins_again_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kv.redb");
    let time = Time::fixed(NOW);
    holds(&Still(Arc::new(FileStore::open(&path, time.clone(), &Vitals::default()).unwrap()), time.clone())).await;
    let again = FileStore::open(&path, time, &Vitals::default()).unwrap();
    assert_eq!(value(&again, "sum", "k").await.as_deref(), Some("160"));
    assert_eq!(value(&again, "conflict", "k").await.as_deref(), Some("two"));
}
