//! Streams in memory: the history of a single node.
//!
//! A stream is a ring of its last messages with the position of the newest. An append takes one lock and awaits
//! nothing. Above the node's bound the least recently appended streams are forgotten whole.

mod stream;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::future::ready;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ahash::RandomState;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use metrics::{Counter, Gauge, counter, gauge};
use parking_lot::Mutex;
use tokio::time::Instant;

use super::{HistoryStore, KeptMessage, Page, Range};
use crate::broker::Unavailable;
use crate::config::{History as Settings, StreamBounds};
use crate::message::{Envelope, Epoch, Position, Retention, StreamName};
use crate::telemetry::names;

pub(in crate::broker) use stream::{Turn, Waiting};

use stream::Stream;

const MAPS: usize = 64;
/// Interval between two sweeps of a map.
const SWEEP: Duration = Duration::from_secs(60);

/// Streams of one node.
pub struct MemoryHistory {
    hasher: RandomState,
    maps: Box<[Mutex<Map>]>,
    settings: Settings,
    bytes: AtomicUsize,
    start: Instant,
    meters: Meters,
}

struct Meters {
    streams: Gauge,
    bytes: Gauge,
    evicted: Counter,
    /// Appends to streams of users, rooms and everyone.
    appends: [Counter; 3],
}

impl Meters {
    fn new() -> Self {
        Self {
            streams: gauge!(names::HISTORY_STREAMS),
            bytes: gauge!(names::HISTORY_BYTES),
            evicted: counter!(names::HISTORY_EVICTED),
            appends: ["user", "room", "all"].map(|kind| counter!(names::HISTORY_APPENDS, "kind" => kind)),
        }
    }

    fn count_append(&self, name: &StreamName) {
        let kind = match name {
            StreamName::User(_) => 0,
            StreamName::Room(_) => 1,
            StreamName::Everyone => 2,
        };
        self.appends[kind].increment(1);
    }
}

struct Map {
    streams: HashMap<StreamName, Stream, RandomState>,
    /// Streams by the number of their last append.
    by_age: BTreeMap<u64, StreamName>,
    appends: u64,
    swept: Instant,
}

/// Result of an append.
pub(in crate::broker) struct Appended {
    /// Position of the message.
    pub position: Position,
    /// Right or duty to deliver it.
    pub turn: Turn,
}

impl MemoryHistory {
    /// Creates an empty history with these settings.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let hasher = RandomState::new();
        let now = Instant::now();
        let map = || {
            let streams = HashMap::with_hasher(hasher.clone());
            Mutex::new(Map { streams, by_age: BTreeMap::new(), appends: 0, swept: now })
        };
        let maps = (0..MAPS).map(|_| map()).collect();
        Self { maps, hasher, settings, bytes: AtomicUsize::new(0), start: now, meters: Meters::new() }
    }

    /// Appends the envelope to the stream. `owner` is the number of the publisher's batch.
    pub(in crate::broker) fn append(&self, name: &StreamName, envelope: &Envelope, owner: u64) -> Appended {
        let now = self.now();
        let bounds = self.bounds(name);
        let ttl = match envelope.history {
            Retention::Ttl(seconds) => bounds.ttl.max(Duration::from_secs(seconds.into())).min(self.settings.ttl_max),
            Retention::Configured | Retention::No => bounds.ttl,
        };
        let message = KeptMessage::of(envelope);
        let mut map = self.near(name).lock();
        map.touch(name, || self.open(now));
        let stream = map.streams.get_mut(name).expect("touched");
        let before = stream.bytes();
        stream.expire(now);
        let position = stream.append(message, now, ttl);
        self.meters.count_append(name);
        stream.trim(bounds);
        let after = stream.bytes();
        let turn = stream.take_turn(owner, envelope, position);
        self.account(before, after);
        self.sweep(&mut map);
        drop(map);
        self.evict(name);
        Appended { position, turn }
    }

    /// Ends the turn of `owner` in the stream, or returns the envelopes that wait for the next turn. The turn then
    /// stays with `owner`.
    pub(in crate::broker) fn next(&self, name: &StreamName) -> Vec<Waiting> {
        let mut map = self.near(name).lock();
        map.streams.get_mut(name).map(Stream::next_waiting).unwrap_or_default()
    }

    fn page(&self, name: &StreamName, range: Range) -> Page {
        let now = self.now();
        let mut map = self.near(name).lock();
        if !map.streams.contains_key(name) {
            map.touch(name, || self.open(now));
        }
        let stream = map.streams.get_mut(name).expect("touched");
        let before = stream.bytes();
        stream.expire(now);
        self.account(before, stream.bytes());
        let page = stream.page(range);
        drop(map);
        self.evict(name);
        page
    }

    fn remove(&self, name: &StreamName) -> bool {
        let mut map = self.near(name).lock();
        let Some(stream) = map.streams.get_mut(name) else { return false };
        let before = stream.bytes();
        stream.begin_again(random_epoch(&self.hasher, self.now()));
        self.account(before, stream.bytes());
        true
    }

    /// A new stream.
    fn open(&self, now: Duration) -> Stream {
        self.meters.streams.increment(1.0);
        let stream = Stream::new(random_epoch(&self.hasher, now));
        self.account(0, stream.bytes());
        stream
    }

    /// Forgets streams while the node keeps too many bytes, first those of the map of `kept`, which itself stays.
    fn evict(&self, kept: &StreamName) {
        if self.bytes.load(Ordering::Relaxed) <= self.settings.bytes {
            return;
        }
        let first = self.index_of(kept);
        for step in 0..MAPS {
            let mut map = self.maps[(first + step) % MAPS].lock();
            while self.bytes.load(Ordering::Relaxed) > self.settings.bytes {
                let Some(stream) = map.oldest(kept).and_then(|age| map.remove(age)) else { break };
                self.account(stream.bytes(), 0);
                self.meters.streams.decrement(1.0);
                self.meters.evicted.increment(1);
            }
        }
    }

    /// Removes expired messages and states of the map, from time to time.
    fn sweep(&self, map: &mut Map) {
        if map.swept.elapsed() < SWEEP {
            return;
        }
        map.swept = Instant::now();
        let now = self.now();
        let mut ended = Vec::new();
        for (age, name) in &map.by_age {
            let Some(stream) = map.streams.get_mut(name) else { continue };
            let before = stream.bytes();
            stream.expire(now);
            self.account(before, stream.bytes());
            if stream.is_over(now, self.settings.ttl_max) {
                ended.push(*age);
            }
        }
        for stream in ended.into_iter().filter_map(|age| map.remove(age)) {
            self.account(stream.bytes(), 0);
            self.meters.streams.decrement(1.0);
        }
    }

    fn account(&self, before: usize, after: usize) {
        if after >= before {
            self.bytes.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.bytes.fetch_sub(before - after, Ordering::Relaxed);
        }
        self.meters.bytes.set(self.bytes.load(Ordering::Relaxed) as f64);
    }

    fn bounds(&self, name: &StreamName) -> StreamBounds {
        self.settings.bounds(name)
    }

    /// Time since the start. Independent of the wall clock.
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    fn near(&self, name: &StreamName) -> &Mutex<Map> {
        &self.maps[self.index_of(name)]
    }

    fn index_of(&self, name: &StreamName) -> usize {
        // These bits differ from the low and the highest ones, which the maps use.
        (self.hasher.hash_one(name) >> 40) as usize % MAPS
    }
}

impl Map {
    /// Makes the stream the most recently appended one of the map.
    fn touch(&mut self, name: &StreamName, open: impl FnOnce() -> Stream) {
        self.appends += 1;
        let age = self.appends;
        if let Some(stream) = self.streams.get_mut(name) {
            let shared = self.by_age.remove(&stream.age).expect("each stream is listed");
            stream.age = age;
            self.by_age.insert(age, shared);
            return;
        }
        let mut stream = open();
        stream.age = age;
        self.streams.insert(name.clone(), stream);
        self.by_age.insert(age, name.clone());
    }

    /// Age of the least recently appended stream that no publisher uses now, except `kept`.
    fn oldest(&self, kept: &StreamName) -> Option<u64> {
        let is_idle = |name: &StreamName| self.streams.get(name).is_some_and(Stream::is_idle);
        self.by_age.iter().find(|(_, name)| *name != kept && is_idle(name)).map(|(age, _)| *age)
    }

    fn remove(&mut self, age: u64) -> Option<Stream> {
        let name = self.by_age.remove(&age)?;
        self.streams.remove(&name)
    }
}

fn random_epoch(hasher: &RandomState, now: Duration) -> Epoch {
    use std::hash::BuildHasher as _;
    // The system seeds each `RandomState`, and the result differs for each call.
    let random = std::hash::RandomState::new().hash_one(now);
    Epoch::new(random ^ hasher.hash_one(random))
}

impl HistoryStore for MemoryHistory {
    fn read(&self, name: &StreamName, range: Range) -> BoxFuture<'_, Result<Page, Unavailable>> {
        ready(Ok(self.page(name, range))).boxed()
    }

    fn forget(&self, name: &StreamName) -> BoxFuture<'_, Result<bool, Unavailable>> {
        ready(Ok(self.remove(name))).boxed()
    }
}
