//! Sends records to the bus: an idempotent producer with a bound on the bytes in flight.
//!
//! A record without a timely confirmation has failed, although Kafka may have stored it. Publishers that retry use the
//! envelope identity to prevent a duplicate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::super::address::{AddressHeader, HEADER, partition};
use super::super::clients::{ErrorContext, KafkaClients};
use crate::broker::Unavailable;

/// Defaults that the operator's properties override.
const DEFAULTS: &[(&str, &str)] = &[
    ("linger.ms", "1"),
    // Above the bound of the semaphore: a record refused in the middle of a batch would be overtaken by the next ones.
    ("queue.buffering.max.kbytes", "131072"),
    ("queue.buffering.max.messages", "500000"),
    ("retry.backoff.ms", "50"),
    ("statistics.interval.ms", "5000"),
];
/// Time in which Kafka must confirm a record, in milliseconds.
const DELIVERY_TIMEOUT_MILLIS: &str = "1500";
/// Maximum bytes of records in flight. Further records wait.
const MAX_IN_FLIGHT: usize = 64 << 20;
/// Minimum size at which a record is counted.
const MIN_PERMIT_BYTES: usize = 256;
/// Allowance for Kafka's framing of a record and for its header.
const RECORD_OVERHEAD: usize = 4 << 10;

#[derive(Clone)]
pub(super) struct Sender {
    producer: Arc<FutureProducer<ErrorContext>>,
    topic: Arc<str>,
    /// One permit per [`MIN_PERMIT_BYTES`] bytes.
    space: Arc<Semaphore>,
    sequence: Arc<AtomicU64>,
}

/// A record in flight.
pub(super) struct Pending {
    delivery: DeliveryFuture,
    bytes: usize,
    _permit: OwnedSemaphorePermit,
}

/// Reason why a record was not sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendFailure {
    /// The record, of this many bytes, exceeds the limit of the topic.
    TooLarge(usize),
    /// Kafka did not confirm the record.
    Unconfirmed,
}

impl Sender {
    pub(super) fn new(
        clients: &KafkaClients,
        topic: &str,
        record_bytes: usize,
        errors: ErrorContext,
    ) -> Result<Self, Unavailable> {
        let max_bytes = (record_bytes + RECORD_OVERHEAD).to_string();
        let fixed = [
            ("enable.idempotence", "true"),
            ("acks", "all"),
            ("message.timeout.ms", DELIVERY_TIMEOUT_MILLIS),
            ("message.max.bytes", max_bytes.as_str()),
        ];
        let producer: Arc<FutureProducer<ErrorContext>> = Arc::new(clients.create(errors, DEFAULTS, &fixed)?);
        clients.track(&producer);
        Ok(Self {
            producer,
            topic: topic.into(),
            space: Arc::new(Semaphore::new(MAX_IN_FLIGHT / MIN_PERMIT_BYTES)),
            sequence: Arc::default(),
        })
    }

    /// Returns the next sequence number.
    pub(super) fn next(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed)
    }

    /// Queues a record once there is space, unless `deadline` passes first. Records of one lane are sent in the order
    /// of calls.
    pub(super) async fn send(
        &self,
        to: &AddressHeader,
        record: &[u8],
        partitions: usize,
        deadline: Instant,
    ) -> Option<Pending> {
        let permits =
            u32::try_from((record.len() / MIN_PERMIT_BYTES + 1).min(MAX_IN_FLIGHT / MIN_PERMIT_BYTES)).ok()?;
        let space = timeout_at(deadline, Arc::clone(&self.space).acquire_many_owned(permits)).await.ok()?.ok()?;
        let delivery = self.enqueue(to, record, partition(to.lane, partitions))?;
        Some(Pending { delivery, bytes: record.len(), _permit: space })
    }

    /// Sends a heartbeat without waiting for its confirmation.
    pub(super) fn send_heartbeat(&self, to: &AddressHeader, partition: usize) {
        drop(self.enqueue(to, &[], partition));
    }

    /// Sends a record without waiting for its confirmation. Drops it if there is no space.
    pub(super) fn try_send(&self, to: &AddressHeader, record: &[u8], partitions: usize) {
        if self.space.available_permits() > record.len() / MIN_PERMIT_BYTES {
            drop(self.enqueue(to, record, partition(to.lane, partitions)));
        }
    }

    fn enqueue(&self, to: &AddressHeader, record: &[u8], partition: usize) -> Option<DeliveryFuture> {
        let headers = OwnedHeaders::new_with_capacity(1).insert(Header { key: HEADER, value: Some(&to.header[..]) });
        let record: FutureRecord<'_, (), [u8]> =
            FutureRecord::to(&self.topic).payload(record).headers(headers).partition(i32::try_from(partition).ok()?);
        match self.producer.send_result(record) {
            Ok(delivery) => Some(delivery),
            Err((error, _)) => {
                tracing::debug!(topic = &*self.topic, %error, "bus record was not queued");
                None
            }
        }
    }

    /// Waits for the records in flight and refuses later ones. Blocks.
    pub(super) fn close(&self, within: Duration) {
        self.space.close();
        if let Err(error) = self.producer.flush(within) {
            tracing::warn!(topic = &*self.topic, %error, "bus closed with unconfirmed records");
        }
    }
}

impl Pending {
    pub(super) async fn result(self, deadline: Instant) -> Result<(), SendFailure> {
        match timeout_at(deadline, self.delivery).await {
            Ok(Ok(Ok(_))) => Ok(()),
            Ok(Ok(Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)))) => {
                Err(SendFailure::TooLarge(self.bytes))
            }
            Ok(Ok(Err((error, _)))) => {
                tracing::debug!(%error, "bus record was not delivered");
                Err(SendFailure::Unconfirmed)
            }
            Ok(Err(_)) | Err(_) => Err(SendFailure::Unconfirmed),
        }
    }
}
