//! The same with a Kafka topic: the real broker, and a separate topic for each test.

use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::json;

use super::metric;
use crate::support::acts::Cast;
use crate::support::brokers::kafka::{kafka, unique};
use crate::support::client::{PATIENCE, within, without_position};
use crate::support::gateway::{Gateway, Setup};
use crate::support::wire::{Form, messages_pub};

/// Configuration of an intake for this topic with its own group.
pub fn yaml(topic: &str) -> String {
    let brokers = &kafka().bootstrap;
    format!("intakes: [{{kind: kafka, topic: {topic}, group: {topic}-group, brokers: \"{brokers}\"}}]")
}

/// A topic of one partition, a node that reads it, and a back end.
struct Bench {
    topic: String,
    gateway: Gateway,
    producer: FutureProducer,
}

impl Bench {
    async fn new() -> Self {
        let topic = unique("intake");
        kafka().create_large_topic(&topic).await;
        let gateway = Setup::default().yaml(&yaml(&topic)).start();
        Self { topic, gateway, producer: kafka().producer() }
    }

    async fn publish(&self, payload: &[u8]) {
        let record = FutureRecord::to(&self.topic).key("1074").payload(payload);
        within("the acknowledgement", self.producer.send(record, PATIENCE)).await.unwrap();
    }
}

#[tokio::test]
async fn every_act_in_both_codings_reaches_its_target() {
    let bench = Bench::new().await;
    let mut cast = Cast::on(&bench.gateway).await;
    for (at, (envelope, counts)) in cast.acts().into_iter().enumerate() {
        for payload in [envelope.to_string().into_bytes(), messages_pub(&envelope)] {
            let mark = format!("mark-{at}");
            bench.publish(&payload).await;
            bench.publish(json!({"msg": [{"action": mark}]}).to_string().as_bytes()).await;
            assert_eq!(cast.counts_until(&mark).await, counts, "{envelope}");
        }
    }
    for letter in kafka().read(&format!("{}.dead", bench.topic), 2).await {
        let reason = letter.header("skylark.reason").unwrap();
        assert!(reason.contains("Sid: unknown node nowhere"), "{reason}");
    }
}

#[tokio::test]
async fn a_message_is_the_one_that_http_would_give() {
    let message = json!({
        "id": 748, "action": "chat", "content": {"text": "你好", "n": "1"}, "sender": "1078", "receiver": "1074",
        "extra": {"avatar": "a.png"}, "title": "t", "image": "i.png", "sendTime": 1_700_000_000_000_i64,
    });
    let envelope = json!({"act": 2, "Uid": "1074", "type": 2, "msg": [message]});
    let bench = Bench::new().await;
    let mut client = bench.gateway.connect("1074", Form::YunqueJson).await;
    assert_eq!(bench.gateway.post("/publish", envelope.clone()).await.status, 200);
    bench.publish(envelope.to_string().as_bytes()).await;
    bench.publish(&messages_pub(&envelope)).await;
    let by_http = without_position(client.message().await);
    for _ in 0..2 {
        assert_eq!(without_position(client.message().await), by_http);
    }
}

#[tokio::test]
async fn one_record_in_ten_is_poison_and_the_rest_keeps_its_order() {
    let bench = Bench::new().await;
    let mut client = bench.gateway.connect("1074", Form::YunqueJson).await;
    for at in 0..200 {
        let envelope = json!({"act": 2, "Uid": "1074", "msg": [{"action": "chat", "title": at.to_string()}]});
        bench.publish(if at % 10 == 5 { b"junk".to_vec() } else { envelope.to_string().into_bytes() }.as_slice()).await;
    }
    for at in (0..200).filter(|at| at % 10 != 5) {
        assert_eq!(client.message().await["title"], at.to_string());
    }
    let letters = kafka().read(&format!("{}.dead", bench.topic), 20).await;
    assert!(letters.iter().all(|letter| letter.payload == b"junk"), "{letters:?}");
    let line = format!("skylark_intake_dead_letters_total{{intake=\"kafka {}\",reason=\"body\"}}", bench.topic);
    super::until("the count", || async { (metric(&bench.gateway, &line).await >= 20.0).then_some(()) }).await;
}

#[tokio::test]
async fn a_large_envelope_and_one_of_ten_thousand_users_are_taken() {
    let bench = Bench::new().await;
    let mut first = bench.gateway.connect("u0", Form::YunqueJson).await;
    let mut last = bench.gateway.connect("u9999", Form::CimJson).await;
    let text = "x".repeat(50_000);
    let messages: Vec<_> = (0..20).map(|_| json!({"action": "chat", "content": {"text": text}})).collect();
    let mut envelope = json!({"act": 2, "Uid": "u0", "msg": messages}).to_string();
    envelope.push_str(&" ".repeat((1 << 20) - envelope.len()));
    bench.publish(envelope.as_bytes()).await;
    for _ in 0..20 {
        assert_eq!(first.message().await["content"]["text"].as_str().unwrap().len(), text.len());
    }
    let users: Vec<String> = (0..10_000).map(|at| format!("u{at}")).collect();
    let many = json!({"act": 1, "Uid": users.join(","), "msg": [{"action": "many"}]});
    bench.publish(many.to_string().as_bytes()).await;
    for client in [&mut first, &mut last] {
        assert_eq!(client.message().await["action"], "many");
    }
}

#[tokio::test]
async fn tombstones_are_counted_and_nothing_is_buried_for_them() {
    let bench = Bench::new().await;
    let mut client = bench.gateway.connect("1074", Form::YunqueJson).await;
    for at in 0..3 {
        kafka().send_with(&bench.topic, "1074", &[], None).await;
        let envelope = json!({"act": 2, "Uid": "1074", "msg": [{"action": "chat", "title": at.to_string()}]});
        bench.publish(envelope.to_string().as_bytes()).await;
        assert_eq!(client.message().await["title"], at.to_string());
    }
    let line = format!("skylark_intake_tombstones_total{{intake=\"kafka {}\"}}", bench.topic);
    assert!((metric(&bench.gateway, &line).await - 3.0).abs() < 0.5);
    let page = bench.gateway.get("/metrics").await.body;
    let letters = page.lines().filter(|line| line.starts_with("skylark_intake_dead_letters_total"));
    assert!(letters.clone().count() > 0 && letters.clone().all(|line| line.ends_with(" 0")), "{page}");
}

/// The broker recompresses records with Kafka's own zstd, not librdkafka's.
#[tokio::test]
async fn topic_that_its_broker_compresses_by_zstd_is_read() {
    let topic = unique("zstd");
    kafka().create_topic_with(&topic, &[("compression.type", "zstd")]).await;
    let gateway = Setup::default().yaml(&yaml(&topic)).start();
    let mut client = gateway.connect("1074", Form::YunqueJson).await;
    for at in 0..10 {
        let envelope = json!({"act": 2, "Uid": "1074", "msg": [{"action": "chat", "title": at.to_string()}]});
        kafka().send(&topic, "k", &[&envelope.to_string()]).await;
        assert_eq!(client.message().await["title"], at.to_string());
    }
    assert_eq!(gateway.get("/health/ready").await.status, 200);
}
