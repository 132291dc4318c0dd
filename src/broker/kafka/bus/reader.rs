//! Reads the bus: skips records for other nodes by their header and delivers the others in batches.
//!
//! A new node has no receivers yet, so it starts at the end of the topic. After an interruption it continues at its
//! offsets.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use metrics::counter;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::super::address::{AddressHeader, HEADER, HeaderDecision};
use super::super::topic_reader::TopicReader;
use super::Shared;
use crate::broker::dedup::{Arrival, Deduplicator};
use crate::broker::record::{self, Body, BusRecord, EnvelopeReceipt, RecordOrigin};
use crate::message::{Envelope, Receipt};
use crate::telemetry::names;

/// Maximum number of records between two checks for other work.
const MAX_RECORDS: usize = 512;
/// Interval of the check for added partitions.
const PARTITION_CHECK: Duration = Duration::from_secs(30);
/// Minimum interval between two reports of a loss.
const GAP_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Reader {
    shared: Arc<Shared>,
    topic_reader: TopicReader,
    dedup: Deduplicator,
    batch: PendingDelivery,
    /// Records skipped and opened since the last update of the counters.
    skipped: u64,
    opened: u64,
    /// A loss that is not reported yet.
    has_gap: bool,
    gap_reported_at: Option<Instant>,
}

/// Envelopes of the next delivery.
#[derive(Default)]
struct PendingDelivery {
    envelopes: Vec<Envelope>,
    /// Origins that wait for a receipt, one entry per envelope.
    publishers: Vec<Option<RecordOrigin>>,
}

impl Reader {
    pub(super) fn new(shared: Arc<Shared>, topic_reader: TopicReader) -> Self {
        let (dedup, batch) = (Deduplicator::default(), PendingDelivery::default());
        Self { shared, topic_reader, dedup, batch, skipped: 0, opened: 0, has_gap: false, gap_reported_at: None }
    }

    pub(super) async fn run(mut self, mut closing: watch::Receiver<bool>) {
        let shared = Arc::clone(&self.shared);
        let reading = async {
            loop {
                self.has_gap |= self.topic_reader.assign_all(|fault| shared.set_fault(fault)).await;
                self.read().await;
            }
        };
        tokio::select! {
            () = reading => {}
            _ = closing.wait_for(|closing| *closing) => {}
        }
        self.topic_reader.close().await;
    }

    /// Reads until the partitions must be assigned again.
    async fn read(&mut self) {
        let (consumer, shared) = (Arc::clone(&self.topic_reader.consumer), Arc::clone(&self.shared));
        let mut stream = consumer.stream();
        let mut partition_check = interval(PARTITION_CHECK);
        partition_check.set_missed_tick_behavior(MissedTickBehavior::Delay);
        partition_check.reset();
        let mut heartbeats = std::pin::pin!(shared.send_heartbeats(self.topic_reader.partitions()));
        loop {
            let mut received = tokio::select! {
                received = stream.next() => received,
                () = &mut heartbeats => return,
                _ = partition_check.tick() => {
                    if self.topic_reader.has_changed().await {
                        return;
                    }
                    continue;
                }
            };
            let (mut is_assigned, mut count) = (true, 0);
            loop {
                match received {
                    Some(Ok(message)) => self.handle(&message).await,
                    Some(Err(error)) => is_assigned &= self.topic_reader.keeps_assignment(&error),
                    None => return,
                }
                count += 1;
                // A record that was taken from the stream must be handled, because it would not come again.
                let more = if count < MAX_RECORDS { stream.next().now_or_never() } else { None };
                match more {
                    Some(more) => received = more,
                    None => break,
                }
            }
            self.finish_batch().await;
            if !is_assigned {
                return;
            }
        }
    }

    async fn handle(&mut self, message: &BorrowedMessage<'_>) {
        let Some(missing) = self.topic_reader.note(message) else { return };
        // Records inside this topic are never removed, so a gap means that the topic was truncated.
        self.has_gap |= missing > 0;
        let decision = self.shared.addresses.read().decide(header(message));
        match decision {
            HeaderDecision::Skip => self.skipped += 1,
            HeaderDecision::Heartbeat => self.shared.on_heartbeat(self.topic_reader.partitions()),
            HeaderDecision::Read => {
                self.opened += 1;
                self.open(message).await;
            }
        }
    }

    async fn open(&mut self, message: &BorrowedMessage<'_>) {
        let bytes = Bytes::copy_from_slice(message.payload().unwrap_or_default());
        let BusRecord { origin, sequence, body } = match record::read(&bytes) {
            Ok(record) => record,
            Err(error) => {
                let topic = &self.shared.topic;
                tracing::warn!(topic, %error, "bus record cannot be decoded; its messages are lost to this node");
                counter!(names::BUS_UNREADABLE, "engine" => "kafka").increment(1);
                self.has_gap = true;
                return;
            }
        };
        let lane = message.partition().unsigned_abs();
        if self.dedup.record(origin, lane, sequence) == Arrival::Duplicate {
            counter!(names::BUS_COPIES, "engine" => "kafka").increment(1);
            return;
        }
        match body {
            Body::Envelopes(envelopes) => {
                envelopes.into_iter().for_each(|envelope| self.add_envelope(origin, envelope));
            }
            Body::Receipts(delivered) => self.shared.receipts.add(origin, delivered),
            Body::ClusterMessage { from, message } => {
                self.deliver().await;
                self.shared.receiver.on_cluster_message(&from, message);
            }
        }
    }

    fn add_envelope(&mut self, origin: RecordOrigin, envelope: Envelope) {
        let is_for_this_node = envelope.nodes.is_empty() || envelope.nodes.contains(&self.shared.options.node);
        if is_for_this_node && self.dedup.is_first(&envelope) {
            self.batch.publishers.push(envelope.receipts.then_some(origin));
            self.batch.envelopes.push(envelope);
        } else if envelope.receipts {
            self.shared.report(
                vec![(origin, EnvelopeReceipt { id: envelope.id, receipt: Receipt::default() })],
                self.topic_reader.partitions(),
            );
        }
    }

    async fn finish_batch(&mut self) {
        self.deliver().await;
        for (what, count) in [("skipped", &mut self.skipped), ("read", &mut self.opened)] {
            counter!(names::BUS_RECORDS, "engine" => "kafka", "what" => what).increment(std::mem::take(count));
        }
        let is_due = self.gap_reported_at.is_none_or(|reported_at| reported_at.elapsed() >= GAP_INTERVAL);
        if self.has_gap && is_due {
            self.has_gap = false;
            self.gap_reported_at = Some(Instant::now());
            counter!(names::BUS_GAPS, "engine" => "kafka").increment(1);
            self.shared.receiver.gap();
        }
    }

    async fn deliver(&mut self) {
        if self.batch.envelopes.is_empty() {
            return;
        }
        let PendingDelivery { envelopes, publishers } = std::mem::take(&mut self.batch);
        let ids: Vec<u64> = envelopes.iter().map(|envelope| envelope.id).collect();
        let receipts = self.shared.receiver.deliver(envelopes.into(), Vec::new()).await;
        let waited_for = ids.into_iter().zip(receipts).zip(publishers);
        let reports =
            waited_for.filter_map(|((id, receipt), publisher)| Some((publisher?, EnvelopeReceipt { id, receipt })));
        self.shared.report(reports.collect(), self.topic_reader.partitions());
    }
}

impl Shared {
    /// Sends receipts to the waiting publishers. A receipt without queue space is dropped and counts as missing.
    fn report(self: &Arc<Self>, mut reports: Vec<(RecordOrigin, EnvelopeReceipt)>, partitions: usize) {
        while let Some((to, _)) = reports.first() {
            let to = *to;
            let (own, others): (Vec<_>, Vec<_>) = reports.into_iter().partition(|(origin, _)| *origin == to);
            reports = others;
            let delivered: Vec<EnvelopeReceipt> = own.into_iter().map(|(_, delivered)| delivered).collect();
            if to == self.origin {
                self.receipts.add(to, delivered);
                continue;
            }
            let record = record::receipts(self.origin, self.sender.next(), &delivered);
            self.sender.try_send(&AddressHeader::number(to.number), &record, partitions);
        }
    }
}

/// Returns the value of the address header.
pub(in super::super) fn header<'a>(message: &'a BorrowedMessage<'_>) -> Option<&'a [u8]> {
    let headers = message.headers()?;
    (0..headers.count()).filter_map(|index| headers.try_get(index)).find(|header| header.key == HEADER)?.value
}
