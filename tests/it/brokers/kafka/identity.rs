//! Topics that are deleted and recreated, and offsets that go back, on a real Kafka: no record is mistaken for another,
//! and none is skipped.

use skylark::broker::kafka::KafkaSource;
use skylark::broker::source::{Record, RecordPosition, Source};
use skylark::vital::Vitals;

use crate::support::brokers::kafka::{kafka, unique};
use crate::support::client::within;

fn join(topic: &str) -> KafkaSource {
    // A retry of a commit or fetch does not wait for the next refresh.
    let clients = kafka().clients_with("n1", &[("topic.metadata.refresh.interval.ms", "500")]);
    KafkaSource::join(&clients, topic, topic, "kafka test", &Vitals::default()).unwrap()
}

fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| String::from_utf8_lossy(&record.payload).into_owned()).collect()
}

/// Takes and settles records until `count` have arrived; faults in between are ignored.
async fn drain(source: &mut KafkaSource, count: usize) -> Vec<Record> {
    let mut all = Vec::new();
    let take = async {
        while all.len() < count {
            let Ok(records) = source.take().await else { continue };
            let positions: Vec<RecordPosition> = records.iter().map(|record| record.position.clone()).collect();
            if let Err(fault) = source.complete(&positions).await {
                eprintln!("{fault}");
            }
            all.extend(records);
        }
    };
    within("the records", take).await;
    all
}

fn payloads(name: &str, count: usize) -> Vec<String> {
    (0..count).map(|at| format!("{name}{at}")).collect()
}

async fn send(topic: &str, payloads: &[String]) {
    kafka().send(topic, "k", &payloads.iter().map(String::as_str).collect::<Vec<_>>()).await;
}

/// A topic with `before` records that were read and committed, then recreated with `after` other records during
/// reading.
async fn made_anew(before: usize, after: usize) -> (String, KafkaSource, Vec<Record>, Vec<Record>) {
    let topic = unique("anew");
    kafka().create_topic(&topic, 1).await;
    send(&topic, &payloads("old", before)).await;
    let mut source = join(&topic);
    let old = drain(&mut source, before).await;
    assert_eq!(texts(&old), payloads("old", before));
    kafka().create_topic_anew(&topic, 1).await;
    send(&topic, &payloads("new", after)).await;
    let new = drain(&mut source, after).await;
    assert_eq!(texts(&new), payloads("new", after), "wrong result after {before} records on the old topic");
    (topic, source, old, new)
}

#[tokio::test(flavor = "multi_thread")]
async fn topic_created_anew_is_read_from_its_beginning_as_another_topic() {
    // Fewer, as many, and more records than were committed of the former topic.
    for (before, after) in [(10, 5), (4, 4), (3, 8)] {
        let (topic, mut source, old, new) = made_anew(before, after).await;
        for (old, new) in old.iter().zip(&new) {
            assert_eq!(old.position.offset, new.position.offset);
            assert_ne!(
                old.position.partition, new.position.partition,
                "records of the old and the new topic have the same position"
            );
        }
        let committed = kafka().committed(&topic, &topic, 0).await;
        assert_eq!(
            committed.map(|(offset, _)| offset),
            Some(after as i64),
            "wrong result after {before} records on the old topic"
        );
        within("the close of the source", source.close()).await;
        // After a restart, no unread record is skipped.
        send(&topic, &payloads("later", 6)).await;
        let mut source = join(&topic);
        assert_eq!(texts(&drain(&mut source, 6).await), payloads("later", 6));
        within("the close of the source", source.close()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn commit_of_a_deleted_topic_does_not_count_for_its_successor() {
    let topic = unique("stale");
    kafka().create_topic(&topic, 1).await;
    send(&topic, &payloads("old", 5)).await;
    let mut source = join(&topic);
    drain(&mut source, 5).await;
    within("the close of the source", source.close()).await;
    let (offset, metadata) = kafka().committed(&topic, &topic, 0).await.unwrap();
    assert!(offset == 5 && metadata.starts_with("topic-id="), "{metadata}");
    kafka().create_topic_anew(&topic, 1).await;
    send(&topic, &payloads("new", 8)).await;
    // A late commit of the former topic.
    kafka().commit(&topic, &topic, (0, 5), &metadata).await;
    let mut source = join(&topic);
    assert_eq!(texts(&drain(&mut source, 8).await), payloads("new", 8));
    within("the close of the source", source.close()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offset_that_an_operator_reset_is_followed() {
    let topic = unique("reset");
    kafka().create_topic(&topic, 1).await;
    send(&topic, &payloads("m", 5)).await;
    let mut source = join(&topic);
    let first = drain(&mut source, 5).await;
    within("the close of the source", source.close()).await;
    kafka().commit(&topic, &topic, (0, 2), "").await;
    let mut source = join(&topic);
    let again = drain(&mut source, 3).await;
    assert_eq!(texts(&again), payloads("m", 5)[2..]);
    assert_eq!(again[0].position, first[2].position, "a redelivered record has another position");
    assert_eq!(kafka().committed(&topic, &topic, 0).await.map(|(offset, _)| offset), Some(5));
    within("the close of the source", source.close()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tombstones_are_passed_over_and_committed() {
    let topic = unique("tomb");
    kafka().create_topic(&topic, 1).await;
    let mut source = join(&topic);
    for payload in [Some("a"), None, Some("b"), None, None] {
        kafka().send_with(&topic, "k", &[], payload).await;
    }
    assert_eq!(texts(&drain(&mut source, 2).await), ["a", "b"]);
    let committed = async { while kafka().committed(&topic, &topic, 0).await.map(|(offset, _)| offset) != Some(5) {} };
    within("the commit", committed).await;
    kafka().send_with(&topic, "k", &[], Some("")).await;
    assert_eq!(texts(&drain(&mut source, 1).await), [""], "a record with an empty value is missing");
    within("the close of the source", source.close()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_of_every_codec_are_read() {
    let topic = unique("codecs");
    kafka().create_topic(&topic, 1).await;
    let mut source = join(&topic);
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let texts_of = payloads(codec, 40);
        kafka().send_compressed(&topic, codec, &texts_of.iter().map(String::as_str).collect::<Vec<_>>()).await;
        assert_eq!(texts(&drain(&mut source, 40).await), texts_of, "{codec}");
    }
    assert_eq!(source.fault(), None);
    within("the close of the source", source.close()).await;
}

/// A fetch that waits for the next record blocks later requests on its connection.
#[tokio::test(flavor = "multi_thread")]
async fn question_for_the_topic_does_not_wait_behind_a_fetch() {
    let topic = unique("fetch");
    kafka().create_topic(&topic, 1).await;
    let clients = kafka().clients_with("n1", &[("fetch.wait.max.ms", "60000"), ("socket.timeout.ms", "90000")]);
    let mut source = KafkaSource::join(&clients, &topic, &topic, "kafka test", &Vitals::default()).unwrap();
    for text in payloads("m", 5) {
        send(&topic, std::slice::from_ref(&text)).await;
        assert_eq!(texts(&drain(&mut source, 1).await), [text]);
    }
    // Closing the source waits for the fetch.
    drop(source);
}
