//! This node's connections: who they are, which rooms they are in, and the shards that write to them.
//!
//! Knows no broker, no plugin and no client protocol beyond the bytes that `protocol` made. It answers with facts
//! ("first here", "now empty", so many sent); the node alone acts on them.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;

use crate::disconnect::Disconnect;
use crate::id::{ConnectionId, Device, Room, Uid};
use crate::message::{Entries, Receipt, Target};
use crate::protocol::{Form, Frames};

/// The writing side of a connection: all that a shard needs of a socket. TLS and io_uring come behind it.
pub trait Socket: Send + Sync {
    /// Writes what the socket takes now.
    ///
    /// # Errors
    /// `WouldBlock` when it takes nothing; anything else ends the connection.
    fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize>;
    /// Ready when the socket may take bytes again.
    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;
    /// Ends the writing side after the last byte, or (`abort`) both sides at once, so that the reader ends too.
    fn shutdown(&self, abort: bool);
}

/// Who a connection belongs to, since it was bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Binding {
    /// Grows with each bind of this node: of two connections whose devices exclude each other, the lower loses.
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
    /// deviceName, appVersion, osVersion, language…, and the auth plugin's claims.
    pub facts: Entries,
}

/// A live connection, as a cheap handle.
#[derive(Clone)]
pub struct Connection {/* Arc<…> */}

impl Connection {
    /// Its id.
    pub fn id(&self) -> ConnectionId {
        todo!()
    }
    /// Who it belongs to; `None` until it is bound.
    pub fn binding(&self) -> Option<Arc<Binding>> {
        todo!()
    }
    /// How it is spoken to; `None` until that is known. Nothing is written before.
    pub fn form(&self) -> Option<Form> {
        todo!()
    }
    /// Fixes how it is spoken to, once.
    pub fn set_form(&self, _form: Form) {
        todo!()
    }
    /// The client gave a sign of life (any frame): unanswered PINGs are forgotten. Costs one relaxed store.
    pub fn saw_life(&self) {
        todo!()
    }
    /// The rooms it is in.
    pub fn rooms(&self) -> Vec<Room> {
        todo!()
    }
    /// Its tag (`client_set_tag`).
    pub fn tag(&self) -> Option<String> {
        todo!()
    }
    /// Sets or removes its tag.
    pub fn set_tag(&self, _tag: Option<String>) {
        todo!()
    }
    /// Moves the end of the unbound time (milliseconds from now).
    pub fn extend_unbound(&self, _millis: u64) {
        todo!()
    }
    /// Queues bytes that already are whole frames of its form (a reply, a WebSocket pong), behind what waits.
    /// `false` when it is closing.
    pub async fn send(&self, _frame: Bytes) -> bool {
        todo!()
    }
    /// Flushes what waits, says why (a close frame on WebSocket), ends the writing side, and, if the client does not
    /// end its own within the write time-out, both. The first call counts.
    pub async fn close(&self, _why: Disconnect) {
        todo!()
    }
    /// Why it was closed by this node, once it was.
    pub fn closed(&self) -> Option<Disconnect> {
        todo!()
    }
}

/// One run of frames with its receivers.
pub struct Delivery {
    /// To whom.
    pub target: Target,
    /// The connection that is left out.
    pub no_echo: Option<ConnectionId>,
    /// What.
    pub frames: Arc<Frames>,
}

/// What a bind changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bound {
    /// It is the user's first connection here.
    pub first: bool,
}

/// What the end of a connection changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Detached {
    /// It was the user's last connection here.
    pub last: bool,
    /// The rooms it was in.
    pub rooms: Vec<Room>,
}

/// This node's connections.
pub struct Hub {}

impl Hub {
    /// Takes a new connection under its wings, unbound. `None` when the node holds as many as it may.
    pub async fn attach(&self, _socket: Arc<dyn Socket>, _form: Option<Form>) -> Option<Connection> {
        todo!()
    }
    /// Gives the connection to its user, or (same uid) replaces what is known of it.
    pub fn bind(&self, _connection: &Connection, _binding: Binding) -> Bound {
        todo!()
    }
    /// Forgets the connection; its socket is shut down.
    pub async fn detach(&self, _connection: &Connection) -> Detached {
        todo!()
    }
    /// `false` when it was in the room already. The connection must be bound.
    pub fn join(&self, _connection: &Connection, _room: &Room) -> bool {
        todo!()
    }
    /// `false` when it was not in the room.
    pub fn leave(&self, _connection: &Connection, _room: &Room) -> bool {
        todo!()
    }
    /// The connection with this id.
    pub fn connection(&self, _id: ConnectionId) -> Option<Connection> {
        todo!()
    }
    /// The user's connections.
    pub fn user(&self, _uid: &str) -> Vec<Connection> {
        todo!()
    }
    /// The connections in a room.
    pub fn room(&self, _room: &str) -> Vec<Connection> {
        todo!()
    }
    /// Rooms with how many connections each has.
    pub fn rooms(&self) -> Vec<(Room, usize)> {
        todo!()
    }
    /// Bound connections, cids in growing order, from the first above `after` on.
    pub fn page(&self, _after: u64, _limit: usize) -> Vec<Connection> {
        todo!()
    }
    /// Every connection, bound or not, in no promised order (for the drain).
    pub fn connections(&self) -> Vec<Connection> {
        todo!()
    }
    /// Users with at least one connection, and bound connections.
    pub fn counts(&self) -> (usize, usize) {
        todo!()
    }
    /// Routes the whole batch, then hands each shard its part as one. One receipt per delivery, in order; counts are
    /// connections, times the frames of the delivery's run.
    pub async fn route(&self, _batch: Vec<Delivery>) -> Vec<Receipt> {
        todo!()
    }
}
