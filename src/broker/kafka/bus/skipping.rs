//! Measures the cost of skipping a bus record of another node: runs the reader's code on records from the mock broker
//! of librdkafka. Used by the bench; starts no node.

use std::time::{Duration, Instant};

use parking_lot::RwLock;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::super::address::{AddressHeader, HEADER, HeaderDecision, LocalAddresses};
use super::super::clients::{ErrorContext, KafkaClients, error_text, unavailable};
use super::header;
use crate::broker::{Subscription, Unavailable};
use crate::clock::thread_cpu;
use crate::id::{NodeId, Uid};
use crate::message::Target;

/// Records per partition. The mock keeps five megabytes of a partition.
const RECORDS_PER_PARTITION: usize = 8_000;
/// Records judged at a time, as by a reader that lags slightly.
const CHUNK: usize = 512;
const BODY: usize = 300;
const PATIENCE: Duration = Duration::from_secs(20);

/// Result of a measurement.
#[derive(Debug, Clone, Copy)]
pub struct Skipped {
    /// Number of skipped records.
    pub records: u64,
    /// CPU time of the thread that judged the headers and dropped the records. Fetching is not included.
    pub cpu: Duration,
}

/// Lets a node that is subscribed to `subscribed` users skip `records` of 300 bytes for as many other users. The bodies
/// are invalid, so decoding one would be an error. Blocks for about a second.
///
/// # Errors
/// The mock broker failed, or a record was not skipped.
pub fn skip(records: usize, subscribed: usize) -> Result<Skipped, Unavailable> {
    let mock = MockCluster::new(1).map_err(|error| unavailable(error_text(&error)))?;
    let partitions =
        i32::try_from(records.div_ceil(RECORDS_PER_PARTITION)).map_err(|_| unavailable("too many records"))?;
    mock.create_topic(TOPIC, partitions, 1).map_err(|error| unavailable(error_text(&error)))?;
    let clients = KafkaClients::new(&mock.bootstrap_servers(), "", "", std::collections::BTreeMap::new(), "skipping");
    fill(&clients, records, partitions)?;
    let mut addresses = LocalAddresses::of(&NodeId::parse("n1").expect("a valid name"), 1, 1);
    (0..subscribed).for_each(|number| addresses.subscribe(Subscription::User(uid(records + number))));
    let skipped = count_skipped(&clients, records, partitions, &RwLock::new(addresses))?;
    if skipped.records == records as u64 {
        Ok(skipped)
    } else {
        Err(unavailable(format!("expected {records} records to be skipped, got {}", skipped.records)))
    }
}

fn fill(clients: &KafkaClients, records: usize, partitions: i32) -> Result<(), Unavailable> {
    let producer: FutureProducer<ErrorContext> = clients.create(ErrorContext::default(), &[], &[])?;
    for (number, partition) in (0..records).zip((0..partitions).cycle()) {
        let to = AddressHeader::target(&Target::User(uid(number)));
        let headers = OwnedHeaders::new().insert(Header { key: HEADER, value: Some(&to.header[..]) });
        let body = &[0xff_u8; BODY][..];
        let record: FutureRecord<'_, (), [u8]> = FutureRecord::to(TOPIC).payload(body).headers(headers);
        // Only the flush below waits, for all records together.
        drop(producer.send_result(record.partition(partition)).map_err(|(error, _)| unavailable(error_text(&error)))?);
    }
    producer.flush(PATIENCE).map_err(|error| unavailable(error_text(&error)))
}

fn count_skipped(
    clients: &KafkaClients,
    records: usize,
    partitions: i32,
    addresses: &RwLock<LocalAddresses>,
) -> Result<Skipped, Unavailable> {
    let fixed = [("group.id", "skipping"), ("enable.auto.commit", "false"), ("enable.auto.offset.store", "false")];
    let consumer: BaseConsumer<ErrorContext> = clients.create(ErrorContext::default(), &[], &fixed)?;
    let mut offsets = TopicPartitionList::new();
    for partition in 0..partitions {
        offsets
            .add_partition_offset(TOPIC, partition, Offset::Beginning)
            .map_err(|error| unavailable(error_text(&error)))?;
    }
    consumer.assign(&offsets).map_err(|error| unavailable(error_text(&error)))?;
    let (mut skipped, mut received, until) =
        (Skipped { records: 0, cpu: Duration::ZERO }, 0, Instant::now() + PATIENCE);
    let mut batch = Vec::with_capacity(CHUNK);
    while received < records && Instant::now() < until {
        batch.extend(consumer.poll(Duration::from_millis(100)).and_then(Result::ok));
        if batch.len() == CHUNK || received + batch.len() == records {
            received += batch.len();
            let begun = thread_cpu();
            for message in batch.drain(..) {
                // Same call as in the bus reader.
                skipped.records += u64::from(addresses.read().decide(header(&message)) == HeaderDecision::Skip);
            }
            skipped.cpu += thread_cpu().saturating_sub(begun);
        }
    }
    Ok(skipped)
}

fn uid(number: usize) -> Uid {
    Uid::parse(&format!("u{number}")).expect("a valid name")
}

const TOPIC: &str = "bus";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn skipping_looks_at_nothing_but_the_header() {
        let count = RECORDS_PER_PARTITION + 1;
        assert_eq!(skip(count, 10_000).unwrap().records, count as u64);
    }
}
