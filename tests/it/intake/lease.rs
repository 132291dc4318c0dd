//! Plain pub/sub: exactly one of several nodes subscribes in every situation, and the result of PUBLISH is correct.

use std::time::{Duration, Instant};

use redis::aio::MultiplexedConnection;
use rustix::process::Signal;
use serde_json::json;

use super::{Kind, dial, metric, publish, subscribers, until};
use crate::support::brokers::redis::Redis;
use crate::support::client::{Client, PATIENCE};
use crate::support::gateway::{Gateway, Setup};
use crate::support::wire::Form;

/// Two nodes that share one channel, each with a connection of a user; the owner first.
struct Pair {
    owner: Gateway,
    other: Gateway,
    at_owner: Client,
    at_other: Client,
    back_end: MultiplexedConnection,
    _redis: Redis,
}

async fn node(redis: &Redis, id: &str, number: u8) -> (Gateway, Client) {
    let yaml = format!("node: {{id: {id}, number: {number}}}\n{}", Kind::Channel.yaml(redis));
    let gateway = Setup::default().yaml(&yaml).start();
    let client = gateway.connect("1074", Form::YunqueJson).await;
    (gateway, client)
}

/// Returns the holder of the lease.
async fn owner(back_end: &MultiplexedConnection) -> Option<String> {
    let mut ask = redis::cmd("GET");
    let value: Option<String> =
        ask.arg("{skylark:intake:chat}:owner").query_async(&mut back_end.clone()).await.unwrap();
    value.and_then(|value| Some(value.split_once(' ')?.0.to_owned()))
}

impl Pair {
    async fn new() -> Self {
        let redis = Redis::start();
        let back_end = dial(&redis).await;
        let (owner_node, at_owner) = node(&redis, "n1", 1).await;
        subscribers(&back_end, 1).await;
        let (other, at_other) = node(&redis, "n2", 2).await;
        assert_eq!(owner(&back_end).await.as_deref(), Some("n1"));
        let pair = Self { owner: owner_node, other, at_owner, at_other, back_end, _redis: redis };
        until("the other node to wait for the lease", || async {
            (pair.other.get("/health/ready").await.status == 200).then_some(())
        })
        .await;
        pair
    }

    async fn say(&mut self, action: &str) -> usize {
        publish(&mut self.back_end, json!({"msg": [{"action": action}]}).to_string().as_bytes()).await
    }

    /// Publishes until a node receives a message again, and returns the elapsed time. At most one node receives each.
    async fn silence(&mut self) -> Duration {
        let since = Instant::now();
        loop {
            match self.say("probe").await {
                0 => assert!(since.elapsed() < PATIENCE, "no node subscribed again"),
                1 => return since.elapsed(),
                more => panic!("expected 0 or 1 receivers, PUBLISH counted {more}"),
            }
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn one_node_subscribes_and_publish_counts_it() {
    let mut pair = Pair::new().await;
    for _ in 0..50 {
        assert_eq!(pair.say("hi").await, 1);
        assert_eq!(pair.at_owner.message().await["action"], "hi");
    }
    assert!(pair.at_other.drain().await.is_empty(), "the other node received a message without a bus");
}

#[tokio::test]
async fn another_node_takes_over_after_a_kill() {
    let mut pair = Pair::new().await;
    assert_eq!(pair.say("hi").await, 1);
    pair.owner.signal(Signal::KILL);
    let status = pair.owner.exit().await;
    assert!(!status.success());
    let silence = pair.silence().await;
    println!("taken over after {silence:?}");
    assert_eq!(pair.at_other.message().await["action"], "probe");
    assert_eq!(owner(&pair.back_end).await.as_deref(), Some("n2"));
}

#[tokio::test]
async fn a_drain_gives_the_subscription_back_at_once_and_loses_nothing() {
    let mut pair = Pair::new().await;
    for at in 0..100 {
        assert_eq!(pair.say(&at.to_string()).await, 1);
    }
    pair.owner.signal(Signal::TERM);
    for at in 0..100 {
        assert_eq!(pair.at_owner.message().await["action"], at.to_string());
    }
    // The handover is complete: the owner received every message that PUBLISH counted.
    until("the other node to have the lease", || async {
        (owner(&pair.back_end).await.as_deref() == Some("n2")).then_some(())
    })
    .await;
    pair.silence().await;
    assert_eq!(pair.at_other.message().await["action"], "probe");
    assert!(pair.owner.exit().await.success());
}

#[tokio::test]
async fn stopped_owner_delivers_nothing_after_takeover() {
    let mut pair = Pair::new().await;
    pair.owner.signal(Signal::STOP);
    // The stopped node's socket still accepts messages. PUBLISH counts one receiver, which is correct as far as Redis
    // can know.
    let (mut counted, mut heard) = (0, 0);
    for _ in 0..100 {
        counted += pair.say("early").await;
    }
    assert_eq!(counted, 100);
    until("the takeover by the other node", || async {
        (owner(&pair.back_end).await.as_deref() == Some("n2")).then_some(())
    })
    .await;
    // The other node has the lease before it has the subscription.
    while heard == 0 {
        let count = pair.say("probe").await;
        assert!(count <= 1, "expected at most 1 receiver, PUBLISH counted {count}");
        counted += count;
        heard += pair.at_other.drain().await.len();
    }
    assert_eq!(pair.say("begin").await, 1, "the stopped node is still subscribed");
    while pair.at_other.message().await["action"] != "begin" {
        heard += 1;
    }
    pair.owner.signal(Signal::CONT);
    // Counted messages that the other node did not receive are declared lost. Redis discards unsent output of a client
    // that it closes: a message published at that moment is lost without notice.
    let line = "skylark_intake_lost_total{intake=\"redis chat\",reason=\"lease\"}";
    let lost = until("the loss to be reported", || async {
        let lost = metric(&pair.owner, line).await;
        (lost >= 100.0).then_some(lost)
    })
    .await;
    assert!(
        lost <= f64::from(u32::try_from(counted - heard).unwrap()),
        "{lost} reported as lost, {heard} of {counted} received"
    );
    assert!(pair.at_owner.drain().await.is_empty(), "a message that the stopped node had read was delivered");
    for at in 0..20 {
        assert_eq!(pair.say(&at.to_string()).await, 1);
        assert_eq!(pair.at_other.message().await["action"], at.to_string());
    }
}

/// The emptied server has no term. The next owner's term must not equal the one after the first owner's.
#[tokio::test]
async fn an_owner_of_an_emptied_redis_says_nothing_that_another_may_have_said() {
    let mut pair = Pair::new().await;
    pair.owner.signal(Signal::STOP);
    for _ in 0..10 {
        assert_eq!(pair.say("early").await, 1);
    }
    let _: () = redis::cmd("FLUSHALL").query_async(&mut pair.back_end).await.unwrap();
    until("the takeover by the other node", || async {
        (owner(&pair.back_end).await.as_deref() == Some("n2")).then_some(())
    })
    .await;
    // It has the lease before it has the subscription.
    while pair.at_other.drain().await.is_empty() {
        pair.say("probe").await;
    }
    pair.other.signal(Signal::KILL);
    until("the lease to expire", || async { owner(&pair.back_end).await.is_none().then_some(()) }).await;
    pair.owner.signal(Signal::CONT);
    while pair.say("late").await == 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(pair.at_owner.message().await["action"], "late");
    assert!(metric(&pair.owner, "skylark_intake_lost_total{intake=\"redis chat\",reason=\"lease\"}").await >= 10.0);
}

#[tokio::test]
async fn lapsed_lease_without_other_nodes_loses_nothing() {
    let redis = Redis::start();
    let mut back_end = dial(&redis).await;
    let (gateway, mut client) = node(&redis, "n1", 1).await;
    subscribers(&back_end, 1).await;
    gateway.signal(Signal::STOP);
    for at in 0..10 {
        let envelope = json!({"msg": [{"action": at.to_string()}]}).to_string();
        assert_eq!(publish(&mut back_end, envelope.as_bytes()).await, 1);
    }
    until("the lease to expire", || async { owner(&back_end).await.is_none().then_some(()) }).await;
    gateway.signal(Signal::CONT);
    for at in 0..10 {
        assert_eq!(client.message().await["action"], at.to_string());
    }
}

#[tokio::test]
async fn a_node_that_falls_behind_leaves_the_channel_and_what_was_counted_arrives_once() {
    let (redis, bus) = (Redis::start(), Redis::start());
    let yaml = format!("{}\n{}", bus.bus(), Kind::Channel.yaml(&redis));
    let gateway = Setup::default().yaml(&yaml).start();
    let mut client = gateway.connect("1074", Form::YunqueJson).await;
    let mut back_end = dial(&redis).await;
    subscribers(&back_end, 1).await;
    let envelope = |at: usize| json!({"Uid": "1074", "msg": [{"action": "chat", "title": at.to_string()}]}).to_string();
    bus.freeze();
    let mut counted = Vec::new();
    let mut refused = 0;
    let mut at = 0;
    // The bus accepts nothing, so the intake fills up and PUBLISH reports no receiver.
    while refused < 10 {
        match publish(&mut back_end, envelope(at).as_bytes()).await {
            0 => refused += 1,
            1 => counted.push(at),
            more => panic!("expected 0 or 1 receivers, PUBLISH counted {more}"),
        }
        at += 1;
        assert!(at < 20_000, "the intake accepted 20 000 messages");
    }
    bus.thaw();
    while publish(&mut back_end, envelope(at).as_bytes()).await == 0 {
        at += 1;
        tokio::task::yield_now().await;
    }
    counted.push(at);
    assert!(counted.len() > 4_000, "{}", counted.len());
    for at in counted {
        assert_eq!(client.message().await["title"], at.to_string());
    }
    assert!(client.drain().await.is_empty(), "a message arrived twice");
}

/// Sum of `lost` over the log lines that contain `words`.
fn lost(log: &str, words: &str) -> usize {
    let lines = log.lines().filter(|line| line.contains(words));
    let number = |line: &str| {
        let (_, rest) = line.split_once("lost\":").or_else(|| line.split_once("lost="))?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<usize>().ok()
    };
    lines.filter_map(number).sum()
}

#[tokio::test]
async fn an_intake_that_no_filter_judges_for_leaves_its_channel_and_counts_what_a_drain_leaves() {
    let redis = Redis::start();
    let mut gateway = Setup::default().plugin("word-filter").yaml(&Kind::Channel.yaml(&redis)).start();
    let mut back_end = dial(&redis).await;
    subscribers(&back_end, 1).await;
    std::fs::remove_file(gateway.folder.plugins().join("word-filter.wasm")).unwrap();
    gateway.plugin_until("word-filter", |p| p["state"] == "missing").await;
    let envelope = json!({"Uid": "1074", "msg": [{"action": "chat"}]}).to_string();
    let mut counted = 0;
    while publish(&mut back_end, envelope.as_bytes()).await == 1 {
        counted += 1;
        assert!(counted < 20_000, "the intake accepted 20 000 messages");
    }
    let left = "skylark_intake_left_total{intake=\"redis chat\",reason=\"plugin\"}";
    until("the end of the subscription", || async { (metric(&gateway, left).await >= 1.0).then_some(()) }).await;
    gateway.said("intake is full; unsubscribed").await;
    gateway.signal(Signal::TERM);
    assert!(gateway.exit().await.success());
    let words = "drain ended before all messages were accepted; the rest is lost";
    assert_eq!(lost(&gateway.log(), words), counted, "the log does not report every counted message as lost");
}
