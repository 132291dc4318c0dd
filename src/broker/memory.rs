//! The broker of a single node: it loops each batch back at once. Nothing is stored and nothing is shared.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{Batch, Broker, Deliver, Outcome};
use crate::id::NodeId;
use crate::message::{Envelope, Receipt};

/// One node's loop-back.
pub struct MemoryBroker {
    node: NodeId,
    receiver: Arc<dyn Deliver>,
}

impl MemoryBroker {
    /// The broker of `node`, looping back to `receiver`.
    #[must_use]
    pub fn new(node: NodeId, receiver: Arc<dyn Deliver>) -> Self {
        Self { node, receiver }
    }

    fn is_for_this_node(&self, envelope: &Envelope) -> bool {
        envelope.nodes.is_empty() || envelope.nodes.contains(&self.node)
    }

    async fn loop_back(&self, batch: Batch) -> Vec<Outcome> {
        let here: Batch = if batch.iter().all(|e| self.is_for_this_node(e)) {
            Arc::clone(&batch)
        } else {
            batch.iter().filter(|e| self.is_for_this_node(e)).cloned().collect()
        };
        let mut receipts = self.receiver.deliver(here).await.into_iter();
        batch
            .iter()
            .map(|envelope| {
                let here = self.is_for_this_node(envelope);
                let receipt = if here { receipts.next() } else { Some(Receipt::default()) };
                let unknown_nodes = envelope.nodes.iter().filter(|n| **n != self.node).cloned().collect();
                Outcome::Accepted { position: None, receipt, unknown_nodes }
            })
            .collect()
    }
}

impl Broker for MemoryBroker {
    fn publish(&self, batch: Batch) -> BoxFuture<'_, Vec<Outcome>> {
        self.loop_back(batch).boxed()
    }
}
