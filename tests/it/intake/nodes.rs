//! Two nodes on one Redis, a topic read by one of them: a push by somebody else's client reaches the user wherever it is.

use serde_json::Value;

use super::{dial, subscribers};
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::kafka::{kafka, unique};
use crate::support::publishers::Snippet;
use crate::support::redis::Redis;
use crate::support::wire::Form;

fn node(redis: &Redis, id: &str, number: u8, intakes: &str) -> Gateway {
    let yaml = format!("node: {{id: {id}, number: {number}}}\n{}\n{intakes}", redis.bus());
    Setup::default().yaml(&yaml).start()
}

async fn both(clients: &mut [Client; 2], action: &str) {
    for client in clients {
        let message = client.message().await;
        assert_eq!(message["action"], action, "{:?}", client.form);
        let text = match &message["content"] {
            Value::String(text) => text.clone(),
            content => content["text"].as_str().unwrap().to_owned(),
        };
        assert_eq!(text, "hi", "{:?}", client.form);
    }
}

#[tokio::test]
async fn redis_cli_and_a_foreign_kafka_client_reach_cim_and_yunque_on_different_nodes() {
    let (redis, topic) = (Redis::start(), unique("push"));
    kafka().create_topic(&topic, 2).await;
    let brokers = &kafka().bootstrap;
    let intakes = format!(
        "intakes: [{{kind: redis}}, {{kind: redis-stream}}, {{kind: kafka, topic: {topic}, group: {topic}, brokers: \"{brokers}\"}}]"
    );
    let first = node(&redis, "n1", 1, &intakes);
    let second = node(&redis, "n2", 2, "");
    let mut clients = [second.connect("1074", Form::CimPb).await, first.connect("1074", Form::YunquePb).await];
    subscribers(&dial(&redis).await, 1).await;
    // By PUBLISH and by XADD.
    Snippet::of("redis", "sh").run(&redis.address().to_string());
    both(&mut clients, "chat").await;
    both(&mut clients, "chat").await;
    Snippet::of("kafka", "python").on_topic(&topic).run(brokers);
    both(&mut clients, "notice").await;
}
