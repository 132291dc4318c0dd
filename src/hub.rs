//! This node's connections: who they are, which rooms they are in, and the shards that write to them.
//!
//! Knows no broker, no plugin and no client protocol beyond the bytes that `protocol` made. It answers with facts
//! ("first here", "now empty", so many sent); the node alone acts on them.
//!
//! A caller's task finds the receivers ([`route`]) and hands each shard its part of the batch as one command. A shard
//! ([`shard`]) empties its mailbox into the send queues of its connections and then flushes each that has something
//! waiting with one write ([`send_queue`]). What is shared between the two sides of a connection is its handle
//! ([`connection`]): a few atomics, no lock on the way of a message. Who counts what, and what "full" means:
//! `docs/decisions/0005-who-counts-a-delivery.md`.

mod clock;
mod connection;
mod load;
mod meters;
mod registry;
mod rooms;
mod route;
mod send_queue;
mod shard;
mod wheel;

#[cfg(test)]
mod tests;

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

pub use connection::{Connection, Joined, Terms};

use clock::Clock;
use connection::{Ended, Leave};
use meters::RouteMeters;
use registry::Registry;
use rooms::Rooms;
use route::Router;
use shard::{Command, Part};

use crate::config::{Config, Heartbeat, Queue};
use crate::id::{ConnectionId, Device, IdSequence, Room, Uid};
use crate::message::{Entries, Receipt, Target};
use crate::protocol::{Form, Frames};

/// The writing side of a connection: all that a shard needs of a socket. TLS and io_uring come behind it.
pub trait Socket: Send + Sync {
    /// Writes what the socket takes now. One part is the usual case.
    ///
    /// # Errors
    /// `WouldBlock` when it takes nothing; anything else ends the connection.
    fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Ready when the socket may take bytes again, or never will (it was shut down or broke).
    ///
    /// # Errors
    /// Counts as ready: the next write tells what is wrong.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Ends the writing side after the last byte, or (`abort`) both sides at once, so that the reader ends too.
    fn shutdown(&self, abort: bool);
}

/// Who a connection belongs to, since it was bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Grows with each bind of the user: of two connections whose devices exclude each other, the lower loses. 0 where
    /// its listener lets all devices be, so that it gives way to every other.
    pub number: u64,
    /// The user, by the auth plugin's word.
    pub uid: Uid,
    /// The device.
    pub device: Option<Device>,
    /// web, android, ios, windows, mac.
    pub channel: Option<String>,
    /// Milliseconds since 1970.
    pub since: i64,
    /// Seconds since 1970 at which the admission ends.
    pub expires: Option<u64>,
    /// deviceName, appVersion, osVersion, language…: what the client says of itself, over all its binds.
    pub facts: Entries,
    /// Claims of the last admission or login. Nothing in them was typed by the client.
    pub claims: Entries,
}

/// One run of frames with its receivers.
pub struct Delivery {
    /// To whom.
    pub target: Target,
    /// The connection that is left out.
    pub no_echo: Option<ConnectionId>,
    /// What.
    pub frames: Frames,
}

/// What a bind changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bound {
    /// It is the user's first connection here.
    pub first: bool,
    /// It belonged to another user before. The rooms that it joined as that one it is in still.
    pub former: Option<Former>,
}

/// Whose a connection was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Former {
    /// Who.
    pub binding: Arc<Binding>,
    /// It was that user's last connection here.
    pub last: bool,
}

/// What the end of a connection changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Detached {
    /// It was the user's last connection here.
    pub last: bool,
    /// The rooms it was in.
    pub rooms: Vec<Room>,
}

/// What of the configuration a hub needs.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How many shards; 0 = one per core.
    pub shards: usize,
    /// Most live connections.
    pub connections: usize,
    /// Liveness.
    pub heartbeat: Heartbeat,
    /// Bounds of what waits for one connection, and of a shard's mailbox.
    pub queue: Queue,
    /// Bind after connect.
    pub unbound: Duration,
    /// Furthest that an unbound connection's time may be moved, from its connect on.
    pub unbound_max: Duration,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        Self {
            shards: config.node.shards,
            connections: config.limits.connections,
            heartbeat: config.heartbeat.clone(),
            queue: config.queue.clone(),
            unbound: config.limits.unbound,
            unbound_max: config.limits.unbound_max,
        }
    }
}

/// The life of one shard: to be spawned on the runtime, and joined after [`Hub::stop`].
pub type ShardTask = BoxFuture<'static, ()>;

/// What shards have done since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Calls of [`Socket::try_write`].
    pub writes: u64,
    /// Frames of deliveries and answers handed to sockets whole.
    pub frames: u64,
    /// Bytes handed to sockets.
    pub bytes: u64,
}

/// This node's connections.
pub struct Hub {
    ids: Arc<IdSequence>,
    limit: usize,
    router: Router,
    ended: Arc<Ended>,
}

impl Hub {
    /// A hub with its shards. A metrics recorder must be installed before, or the hub's metrics go nowhere.
    #[must_use]
    pub fn new(settings: &Settings, ids: Arc<IdSequence>) -> (Self, Vec<ShardTask>) {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let shards = if settings.shards == 0 { cores() } else { settings.shards };
        let clock = Clock::new(settings);
        let ended = Arc::<Ended>::default();
        let shared = shard::Shared { count: shards, clock, ended: Arc::clone(&ended) };
        let (homes, tasks): (Vec<_>, Vec<_>) = (0..shards).map(|index| shard::new(index, settings, &shared)).unzip();
        let hub = Self {
            ids,
            limit: settings.connections,
            ended,
            router: Router {
                registry: Registry::new(),
                rooms: Rooms::new(),
                homes: homes.into(),
                meters: RouteMeters::new(),
            },
        };
        (hub, tasks)
    }

    /// Takes a new connection under its wings, unbound. `None` when the node holds as many as it may, has stopped, or
    /// has no id left.
    pub async fn attach(&self, socket: Arc<dyn Socket>, form: Option<Form>) -> Option<Connection> {
        let home =
            self.router.homes.iter().min_by_key(|home| home.live.load(Ordering::Relaxed)).expect("there is a shard");
        let id = self.ids.take_connection().await?;
        // Everything after this wait happens at once: a caller that is cancelled leaves no half connection.
        let permit = home.mailbox.reserve().await.ok()?;
        if !self.router.registry.make_room(self.limit) {
            return None;
        }
        home.live.fetch_add(1, Ordering::Relaxed);
        let connection = Connection::new(id, Arc::clone(home), form);
        self.router.registry.insert(&connection);
        permit.send(Command::Attach(connection.clone(), socket));
        Some(connection)
    }

    /// Gives the connection to a user, or (same uid) replaces what is known of it. A detached one stays unbound.
    pub fn bind(&self, connection: &Connection, binding: Binding) -> Bound {
        self.router.registry.bind(connection, binding)
    }

    /// Forgets the connection: what waits is written as far as the socket takes it, then both sides are shut down.
    /// A second call changes nothing and answers the default. Does not wait; async, because a node among others will.
    pub async fn detach(&self, connection: &Connection) -> Detached {
        let Some(Leave { binding, rooms }) = connection.take_leave() else { return Detached::default() };
        let rooms: Vec<Room> = rooms.into_iter().map(|room| self.router.rooms.exit(&room, connection)).collect();
        let last = self.router.registry.remove(connection, binding.as_deref());
        let home = connection.home();
        home.live.fetch_sub(1, Ordering::Relaxed);
        // A full mailbox is no reason to wait: the shard finds out by its next tick.
        if home.mailbox.try_send(Command::Detach(connection.clone())).is_err() {
            home.look_at(connection);
        }
        Detached { last, rooms }
    }

    /// Every publish that starts after this returned reaches a connection that joined.
    pub fn join(&self, connection: &Connection, room: &Room, terms: Terms<'_>) -> Joined {
        self.router.rooms.join(connection, room, terms)
    }

    /// Waits until memberships have ended, and gives the connections that have them.
    pub async fn memberships_ended(&self) -> Vec<Connection> {
        self.ended.take().await
    }

    /// Takes the connection out of the rooms in which its membership has ended; their names.
    pub fn leave_ended(&self, connection: &Connection) -> Vec<Room> {
        self.router.rooms.leave_ended(connection)
    }

    /// `false` when it was not in the room. Every publish that starts after this returned leaves it out.
    pub fn leave(&self, connection: &Connection, room: &Room) -> bool {
        self.router.rooms.leave(connection, room)
    }

    /// The connection with this id.
    #[must_use]
    pub fn connection(&self, id: ConnectionId) -> Option<Connection> {
        self.router.registry.connection(id)
    }

    /// The user's connections.
    #[must_use]
    pub fn user(&self, uid: &str) -> Vec<Connection> {
        self.router.registry.user(uid).into_vec()
    }

    /// Whether the user has a connection.
    #[must_use]
    pub fn has_user(&self, uid: &str) -> bool {
        self.router.registry.has_user(uid)
    }

    /// Whether the room has a member.
    #[must_use]
    pub fn has_room(&self, room: &str) -> bool {
        self.router.rooms.find(room).is_some_and(|state| !state.is_dead())
    }

    /// Connections, bound or not.
    #[must_use]
    pub fn live(&self) -> usize {
        self.router.registry.live()
    }

    /// The connections in a room.
    #[must_use]
    pub fn room(&self, room: &str) -> Vec<Connection> {
        self.router.rooms.members(room)
    }

    /// Rooms with how many connections each has, in no promised order.
    #[must_use]
    pub fn rooms(&self) -> Vec<(Room, usize)> {
        self.router.rooms.all()
    }

    /// Bound connections, cids in growing order, from the first above `after` on, at most `limit`.
    #[must_use]
    pub fn page(&self, after: u64, limit: usize) -> Vec<Connection> {
        self.router.registry.page(after, limit)
    }

    /// Every connection, bound or not, in no promised order (for the drain).
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        self.router.registry.all()
    }

    /// Users with at least one connection, and bound connections.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        self.router.registry.counts()
    }

    /// Routes the whole batch, then hands each shard its part as one. One receipt per delivery, in order; counts are
    /// connections, times the frames of the delivery's run.
    ///
    /// Waits while a mailbox is full, and, where a shard has to count (rooms, everyone, a queue that is nearly full),
    /// until that shard has flushed what the batch touched. Never waits for a socket. A device is told as offline when
    /// its user has no connection of that device; the users of [`Target::EveryoneBut`] never are.
    pub async fn route(&self, batch: Vec<Delivery>) -> Vec<Receipt> {
        self.router.route(batch).await
    }

    /// Waits until everything that was handed over before has been written, or found a socket that takes no more.
    pub async fn settle(&self) {
        for home in &self.router.homes {
            let (report, settled) = oneshot::channel();
            if home.mailbox.send(Command::Part(Part::empty(report))).await.is_ok() {
                let _ = settled.await;
            }
        }
    }

    /// Ends the shards: what waits is flushed once more, and the sockets that are left are shut down. Whatever is
    /// sent afterwards is refused; lists, counts and [`Hub::detach`] go on working.
    pub async fn stop(&self) {
        for home in &self.router.homes {
            let _ = home.mailbox.send(Command::Stop).await;
        }
    }

    /// What the shards have done since the start.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.router.homes.iter().fold(Totals::default(), |sum, home| {
            let part = home.totals.read();
            Totals { writes: sum.writes + part.writes, frames: sum.frames + part.frames, bytes: sum.bytes + part.bytes }
        })
    }
}
