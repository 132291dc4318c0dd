//! Connections of this node: their users and rooms, and the shards that write to them.
//!
//! Independent of brokers, plugins and client protocols beyond the bytes that `protocol` encodes. The hub returns facts
//! (first connection of a user, room now empty, number of sent messages), and only the node acts on them.
//!
//! The caller's task finds the receivers ([`route`]) and sends each shard its part of the batch as one command. A shard
//! ([`shard`]) empties its mailbox into the send queues of its connections. Then it flushes each connection with queued
//! bytes in one write ([`send_queue`]). Both sides share the connection's handle ([`connection`]): a few atomics, and
//! no lock on the path of a message. `docs/decisions/0005-who-counts-a-delivery.md` describes the counting and the
//! meaning of "full".

mod clock;
mod connection;
mod load;
mod meters;
mod registry;
mod replay;
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

pub use connection::{Connection, JoinTerms, Joined};
pub use replay::ReplayEnd;

use clock::Clock;
use connection::{DetachedState, EndedMemberships};
use meters::RouteMeters;
use registry::Registry;
use rooms::Rooms;
use route::Router;
use shard::{Command, ShardBatch};

use crate::config::{Config, Heartbeat, Queue};
use crate::id::{ConnectionId, Device, IdSequence, Room, Uid};
use crate::message::{Entries, Epoch, Receipt, StreamName, Target};
use crate::protocol::{Form, Frames};

/// Writing half of a connection: everything that a shard needs of a socket. TLS is behind this trait.
pub trait Socket: Send + Sync {
    /// Writes as many bytes as the socket accepts now. Usually there is one part.
    ///
    /// # Errors
    /// `WouldBlock` if the socket accepts no bytes. Any other error ends the connection.
    fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Ready when the socket may accept bytes again, or never will (it was shut down or broke).
    ///
    /// # Errors
    /// Counts as ready: the next write returns the error.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Shuts down the writing half after the last byte, or with `abort` both halves at once, so that the reader ends
    /// too.
    fn shutdown(&self, abort: bool);
}

/// User and facts of a bound connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Increases with each bind of the user. Of two connections that exclude each other, the lower number loses. 0 on a
    /// listener without device matrix, so that the connection loses against every other.
    pub number: u64,
    /// The user, as determined by the auth plugin.
    pub uid: Uid,
    /// The device.
    pub device: Option<Device>,
    /// True if the device comes from an admission or login. A device that the client claims later does not replace it.
    pub is_device_admitted: bool,
    /// One of web, android, ios, windows, mac.
    pub channel: Option<Box<str>>,
    /// Time of the user's first bind on the connection, in milliseconds since 1970.
    pub since: i64,
    /// Expiry of the admission, in seconds since 1970.
    pub expires: Option<u64>,
    /// Facts from all binds of the client: deviceName, appVersion, osVersion, language and others.
    pub facts: Entries,
    /// Claims of the last admission or login. None of them comes from the client.
    pub claims: Entries,
}

/// A run of frames with its receivers.
pub struct FrameRun {
    /// Receivers of the run.
    pub target: Target,
    /// Connection to leave out.
    pub no_echo: Option<ConnectionId>,
    /// Frames of the run.
    pub frames: Frames,
    /// Place of the run in a stream; `None` if its messages are not kept.
    pub span: Option<Span>,
}

/// Successive messages of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The stream.
    pub stream: StreamName,
    /// Life of the stream.
    pub epoch: Epoch,
    /// Offset of the first message.
    pub first: u64,
    /// Offset of the last message.
    pub last: u64,
}

/// Result of a bind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Bound {
    /// True if this is the user's first connection here.
    pub first: bool,
    /// Previous user of the connection. The connection is still in the rooms that it joined for that user.
    pub former: Option<Former>,
}

/// Previous user of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Former {
    /// Binding to the previous user.
    pub binding: Arc<Binding>,
    /// True if this was that user's last connection here.
    pub last: bool,
}

/// Result of a detach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Detached {
    /// True if this was the user's last connection here.
    pub last: bool,
    /// Rooms that the connection was in.
    pub rooms: Vec<Room>,
}

/// Settings of a hub.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// Number of shards. 0 = one per core.
    pub shards: usize,
    /// Limit of live connections.
    pub connections: usize,
    /// Heartbeat interval and limit.
    pub heartbeat: Heartbeat,
    /// Limits of the queue of one connection, and of the mailbox of a shard.
    pub queue: Queue,
    /// Time limit for the bind after the connect.
    pub unbound: Duration,
    /// Maximum of the extended bind time limit, from the connect on.
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

/// Future of one shard. Spawn it on the runtime and join it after [`Hub::stop`].
pub type ShardTask = BoxFuture<'static, ()>;

/// Work of the shards since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Number of calls of [`Socket::try_write`].
    pub writes: u64,
    /// Number of frames of deliveries and replies that sockets accepted completely.
    pub frames: u64,
    /// Number of bytes that sockets accepted.
    pub bytes: u64,
}

/// Connections of this node.
pub struct Hub {
    ids: Arc<IdSequence>,
    limit: usize,
    router: Router,
    ended_memberships: Arc<EndedMemberships>,
}

impl Hub {
    /// Creates a hub with its shards. Install the metrics recorder before, otherwise the hub's metrics are lost.
    #[must_use]
    pub fn new(settings: &Settings, ids: Arc<IdSequence>) -> (Self, Vec<ShardTask>) {
        let cores = || std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let count = if settings.shards == 0 { cores() } else { settings.shards };
        let clock = Clock::new(settings);
        let ended_memberships = Arc::<EndedMemberships>::default();
        let shared =
            shard::Shared { count, clock, ended_memberships: Arc::clone(&ended_memberships), withheld: Arc::default() };
        let (shards, tasks): (Vec<_>, Vec<_>) = (0..count).map(|index| shard::new(index, settings, &shared)).unzip();
        let hub = Self {
            ids,
            limit: settings.connections,
            ended_memberships,
            router: Router {
                registry: Registry::new(),
                rooms: Rooms::new(),
                shards: shards.into(),
                meters: RouteMeters::new(),
            },
        };
        (hub, tasks)
    }

    /// Adds a new, unbound connection. `None` if the node is at its connection limit, has stopped, or has no id left.
    pub async fn attach(&self, socket: Arc<dyn Socket>, form: Option<Form>) -> Option<Connection> {
        let shard = self
            .router
            .shards
            .iter()
            .min_by_key(|shard| shard.live.load(Ordering::Relaxed))
            .expect("a hub has at least one shard");
        let id = self.ids.take_connection().await?;
        // No await follows, so a cancelled caller leaves no partial connection.
        let permit = shard.mailbox.reserve().await.ok()?;
        if !self.router.registry.try_count(self.limit) {
            return None;
        }
        shard.live.fetch_add(1, Ordering::Relaxed);
        let connection = Connection::new(id, Arc::clone(shard), form);
        self.router.registry.insert(&connection);
        permit.send(Command::Attach(connection.clone(), socket));
        Some(connection)
    }

    /// Binds the connection to a user, or with the same uid replaces its binding. A detached connection stays unbound.
    pub fn bind(&self, connection: &Connection, binding: Binding) -> Bound {
        self.router.registry.bind(connection, binding)
    }

    /// Removes the connection. Queued bytes are written as far as the socket accepts them, then both halves are shut
    /// down. A second call has no effect and returns the default. Does not wait; async for implementations over several
    /// nodes.
    pub async fn detach(&self, connection: &Connection) -> Detached {
        let Some(DetachedState { binding, rooms }) = connection.mark_detached() else { return Detached::default() };
        let rooms: Vec<Room> =
            rooms.into_iter().map(|room| self.router.rooms.remove_member(&room, connection)).collect();
        let last = self.router.registry.remove(connection, binding.as_deref());
        let shard = connection.shard();
        shard.live.fetch_sub(1, Ordering::Relaxed);
        // Never waits for a full mailbox: the shard then learns of the detach with its next tick.
        if shard.mailbox.try_send(Command::Detach(connection.clone())).is_err() {
            shard.request_check(connection);
        }
        Detached { last, rooms }
    }

    /// Adds the connection to a room. Every publish that starts after the return reaches it.
    pub fn join(&self, connection: &Connection, room: &Room, terms: JoinTerms<'_>) -> Joined {
        self.router.rooms.join(connection, room, terms)
    }

    /// Waits until memberships have ended and returns their connections.
    pub async fn memberships_ended(&self) -> Vec<Connection> {
        self.ended_memberships.take().await
    }

    /// Removes the connection from the rooms with an ended membership and returns their names.
    pub fn leave_ended(&self, connection: &Connection) -> Vec<Room> {
        self.router.rooms.leave_ended(connection)
    }

    /// Removes the connection from a room. Every publish that starts after the return leaves it out. Returns false if
    /// the connection was not in the room.
    pub fn leave(&self, connection: &Connection, room: &Room) -> bool {
        self.router.rooms.leave(connection, room)
    }

    /// Returns the connection with this id.
    #[must_use]
    pub fn connection(&self, id: ConnectionId) -> Option<Connection> {
        self.router.registry.connection(id)
    }

    /// Returns the connections of the user.
    #[must_use]
    pub fn user(&self, uid: &str) -> Vec<Connection> {
        self.router.registry.user(uid).into_vec()
    }

    /// True if the user has a connection.
    #[must_use]
    pub fn has_user(&self, uid: &str) -> bool {
        self.router.registry.has_user(uid)
    }

    /// True if the room has a member.
    #[must_use]
    pub fn has_room(&self, room: &str) -> bool {
        self.router.rooms.find(room).is_some_and(|state| !state.is_empty())
    }

    /// Number of connections, bound or not.
    #[must_use]
    pub fn live(&self) -> usize {
        self.router.registry.live()
    }

    /// Returns the connections in a room.
    #[must_use]
    pub fn room(&self, room: &str) -> Vec<Connection> {
        self.router.rooms.members(room)
    }

    /// Returns all rooms with their numbers of connections, in no particular order.
    #[must_use]
    pub fn rooms(&self) -> Vec<(Room, usize)> {
        self.router.rooms.all()
    }

    /// Returns at most `limit` bound connections with ids above `after`, in ascending order.
    #[must_use]
    pub fn page(&self, after: u64, limit: usize) -> Vec<Connection> {
        self.router.registry.page(after, limit)
    }

    /// Returns all connections for the drain, bound or not, in no particular order.
    #[must_use]
    pub fn connections(&self) -> Vec<Connection> {
        self.router.registry.all()
    }

    /// Returns the number of users with a connection, and of bound connections.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        self.router.registry.counts()
    }

    /// Routes the batch and sends each shard its part as one command. Returns one receipt per delivery, in order. A
    /// receipt counts connections, times the frames of the delivery's run.
    ///
    /// Waits while a mailbox is full. If a shard must count (rooms, everyone, a nearly full queue), also waits until it
    /// has flushed all connections of the batch. Never waits for a socket.
    ///
    /// A device counts as offline if its user has no connection of that device. The users of [`Target::EveryoneBut`]
    /// never count as offline.
    pub async fn route(&self, batch: Vec<FrameRun>) -> Vec<Receipt> {
        self.router.route(batch).await
    }

    /// Waits until everything queued before is written, or until the sockets accept no more bytes.
    pub async fn wait_flushed(&self) {
        for shard in &self.router.shards {
            let (report, flushed) = oneshot::channel();
            if shard.mailbox.send(Command::Deliver(ShardBatch::empty(report))).await.is_ok() {
                let _ = flushed.await;
            }
        }
    }

    /// Stops the shards: queued bytes are flushed once more, then the remaining sockets are shut down. Later messages
    /// are refused. Lists, counts and [`Hub::detach`] still work.
    pub async fn stop(&self) {
        for shard in &self.router.shards {
            let _ = shard.mailbox.send(Command::Stop).await;
        }
    }

    /// Returns the work of the shards since the start.
    #[must_use]
    pub fn totals(&self) -> Totals {
        self.router.shards.iter().fold(Totals::default(), |sum, shard| {
            let part = shard.totals.read();
            Totals { writes: sum.writes + part.writes, frames: sum.frames + part.frames, bytes: sum.bytes + part.bytes }
        })
    }
}
