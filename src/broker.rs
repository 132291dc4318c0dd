//! Node to node: how an accepted batch reaches every node that has receivers for it.
//!
//! Knows no connection and no plugin. [`memory`] is the default and the model of the contract.

pub mod memory;

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::id::NodeId;
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
        /// What was delivered, where the broker knows at once.
        receipt: Option<Receipt>,
        /// Nodes that the envelope names and nobody knows.
        unknown_nodes: Vec<NodeId>,
    },
    /// The broker cannot keep its word now: nothing of the envelope was sent.
    Unavailable,
}

/// Carries batches between nodes.
///
/// Guarantee: batches of one caller that awaits each publish arrive in order, each envelope at each node at most once.
/// Blocking: waits while the way is full, at most two seconds, then answers [`Outcome::Unavailable`].
pub trait Broker: Send + Sync {
    /// Sends `batch` to every node that has receivers for it, this one included; one outcome per envelope, in order.
    fn publish(&self, batch: Batch) -> BoxFuture<'_, Vec<Outcome>>;
}

/// The receiving end: what a broker hands each batch to.
pub trait Deliver: Send + Sync {
    /// Hands `batch` to this node's connections; one receipt per envelope, in order. Never waits for a socket.
    fn deliver(&self, batch: Batch) -> BoxFuture<'_, Vec<Receipt>>;
}
