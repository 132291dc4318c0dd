//! Dead letters of a Kafka intake, in the topic `<topic>.dead`.
//!
//! A dead letter has the key, value and headers of the record. Additional headers give the position of the record.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};

use super::super::clients::{ErrorContext, KafkaClients, Topic, error_text, partitions, unavailable};
use super::poll::{ReadRecord, RecordHead};
use crate::broker::Unavailable;

/// Time limit of a dead letter.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// Prefix of the node's own headers. Headers of a record with this prefix are left out.
const OWN: &str = "skylark.";

/// Part of a record that its dead letter contains. Shrinks each time the topic refuses the size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    WithoutValue,
    /// Only position and reason.
    Bare,
}

/// Producer for the dead letters of one topic.
pub(super) struct DeadLetters {
    clients: KafkaClients,
    topic: String,
    source_topic: String,
    /// Created with the first dead letter.
    producer: Option<Arc<FutureProducer<ErrorContext>>>,
}

impl DeadLetters {
    pub(super) fn new(clients: &KafkaClients, topic: &str) -> Self {
        Self {
            clients: clients.clone(),
            topic: format!("{topic}.dead"),
            source_topic: topic.to_owned(),
            producer: None,
        }
    }

    /// Writes a dead letter. If it is too large, leaves out the value, then also the key and headers.
    ///
    /// # Errors
    /// [`Unavailable`]: the dead letter was not written, or the result is unknown.
    pub(super) async fn add(&mut self, read: &ReadRecord, reason: &str) -> Result<(), Unavailable> {
        let producer = self.producer().await?;
        let topic = &self.topic;
        for extent in [Extent::Whole, Extent::WithoutValue, Extent::Bare] {
            let headers = headers(read, &self.source_topic, reason, extent);
            let mut dead_letter: FutureRecord<'_, [u8], [u8]> = FutureRecord::to(topic).headers(headers);
            dead_letter.key = read.head.key.as_deref().filter(|_| extent != Extent::Bare);
            dead_letter.payload = Some(&read.record.payload[..]).filter(|_| extent == Extent::Whole);
            match producer.send(dead_letter, WRITE_TIMEOUT).await {
                Ok(_) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge), _)) => {}
                Err((error, _)) => return Err(unavailable(format!("topic {topic}: {}", error_text(&error)))),
            }
        }
        Err(unavailable(format!(
            "topic {topic}: even a dead letter without value, key and headers is too large: raise max.message.bytes"
        )))
    }

    /// Returns the producer. The first call checks that the topic exists, and creates it if it is missing.
    async fn producer(&mut self) -> Result<Arc<FutureProducer<ErrorContext>>, Unavailable> {
        if let Some(producer) = &self.producer {
            return Ok(Arc::clone(producer));
        }
        let (errors, bound) = (ErrorContext::of(&self.clients), WRITE_TIMEOUT.as_millis().to_string());
        let fixed = [("enable.idempotence", "true"), ("acks", "all"), ("message.timeout.ms", bound.as_str())];
        let producer: FutureProducer<ErrorContext> =
            self.clients.create(errors.clone(), &[("message.max.bytes", "67108864")], &fixed)?;
        let producer = Arc::new(producer);
        self.clients.track(&producer);
        let (shared, name) = (Arc::clone(&producer), self.topic.clone());
        let found = tokio::task::spawn_blocking(move || partitions(shared.client(), &name)).await;
        match found.unwrap_or(Err(KafkaError::Canceled)).map_err(|error| errors.unavailable(&error))? {
            Some(_) => {}
            None => {
                let topic = Topic { name: self.topic.clone(), partitions: -1, settings: Vec::new() };
                self.clients.create_topic(&topic).await?;
            }
        }
        Ok(Arc::clone(self.producer.insert(producer)))
    }

    /// Waits for the records in flight. Blocks.
    pub(super) fn flush(self, within: Duration) {
        if let Some(Err(error)) = self.producer.map(|producer| producer.flush(within)) {
            tracing::debug!(topic = self.topic, %error, "intake closed with unconfirmed dead letters");
        }
    }
}

/// Builds the headers: those of the record, then those for position and reason.
fn headers(read: &ReadRecord, topic: &str, reason: &str, extent: Extent) -> OwnedHeaders {
    let RecordHead { headers: of_record, timestamp, .. } = &read.head;
    let mut headers = OwnedHeaders::new();
    for header in of_record.iter().flat_map(Headers::iter).filter(|_| extent != Extent::Bare) {
        if !header.key.starts_with(OWN) {
            headers = headers.insert(header);
        }
    }
    let left_out = (extent != Extent::Whole).then(|| read.record.payload.len().to_string());
    let own = [
        ("reason", Some(reason.to_owned())),
        ("topic", Some(topic.to_owned())),
        ("partition", Some(read.read_position.partition.to_string())),
        ("offset", Some(read.read_position.offset.to_string())),
        ("timestamp", timestamp.map(|millis| millis.to_string())),
        ("tries", Some((read.record.tries + 1).to_string())),
        ("left-out-bytes", left_out),
    ];
    for (name, value) in own {
        if let Some(value) = value {
            headers = headers.insert(Header { key: &format!("{OWN}{name}"), value: Some(&value) });
        }
    }
    headers
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::partition_table::ReadPosition;
    use super::*;
    use crate::broker::source::{Record, RecordPosition};

    fn names(read: &ReadRecord, extent: Extent) -> Vec<(String, String)> {
        let headers = headers(read, "chat", "junk", extent);
        let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
        headers.iter().map(|header| (header.key.to_owned(), text(header.value))).collect()
    }

    #[test]
    fn a_letter_keeps_the_records_headers_and_tells_its_position() {
        let trace = OwnedHeaders::new()
            .insert(Header { key: "trace", value: Some("7") })
            .insert(Header { key: "skylark.reason", value: Some("an older one") });
        let head = RecordHead { key: Some(Bytes::from_static(b"1074")), headers: Some(trace), timestamp: Some(17) };
        let position = RecordPosition { partition: Arc::from("a partition"), offset: Some(9) };
        let record = Record { payload: Bytes::from_static(b"junk!"), position, tries: 0 };
        let read = ReadRecord { record, read_position: ReadPosition { partition: 3, offset: 9, reading: 1 }, head };
        let own = |name: &str, value: &str| (format!("skylark.{name}"), value.to_owned());
        let mut whole = vec![("trace".to_owned(), "7".to_owned())];
        let position = [own("topic", "chat"), own("partition", "3"), own("offset", "9"), own("timestamp", "17")];
        whole.push(own("reason", "junk"));
        whole.extend(position);
        whole.push(own("tries", "1"));
        assert_eq!(names(&read, Extent::Whole), whole);
        whole.push(own("left-out-bytes", "5"));
        assert_eq!(names(&read, Extent::WithoutValue), whole);
        assert_eq!(names(&read, Extent::Bare), whole[1..]);
    }
}
