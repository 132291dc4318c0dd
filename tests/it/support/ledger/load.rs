//! Running publishers. Each records its book and closes each of its streams with a marker when the load ends.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::ways::{Item, Outlet, Way};
use super::{Book, Clock, Entry, Fate, Stream};
use crate::support::client::PATIENCE;
use crate::support::dice::Dice;
use crate::support::gateway::cluster::Cluster;

/// Interval between two attempts to send a marker that was not accepted.
const AGAIN: Duration = Duration::from_millis(100);
/// Markers per request.
const MARKERS: usize = 100;

/// The work of all publishers.
#[derive(Clone)]
pub struct Plan {
    pub users: u32,
    pub rooms: u32,
    /// One publisher for each way.
    pub ways: Vec<Way>,
    /// Time between two batches of a publisher.
    pub period: Duration,
    /// Messages per batch.
    pub batch: usize,
    /// One batch in this many is a single message to a room, and one a single message to everyone; 0 = none.
    pub wide: usize,
}

pub struct Load {
    publishers: JoinSet<Book>,
    stop: watch::Sender<bool>,
    taken: watch::Sender<u64>,
    refused: watch::Sender<u64>,
}

impl Load {
    pub fn start(plan: &Plan, cluster: &Arc<Cluster>, clock: Clock, dice: &mut Dice) -> Self {
        let (stop, taken, refused) = (watch::Sender::new(false), watch::Sender::new(0), watch::Sender::new(0));
        let mut publishers = JoinSet::new();
        for (number, way) in plan.ways.iter().enumerate() {
            let publisher = Publisher {
                book: Book {
                    publisher: u32::try_from(number).unwrap(),
                    way: way.name(),
                    is_ordered: way.is_ordered(),
                    is_at_most_once: way.is_at_most_once(),
                    entries: Vec::new(),
                    markers: Vec::new(),
                    slowest: Duration::ZERO,
                    faults: Vec::new(),
                },
                plan: plan.clone(),
                outlet: Outlet::new(way.clone(), Arc::clone(cluster)),
                clock,
                dice: dice.split(),
                taken: taken.clone(),
                refused: refused.clone(),
            };
            publishers.spawn(publisher.run(stop.subscribe()));
        }
        Self { publishers, stop, taken, refused }
    }

    /// Number of accepted messages of all publishers.
    pub fn taken(&self) -> watch::Receiver<u64> {
        self.taken.subscribe()
    }

    /// Number of messages that nodes refused while they were up.
    pub fn refused(&self) -> watch::Receiver<u64> {
        self.refused.subscribe()
    }

    /// Stops the load and sends the markers. Every fault must be repaired by then.
    pub async fn close(mut self) -> Vec<Book> {
        self.stop.send_replace(true);
        let mut books = Vec::new();
        let mut before = 0;
        while !self.publishers.is_empty() {
            // Thousands of streams take time; the wait continues while there is progress.
            match timeout(PATIENCE, self.publishers.join_next()).await {
                Ok(book) => books.extend(book.map(Result::unwrap)),
                Err(_) => {
                    let now = *self.taken.borrow();
                    assert!(now > before, "the markers of the publishers are not accepted");
                    before = now;
                }
            }
        }
        books.sort_by_key(|book| book.publisher);
        books
    }
}

struct Publisher {
    book: Book,
    plan: Plan,
    outlet: Outlet,
    clock: Clock,
    dice: Dice,
    taken: watch::Sender<u64>,
    refused: watch::Sender<u64>,
}

impl Publisher {
    async fn run(mut self, mut stop: watch::Receiver<bool>) -> Book {
        let mut ticks = interval(self.plan.period);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut streams = BTreeSet::new();
        while !*stop.borrow() {
            tokio::select! {
                _ = ticks.tick() => {}
                _ = stop.changed() => break,
            }
            let chosen = self.choose();
            streams.extend(chosen.iter().copied());
            self.publish(&chosen).await;
        }
        self.mark(streams).await;
        self.book
    }

    fn choose(&mut self) -> Vec<Stream> {
        if self.plan.wide > 0 {
            match self.dice.roll(self.plan.wide) {
                0 => return vec![Stream::Everyone],
                1 if self.plan.rooms > 0 => return vec![Stream::Room(self.number_below(self.plan.rooms))],
                _ => {}
            }
        }
        (0..self.plan.batch).map(|_| Stream::User(self.user())).collect()
    }

    /// Each publisher pushes to every third user: a user gets messages by several ways, and there are fewer markers.
    fn user(&mut self) -> u32 {
        let user = self.number_below(self.plan.users);
        user.saturating_sub((user + self.book.publisher) % 3)
    }

    fn number_below(&mut self, most: u32) -> u32 {
        u32::try_from(self.dice.roll(most as usize)).unwrap()
    }

    async fn publish(&mut self, streams: &[Stream]) -> Vec<(u64, Fate)> {
        let first = self.book.entries.len();
        let item = |(at, stream): (usize, &Stream)| Item { id: self.book.id(first + at), stream: *stream };
        let items: Vec<Item> = streams.iter().enumerate().map(item).collect();
        let begun = self.clock.now();
        let told = self.outlet.publish(&items).await;
        let ended = self.clock.now();
        for (stream, fate) in streams.iter().zip(&told.fates) {
            self.book.entries.push(Entry { stream: *stream, begun, ended, fate: *fate });
        }
        self.book.slowest = self.book.slowest.max(told.took.unwrap_or_default());
        self.book.faults.extend(told.faults);
        let count = |fate| told.fates.iter().filter(|told| **told == fate).count() as u64;
        self.taken.send_modify(|all| *all += count(Fate::Acked));
        if told.took.is_some() {
            self.refused.send_modify(|all| *all += count(Fate::Refused));
        }
        items.iter().map(|item| item.id).zip(told.fates).collect()
    }

    /// Sends the last message of each stream until it is accepted.
    async fn mark(&mut self, streams: BTreeSet<Stream>) {
        let (users, wide): (Vec<Stream>, Vec<Stream>) =
            streams.into_iter().partition(|stream| matches!(stream, Stream::User(_)));
        let mut batches: Vec<Vec<Stream>> = users.chunks(MARKERS).map(<[Stream]>::to_vec).collect();
        batches.extend(wide.into_iter().map(|stream| vec![stream]));
        let mut ticks = interval(AGAIN);
        for mut batch in batches {
            while !batch.is_empty() {
                let told = self.publish(&batch).await;
                let is_open = |fate: Fate| matches!(fate, Fate::Refused | Fate::Unknown);
                let mut open = Vec::new();
                for (stream, (id, fate)) in batch.into_iter().zip(told) {
                    if is_open(fate) {
                        open.push(stream);
                    } else if fate == Fate::Acked {
                        self.book.markers.push(id);
                    }
                }
                batch = open;
                if !batch.is_empty() {
                    ticks.tick().await;
                }
            }
        }
    }
}
