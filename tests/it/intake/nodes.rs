//! Two nodes on one Redis, a topic read by one of them: a push by a third-party client reaches the user on either node.

use std::collections::HashSet;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{dial, subscribers, until};
use crate::support::brokers::kafka::{kafka, unique};
use crate::support::brokers::redis::Redis;
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::publishers::Snippet;
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

#[tokio::test]
async fn a_node_that_is_killed_with_records_in_hand_loses_none_and_none_arrives_twice() {
    const COUNT: usize = 2_000;
    let redis = Redis::start();
    let mut back_end = dial(&redis).await;
    let mut first = node(&redis, "n1", 1, "intakes: [{kind: redis-stream}]");
    let second = node(&redis, "n2", 2, "intakes: [{kind: redis-stream}]");
    let mut client = second.connect("1074", Form::YunqueJson).await;
    let mut burst = redis::pipe();
    for at in 0..COUNT {
        let envelope = json!({"Uid": "1074", "msg": [{"action": "chat", "title": at.to_string()}]}).to_string();
        burst.cmd("XADD").arg("chat").arg("*").arg("data").arg(envelope).ignore();
    }
    let _: () = burst.query_async(&mut back_end).await.unwrap();
    // Both have received some messages and neither all: the node ends in the middle.
    let mut seen = HashSet::new();
    while seen.len() < 50 {
        seen.insert(client.message().await["title"].as_str().unwrap().to_owned());
    }
    first.signal(Signal::KILL);
    first.exit().await;
    while seen.len() < COUNT {
        let title = client.message().await["title"].as_str().unwrap().to_owned();
        assert!(seen.insert(title.clone()), "message {title} arrived twice");
    }
    until("all records to be acknowledged", || async {
        let mut ask = redis::cmd("XPENDING");
        let answer = ask.arg("chat").arg("skylark").query_async(&mut back_end.clone()).await.unwrap();
        let redis::Value::Array(parts) = answer else { panic!("{answer:?}") };
        (parts[0] == redis::Value::Int(0)).then_some(())
    })
    .await;
    assert!(client.drain().await.is_empty(), "a message arrived twice");
}
