//! A batch that librdkafka cannot decompress, such as one of a codec missing in the build. The test writes its bytes to
//! librdkafka's mock broker, because a real one refuses it.

use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};
use skylark::broker::kafka::{KafkaClients, KafkaSource};
use skylark::broker::source::{RecordPosition, Source};
use skylark::vital::Vitals;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::within;
use crate::support::gateway::cluster::until;
use crate::support::gateway::{Gateway, Setup};

/// The codec in the batch's attributes: zstd.
const CODEC: i16 = 4;

/// A produce request (version 7) of one batch with one record that no codec can read.
fn produce(topic: &str, partition: i32) -> Vec<u8> {
    let mut batch = Vec::new();
    batch.extend(0_i32.to_be_bytes()); // partition leader epoch
    batch.push(2); // magic
    batch.extend(0_u32.to_be_bytes()); // CRC, which readers do not check by default
    batch.extend(CODEC.to_be_bytes());
    batch.extend(0_i32.to_be_bytes()); // last offset delta
    batch.extend([0; 16]); // first and last timestamp
    batch.extend((-1_i64).to_be_bytes()); // producer
    batch.extend((-1_i16).to_be_bytes());
    batch.extend((-1_i32).to_be_bytes());
    batch.extend(1_i32.to_be_bytes()); // records
    batch.extend(b"not compressed by anything");
    let length = |bytes: &[u8]| i32::try_from(bytes.len()).unwrap().to_be_bytes();
    let records = [&0_i64.to_be_bytes()[..], &length(&batch), &batch].concat();
    let text = |text: &str| [&i16::try_from(text.len()).unwrap().to_be_bytes()[..], text.as_bytes()].concat();
    let mut request = Vec::new();
    request.extend(0_i16.to_be_bytes()); // Produce
    request.extend(7_i16.to_be_bytes());
    request.extend(1_i32.to_be_bytes()); // correlation
    request.extend(text("test"));
    request.extend((-1_i16).to_be_bytes()); // no transaction
    request.extend((-1_i16).to_be_bytes()); // acks
    request.extend(5_000_i32.to_be_bytes());
    request.extend(1_i32.to_be_bytes());
    request.extend(text(topic));
    request.extend(1_i32.to_be_bytes());
    request.extend(partition.to_be_bytes());
    request.extend(length(&records));
    request.extend(records);
    [&length(&request)[..], &request].concat()
}

/// Stores a batch in the mock that nobody can read.
async fn spoil(at: &str, topic: &str, partition: i32) {
    let mut broker = TcpStream::connect(at).await.unwrap();
    broker.write_all(&produce(topic, partition)).await.unwrap();
    let answer = within("the answer of the mock broker", async {
        let length = broker.read_u32().await.unwrap();
        let mut answer = vec![0; usize::try_from(length).unwrap()];
        broker.read_exact(&mut answer).await.unwrap();
        answer
    });
    // Correlation, topics, name, partitions, partition; then the error.
    let answer = answer.await;
    let error = 4 + 4 + 2 + topic.len() + 4 + 4;
    assert_eq!(answer[error..error + 2], [0, 0], "the mock broker refused the batch: {answer:?}");
}

fn mock(topics: &[(&str, i32)]) -> (MockCluster<'static, DefaultProducerContext>, String) {
    let mock = MockCluster::new(1).unwrap();
    for (topic, partitions) in topics {
        mock.create_topic(topic, *partitions, 1).unwrap();
    }
    let at = mock.bootstrap_servers();
    (mock, at)
}

fn join(at: &str) -> KafkaSource {
    let properties = [("statistics.interval.ms", "100"), ("topic.metadata.refresh.interval.ms", "500")];
    let properties = properties.map(|(name, value)| (name.to_owned(), value.into()));
    let clients = KafkaClients::new(at, "", "", properties.into(), "n1");
    KafkaSource::join(&clients, "codec", "skylark", "kafka codec", &Vitals::default()).unwrap()
}

/// True while readiness names this part of the node, and that records of it cannot be read.
async fn names(node: &Gateway, part: &str) -> bool {
    let ready = node.get("/health/ready").await;
    ready.status == 503 && ready.body.contains(part) && ready.body.contains("records cannot be read")
}

async fn is_positive(node: &Gateway, metric: &str) -> bool {
    let page = node.get("/metrics").await.body;
    page.lines().any(|line| line.starts_with(metric) && !line.ends_with(" 0"))
}

#[tokio::test(flavor = "multi_thread")]
async fn partition_that_cannot_be_read_is_a_fault_and_has_a_lag_while_others_are_read() {
    let (_mock, at) = mock(&[("codec", 2)]);
    spoil(&at, "codec", 0).await;
    let mut source = join(&at);
    let producer: rdkafka::producer::FutureProducer =
        rdkafka::ClientConfig::new().set("bootstrap.servers", &at).create().unwrap();
    // Records of the other partition still arrive; the fault stays visible.
    let read_on = async {
        let mut at = 0;
        while source.fault().is_none() || source.lag() == Some(0) || at < 3 {
            let payload = at.to_string();
            let record = rdkafka::producer::FutureRecord::<(), _>::to("codec").payload(&payload).partition(1);
            producer.send(record, std::time::Duration::from_secs(10)).await.unwrap();
            let records = loop {
                match source.take().await {
                    Ok(records) if !records.is_empty() => break records,
                    _ => {}
                }
            };
            assert_eq!(records[0].payload, payload);
            let positions: Vec<RecordPosition> = records.iter().map(|record| record.position.clone()).collect();
            source.complete(&positions).await.unwrap();
            at += 1;
        }
    };
    within("the fault", read_on).await;
    let fault = source.fault().unwrap();
    assert!(fault.why.starts_with("records cannot be read: "), "{fault}");
    within("the close of the source", source.close()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn partition_that_can_be_read_again_is_told_without_a_record() {
    let (mock, at) = mock(&[("codec", 1)]);
    mock.request_errors(RDKafkaApiKey::Fetch, &[RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_MSG; 3]);
    let mut source = join(&at);
    let faulty = async { while source.take().await.is_ok() || source.fault().is_none() {} };
    within("the fault", faulty).await;
    let well = async { while source.take().await.is_err() || source.fault().is_some() {} };
    within("the end of the fault", well).await;
    within("the close of the source", source.close()).await;
}

#[tokio::test]
async fn intake_with_a_partition_that_cannot_be_read_is_not_ready_and_has_a_lag() {
    let (_mock, at) = mock(&[("codec", 2)]);
    spoil(&at, "codec", 0).await;
    let properties = "properties: {statistics.interval.ms: \"100\"}";
    let yaml = format!("intakes: [{{kind: kafka, topic: codec, brokers: \"{at}\", {properties}}}]");
    let node = Setup::default().yaml(&yaml).start();
    until("readiness to name the intake", async || names(&node, "intake kafka codec").await).await;
    until("the lag", async || is_positive(&node, "skylark_intake_lag{").await).await;
}

/// Signs of life come back through the other partitions.
#[tokio::test]
async fn bus_with_a_partition_that_cannot_be_read_is_not_ready_and_has_a_lag() {
    let (_mock, at) = mock(&[("codec.bus", 8), ("codec.members", 1)]);
    let properties = "properties: {statistics.interval.ms: \"100\"}";
    let yaml = format!("bus: {{kind: kafka, prefix: codec, kafka: {{brokers: \"{at}\", {properties}}}}}");
    let node = Setup::default().yaml(&yaml).start();
    until("readiness", async || node.get("/health/ready").await.status == 200).await;
    spoil(&at, "codec.bus", 3).await;
    until("readiness to name the bus", async || names(&node, "bus: ").await).await;
    until("the lag", async || is_positive(&node, "skylark_bus_lag{").await).await;
}
