//! Measures the cost of skipping a bus record of another node: runs the reader's code on records from the mock broker
//! of librdkafka. Used by the bench; starts no node.

use std::time::{Duration, Instant};

use parking_lot::RwLock;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::mocking::MockCluster;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use super::super::address::{HEADER, Mine, Say, To};
use super::super::link::{Heard, Link, told, unavailable};
use super::header;
use crate::broker::{Subscription, Unavailable};
use crate::clock::thread_cpu;
use crate::id::{NodeId, Uid};
use crate::message::Target;

/// Records per partition. The mock keeps five megabytes of a partition.
const OF_A_PARTITION: usize = 8_000;
/// Records judged at a time, as by a reader that lags slightly.
const AT_A_TIME: usize = 512;
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

/// Lets a node with `held` subscribed users skip `records` of 300 bytes for as many other users. The bodies are
/// invalid, so decoding one would be an error. Blocks for about a second.
///
/// # Errors
/// The mock broker failed, or a record was not skipped.
pub fn skip(records: usize, held: usize) -> Result<Skipped, Unavailable> {
    let mock = MockCluster::new(1).map_err(|error| unavailable(told(&error)))?;
    let partitions = i32::try_from(records.div_ceil(OF_A_PARTITION)).map_err(|_| unavailable("too many records"))?;
    mock.create_topic(TOPIC, partitions, 1).map_err(|error| unavailable(told(&error)))?;
    let link = Link::new(&mock.bootstrap_servers(), "", "", std::collections::BTreeMap::new(), "skipping");
    fill(&link, records, partitions)?;
    let mut mine = Mine::of(&NodeId::parse("n1").expect("a valid name"), 1, 1);
    (0..held).for_each(|number| mine.subscribe(Subscription::User(uid(records + number))));
    let skipped = judge(&link, records, partitions, &RwLock::new(mine))?;
    if skipped.records == records as u64 {
        Ok(skipped)
    } else {
        Err(unavailable(format!("expected {records} records to be skipped, got {}", skipped.records)))
    }
}

fn fill(link: &Link, records: usize, partitions: i32) -> Result<(), Unavailable> {
    let producer: FutureProducer<Heard> = link.create(Heard::default(), &[], &[])?;
    for (number, partition) in (0..records).zip((0..partitions).cycle()) {
        let to = To::target(&Target::User(uid(number)));
        let headers = OwnedHeaders::new().insert(Header { key: HEADER, value: Some(&to.header[..]) });
        let body = &[0xff_u8; BODY][..];
        let record: FutureRecord<'_, (), [u8]> = FutureRecord::to(TOPIC).payload(body).headers(headers);
        // Only the flush below waits, for all records together.
        drop(producer.send_result(record.partition(partition)).map_err(|(error, _)| unavailable(told(&error)))?);
    }
    producer.flush(PATIENCE).map_err(|error| unavailable(told(&error)))
}

fn judge(link: &Link, records: usize, partitions: i32, mine: &RwLock<Mine>) -> Result<Skipped, Unavailable> {
    let fixed = [("group.id", "skipping"), ("enable.auto.commit", "false"), ("enable.auto.offset.store", "false")];
    let consumer: BaseConsumer<Heard> = link.create(Heard::default(), &[], &fixed)?;
    let mut places = TopicPartitionList::new();
    for partition in 0..partitions {
        places.add_partition_offset(TOPIC, partition, Offset::Beginning).map_err(|error| unavailable(told(&error)))?;
    }
    consumer.assign(&places).map_err(|error| unavailable(told(&error)))?;
    let (mut skipped, mut came, until) = (Skipped { records: 0, cpu: Duration::ZERO }, 0, Instant::now() + PATIENCE);
    let mut batch = Vec::with_capacity(AT_A_TIME);
    while came < records && Instant::now() < until {
        batch.extend(consumer.poll(Duration::from_millis(100)).and_then(Result::ok));
        if batch.len() == AT_A_TIME || came + batch.len() == records {
            came += batch.len();
            let begun = thread_cpu();
            for message in batch.drain(..) {
                // Same call as in the bus reader.
                skipped.records += u64::from(mine.read().judge(header(&message)) == Say::Skip);
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
        let count = OF_A_PARTITION + 1;
        assert_eq!(skip(count, 10_000).unwrap().records, count as u64);
    }
}
