//! Broker and roster of a single node: loops each batch back at once. With a history it appends kept messages first.

mod kept;
#[cfg(test)]
mod tests;

use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use parking_lot::Mutex;

use super::history::memory::MemoryHistory;
use super::roster::{ExpiredMember, LeaseError, Member, Roster};
use super::{Address, Batch, Broker, Deliver, Fate, Subscription, Unavailable};
use crate::config::OnFailure;
use crate::id::{NodeId, Uid};
use crate::message::{Envelope, Receipt};
use kept::{KeptPublisher, is_kept};

/// Loop-back broker of one node.
pub struct MemoryBroker {
    node: NodeId,
    receiver: Arc<dyn Deliver>,
    kept: Option<Arc<KeptPublisher>>,
    history: Option<Arc<MemoryHistory>>,
}

impl MemoryBroker {
    /// Creates the broker of `node`, which delivers to `receiver` and appends kept messages to `history`.
    #[must_use]
    pub fn new(node: NodeId, receiver: Arc<dyn Deliver>, history: Option<Arc<MemoryHistory>>) -> Self {
        let publisher = |history| KeptPublisher::new(node.clone(), Arc::clone(&receiver), history);
        let kept = history.clone().map(|history| Arc::new(publisher(history)));
        Self { node, receiver, kept, history }
    }

    async fn loop_back(&self, batch: Batch) -> Vec<Fate> {
        let here: Batch = if batch.iter().all(|e| is_for(&self.node, e)) {
            Arc::clone(&batch)
        } else {
            batch.iter().filter(|e| is_for(&self.node, e)).cloned().collect()
        };
        let mut receipts = self.receiver.deliver(here, Vec::new()).await.into_iter();
        batch
            .iter()
            .map(|envelope| {
                let receipt = is_for(&self.node, envelope).then(|| receipts.next().unwrap_or_default());
                accepted(&self.node, envelope, receipt)
            })
            .collect()
    }
}

/// True if the node delivers the envelope.
fn is_for(node: &NodeId, envelope: &Envelope) -> bool {
    envelope.nodes.is_empty() || envelope.nodes.contains(node)
}

/// Fate of an envelope without a position. `receipt` is `None` if it is not for this node.
fn accepted(node: &NodeId, envelope: &Envelope, receipt: Option<Receipt>) -> Fate {
    let unknown_nodes = envelope.nodes.iter().filter(|n| *n != node).cloned().collect();
    let nodes = Some(u32::from(receipt.is_some()));
    let receipt = Some(receipt.unwrap_or_default());
    Fate::Accepted { positions: Vec::new(), is_unkept: false, receipt, nodes, unknown_nodes }
}

impl Broker for MemoryBroker {
    fn publish(&self, batch: Batch) -> BoxFuture<'_, Vec<Fate>> {
        match &self.kept {
            Some(kept) if batch.iter().any(is_kept) => Arc::clone(kept).publish(batch),
            _ => self.loop_back(batch).boxed(),
        }
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
        // A node that delivers all the same should get traffic.
        let refuses = |history: &&Arc<MemoryHistory>| history.on_failure() == OnFailure::Refuse;
        let fault = self.history.as_ref().filter(refuses).and_then(|history| history.fault());
        fault.map(|why| format!("the journal of the history cannot be written: {why}")).into_iter().collect()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async move {
            if let Some(history) = &self.history {
                history.close().await;
            }
        }
        .boxed()
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
