//! Publishing with a history: appends each kept envelope to its stream, then delivers in the order of the offsets.
//!
//! One publisher at a time delivers the messages of a stream. Envelopes that others append meanwhile wait, and are
//! delivered together afterwards. No lock is held over a delivery.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::{accepted, is_for};
use crate::broker::history::memory::{MemoryHistory, Turn, Waiting};
use crate::broker::{Batch, Deliver, Fate};
use crate::id::NodeId;
use crate::message::{Envelope, Position, Receipt, Retention, StreamName, Target};

/// Publishes batches with kept envelopes.
pub(super) struct KeptPublisher {
    node: NodeId,
    receiver: Arc<dyn Deliver>,
    history: Arc<MemoryHistory>,
    /// Number of the last batch.
    batches: AtomicU64,
}

impl KeptPublisher {
    pub(super) fn new(node: NodeId, receiver: Arc<dyn Deliver>, history: Arc<MemoryHistory>) -> Self {
        Self { node, receiver, history, batches: AtomicU64::new(0) }
    }

    /// Publishes the batch. Once begun, the work ends even if the caller goes away: an appended message that is not
    /// delivered would be a hole for the clients of its stream.
    pub(super) fn publish(self: Arc<Self>, batch: Batch) -> BoxFuture<'static, Vec<Fate>> {
        Finishing(Some(async move { self.run(&batch).await }.boxed())).boxed()
    }

    async fn run(self: Arc<Self>, batch: &[Envelope]) -> Vec<Fate> {
        let owner = self.batches.fetch_add(1, Ordering::Relaxed) + 1;
        let mut fates: Vec<Fate> = batch
            .iter()
            .map(|envelope| accepted(&self.node, envelope, is_for(&self.node, envelope).then(Receipt::default)))
            .collect();
        let mut round = Round::default();
        let mut others = Vec::new();
        for (at, envelope) in batch.iter().enumerate().filter(|(_, envelope)| is_for(&self.node, envelope)) {
            if !is_kept(envelope) {
                round.add(at, envelope.clone(), None);
                continue;
            }
            for (name, copy) in copies(envelope) {
                let appended = self.history.append(&name, &copy, owner);
                fates[at].add_position(appended.position);
                match appended.turn {
                    Turn::Own => {
                        round.held.insert(name);
                        round.add(at, copy, Some(appended.position));
                    }
                    Turn::Other(receipt) => others.push((at, receipt)),
                }
            }
        }
        let receipts = self.receiver.deliver(round.envelopes.into(), round.positions).await;
        for (at, receipt) in round.of.into_iter().zip(receipts) {
            fates[at].add_receipt(receipt);
        }
        self.pass_on(round.held);
        for (at, receipt) in others {
            fates[at].add_receipt(receipt.await.unwrap_or_default());
        }
        fates
    }

    /// Ends the turns in these streams. A task takes over those with waiting envelopes, so that this publisher does not
    /// serve others for ever.
    fn pass_on(self: &Arc<Self>, held: HashSet<StreamName>) {
        for name in held {
            let waiting = self.history.next(&name);
            if !waiting.is_empty() {
                tokio::spawn(Arc::clone(self).serve(name, waiting));
            }
        }
    }

    /// Delivers waiting envelopes of a stream until there are none.
    async fn serve(self: Arc<Self>, name: StreamName, mut waiting: Vec<Waiting>) {
        while !waiting.is_empty() {
            let (mut envelopes, mut positions, mut replies) = (Vec::new(), Vec::new(), Vec::new());
            for Waiting { envelope, position, reply } in waiting {
                envelopes.push(envelope);
                positions.push(Some(position));
                replies.push(reply);
            }
            let receipts = self.receiver.deliver(envelopes.into(), positions).await;
            replies.into_iter().zip(receipts).for_each(|(reply, receipt)| tell(reply, receipt));
            waiting = self.history.next(&name);
        }
    }
}

/// Envelopes that a publisher delivers itself.
#[derive(Default)]
struct Round {
    envelopes: Vec<Envelope>,
    positions: Vec<Option<Position>>,
    /// Index in the batch of each envelope.
    of: Vec<usize>,
    /// Streams in which the publisher has the turn.
    held: HashSet<StreamName>,
}

impl Round {
    fn add(&mut self, at: usize, envelope: Envelope, position: Option<Position>) {
        self.envelopes.push(envelope);
        self.positions.push(position);
        self.of.push(at);
    }
}

/// True if the envelope belongs to a stream.
pub(super) fn is_kept(envelope: &Envelope) -> bool {
    let has_stream = !matches!(envelope.target, Target::Connection(_) | Target::ConnectionOf(..));
    envelope.history != Retention::No && has_stream && envelope.nodes.is_empty()
}

/// The envelope for each of its streams: one, or with a list of users one for each user.
fn copies(envelope: &Envelope) -> Vec<(StreamName, Envelope)> {
    let Target::Users(uids) = &envelope.target else {
        return StreamName::of(&envelope.target).map(|name| (name, envelope.clone())).into_iter().collect();
    };
    let mut seen = HashSet::with_capacity(uids.len());
    let once = uids.iter().filter(|uid| seen.insert(uid.as_str()));
    once.map(|uid| (StreamName::User(uid.clone()), Envelope { target: Target::User(uid.clone()), ..envelope.clone() }))
        .collect()
}

fn tell(reply: oneshot::Sender<Receipt>, receipt: Receipt) {
    // The publisher may have gone away.
    let _ = reply.send(receipt);
}

/// A future that runs to its end. If its owner drops it, a task continues it.
struct Finishing<T: Send + 'static>(Option<BoxFuture<'static, T>>);

impl<T: Send + 'static> Future for Finishing<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let Some(future) = &mut self.0 else { return Poll::Pending };
        let ready = future.poll_unpin(cx);
        if ready.is_ready() {
            self.0 = None;
        }
        ready
    }
}

impl<T: Send + 'static> Drop for Finishing<T> {
    fn drop(&mut self) {
        if let Some(future) = self.0.take()
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn(future);
        }
    }
}
