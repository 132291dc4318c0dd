//! An intake's topic on a real Kafka: order, redelivery, sharing, and dead letters.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use skylark::broker::kafka::{KafkaClients, KafkaSource};
use skylark::broker::source::{Record, RecordPosition, Source};
use skylark::vital::Vitals;
use tokio::sync::{mpsc, watch};

use crate::support::brokers::kafka::{KafkaCluster, kafka, unique};
use crate::support::client::within;

fn texts(records: &[Record]) -> Vec<String> {
    records.iter().map(|record| String::from_utf8_lossy(&record.payload).into_owned()).collect()
}

fn positions(records: &[Record]) -> Vec<RecordPosition> {
    records.iter().map(|record| record.position.clone()).collect()
}

/// Takes and settles records until `count` have arrived.
async fn drain(source: &mut KafkaSource, count: usize) -> Vec<Record> {
    let mut all = Vec::new();
    while all.len() < count {
        let records = within("the records", source.take()).await.unwrap();
        source.complete(&positions(&records)).await.unwrap();
        all.extend(records);
    }
    all
}

/// Takes so many records, buries each that says "bad", and settles them all.
async fn dead_letter_bad(source: &mut KafkaSource, count: usize) {
    let mut taken = 0;
    while taken < count {
        let records = within("the records", source.take()).await.unwrap();
        for record in records.iter().filter(|record| *record.payload == *b"bad") {
            source.dead_letter(record, "not an envelope").await.unwrap();
        }
        source.complete(&positions(&records)).await.unwrap();
        taken += records.len();
    }
}

fn join(topic: &str) -> KafkaSource {
    KafkaSource::join(&kafka().clients("n1"), topic, "skylark", "kafka test", &Vitals::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_come_in_order_and_what_is_settled_is_over() {
    let topic = unique("order");
    kafka().create_topic(&topic, 1).await;
    let sent: Vec<String> = (0..20).map(|n| format!("m{n}")).collect();
    kafka().send(&topic, "k", &sent.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut first = join(&topic);
    let mut got = Vec::new();
    while got.len() < 7 {
        let mut records = within("the records", first.take()).await.unwrap();
        records.retain(|record| record.position.offset < Some(7));
        first.complete(&positions(&records)).await.unwrap();
        got.extend(records);
    }
    assert_eq!(texts(&got), sent[..7]);
    let position =
        |n: usize| RecordPosition { partition: Arc::clone(&got[0].position.partition), offset: Some(n as u64) };
    assert_eq!(positions(&got), (0..7).map(position).collect::<Vec<_>>());
    first.close().await;
    let mut second = join(&topic);
    assert_eq!(texts(&drain(&mut second, 13).await), sent[7..]);
    second.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unsettled_record_is_redelivered_and_counted() {
    let topic = unique("again");
    kafka().create_topic(&topic, 1).await;
    kafka().send(&topic, "k", &["a"]).await;
    let mut source = join(&topic);
    for tries in 0..3 {
        let records = within("the record", source.take()).await.unwrap();
        assert_eq!((texts(&records), records[0].tries), (vec!["a".to_owned()], tries));
    }
    let records = within("the record", source.take()).await.unwrap();
    source.complete(&positions(&records)).await.unwrap();
    kafka().send(&topic, "k", &["b"]).await;
    let records = within("the record", source.take()).await.unwrap();
    assert_eq!((texts(&records), records[0].tries), (vec!["b".to_owned()], 0));
    source.close().await;
}

/// Settles the records. A commit may collide with a rebalance of the group; then records are delivered again.
async fn complete(source: &mut KafkaSource, records: &[Record]) {
    if let Err(fault) = source.complete(&positions(records)).await {
        eprintln!("{fault}");
    }
}

/// Takes, reports and settles records until told to end. A commit may collide with a rebalance; then records are
/// delivered again.
async fn drive(mut source: KafkaSource, name: &'static str, tell: Tell, mut end: watch::Receiver<bool>) {
    loop {
        let records = tokio::select! {
            records = source.take() => records.unwrap(),
            _ = end.wait_for(|end| *end) => break,
        };
        let settled = positions(&records);
        tell.send((name, settled.clone())).await.unwrap();
        if let Err(fault) = source.complete(&settled).await {
            eprintln!("{name}: {fault}");
        }
    }
    source.close().await;
}

type Tell = mpsc::Sender<(&'static str, Vec<RecordPosition>)>;

#[tokio::test(flavor = "multi_thread")]
async fn a_group_shares_the_partitions_and_loses_nothing_when_members_come_and_go() {
    let topic = unique("shared");
    kafka().create_topic(&topic, 4).await;
    let (enough, mut is_enough) = watch::channel(false);
    let (producer, to) = (kafka().producer(), topic.clone());
    let load = tokio::spawn(async move {
        let mut sent = 0_usize;
        while !*is_enough.borrow_and_update() {
            let (key, payload) = (format!("k{}", sent % 16), sent.to_string());
            let record = rdkafka::producer::FutureRecord::to(&to).key(&key).payload(&payload);
            producer.send(record, std::time::Duration::from_secs(20)).await.unwrap();
            sent += 1;
        }
        sent
    });
    let clients = kafka().clients_with("n1", &[("heartbeat.interval.ms", "300")]);
    let (tell, mut told) = mpsc::channel(64);
    let join = |name| {
        let (source, end) = (
            KafkaSource::join(&clients, &topic, "skylark", "kafka test", &Vitals::default()).unwrap(),
            watch::Sender::new(false),
        );
        (tokio::spawn(drive(source, name, tell.clone(), end.subscribe())), end)
    };
    let (first, end_first) = join("first");
    let (second, end_second) = join("second");
    let mut ledger: BTreeMap<Arc<str>, Vec<u64>> = BTreeMap::new();
    let (mut seen, mut had, mut twice) = (BTreeSet::new(), BTreeSet::new(), 0);
    let mut note = |(name, positions): (&'static str, Vec<RecordPosition>)| {
        had.insert(name);
        for RecordPosition { partition, offset } in positions {
            match seen.insert((Arc::clone(&partition), offset)) {
                true => ledger.entry(partition).or_default().push(offset.unwrap()),
                false => twice += 1,
            }
        }
        (seen.len(), had.len(), twice)
    };
    // Waits until each member has received records, so that the second one leaves with its own partitions.
    while note(within("records for both members", told.recv()).await.unwrap()).1 < 2 {}
    end_second.send_replace(true);
    let mut left = std::pin::pin!(second);
    loop {
        tokio::select! {
            news = told.recv() => { note(news.unwrap()); }
            ended = within("the second member to leave", &mut left) => break ended.unwrap(),
        }
    }
    enough.send(true).unwrap();
    let sent = load.await.unwrap();
    let mut count = note(("first", Vec::new()));
    while count.0 < sent {
        count = note(within("the remaining records", told.recv()).await.unwrap());
    }
    let twice = count.2;
    end_first.send_replace(true);
    within("the first member to leave", first).await.unwrap();
    eprintln!("{sent} records, {twice} of them redelivered");
    assert_eq!(ledger.len(), 4);
    assert!(ledger.values().all(|offsets| offsets.is_sorted()), "{ledger:?}");
}

/// The partitions of a full intake are paused. A partition that left during the pause is not paused when it returns.
#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_left_while_it_was_paused_is_read_when_it_comes_back() {
    let topic = unique("paused");
    kafka().create_topic(&topic, 4).await;
    let clients = kafka().clients_with("n1", &[("heartbeat.interval.ms", "300")]);
    let join = || KafkaSource::join(&clients, &topic, "skylark", "kafka test", &Vitals::default()).unwrap();
    // More than one batch, so that the rest waits and the group is served meanwhile.
    let many: Vec<String> = (0..500).map(|n| n.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    for key in ["a", "b", "c", "d", "e", "f", "g", "h"] {
        kafka().send(&topic, key, &many).await;
    }
    let mut first = join();
    let records = within("the records", first.take()).await.unwrap();
    let mut second = join();
    let lines: BTreeSet<Arc<str>> = within("partitions of the second member", second.take())
        .await
        .unwrap()
        .into_iter()
        .map(|r| r.position.partition)
        .collect();
    assert!(!lines.is_empty());
    complete(&mut first, &records).await;
    let records = within("the records", first.take()).await.unwrap();
    complete(&mut first, &records).await;
    let taken = within("the records after the pause", first.take()).await.unwrap();
    complete(&mut first, &taken).await;
    within("the close of the source", second.close()).await;
    let mut open = lines;
    while !open.is_empty() {
        let records = within("the redelivered records", first.take()).await.unwrap();
        complete(&mut first, &records).await;
        for record in &records {
            open.remove(&record.position.partition);
        }
    }
    within("the close of the source", first.close()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letter_carries_key_headers_timestamp_and_place() {
    let topic = unique("letter");
    kafka().create_topic(&topic, 1).await;
    kafka().send(&topic, "k", &["good"]).await;
    let headers = [("trace", "7"), ("trace", "8"), ("skylark.reason", "of an older letter")];
    kafka().send_with(&topic, "1074", &headers, Some("bad")).await;
    let mut source = join(&topic);
    dead_letter_bad(&mut source, 2).await;
    let letter = &kafka().read(&format!("{topic}.dead"), 1).await[0];
    assert_eq!((letter.key.as_deref(), &letter.payload[..]), (Some(&b"1074"[..]), &b"bad"[..]));
    let texts = letter.headers.iter().map(|(name, value)| (name.as_str(), std::str::from_utf8(value).unwrap()));
    let texts: Vec<(&str, &str)> = texts.filter(|(name, _)| *name != "skylark.timestamp").collect();
    let own = [("skylark.reason", "not an envelope"), ("skylark.topic", &topic), ("skylark.partition", "0")];
    let rest = [("skylark.offset", "1"), ("skylark.tries", "1")];
    assert_eq!(texts, [&headers[..2], &own, &rest].concat());
    let age = std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()
        - letter.header("skylark.timestamp").unwrap().parse::<u128>().unwrap();
    assert!(age < 600_000, "the dead letter is {age} ms old");
    source.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_buried_with_its_reason_and_origin() {
    let topic = unique("poison");
    kafka().create_topic(&topic, 1).await;
    kafka().send(&topic, "k", &["good", "bad"]).await;
    let mut source = join(&topic);
    dead_letter_bad(&mut source, 2).await;
    let dead = kafka().read(&format!("{topic}.dead"), 1).await;
    assert_eq!(dead[0].payload, b"bad");
    assert_eq!(dead[0].header("skylark.reason"), Some("not an envelope"));
    source.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_that_is_away_is_told_with_its_reason() {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let clients = KafkaClients::new(&nobody.to_string(), "", "", [].into(), "n1");
    let mut source = KafkaSource::join(&clients, "chat", "skylark", "kafka test", &Vitals::default()).unwrap();
    let fault = within("the fault", source.take()).await.unwrap_err();
    assert!(fault.to_string().starts_with("kafka is unavailable: "), "{fault}");
    assert!(fault.why.contains(&nobody.to_string()), "{fault}");
    within("the close of the source", source.close()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_missing_is_told_and_read_once_it_is_there() {
    let topic = unique("late");
    let clients = kafka().clients_with("n1", &[("topic.metadata.refresh.interval.ms", "100")]);
    let mut source = KafkaSource::join(&clients, &topic, "skylark", "kafka test", &Vitals::default()).unwrap();
    let fault = within("the fault", source.take()).await.unwrap_err();
    assert!(fault.why.contains("unknown topic"), "{fault}");
    kafka().create_topic(&topic, 1).await;
    kafka().send(&topic, "k", &["a"]).await;
    let next = async {
        loop {
            if let Ok(records) = source.take().await
                && !records.is_empty()
            {
                break records;
            }
        }
    };
    assert_eq!(texts(&within("the record", next).await), ["a"]);
    within("the close of the source", source.close()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kafka_that_crashes_and_comes_back_is_read_on() {
    let cluster = tokio::task::spawn_blocking(|| KafkaCluster::start(1)).await.unwrap();
    let topic = unique("bounced");
    // A topic of the same name in another cluster.
    kafka().create_topic(&topic, 1).await;
    kafka().send(&topic, "k", &["a"]).await;
    let mut twin =
        KafkaSource::join(&kafka().clients("n1"), &topic, "skylark", "kafka test", &Vitals::default()).unwrap();
    let other = drain(&mut twin, 1).await.remove(0);
    within("the close of the source", twin.close()).await;
    cluster.kafka.create_topic(&topic, 1).await;
    cluster.kafka.send(&topic, "k", &["a", "b"]).await;
    let mut source =
        KafkaSource::join(&cluster.kafka.clients("n1"), &topic, "skylark", "kafka test", &Vitals::default()).unwrap();
    let records = drain(&mut source, 2).await;
    assert_eq!(texts(&records), ["a", "b"]);
    assert_eq!(records[0].payload, other.payload);
    assert_ne!(records[0].position, other.position, "records of two clusters have the same position");
    cluster.kill9(1);
    let fault = within("the fault", source.take()).await.unwrap_err();
    assert_eq!(fault.engine, "kafka");
    cluster.start_node(1);
    cluster.kafka.send(&topic, "k", &["c"]).await;
    let next = async {
        loop {
            match source.take().await {
                // An empty list says that Kafka is available again.
                Ok(records) if records.is_empty() => {}
                Ok(records) => break records,
                Err(fault) => eprintln!("{fault}"),
            }
        }
    };
    assert_eq!(texts(&within("the next record", next).await), ["c"]);
    within("the close of the source", source.close()).await;
}
