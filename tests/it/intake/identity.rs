//! Only the same record counts as a copy: sources that share a name, an id or an offset lose nothing to each other. The
//! bus is Redis, where receivers drop copies.

use redis::aio::MultiplexedConnection;
use serde_json::json;

use super::{Bench, Kind, dead, dial, metric, until};
use crate::support::brokers::kafka::{kafka, unique};
use crate::support::brokers::redis::Redis;
use crate::support::client::Client;
use crate::support::gateway::Setup;
use crate::support::wire::Form;

fn chat(title: &str) -> String {
    json!({"act": 2, "Uid": "1074", "msg": [{"action": "chat", "title": title}]}).to_string()
}

async fn title(client: &mut Client) -> String {
    client.message().await["title"].as_str().unwrap().to_owned()
}

fn add(id: &str, title: &str) -> redis::Cmd {
    redis::cmd("XADD").arg("chat").arg(id).arg("data").arg(chat(title)).to_owned()
}

async fn run(back_end: &mut MultiplexedConnection, command: &redis::Cmd) {
    let _: redis::Value = command.query_async(back_end).await.unwrap();
}

/// The value of the stream's incarnation key.
async fn life(back_end: &mut MultiplexedConnection) -> String {
    let value: String =
        redis::cmd("GET").arg("{skylark:intake:chat}:life:skylark").query_async(back_end).await.unwrap();
    value.split(' ').next().unwrap().to_owned()
}

#[tokio::test]
async fn streams_of_two_databases_with_one_id_are_two_records() {
    let redis = Redis::start();
    let intake = |database| format!("{{kind: redis-stream, topic: chat, url: \"{}/{database}\"}}", redis.url());
    let yaml = format!("{}\nintakes: [{}, {}]", redis.bus(), intake(0), intake(1));
    let gateway = Setup::default().yaml(&yaml).start();
    let mut client = gateway.connect("1074", Form::YunqueJson).await;
    let mut back_end = dial(&redis).await;
    run(&mut back_end, &add("7-1", "of 0")).await;
    assert_eq!(title(&mut client).await, "of 0");
    run(&mut back_end, redis::cmd("SELECT").arg(1)).await;
    run(&mut back_end, &add("7-1", "of 1")).await;
    assert_eq!(title(&mut client).await, "of 1");
    for database in 0..2 {
        let name = format!("redis-stream chat at {}/{database}", redis.address());
        let line = format!("skylark_intake_accepted_total{{intake=\"{name}\"}}");
        until("the count of the second stream", || async {
            ((metric(&gateway, &line).await - 1.0).abs() < 0.5).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn stream_created_anew_with_the_same_ids_has_other_records() {
    let redis = Redis::start();
    let yaml = format!("{}\n{}", redis.bus(), Kind::Stream.yaml(&redis));
    let gateway = Setup::default().yaml(&yaml).start();
    let mut client = gateway.connect("1074", Form::YunqueJson).await;
    let mut back_end = dial(&redis).await;
    for at in 0..3 {
        run(&mut back_end, &add(&format!("7-{}", at + 1), &format!("first {at}"))).await;
        assert_eq!(title(&mut client).await, format!("first {at}"));
    }
    let first = life(&mut back_end).await;
    run(&mut back_end, redis::cmd("DEL").arg("chat")).await;
    for at in 0..3 {
        run(&mut back_end, &add(&format!("7-{}", at + 1), &format!("second {at}"))).await;
        assert_eq!(title(&mut client).await, format!("second {at}"));
    }
    let second = life(&mut back_end).await;
    assert_ne!(first, second);
    // In one transaction with its group, so that a reader never sees the stream missing.
    let mut step = redis::pipe();
    step.atomic().cmd("DEL").arg("chat").add_command(add("7-1", "third"));
    step.cmd("XGROUP").arg("CREATE").arg("chat").arg("skylark").arg("0");
    let _: redis::Value = step.query_async(&mut back_end).await.unwrap();
    assert_eq!(title(&mut client).await, "third");
    assert_ne!(life(&mut back_end).await, second);
}

#[tokio::test]
async fn life_of_a_stream_outlives_its_readers() {
    let redis = Redis::start();
    let start = || Setup::default().yaml(&Kind::Stream.yaml(&redis)).start();
    let mut back_end = dial(&redis).await;
    let mut lives = Vec::new();
    for name in ["one", "two"] {
        let gateway = start();
        let mut client = gateway.connect("1074", Form::YunqueJson).await;
        run(&mut back_end, &add("*", name)).await;
        // The first node is killed, so its record may come once more.
        while title(&mut client).await != name {}
        lives.push(life(&mut back_end).await);
    }
    assert_eq!(lives[0], lives[1]);
}

#[tokio::test]
async fn topic_created_anew_loses_no_record() {
    let (redis, topic) = (Redis::start(), unique("anew"));
    kafka().create_topic(&topic, 1).await;
    let yaml = format!("{}\n{}", redis.bus(), super::kafka::yaml(&topic));
    let gateway = Setup::default().yaml(&yaml).start();
    let mut client = gateway.connect("1074", Form::YunqueJson).await;
    for round in ["first", "second"] {
        for at in 0..5 {
            kafka().send(&topic, "k", &[&chat(&format!("{round} {at}"))]).await;
        }
        for at in 0..5 {
            assert_eq!(title(&mut client).await, format!("{round} {at}"));
        }
        kafka().create_topic_anew(&topic, 1).await;
    }
}

#[tokio::test]
async fn dead_letters_beyond_the_bound_are_counted_and_told() {
    let mut bench = Bench::new(Kind::Stream).await;
    let mut fill = redis::pipe();
    for at in 0..10_300 {
        fill.cmd("XADD").arg("chat:dead").arg("*").arg("data").arg(at).ignore();
    }
    let _: redis::Value = fill.query_async(&mut bench.back_end).await.unwrap();
    bench.publish(b"junk").await;
    let line = "skylark_intake_dead_letters_removed_total{intake=\"redis-stream chat\"}";
    let removed = until("the count", || async {
        let removed = metric(&bench.gateway, line).await;
        (removed > 0.0).then_some(removed)
    });
    assert!((200.0..=301.0).contains(&removed.await));
    bench.gateway.said("dead-letter stream is full").await;
    assert_eq!(dead(&mut bench.back_end).await.last().unwrap()["data"], "junk");
}

#[tokio::test]
async fn dead_letter_of_a_stream_carries_its_place_and_the_fields_beside() {
    let mut bench = Bench::new(Kind::Stream).await;
    let mut add = redis::cmd("XADD");
    run(&mut bench.back_end, add.arg("chat").arg("7-1").arg(&["trace", "42", "data", "junk"])).await;
    let letters = until("the dead letter", || async {
        let letters = dead(&mut bench.back_end.clone()).await;
        (!letters.is_empty()).then_some(letters)
    });
    let letter = letters.await.remove(0);
    let fields = ["data", "origin", "topic", "field:trace", "tries", "node"].map(|name| letter[name].clone());
    assert_eq!(fields, ["junk", "chat 7-1", "chat", "42", "1", "n1"].map(serde_json::Value::from), "{letter}");
}
