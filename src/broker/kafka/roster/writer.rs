//! Writes records to the roster's topic. One idempotent producer keeps their order.

use std::sync::Arc;

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::future_producer::DeliveryFuture;
use rdkafka::producer::{FutureProducer, FutureRecord};

use super::super::address::HEADER;
use super::super::clients::{ErrorContext, KafkaClients, error_text, unavailable};
use super::log::Entry;
use crate::broker::Unavailable;

pub(super) struct LogWriter {
    producer: Arc<FutureProducer<ErrorContext>>,
    topic: String,
    errors: ErrorContext,
}

impl LogWriter {
    pub(super) fn new(clients: &KafkaClients, topic: &str, errors: ErrorContext) -> Result<Self, Unavailable> {
        let fixed = [("enable.idempotence", "true"), ("acks", "all"), ("message.timeout.ms", "1500")];
        let defaults = [("linger.ms", "1"), ("retry.backoff.ms", "50")];
        let producer: Arc<FutureProducer<ErrorContext>> =
            Arc::new(clients.create(errors.clone(), &defaults, &fixed)?);
        clients.track(&producer);
        Ok(Self { producer, topic: topic.to_owned(), errors })
    }

    /// Appends a record that carries `mark`. Returns its offset once all in-sync replicas have it.
    pub(super) async fn append(&self, entry: &Entry, mark: Option<&[u8]>) -> Result<u64, Unavailable> {
        match self.send(entry, mark)?.await {
            Ok(Ok(delivery)) => {
                u64::try_from(delivery.offset).map_err(|_| unavailable("the confirmation of the record has no offset"))
            }
            Ok(Err((error, _))) => Err(self.errors.unavailable(&error)),
            Err(_) => Err(unavailable("closed")),
        }
    }

    /// Appends a record without waiting for its confirmation.
    pub(super) fn append_unconfirmed(&self, entry: &Entry) {
        if let Err(fault) = self.send(entry, None) {
            tracing::debug!(%fault, topic = self.topic, "roster record was not sent");
        }
    }

    fn send(&self, entry: &Entry, mark: Option<&[u8]>) -> Result<DeliveryFuture, Unavailable> {
        let (key, value) = entry.write();
        let mut record: FutureRecord<'_, str, [u8]> = FutureRecord::to(&self.topic).key(key.as_str()).partition(0);
        record.payload = value.as_deref();
        if let Some(mark) = mark {
            record.headers = Some(OwnedHeaders::new().insert(Header { key: HEADER, value: Some(mark) }));
        }
        self.producer.send_result(record).map_err(|(error, _)| unavailable(error_text(&error)))
    }
}
