//! Node to node: how an accepted batch reaches every node that has receivers for it, and what nodes share besides.
//!
//! Knows no connection and no plugin. Three seams, each chosen by configuration: [`Broker`] carries envelopes and words,
//! [`roster::Roster`] knows who belongs to the cluster, [`ids::IdStore`] reserves ids, [`source::Source`] gives an intake its records. [`memory`] is
//! the default of the first two and the model of their contracts.

pub mod ids;
pub mod kafka;
pub mod memory;
pub mod record;
pub mod redis;
pub mod roster;
pub mod seen;
pub mod source;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::id::{NodeId, Room, Uid};
use crate::message::{Envelope, Position, Receipt};

/// Envelopes that travel as one unit, in order.
pub type Batch = Arc<[Envelope]>;

/// What became of one envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The broker took it.
    Accepted {
        /// Its place in the target's stream, where the broker keeps one.
        position: Option<Position>,
        /// What was delivered, where the broker knows at once or was asked to wait for it ([`Envelope::receipts`]).
        receipt: Option<Receipt>,
        /// How many nodes it reached, where the broker knows.
        nodes: Option<u32>,
        /// Nodes that the envelope names and nobody knows.
        unknown_nodes: Vec<NodeId>,
    },
    /// More than a record of this broker may hold: nothing of it was sent.
    TooLarge {
        /// What its record would hold.
        bytes: usize,
        /// What one may.
        most: usize,
    },
    /// The broker did not learn in time that it was taken. It was not accepted, and nobody keeps it; but what was under way
    /// is not taken back: none, some or all of its copies may arrive yet, each of them once at most.
    Unavailable,
}

/// The engine does not answer, or not in time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{engine} is unavailable: {why}")]
pub struct Unavailable {
    /// Which one: `redis`, `kafka`.
    pub engine: &'static str,
    /// What it, or the way to it, said.
    pub why: String,
}

/// What a node wants to receive because of who is connected to it. Everyone's messages it always receives.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Stream {
    /// What is for this user, and words to it.
    User(Uid),
    /// What is for this room.
    Room(Room),
}

/// Whom a word is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// One node.
    Node(NodeId),
    /// Every node that holds the user.
    User(Uid),
    /// Every node.
    Everyone,
}

/// Carries batches and words between nodes.
///
/// Guarantee: batches of one caller that awaits each publish arrive in order, each envelope at each node at most once
/// (unless [`Envelope::identity`] says otherwise: then a repeated publish of the same identity arrives once, too).
/// Words and envelopes for the same user, room or everyone keep their order.
/// Blocking: waits while the way is full, and for the engine's word, at most two seconds together, then answers that it is
/// unavailable. That says what was not accepted, never what will not arrive: who publishes it again may have it delivered
/// twice, unless its identity is the same.
pub trait Broker: Send + Sync {
    /// Sends `batch` to every node that has receivers for it, this one included; one outcome per envelope, in order.
    fn publish(&self, batch: Batch) -> BoxFuture<'_, Vec<Outcome>>;

    /// Sends `word` to [`Deliver::hear`] of the nodes at `address`, this one included where it is one of them; how many
    /// it reached, where the broker knows.
    ///
    /// # Errors
    /// [`Unavailable`]: nobody said in time that it was sent; it may arrive yet.
    fn tell(&self, address: Address, word: Bytes) -> BoxFuture<'_, Result<Option<u32>, Unavailable>>;

    /// This node wants `stream` from now on. When it returns, every publish that starts afterwards, on any node,
    /// reaches this one. Counts nothing: a second hold changes nothing.
    ///
    /// # Errors
    /// [`Unavailable`]: not confirmed in time. It is remembered and confirmed once the engine is back.
    fn hold(&self, stream: Stream) -> BoxFuture<'_, Result<(), Unavailable>>;

    /// This node wants `stream` no more. Returns at once; the broker may go on receiving it for some seconds.
    fn release(&self, stream: &Stream);

    /// Why the node should get no traffic on account of the bus: one short sentence each; empty = it should.
    fn faults(&self) -> Vec<String>;

    /// Sends what waits, then lets go of the engine. Afterwards everything is unavailable.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// The receiving end: what a broker hands everything to that came for this node.
pub trait Deliver: Send + Sync {
    /// Hands `batch` to this node's connections; one receipt per envelope, in order. Never waits for a socket.
    fn deliver(&self, batch: Batch) -> BoxFuture<'_, Vec<Receipt>>;

    /// A word from `from`. Must return quickly: it is called between batches.
    fn hear(&self, from: &NodeId, word: Bytes);

    /// What was sent to this node may have been lost: the way to the engine was away and is back, or a record could
    /// not be read. Called once for each such time, after the streams that are held are confirmed again.
    fn gap(&self);
}
