//! The contract of the plugins' keys in a shared engine: other nodes read the writes of a node, and commits are atomic.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use skylark::plugin::kv::{Commit, KvError, Share, Store, Write};

use crate::support::brokers::bus::{Bus, Seat};
use crate::support::client::within;

const SHARE: Share = Share { bytes: 1 << 20, keys: 100 };

async fn two(bus: &impl Bus) -> [Arc<dyn Store>; 2] {
    let seats = [Seat::take(bus, "n1", 1).await, Seat::take(bus, "n2", 2).await];
    seats.map(|seat| seat.engine.store.clone().expect("the engine has a store"))
}

fn write(key: &str, value: &str, ttl: Option<Duration>) -> Commit {
    let write = Write { value: Some(value.as_bytes().into()), ttl };
    Commit { writes: BTreeMap::from([(key.to_owned(), write)]), ..Commit::default() }
}

async fn value(store: &dyn Store, key: &str) -> Option<String> {
    let found = within("the key", store.get("p", key)).await.unwrap();
    found.value.map(|value| String::from_utf8(value.to_vec()).unwrap())
}

pub async fn a_commit_on_a_changed_read_is_a_conflict_and_changes_nothing<B: Bus>() {
    let bus = B::start();
    let [one, two] = two(&bus).await;
    let read = one.get("p", "k").await.unwrap();
    assert_eq!((read.version, &read.value), (0, &None));
    two.commit("p", write("k", "\0\u{ff}", None), SHARE).await.unwrap();
    let mut late = write("other", "two", None);
    late.reads.insert("k".into(), read.version);
    assert_eq!(one.commit("p", late.clone(), SHARE).await, Err(KvError::Conflict));
    assert_eq!(value(&*one, "k").await.as_deref(), Some("\0\u{ff}"));
    assert_eq!(value(&*one, "other").await, None);
    let fresh = one.get("p", "k").await.unwrap();
    late.reads.insert("k".into(), fresh.version);
    one.commit("p", late.clone(), SHARE).await.unwrap();
    two.commit("p", write("k", "\0\u{ff}", None), SHARE).await.unwrap();
    assert_eq!(
        one.commit("p", late, SHARE).await,
        Err(KvError::Conflict),
        "a write of the same value must be a new version"
    );
    assert_eq!(one.get("q", "k").await.unwrap().version, 0, "another plugin reads the key");
    let delete = Commit { writes: [("k".to_owned(), Write { value: None, ttl: None })].into(), ..Commit::default() };
    one.commit("p", delete, SHARE).await.unwrap();
    assert_eq!(value(&*two, "k").await, None);
}

pub async fn an_entry_ends_with_its_time_and_makes_room<B: Bus>() {
    let bus = B::start();
    let [one, two] = two(&bus).await;
    let share = Share { bytes: 100, keys: 1 };
    one.commit("p", write("k", "one", Some(Duration::from_secs(3))), share).await.unwrap();
    let read = two.get("p", "k").await.unwrap();
    assert_ne!(read.version, 0);
    assert_eq!(two.commit("p", write("l", "two", None), share).await, Err(KvError::Full));
    let mut looks = tokio::time::interval(Duration::from_millis(20));
    within("the expiry of the entry", async {
        while value(&*two, "k").await.is_some() {
            looks.tick().await;
        }
    })
    .await;
    let mut late = write("k", "two", None);
    late.reads.insert("k".into(), read.version);
    assert_eq!(one.commit("p", late, share).await, Err(KvError::Conflict), "the expiry of an entry is no conflict");
    assert!(two.fits("p", &write("l", "two", None), share).await);
    two.commit("p", write("l", "two", None), share).await.unwrap();
}

pub async fn a_share_is_bounded<B: Bus>() {
    let bus = B::start();
    let [one, two] = two(&bus).await;
    let share = Share { bytes: 20, keys: 2 };
    one.commit("p", write("a", "123456789", None), share).await.unwrap();
    assert_eq!(two.commit("p", write("b", "12345678901", None), share).await, Err(KvError::Full));
    two.commit("p", write("b", "123456789", None), share).await.unwrap();
    assert!(!one.fits("p", &write("c", "", None), share).await, "a third key fits");
    assert!(one.fits("p", &write("b", "1", None), share).await, "a replaced value does not fit");
    assert_eq!(one.commit("p", write("b", "1234567890", None), share).await, Err(KvError::Full));
    let smaller = Share { bytes: 5, keys: 1 };
    one.commit("p", write("a", "1", None), smaller).await.unwrap();
    assert_eq!(
        one.commit("p", write("a", "12", None), smaller).await,
        Err(KvError::Full),
        "a value grew beyond the share"
    );
}

/// Read, increment, write, and retry on conflict, as plugins' counters do.
pub async fn many_nodes_count_without_losing_one<B: Bus>() {
    const EACH: usize = 50;
    let bus = B::start();
    let stores = two(&bus).await;
    let counting = stores.iter().cycle().take(4).map(|store| {
        let store = Arc::clone(store);
        tokio::spawn(async move {
            let mut done = 0;
            while done < EACH {
                let found = store.get("p", "n").await.unwrap();
                let count: u32 = found.value.map_or(0, |value| std::str::from_utf8(&value).unwrap().parse().unwrap());
                let mut next = write("n", &(count + 1).to_string(), None);
                next.reads.insert("n".into(), found.version);
                match store.commit("p", next, SHARE).await {
                    Ok(()) => done += 1,
                    Err(error) => assert_eq!(error, KvError::Conflict),
                }
            }
        })
    });
    for counted in counting.collect::<Vec<_>>() {
        within("the count", counted).await.unwrap();
    }
    assert_eq!(value(&*stores[0], "n").await.unwrap(), (4 * EACH).to_string());
}
