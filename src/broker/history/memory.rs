//! Streams in memory: the history of a single node.
//!
//! A stream is a ring of its last messages with the position of the newest. An append takes one lock and awaits
//! nothing. Above the node's bound the least recently appended streams are forgotten whole. A read forgets no message:
//! streams that only readers opened are forgotten first.

mod journaled;
mod replay;
mod stream;
#[cfg(test)]
pub(in crate::broker) mod tests;

use std::collections::{BTreeMap, HashMap};
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use ahash::RandomState;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use metrics::{Counter, Gauge, counter, gauge};
use parking_lot::Mutex;
use tokio::time::{Instant, interval};

use super::journal::{Item, Journal};
use super::{HistoryStore, KeptMessage, Page, Range};
use crate::broker::Unavailable;
use crate::clock;
use crate::config::{History as Settings, StreamBounds};
use crate::message::{Envelope, Epoch, Position, Retention, StreamName};
use crate::telemetry::names;

pub(in crate::broker) use journaled::NotKept;
pub(in crate::broker) use stream::{HandedOver, Turn, Waiting};

use stream::Stream;

const MAPS: usize = 64;
/// Interval between two sweeps of a map.
const SWEEP: Duration = Duration::from_secs(64);

/// Streams of one node.
pub struct MemoryHistory {
    hasher: RandomState,
    maps: Box<[Mutex<Map>]>,
    settings: Settings,
    bytes: AtomicUsize,
    /// Time of the start, and the same since 1970.
    start: (Instant, Duration),
    meters: Meters,
    journal: Option<Journal>,
}

struct Meters {
    streams: Gauge,
    bytes: Gauge,
    evicted: Counter,
    /// Messages that could not be kept: refused, delivered.
    unkept: [Counter; 2],
    /// Appends to streams of users, rooms and everyone.
    appends: [Counter; 3],
}

impl Meters {
    fn new() -> Self {
        Self {
            streams: gauge!(names::HISTORY_STREAMS),
            bytes: gauge!(names::HISTORY_BYTES),
            evicted: counter!(names::HISTORY_EVICTED),
            unkept: ["refused", "delivered"].map(|end| counter!(names::HISTORY_UNKEPT, "end" => end)),
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
    /// Streams in the order of their eviction.
    by_age: BTreeMap<Age, StreamName>,
    /// Number of appends and of streams that readers opened.
    count: u64,
}

/// Key in the order of eviction. Streams that only readers opened come first, so that a read evicts no message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
struct Age {
    /// True after the first append.
    is_appended: bool,
    /// Number of the last append, or of the read that opened the stream.
    number: u64,
}

/// Result of an append.
pub(in crate::broker) struct Appended {
    /// Position of the message.
    pub position: Position,
    /// Ticket of the message in the journal; 0 = no journal.
    pub ticket: u64,
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
            Mutex::new(Map { streams, by_age: BTreeMap::new(), count: 0 })
        };
        let maps = (0..MAPS).map(|_| map()).collect();
        let start = (now, clock::since_1970());
        Self { maps, hasher, settings, bytes: AtomicUsize::new(0), start, meters: Meters::new(), journal: None }
    }

    /// Appends the envelope to the stream. `owner` is the number of the publisher's batch. With a journal, the publisher
    /// delivers the message after [`Self::written`].
    ///
    /// # Errors
    /// [`NotKept`] if the journal takes nothing. Nothing was appended.
    pub(in crate::broker) fn append(
        &self,
        name: &StreamName,
        envelope: &Envelope,
        owner: u64,
    ) -> Result<Appended, NotKept> {
        let now = self.now();
        let bounds = self.bounds(name);
        let ttl = match envelope.history {
            Retention::Ttl(seconds) => bounds.ttl.max(Duration::from_secs(seconds.into())).min(self.settings.ttl_max),
            Retention::Configured | Retention::No => bounds.ttl,
        };
        let message = KeptMessage::of(envelope);
        let mut map = self.near(name).lock();
        let stream = map.touch(name, || self.create(now));
        let before = stream.bytes();
        stream.expire(now);
        if let Some(journal) = &self.journal {
            let (append, id_before) = stream.next_append(name, &message, now, ttl);
            let Ok(place) = journal.push(Item::Append(append, id_before)) else {
                drop(map);
                self.evict(name, |map| map.oldest(name));
                return Err(NotKept);
            };
            stream.place_next(place);
        }
        let position = stream.append(message, now, ttl);
        self.meters.count_append(name);
        stream.trim(bounds);
        let after = stream.bytes();
        let (ticket, turn) = (stream.ticket, stream.take_turn(owner, envelope, position));
        self.account(before, after);
        drop(map);
        self.evict(name, |map| map.oldest(name));
        Ok(Appended { position, ticket, turn })
    }

    /// Ends the turn of `owner` in the stream, or returns the envelopes that wait for the next turn. The turn then
    /// stays with `owner`.
    pub(in crate::broker) fn next(&self, name: &StreamName) -> Vec<Waiting> {
        let mut map = self.near(name).lock();
        map.streams.get_mut(name).map(Stream::next_waiting).unwrap_or_default()
    }

    /// The page, and the ticket of the last change in it.
    fn page(&self, name: &StreamName, range: Range) -> (Page, u64) {
        let now = self.now();
        let mut map = self.near(name).lock();
        let stream = map.find_or_open(name, || self.create(now));
        let before = stream.bytes();
        stream.expire(now);
        self.account(before, stream.bytes());
        let page = stream.read(range);
        if let Some(journal) = &self.journal
            && !stream.is_placed()
        {
            self.write_state(journal, name, stream);
        }
        let ticket = stream.ticket;
        drop(map);
        self.evict(name, Map::oldest_opened);
        (page, ticket)
    }

    /// Lets the stream begin again. Returns the ticket of this change, or `None` if there is no such stream.
    fn remove(&self, name: &StreamName) -> Option<u64> {
        let mut map = self.near(name).lock();
        let stream = map.streams.get_mut(name)?;
        let before = stream.bytes();
        stream.begin_again(random_epoch(&self.hasher, self.now()));
        self.account(before, stream.bytes());
        if let Some(journal) = &self.journal {
            self.write_state(journal, name, stream);
        }
        Some(stream.ticket)
    }

    /// Writes the whole stream to the journal.
    fn write_state(&self, journal: &Journal, name: &StreamName, stream: &mut Stream) {
        let place = journal.push_or_owe(Item::State(stream.state(name)));
        stream.ticket = place.map_or(0, |place| place.ticket);
        if let Some(place) = place {
            stream.place_whole(place.segment);
        }
    }

    /// A new stream.
    fn create(&self, now: Duration) -> Stream {
        self.meters.streams.increment(1.0);
        let stream = Stream::new(random_epoch(&self.hasher, now), now);
        self.account(0, stream.bytes());
        stream
    }

    /// Forgets the streams that `next` picks while the node keeps too many bytes, first those of the map of `near`.
    fn evict(&self, near: &StreamName, next: impl Fn(&Map) -> Option<Age>) {
        if self.bytes.load(Ordering::Relaxed) <= self.settings.bytes {
            return;
        }
        let first = self.index_of(near);
        for step in 0..MAPS {
            let mut map = self.maps[(first + step) % MAPS].lock();
            while self.bytes.load(Ordering::Relaxed) > self.settings.bytes {
                let Some(age) = next(&map) else { break };
                self.end(&mut map, age);
                self.meters.evicted.increment(1);
            }
        }
    }

    /// Removes a stream.
    fn end(&self, map: &mut Map, age: Age) {
        let Some((name, stream)) = map.remove(age) else { return };
        self.account(stream.bytes(), 0);
        self.meters.streams.decrement(1.0);
        if let Some(journal) = &self.journal {
            journal.push_or_owe(Item::Drop(name));
        }
    }

    /// Removes expired messages and streams, and what the journal does not need any more; never ends.
    pub async fn upkeep(self: Arc<Self>) {
        tokio::join!(self.sweep(), self.compact());
    }

    /// Removes expired messages and streams, one map after the other; never ends.
    async fn sweep(&self) {
        let mut ticks = interval(SWEEP / 64);
        for index in (0..MAPS).cycle() {
            ticks.tick().await;
            self.sweep_map(index);
        }
    }

    fn sweep_map(&self, index: usize) {
        let now = self.now();
        let mut map = self.maps[index].lock();
        let mut ended = Vec::new();
        for stream in map.streams.values_mut() {
            let before = stream.bytes();
            stream.expire(now);
            self.account(before, stream.bytes());
            if stream.is_over(now, self.settings.ttl_max) {
                ended.push(stream.age);
            }
        }
        ended.into_iter().for_each(|age| self.end(&mut map, age));
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

    /// Time since 1970 by the clock of the start: later changes of the wall clock do not count.
    fn now(&self) -> Duration {
        let (start, since_1970) = self.start;
        since_1970 + start.elapsed()
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
    fn touch(&mut self, name: &StreamName, open: impl FnOnce() -> Stream) -> &mut Stream {
        let age = self.next_age(true);
        let listed = match self.streams.get(name) {
            Some(stream) => self.by_age.remove(&stream.age).expect("each stream is listed"),
            None => {
                self.streams.insert(name.clone(), open());
                name.clone()
            }
        };
        self.by_age.insert(age, listed);
        let stream = self.streams.get_mut(name).expect("found or inserted");
        stream.age = age;
        stream
    }

    /// The stream for a reader.
    fn find_or_open(&mut self, name: &StreamName, open: impl FnOnce() -> Stream) -> &mut Stream {
        if !self.streams.contains_key(name) {
            let age = self.next_age(false);
            let mut stream = open();
            stream.age = age;
            self.by_age.insert(age, name.clone());
            self.streams.insert(name.clone(), stream);
        }
        self.streams.get_mut(name).expect("found or inserted")
    }

    fn next_age(&mut self, is_appended: bool) -> Age {
        self.count += 1;
        Age { is_appended, number: self.count }
    }

    /// Age of the least recently appended stream that no publisher uses now, except `kept`.
    fn oldest(&self, kept: &StreamName) -> Option<Age> {
        let is_idle = |name: &StreamName| self.streams.get(name).is_some_and(Stream::is_idle);
        self.by_age.iter().find(|(_, name)| *name != kept && is_idle(name)).map(|(age, _)| *age)
    }

    /// Age of the oldest stream that only readers opened.
    fn oldest_opened(&self) -> Option<Age> {
        self.by_age.keys().next().copied().filter(|age| !age.is_appended)
    }

    fn remove(&mut self, age: Age) -> Option<(StreamName, Stream)> {
        let name = self.by_age.remove(&age)?;
        self.streams.remove(&name).map(|stream| (name, stream))
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
        let (page, ticket) = self.page(name, range);
        match &self.journal {
            // A message that may still be lost is told to nobody.
            Some(journal) if ticket > 0 => {
                async move { if journal.written(ticket).await { Ok(page) } else { Err(unavailable()) } }.boxed()
            }
            _ => ready(Ok(page)).boxed(),
        }
    }

    fn forget(&self, name: &StreamName) -> BoxFuture<'_, Result<bool, Unavailable>> {
        let Some(journal) = &self.journal else { return ready(Ok(self.remove(name).is_some())).boxed() };
        if journal.fault().is_some() {
            return ready(Err(unavailable())).boxed();
        }
        let ticket = self.remove(name);
        async move {
            match ticket {
                None => Ok(false),
                Some(ticket) if ticket > 0 && journal.synced(ticket).await => Ok(true),
                Some(_) => Err(unavailable()),
            }
        }
        .boxed()
    }
}

fn unavailable() -> Unavailable {
    Unavailable { engine: "history.journal", why: "its folder cannot be written".to_owned() }
}
