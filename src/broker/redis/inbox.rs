//! From records to this node: read, freed of copies and of what is for other nodes, handed over in order.
//!
//! Knows no connection and no channel.

use std::sync::Arc;

use bytes::Bytes;
use metrics::{Counter, counter};
use tokio::sync::oneshot;

use super::names::{Channel, Names};
use super::outbox::put_publish;
use super::publisher::{Answers, Job, Publisher};
use super::receipts::Waiters;
use crate::broker::record::{self, Body, Delivered, Numbering, RecordError};
use crate::broker::seen::{Seen, Sight};
use crate::broker::{Batch, Deliver};
use crate::id::NodeId;
use crate::message::Envelope;
use crate::telemetry;

/// Envelopes that are handed over at once.
const BATCH: usize = 1_024;
/// A node sends all of its records by one connection.
const LANE: u32 = 0;

/// What came and is not handed over yet, and what came before.
pub(super) struct Inbox {
    me: NodeId,
    numbering: Arc<Numbering>,
    names: Names,
    receiver: Arc<dyn Deliver>,
    waiters: Arc<Waiters>,
    publisher: Publisher,
    seen: Seen,
    batch: Vec<Envelope>,
    /// Which node waits for the receipt of which envelope of the batch.
    receipts: Vec<(usize, u16)>,
    meters: Meters,
}

struct Meters {
    gaps: Counter,
    again: Counter,
    unreadable: Counter,
}

impl Inbox {
    pub(super) fn new(
        (me, numbering): (NodeId, Arc<Numbering>),
        names: Names,
        receiver: Arc<dyn Deliver>,
        waiters: Arc<Waiters>,
        publisher: Publisher,
    ) -> Self {
        let meters = Meters {
            gaps: counter!(telemetry::names::BUS_GAPS, "engine" => "redis"),
            again: counter!(telemetry::names::BUS_COPIES, "engine" => "redis"),
            unreadable: counter!(telemetry::names::BUS_UNREADABLE, "engine" => "redis"),
        };
        let (seen, batch, receipts) = (Seen::default(), Vec::new(), Vec::new());
        Self { me, numbering, names, receiver, waiters, publisher, seen, batch, receipts, meters }
    }

    /// Takes a record; hands over what came before it where it is a word.
    pub(super) async fn take(&mut self, bytes: &Bytes) {
        let record = match record::read(bytes) {
            Ok(record) => record,
            Err(error) => return self.cannot_read(&error),
        };
        if self.seen.record(record.origin, LANE, record.sequence) == Sight::Again {
            return self.meters.again.increment(1);
        }
        match record.body {
            Body::Envelopes(envelopes) => {
                for envelope in envelopes {
                    self.add(envelope, record.origin.number);
                }
                if self.batch.len() >= BATCH {
                    self.hand_over().await;
                }
            }
            Body::Word { from, word } => {
                self.hand_over().await;
                self.receiver.hear(&from, word);
            }
            Body::Receipts(list) => self.waiters.note(list),
        }
    }

    /// Hands over what was taken.
    pub(super) async fn hand_over(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch: Batch = std::mem::take(&mut self.batch).into();
        let asked = std::mem::take(&mut self.receipts);
        let mut receipts = self.receiver.deliver(Arc::clone(&batch)).await;
        for (at, node) in asked {
            let Some(receipt) = receipts.get_mut(at).map(std::mem::take) else { continue };
            self.send_receipt(node, Delivered { id: batch[at].id, receipt });
        }
    }

    /// The publisher waits for it half a second: if there is no room to send it now, it is too late.
    fn send_receipt(&self, node: u16, delivered: Delivered) {
        let record = record::receipts(self.numbering.origin, self.numbering.next(), &[delivered]);
        let mut command = Vec::new();
        put_publish(&mut command, &self.names, Channel::Numbered(node), &[&record]);
        self.publisher.try_send(Job::unasked(command, 1));
    }

    /// Publishes an empty record to this node's own channel; the server's answer. The answer is missing where the
    /// publisher's queue is full.
    pub(super) fn probe(&self) -> oneshot::Receiver<Answers> {
        let record = record::receipts(self.numbering.origin, self.numbering.next(), &[]);
        let mut command = Vec::new();
        put_publish(&mut command, &self.names, Channel::Node(&self.me), &[&record]);
        let (job, answers) = Job::new(command, 1);
        self.publisher.try_send(job);
        answers
    }

    /// What was sent to this node may have been lost.
    pub(super) fn gap(&self) {
        self.meters.gaps.increment(1);
        self.receiver.gap();
    }

    fn add(&mut self, envelope: Envelope, from: u16) {
        let is_for_this_node = envelope.nodes.is_empty() || envelope.nodes.contains(&self.me);
        if !is_for_this_node {
            return;
        }
        if !self.seen.is_first(&envelope) {
            return self.meters.again.increment(1);
        }
        if envelope.receipts {
            self.receipts.push((self.batch.len(), from));
        }
        self.batch.push(envelope);
    }

    /// A record of another version, or a damaged one, is a loss: it is told, never skipped in silence.
    fn cannot_read(&mut self, error: &RecordError) {
        self.meters.unreadable.increment(1);
        tracing::error!(%error, "a record from redis cannot be read: what it held is lost to this node");
        self.gap();
    }
}
