//! Any language can publish: each snippet of docs/intakes.md, run as it stands by a client library that is not ours.

use super::{Kind, dial, subscribers};
use crate::support::gateway::Setup;
use crate::support::kafka::{kafka, unique};
use crate::support::publishers::Snippet;
use crate::support::redis::Redis;
use crate::support::wire::Form;

/// Both kinds of intake at one server.
fn yaml(redis: &Redis) -> String {
    let [channel, stream] = Kind::ALL.map(|kind| kind.yaml(redis).replace("intakes: [", "").replace(']', ""));
    format!("intakes: [{channel}, {stream}]")
}

/// Publishes by one language to a channel and to a stream: two messages.
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

/// Publishes by one language to a topic of Kafka.
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
