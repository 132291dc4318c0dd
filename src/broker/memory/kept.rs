//! Publishing with a history: appends each kept envelope to its stream, then delivers in the order of the offsets.
//!
//! One publisher at a time delivers the messages of a stream. Envelopes that others append meanwhile wait, and are
//! delivered together afterwards. No lock is held over a delivery. With a journal, a message is delivered after its
//! record is written.

use std::collections::HashSet;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::{accepted, is_for};
use crate::broker::history::memory::{HandedOver, MemoryHistory, Turn, Waiting};
use crate::broker::{Batch, Deliver, Fate};
use crate::config::OnFailure;
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
                round.add(at, envelope.clone(), None, 0);
                continue;
            }
            for (name, copy) in copies(envelope) {
                let Ok(appended) = self.history.append(&name, &copy, owner) else {
                    self.miss(&mut round, at, &name, copy);
                    continue;
                };
                fates[at].add_position(appended.position);
                match appended.turn {
                    Turn::Own => {
                        round.held.insert(name);
                        round.add(at, copy, Some(appended.position), appended.ticket);
                    }
                    Turn::Other(receipt) => others.push((at, receipt)),
                }
            }
        }
        self.confirm(&mut round).await;
        let receipts = self.receiver.deliver(round.envelopes.into(), round.positions).await;
        for (at, receipt) in round.of.into_iter().zip(receipts) {
            fates[at].add_receipt(receipt);
        }
        self.pass_on(round.held);
        for (at, handed) in others {
            match handed.await {
                Ok(HandedOver::Delivered(receipt)) => fates[at].add_receipt(receipt),
                Ok(HandedOver::Unkept(receipt)) => {
                    fates[at].add_receipt(receipt);
                    round.unkept.push(at);
                }
                Ok(HandedOver::Refused) => round.refused.push(at),
                // The other publisher's task ended with the node.
                Err(_) => {}
            }
        }
        round.unkept.into_iter().for_each(|at| fates[at].set_unkept());
        round.refused.into_iter().for_each(|at| fates[at] = Fate::Unavailable);
        fates
    }

    /// The journal did not take a copy: refuses it, or delivers it without a position.
    fn miss(&self, round: &mut Round, at: usize, name: &StreamName, copy: Envelope) {
        match self.history.on_failure() {
            OnFailure::Refuse => {
                self.history.count_refused();
                round.refused.push(at);
            }
            OnFailure::Deliver => {
                self.history.pass_over(name);
                round.unkept.push(at);
                round.add(at, copy, None, 0);
            }
        }
    }

    /// Waits until the journal has the copies of the round. Those that it lost are treated like those that it did not
    /// take.
    async fn confirm(&self, round: &mut Round) {
        if round.last_ticket == 0 || self.history.written(round.last_ticket).await && !self.has_lost(round).await {
            return;
        }
        let all = std::mem::take(round);
        (round.held, round.refused, round.unkept) = (all.held, all.refused, all.unkept);
        let copies = all.envelopes.into_iter().zip(all.positions).zip(all.of).zip(all.tickets);
        for (((copy, position), at), ticket) in copies {
            match StreamName::of(&copy.target).filter(|_| position.is_some()) {
                Some(name) if !self.history.written(ticket).await => self.miss(round, at, &name, copy),
                _ => round.add(at, copy, position, ticket),
            }
        }
    }

    async fn has_lost(&self, round: &Round) -> bool {
        for ticket in &round.tickets {
            if !self.history.written(*ticket).await {
                return true;
            }
        }
        false
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
            for Waiting { envelope, position, ticket, reply } in waiting {
                let is_kept = self.history.written(ticket).await;
                if !is_kept && self.history.on_failure() == OnFailure::Refuse {
                    self.history.count_refused();
                    tell(reply, HandedOver::Refused);
                    continue;
                }
                if !is_kept {
                    self.history.pass_over(&name);
                }
                envelopes.push(envelope);
                positions.push(is_kept.then_some(position));
                replies.push((reply, is_kept));
            }
            let receipts = self.receiver.deliver(envelopes.into(), positions).await;
            for ((reply, is_kept), receipt) in replies.into_iter().zip(receipts) {
                tell(reply, if is_kept { HandedOver::Delivered(receipt) } else { HandedOver::Unkept(receipt) });
            }
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
    /// Ticket in the journal of each envelope; 0 = none.
    tickets: Vec<u64>,
    last_ticket: u64,
    /// Indexes in the batch of copies that are refused, and of copies that are delivered without being kept.
    refused: Vec<usize>,
    unkept: Vec<usize>,
    /// Streams in which the publisher has the turn.
    held: HashSet<StreamName>,
}

impl Round {
    fn add(&mut self, at: usize, envelope: Envelope, position: Option<Position>, ticket: u64) {
        self.envelopes.push(envelope);
        self.positions.push(position);
        self.of.push(at);
        self.tickets.push(ticket);
        self.last_ticket = self.last_ticket.max(ticket);
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

fn tell(reply: oneshot::Sender<HandedOver>, handed: HandedOver) {
    // The publisher may have gone away.
    let _ = reply.send(handed);
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
