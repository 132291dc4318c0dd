//! Tests of the drills' own tools: node processes, the fault proxy, and the ledger. The ledger must be exact on a node
//! that loses nothing and must detect a loss.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::support::brokers::redis::Redis;
use crate::support::brokers::resp::Reply;
use crate::support::client::{Client, Dial};
use crate::support::dice::{Dice, given};
use crate::support::gateway::cluster::{Cluster, State, until};
use crate::support::ledger::crowd::{FORMS, Guests};
use crate::support::ledger::drill::Drill;
use crate::support::ledger::load::Plan;
use crate::support::ledger::ways::Way;
use crate::support::proxy::{LineFault, Proxy, Tamper, Tampered};
use crate::support::token::Claims;
use crate::support::wire::Form;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_can_be_frozen_killed_drained_and_started_again() {
    let cluster = Cluster::start(1, "").await;
    assert_eq!((cluster.len(), cluster.up_from(0), cluster.state(0)), (1, 0, State::Up));
    let mut client = cluster.node(0).connect("1", Form::YunquePb).await;
    assert_eq!(cluster.metric(0, "skylark_connections").await, 1.0);

    cluster.freeze(0);
    assert_eq!(cluster.state(0), State::Frozen);
    cluster.thaw(0);
    assert!(cluster.is_ready(0).await);

    let (first, port) = (cluster.node(0).pid(), cluster.node(0).address("ws"));
    cluster.kill(0).await;
    assert_eq!(client.closed().await, None);
    cluster.restart(0).await;
    assert_ne!((cluster.node(0).pid(), cluster.node(0).address("ws")), (first, port));
    assert_eq!(cluster.node(0).get("/nodes").await.data()["items"][0]["id"], "n1");

    let mut client = cluster.node(0).connect("1", Form::YunquePb).await;
    cluster.drain(0).await;
    assert_eq!(client.close_code().await, 4003);
    assert_eq!(cluster.state(0), State::Down);
}

/// Messages to users, rooms and everyone, from four publishers to clients of every dialect: each arrives once and in
/// order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_of_one_node_is_exact() {
    let cluster = Cluster::start(1, "").await;
    let guests = Guests { users: 12, devices: 2, rooms: 3, forms: FORMS, detours: HashMap::new() };
    let plan = Plan { users: 12, rooms: 3, ways: vec![http(); 4], period: PERIOD, batch: 5, wide: 6 };
    let drill = Drill::begin("the_ledger_of_one_node_is_exact", cluster, &guests, &plan).await;
    drill.taken(1_000).await;
    let verdict = drill.end_exact().await;
    // No client was disconnected: every message was accepted, and each went to at least one connection.
    assert_eq!((verdict.acked, verdict.declared, verdict.repeats), (verdict.published, 0, 0), "{verdict}");
    assert!(verdict.received > verdict.acked, "{verdict}");
}

/// The ledger detects each message that the line loses, doubles or swaps.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ledger_finds_every_deed_of_a_tampering_line() {
    let cluster = Cluster::start(1, "").await;
    let proxy = Proxy::start(cluster.node(0).address("ws"), Dice(given("SEED", 1) as u64)).await;
    proxy.set(LineFault::Tampering(Tamper { lose: 30, double: 30, swap: 30 }));
    let detours = HashMap::from([(0, proxy.address)]);
    let guests = Guests { users: 6, devices: 1, rooms: 0, forms: &[Form::YunquePb], detours };
    // One publisher and no wide streams: consecutive messages on a connection are consecutive in their stream.
    let plan = Plan { users: 6, rooms: 0, ways: vec![http()], period: PERIOD, batch: 5, wide: 0 };
    let drill = Drill::begin("the_ledger_finds_every_deed_of_a_tampering_line", cluster, &guests, &plan).await;
    drill.taken(1_000).await;
    proxy.set(LineFault::Clear);
    let verdict = drill.end().await;
    let Tampered { lost, doubled, swapped } = proxy.tampered();
    let [lost, doubled, swapped] = [lost, doubled, swapped].map(|deeds| deeds.load(Ordering::SeqCst));
    assert!(
        lost > 5 && doubled > 5 && swapped > 5,
        "expected more than 5 each: {lost} lost, {doubled} doubled, {swapped} swapped"
    );
    assert_eq!([verdict.lost, verdict.doubled, verdict.reordered], [lost, doubled, swapped], "{verdict}");
    assert!(!verdict.is_exact());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_proxy_slows_silences_truncates_and_cuts() {
    let cluster = Cluster::start(1, "").await;
    let node = cluster.node(0);
    let proxy = Proxy::start(node.address("ws"), Dice(1)).await;
    let dial = async || {
        let path = format!("/ws?token={}", Claims::of("1").mint());
        let mut client = Client::dial(proxy.address, Form::YunquePb, Dial::path(path)).await.unwrap();
        assert_eq!(client.reply().await["code"], "200");
        client
    };
    let push = async |action: &str| {
        node.post("/send", json!({"receiver": "1", "action": action})).await.data();
    };
    proxy.set(LineFault::Slow(Duration::from_millis(20)));
    let mut client = dial().await;
    push("slow").await;
    assert_eq!(client.message().await["action"], "slow");

    // Messages pushed during the silence arrive afterwards, in order.
    proxy.set(LineFault::Silent);
    push("first").await;
    push("second").await;
    proxy.set(LineFault::Clear);
    assert_eq!(client.message().await["action"], "first");
    assert_eq!(client.message().await["action"], "second");

    proxy.set(LineFault::Truncate(3));
    push("never whole").await;
    assert_eq!(client.closed().await, None);

    proxy.set(LineFault::Clear);
    let mut client = dial().await;
    proxy.set(LineFault::Cut);
    assert_eq!(client.closed().await, None);
    let mut refused = TcpStream::connect(proxy.address).await.unwrap();
    assert_eq!(refused.read(&mut [0; 1]).await.unwrap_or_default(), 0);
    assert_eq!(proxy.connections(), 3);
}

fn http() -> Way {
    Way::Http { place: 0 }
}

const PERIOD: Duration = Duration::from_millis(4);

#[tokio::test]
async fn a_redis_keeps_what_it_was_told_or_forgets_it() {
    let redis = Redis::keeping();
    let mut line = redis.line().await;
    assert_eq!(line.ask("SET name value").await.unwrap().text(), "OK");
    assert_eq!(line.ask("RPUSH list a b").await.unwrap().integer(), 2);
    let list = ["a", "b"].map(|text| Reply::Text(text.to_owned())).to_vec();
    assert_eq!(line.ask("LRANGE list 0 -1").await.unwrap(), Reply::List(list));
    assert!(matches!(line.ask("INCR name").await.unwrap(), Reply::Error(_)));
    // Synced within a second; a frozen server does not answer.
    until("the append-only file to be on", async || {
        let info = line.ask("INFO persistence").await.unwrap();
        info.text().contains("aof_pending_bio_fsync:0") && info.text().contains("aof_buffer_length:0")
    })
    .await;
    redis.freeze();
    let silence = tokio::time::timeout(Duration::from_millis(100), line.ask("GET name")).await;
    assert!(silence.is_err(), "{silence:?}");
    redis.thaw();

    redis.kill();
    redis.restart();
    assert_eq!(redis.line().await.ask("GET name").await.unwrap().text(), "value");
    redis.kill();
    redis.restart_empty();
    assert_eq!(redis.line().await.ask("GET name").await.unwrap(), Reply::Nothing);
    assert!(redis.url().starts_with("redis://127.0.0.1:"));
}
