//! Any language can publish: each snippet of docs/guides/push-by-redis-or-kafka.md is run unchanged with a third-party
//! client library.

use super::{Kind, dial, subscribers};
use crate::support::brokers::kafka::{kafka, unique};
use crate::support::brokers::redis::Redis;
use crate::support::gateway::Setup;
use crate::support::publishers::Snippet;
use crate::support::wire::Form;

/// Both kinds of intake on one server.
fn yaml(redis: &Redis) -> String {
    let [channel, stream] = Kind::ALL.map(|kind| kind.yaml(redis).replace("intakes: [", "").replace(']', ""));
    format!("intakes: [{channel}, {stream}]")
}

/// Publishes in one language to a channel and to a stream: two messages.
async fn by(language: &str) {
    let redis = Redis::start();
    let gateway = Setup::default().yaml(&yaml(&redis)).start();
    let mut client = gateway.connect("1074", Form::YunqueJson).await;
    subscribers(&dial(&redis).await, 1).await;
    Snippet::of("redis", language).run(&redis.address().to_string());
    for _ in 0..2 {
        let message = client.message().await;
        assert_eq!((&message["action"], &message["content"]["text"]), (&"chat".into(), &"hi".into()), "{language}");
    }
}

#[tokio::test]
async fn redis_cli_reaches_a_user() {
    by("sh").await;
}

#[tokio::test]
async fn php_reaches_a_user() {
    by("php").await;
}

#[tokio::test]
async fn python_reaches_a_user() {
    by("python").await;
}

#[tokio::test]
async fn go_reaches_a_user() {
    by("go").await;
}

#[tokio::test]
async fn java_reaches_a_user() {
    by("java").await;
}

/// Publishes in one language to a Kafka topic.
async fn by_kafka(language: &str) {
    let (kafka, topic) = (kafka(), unique("push"));
    kafka.create_topic(&topic, 2).await;
    let gateway = Setup::default().yaml(&super::kafka::yaml(&topic)).start();
    let mut client = gateway.connect("1074", Form::YunquePb).await;
    Snippet::of("kafka", language).on_topic(&topic).run(&kafka.bootstrap);
    let message = client.message().await;
    assert_eq!((&message["action"], &message["content"]["text"]), (&"notice".into(), &"hi".into()), "{language}");
}

#[tokio::test]
async fn python_reaches_a_user_by_kafka() {
    by_kafka("python").await;
}

#[tokio::test]
async fn go_reaches_a_user_by_kafka() {
    by_kafka("go").await;
}

#[tokio::test]
async fn java_reaches_a_user_by_kafka() {
    by_kafka("java").await;
}

/// A node with too small a limit dead-letters records of two partitions in mixed order.
#[tokio::test]
async fn dead_letters_are_put_back_in_their_order_by_the_documented_script() {
    let (kafka, topic) = (kafka(), unique("back"));
    kafka.create_topic(&topic, 2).await;
    let small = format!("{}\nlimits: {{body_bytes: 4096}}", super::kafka::yaml(&topic));
    let gateway = Setup::default().yaml(&small).start();
    let text = "x".repeat(5_000);
    let large = |title: String| serde_json::json!({"Uid": "1074", "msg": [{"action": "chat", "title": title, "content": {"text": text}}]});
    for at in 0..6 {
        let (key, headers) = (["1074", "1075"][at % 2], [("trace", "7")]);
        kafka.send_with(&topic, key, &headers, Some(&large(format!("{key} {at}")).to_string())).await;
    }
    let letters = kafka.read(&format!("{topic}.dead"), 6).await;
    assert!(letters.iter().all(|letter| letter.header("skylark.reason").unwrap().contains("4096 bytes")));
    drop(gateway);
    let gateway = Setup::default().yaml(&super::kafka::yaml(&topic)).start();
    let mut client = gateway.connect("1074", Form::YunquePb).await;
    let (script, at) = (Snippet::of("kafka-dead", "python").on_topic(&topic), kafka.bootstrap.clone());
    tokio::task::spawn_blocking(move || script.run(&at)).await.unwrap();
    let mut seen: Vec<String> = Vec::new();
    for _ in 0..6 {
        seen.push(client.message().await["title"].as_str().unwrap().to_owned());
    }
    for (key, expected) in [("1074", [0, 2, 4]), ("1075", [1, 3, 5])] {
        let of_key: Vec<&String> = seen.iter().filter(|title| title.starts_with(key)).collect();
        assert_eq!(of_key, expected.map(|at| format!("{key} {at}")).iter().collect::<Vec<_>>());
    }
    let again = kafka.read(&topic, 12).await;
    assert!(again.iter().all(|record| record.headers == [("trace".to_owned(), b"7".to_vec())]), "{again:?}");
}
