//! Redis Streams: the guarantees of a consumer group, checked by the state of the server afterwards.

use std::collections::HashSet;

use serde_json::json;

use super::{Bench, Kind, dead, dial, until};
use crate::support::brokers::redis::Redis;
use crate::support::gateway::Setup;
use crate::support::wire::Form;

fn chat(title: usize) -> String {
    json!({"act": 2, "Uid": "1074", "msg": [{"action": "chat", "title": title.to_string()}]}).to_string()
}

/// Number of pending records of the group.
async fn pending(bench: &Bench) -> usize {
    let mut ask = redis::cmd("XPENDING");
    let answer: redis::Value = ask.arg("chat").arg("skylark").query_async(&mut bench.back_end.clone()).await.unwrap();
    let redis::Value::Array(parts) = answer else { panic!("{answer:?}") };
    redis::from_redis_value(parts[0].clone()).unwrap()
}

async fn add(bench: &mut Bench, fields: &[&str]) -> String {
    redis::cmd("XADD").arg("chat").arg("*").arg(fields).query_async(&mut bench.back_end).await.unwrap()
}

#[tokio::test]
async fn records_before_the_first_node_are_read_and_trimmed_once_settled() {
    let redis = Redis::start();
    let mut back_end = dial(&redis).await;
    for at in 0..500 {
        Kind::Stream.publish(&mut back_end, chat(at).as_bytes()).await;
    }
    // The user must be connected before the node reads. The topic is renamed until then.
    let other = redis::cmd("RENAME").arg("chat").arg("waiting").query_async::<()>(&mut back_end).await;
    other.unwrap();
    let gateway = Setup::default().yaml(&Kind::Stream.yaml(&redis)).start();
    let mut client = gateway.connect("1074", Form::YunqueJson).await;
    let _: () = redis::cmd("RENAME").arg("waiting").arg("chat").query_async(&mut back_end).await.unwrap();
    for at in 0..500 {
        assert_eq!(client.message().await["title"], at.to_string());
    }
    let bench = Bench { gateway, back_end, redis, kind: Kind::Stream };
    until("all records to be acknowledged", || async { (pending(&bench).await == 0).then_some(()) }).await;
    until("the acknowledged records to be trimmed", || async {
        let length: usize = redis::cmd("XLEN").arg("chat").query_async(&mut bench.back_end.clone()).await.unwrap();
        (length <= 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn records_of_a_reader_that_died_are_claimed() {
    let mut bench = Bench::new(Kind::Stream).await;
    let mut client = bench.gateway.connect("1074", Form::YunqueJson).await;
    bench.mark("there").await;
    assert_eq!(client.message().await["action"], "there");
    let mut ghost = dial(&bench.redis).await;
    // The node is blocked in a read: the ghost consumer takes the records in the same transaction.
    let ids: Vec<String> = {
        let mut pipeline = redis::pipe();
        pipeline.atomic();
        for at in 0..3 {
            pipeline.cmd("XADD").arg("chat").arg("*").arg("data").arg(chat(at));
        }
        let mut read = pipeline.cmd("XREADGROUP");
        read = read.arg("GROUP").arg("skylark").arg("ghost").arg("STREAMS").arg("chat").arg(">").ignore();
        read.query_async(&mut ghost).await.unwrap()
    };
    let mut claim = redis::cmd("XCLAIM");
    claim.arg("chat").arg("skylark").arg("ghost").arg(0).arg(&ids).arg("IDLE").arg(60_000).arg("JUSTID");
    let _: Vec<String> = claim.query_async(&mut ghost).await.unwrap();
    for at in 0..3 {
        assert_eq!(client.message().await["title"], at.to_string());
    }
    until("all records to be acknowledged", || async { (pending(&bench).await == 0).then_some(()) }).await;
}

#[tokio::test]
async fn a_record_that_ended_five_readers_is_buried() {
    let mut bench = Bench::new(Kind::Stream).await;
    let mut client = bench.gateway.connect("1074", Form::YunqueJson).await;
    bench.mark("there").await;
    assert_eq!(client.message().await["action"], "there");
    let mut ghost = dial(&bench.redis).await;
    let mut pipeline = redis::pipe();
    pipeline.atomic().cmd("XADD").arg("chat").arg("*").arg("data").arg(chat(1));
    pipeline.cmd("XADD").arg("chat").arg("*").arg("data").arg(chat(2));
    pipeline.cmd("XREADGROUP").arg("GROUP").arg("skylark").arg("ghost").arg("STREAMS").arg("chat").arg(">").ignore();
    let ids: Vec<String> = pipeline.query_async(&mut ghost).await.unwrap();
    let mut claim = redis::cmd("XCLAIM");
    claim.arg("chat").arg("skylark").arg("ghost").arg(0).arg(&ids).arg("IDLE").arg(60_000);
    let _: Vec<String> = claim.arg("RETRYCOUNT").arg(5).arg("JUSTID").query_async(&mut ghost).await.unwrap();
    assert_eq!(client.message().await["title"], "2", "the next record was not delivered");
    let letters = until("the dead letter", || async {
        let letters = dead(&mut bench.back_end.clone()).await;
        (!letters.is_empty()).then_some(letters)
    });
    let letters = letters.await;
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!(letter["origin"], format!("chat {}", ids[0]));
    assert_eq!(letter["tries"], "6");
    assert!(letter["reason"].as_str().unwrap().contains("expected to be processed within 5 tries"), "{letter}");
}

#[tokio::test]
async fn an_envelope_may_stand_in_the_fields_and_ids_may_be_made_up() {
    let mut bench = Bench::new(Kind::Stream).await;
    let mut client = bench.gateway.connect("007", Form::YunqueJson).await;
    add(&mut bench, &["act", "2", "Uid", "007", "msg", r#"[{"action":"fields"}]"#]).await;
    assert_eq!(client.message().await["action"], "fields");
    add(&mut bench, &["whatever", r#"{"msg":[{"action":"alone"}]}"#]).await;
    assert_eq!(client.message().await["action"], "alone");
    for id in ["9000000000000-0", "9000000000000-18446744073709551614"] {
        let data = r#"{"msg":[{"action":"odd"}]}"#;
        let mut command = redis::cmd("XADD");
        let _: String =
            command.arg("chat").arg(id).arg("data").arg(data).query_async(&mut bench.back_end).await.unwrap();
        assert_eq!(client.message().await["action"], "odd");
    }
    until("all records to be acknowledged", || async { (pending(&bench).await == 0).then_some(()) }).await;
}

#[tokio::test]
async fn a_server_that_lost_its_data_or_was_stopped_is_taken_up_again() {
    let mut bench = Bench::new(Kind::Stream).await;
    let mut client = bench.gateway.connect("1074", Form::YunqueJson).await;
    bench.publish(chat(1).as_bytes()).await;
    assert_eq!(client.message().await["title"], "1");
    bench.redis.kill();
    bench.redis.restart();
    bench.back_end = dial(&bench.redis).await;
    bench.publish(chat(2).as_bytes()).await;
    assert_eq!(client.message().await["title"], "2");
    bench.redis.freeze();
    until("the reason", || async {
        bench.gateway.get("/health/ready").await.body.contains("redis is unavailable").then_some(())
    })
    .await;
    bench.redis.thaw();
    bench.publish(chat(3).as_bytes()).await;
    assert_eq!(client.message().await["title"], "3");
}

#[tokio::test]
async fn two_nodes_share_the_records_and_a_killed_one_loses_none() {
    let redis = Redis::keeping();
    let yaml =
        |node: &str, number: u8| format!("node: {{id: {node}, number: {number}}}\n{}", Kind::Stream.yaml(&redis));
    let mut gateways = Vec::new();
    let mut clients = Vec::new();
    for (node, number) in [("n1", 1), ("n2", 2)] {
        let gateway = Setup::default().yaml(&yaml(node, number)).start();
        clients.push(gateway.connect("1074", Form::YunqueJson).await);
        gateways.push(gateway);
    }
    let mut back_end = dial(&redis).await;
    for at in 0..400 {
        Kind::Stream.publish(&mut back_end, chat(at).as_bytes()).await;
    }
    let second = clients.pop().unwrap();
    drop(gateways.pop());
    // The records that the second node had delivered, or left to the first one.
    let mut seen: HashSet<String> = HashSet::new();
    let titles = |message: serde_json::Value| message["title"].as_str().unwrap().to_owned();
    for message in second.rest().await {
        seen.insert(titles(message));
    }
    let mut settled = redis::cmd("XPENDING");
    settled.arg("chat").arg("skylark");
    while seen.len() < 400 {
        seen.insert(titles(clients[0].message().await));
    }
    assert_eq!(seen, (0..400).map(|at| at.to_string()).collect::<HashSet<_>>());
}
