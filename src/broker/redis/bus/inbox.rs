//! Reads records for this node, drops copies and envelopes of other nodes, and delivers the rest in order.
//!
//! Independent of connections and channels.

use std::sync::Arc;

use bytes::Bytes;
use metrics::{Counter, counter};
use tokio::sync::oneshot;

use super::super::names::{BusChannel, Names};
use super::outbox::put_publish;
use super::publisher::{Answers, Job, Publisher};
use super::receipts::Waiters;
use crate::broker::dedup::{Arrival, Deduplicator};
use crate::broker::record::{self, Body, EnvelopeReceipt, Numbering, RecordError};
use crate::broker::{Batch, Deliver};
use crate::id::NodeId;
use crate::message::Envelope;
use crate::telemetry;

/// Maximum number of envelopes per delivery.
const BATCH: usize = 1_024;
/// The only lane: a node sends all its records on one connection.
const LANE: u32 = 0;

/// Envelopes of the next delivery, and the memory of earlier records.
pub(super) struct Inbox {
    me: NodeId,
    numbering: Arc<Numbering>,
    names: Names,
    receiver: Arc<dyn Deliver>,
    waiters: Arc<Waiters>,
    publisher: Publisher,
    dedup: Deduplicator,
    batch: Vec<Envelope>,
    /// Index of each envelope in the batch that needs a receipt, with the number of the waiting node.
    receipts: Vec<(usize, u16)>,
    meters: Meters,
}

struct Meters {
    gaps: Counter,
    duplicates: Counter,
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
            duplicates: counter!(telemetry::names::BUS_COPIES, "engine" => "redis"),
            unreadable: counter!(telemetry::names::BUS_UNREADABLE, "engine" => "redis"),
        };
        let (dedup, batch, receipts) = (Deduplicator::default(), Vec::new(), Vec::new());
        Self { me, numbering, names, receiver, waiters, publisher, dedup, batch, receipts, meters }
    }

    /// Takes a record. Delivers earlier envelopes first if the record is a cluster message.
    pub(super) async fn add_record(&mut self, bytes: &Bytes) {
        let record = match record::read(bytes) {
            Ok(record) => record,
            Err(error) => return self.report_unreadable(&error),
        };
        if self.dedup.record(record.origin, LANE, record.sequence) == Arrival::Duplicate {
            return self.meters.duplicates.increment(1);
        }
        match record.body {
            Body::Envelopes(envelopes) => {
                for envelope in envelopes {
                    self.add(envelope, record.origin.number);
                }
                if self.batch.len() >= BATCH {
                    self.deliver_batch().await;
                }
            }
            Body::ClusterMessage { from, message } => {
                self.deliver_batch().await;
                self.receiver.on_cluster_message(&from, message);
            }
            Body::Receipts(list) => self.waiters.add(list),
        }
    }

    /// Delivers the envelopes taken so far.
    pub(super) async fn deliver_batch(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let batch: Batch = std::mem::take(&mut self.batch).into();
        let requested = std::mem::take(&mut self.receipts);
        let mut receipts = self.receiver.deliver(Arc::clone(&batch), Vec::new()).await;
        for (at, node) in requested {
            let Some(receipt) = receipts.get_mut(at).map(std::mem::take) else { continue };
            self.send_receipt(node, EnvelopeReceipt { id: batch[at].id, receipt });
        }
    }

    /// Sends a receipt if the queue has space. The publisher waits only half a second, so a later receipt is useless.
    fn send_receipt(&self, node: u16, delivered: EnvelopeReceipt) {
        let record = record::receipts(self.numbering.origin, self.numbering.next(), &[delivered]);
        let mut command = Vec::new();
        put_publish(&mut command, &self.names, BusChannel::Numbered(node), &[&record]);
        self.publisher.try_send(Job::without_reply(command, 1));
    }

    /// Publishes an empty record to this node's own channel and returns the server's answer. The answer never arrives
    /// if the publisher's queue is full.
    pub(super) fn probe(&self) -> oneshot::Receiver<Answers> {
        let record = record::receipts(self.numbering.origin, self.numbering.next(), &[]);
        let mut command = Vec::new();
        put_publish(&mut command, &self.names, BusChannel::Node(&self.me), &[&record]);
        let (job, answers) = Job::new(command, 1);
        self.publisher.try_send(job);
        answers
    }

    /// Reports that messages for this node may be lost.
    pub(super) fn gap(&self) {
        self.meters.gaps.increment(1);
        self.receiver.gap();
    }

    fn add(&mut self, envelope: Envelope, from: u16) {
        let is_for_this_node = envelope.nodes.is_empty() || envelope.nodes.contains(&self.me);
        if !is_for_this_node {
            return;
        }
        if !self.dedup.is_first(&envelope) {
            return self.meters.duplicates.increment(1);
        }
        if envelope.receipts {
            self.receipts.push((self.batch.len(), from));
        }
        self.batch.push(envelope);
    }

    /// Reports a record of another version, or a damaged one, as a loss instead of skipping it silently.
    fn report_unreadable(&mut self, error: &RecordError) {
        self.meters.unreadable.increment(1);
        tracing::error!(%error, "bus record cannot be decoded; its messages are lost to this node");
        self.gap();
    }
}
