//! Broker and roster of a single node: loops each batch back at once and stores nothing.

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use parking_lot::Mutex;

use super::roster::{ExpiredMember, LeaseError, Member, Roster};
use super::{Address, Batch, Broker, Deliver, Fate, Subscription, Unavailable};
use crate::id::{NodeId, Uid};
use crate::message::{Envelope, Receipt};

/// Loop-back broker of one node.
pub struct MemoryBroker {
    node: NodeId,
    receiver: Arc<dyn Deliver>,
}

impl MemoryBroker {
    /// Creates the broker of `node`, which delivers to `receiver`.
    #[must_use]
    pub fn new(node: NodeId, receiver: Arc<dyn Deliver>) -> Self {
        Self { node, receiver }
    }

    fn is_for_this_node(&self, envelope: &Envelope) -> bool {
        envelope.nodes.is_empty() || envelope.nodes.contains(&self.node)
    }

    async fn loop_back(&self, batch: Batch) -> Vec<Fate> {
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
                Fate::Accepted { position: None, receipt, nodes: Some(u32::from(here)), unknown_nodes }
            })
            .collect()
    }
}

impl Broker for MemoryBroker {
    fn publish(&self, batch: Batch) -> BoxFuture<'_, Vec<Fate>> {
        self.loop_back(batch).boxed()
    }

    fn send_cluster_message(
        &self,
        address: Address,
        message: Bytes,
    ) -> BoxFuture<'_, Result<Option<u32>, Unavailable>> {
        let here = !matches!(address, Address::Node(node) if node != self.node);
        if here {
            self.receiver.on_cluster_message(&self.node, message);
        }
        ready(Ok(Some(u32::from(here)))).boxed()
    }

    fn subscribe(&self, _: Subscription) -> BoxFuture<'_, Result<(), Unavailable>> {
        ready(Ok(())).boxed()
    }

    fn unsubscribe(&self, _: &Subscription) {}

    fn faults(&self) -> Vec<String> {
        Vec::new()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }
}

/// Roster of a cluster with one member.
#[derive(Default)]
pub struct MemoryRoster {
    me: Mutex<Option<Member>>,
    numbers: AtomicU64,
}

impl Roster for MemoryRoster {
    fn join(&self, me: &Member) -> BoxFuture<'_, Result<u64, LeaseError>> {
        *self.me.lock() = Some(Member { incarnation: 1, ..me.clone() });
        ready(Ok(1)).boxed()
    }

    fn renew(&self, me: &Member) -> BoxFuture<'_, Result<(), LeaseError>> {
        *self.me.lock() = Some(me.clone());
        ready(Ok(())).boxed()
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        *self.me.lock() = None;
        ready(()).boxed()
    }

    fn members(&self) -> BoxFuture<'_, Result<Vec<Member>, Unavailable>> {
        ready(Ok(self.me.lock().clone().into_iter().collect())).boxed()
    }

    fn next_number(&self, _: &Uid) -> BoxFuture<'_, Result<u64, Unavailable>> {
        ready(Ok(self.numbers.fetch_add(1, Ordering::Relaxed) + 1)).boxed()
    }

    fn online(&self, _: &Uid) -> BoxFuture<'_, Result<bool, Unavailable>> {
        ready(Ok(true)).boxed()
    }

    fn offline(&self, _: &Uid) -> BoxFuture<'_, Result<bool, Unavailable>> {
        ready(Ok(true)).boxed()
    }

    fn expired(&self) -> BoxFuture<'_, Result<Vec<ExpiredMember>, Unavailable>> {
        ready(Ok(Vec::new())).boxed()
    }
}
