//! Messaging between nodes: delivers accepted batches to every node with receivers, and keeps the state that nodes
//! share.
//!
//! Independent of connections and plugins. The configuration chooses the implementation of four traits. [`Broker`]
//! carries envelopes and cluster messages. [`roster::Roster`] keeps the cluster's membership. [`ids::IdStore`] reserves
//! ids. [`source::Source`] reads the records of an intake. [`memory`] is the default of the first two and the reference
//! for their contracts.

pub mod dedup;
pub mod history;
pub mod ids;
pub mod kafka;
pub mod memory;
pub mod record;
pub mod redis;
pub mod roster;
pub mod source;

pub use crate::fate::Fate;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use crate::id::{NodeId, Room, Uid};
use crate::message::{Envelope, Position, Receipt};

/// Envelopes that travel as one unit, in order.
pub type Batch = Arc<[Envelope]>;

/// The engine does not answer, or answers too late.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{engine} is unavailable: {why}")]
pub struct Unavailable {
    /// Name of the engine: `redis` or `kafka`.
    pub engine: &'static str,
    /// Error reported by the engine or by the connection to it.
    pub why: String,
}

/// One subscription of a node, derived from its connections. A node always receives messages for everyone.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subscription {
    /// Messages for this user, and cluster messages to the user's nodes.
    User(Uid),
    /// Messages for this room.
    Room(Room),
}

/// Recipients of a cluster message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// One node.
    Node(NodeId),
    /// Every node that has subscribed to the user.
    User(Uid),
    /// Every node.
    Everyone,
}

/// Carries batches and cluster messages between nodes.
///
/// Order: batches of one caller that awaits each publish arrive in order. Cluster messages and envelopes for the same
/// user, for the same room or for everyone keep their order.
///
/// Duplicates: each envelope reaches each node at most once. With an [`Envelope::identity`], repeated publishes of the
/// same identity also arrive once.
///
/// Blocking: waits for queue space and for the engine's confirmation, at most two seconds together, then reports the
/// envelope as unavailable. An unavailable envelope was not accepted, but may still arrive. Publishing it again may
/// deliver it twice unless both have the same identity.
pub trait Broker: Send + Sync {
    /// Sends `batch` to every node with receivers for it, this one included. Returns one fate per envelope, in order:
    /// [`Fate::Accepted`], [`Fate::TooLargeForBroker`] or [`Fate::Unavailable`].
    fn publish(&self, batch: Batch) -> BoxFuture<'_, Vec<Fate>>;

    /// Sends a cluster message to [`Deliver::on_cluster_message`] of the nodes at `address`, which may include this
    /// node. Returns the number of nodes reached, if the broker knows it.
    ///
    /// # Errors
    /// [`Unavailable`]: the engine did not confirm in time. The message may still arrive.
    fn send_cluster_message(&self, address: Address, message: Bytes)
    -> BoxFuture<'_, Result<Option<u32>, Unavailable>>;

    /// Subscribes this node to `stream`. Every publish that starts after the return, on any node, reaches this node.
    /// Subscriptions are not counted: a second call changes nothing.
    ///
    /// # Errors
    /// [`Unavailable`]: not confirmed in time. The subscription is kept and confirmed once the engine is back.
    fn subscribe(&self, stream: Subscription) -> BoxFuture<'_, Result<(), Unavailable>>;

    /// Unsubscribes this node from `stream`. Returns at once; messages may still arrive for some seconds.
    fn unsubscribe(&self, stream: &Subscription);

    /// Faults of the bus for which the node should get no traffic, one short sentence each. Empty when the bus is
    /// healthy.
    fn faults(&self) -> Vec<String>;

    /// Sends queued records, then disconnects from the engine. All later calls fail as unavailable.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Receiver of everything that the broker gets for this node.
pub trait Deliver: Send + Sync {
    /// Hands `batch` to this node's connections; one receipt per envelope, in order. `positions` holds the position of
    /// each envelope in its stream, or is empty if no envelope is kept. Never waits for a socket.
    fn deliver(&self, batch: Batch, positions: Vec<Option<Position>>) -> BoxFuture<'_, Vec<Receipt>>;

    /// Handles a cluster message from `from`. Must return quickly: the broker calls it between batches.
    fn on_cluster_message(&self, from: &NodeId, message: Bytes);

    /// Reports that messages for this node may be lost: the engine was unreachable for a while, or a record could not
    /// be read. Called once per loss, after all subscriptions are confirmed again.
    fn gap(&self);
}
