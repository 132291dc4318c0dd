//! Messages that come by Kafka, under what goes wrong there: a broker that falls, the leader of three, a group that shares
//! its partitions anew.

use super::{NODES, all_agree, guests, plan};
use crate::support::cluster::Cluster;
use crate::support::kafka;
use crate::support::ledger::drill::{Drill, pick};
use crate::support::ledger::ways::Way;
use crate::support::redis::Redis;

/// Partitions of the topic: each node has two.
const PARTITIONS: i32 = 6;

/// Nodes that share a topic of this Kafka, and publishers of which half produce to it.
async fn begin(name: &'static str, kafka: &kafka::Kafka) -> (Redis, Drill) {
    let redis = Redis::start();
    let topic = kafka::unique("drill");
    kafka.create_topic(&topic, PARTITIONS).await;
    let brokers = kafka.bootstrap.clone();
    let intake = format!("intakes:\n  - {{kind: kafka, topic: {topic}, brokers: {brokers:?}}}");
    let cluster = Cluster::start(NODES, &format!("{}\n{intake}", redis.bus())).await;
    let guests = guests();
    let mut plan = plan(&guests);
    plan.ways.truncate(NODES);
    plan.ways.extend([(); NODES].map(|()| Way::Kafka { brokers: brokers.clone(), topic: topic.clone() }));
    (redis, Drill::begin(name, cluster, &guests, &plan).await)
}

/// A node that falls leaves its partitions to the others, and takes some again: nothing of them is lost or out of order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_shares_its_partitions_anew_loses_nothing() {
    let (_redis, mut drill) = begin("a_group_that_shares_its_partitions_anew_loses_nothing", kafka::kafka()).await;
    for _ in 0..pick(1, 5) {
        drill.taken(300).await;
        let place = drill.dice.roll(NODES);
        drill.cluster.kill(place).await;
        drill.crowd.all_bound().await;
        drill.taken(300).await;
        drill.cluster.restart(place).await;
        let place = drill.dice.roll(NODES);
        drill.cluster.drain(place).await;
        drill.crowd.all_bound().await;
        drill.cluster.restart(place).await;
    }
    all_agree(&drill.cluster, drill.crowd.len()).await;
    let verdict = drill.end_exact().await;
    assert_eq!(verdict.declared, 0, "{verdict}");
}

/// What the broker had acknowledged it still has; meanwhile nobody's push is taken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kafka_that_falls_and_comes_back_loses_nothing() {
    let own = tokio::task::spawn_blocking(|| kafka::Cluster::start(1)).await.unwrap();
    hurt("a_kafka_that_falls_and_comes_back_loses_nothing", own, pick(1, 5)).await;
}

/// Three brokers, each record on all three, acknowledged by two at least: each of them falls in turn, and with it the
/// partitions that it led.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_of_three_that_falls_costs_nothing() {
    let own = tokio::task::spawn_blocking(|| kafka::Cluster::start(3)).await.unwrap();
    hurt("a_leader_of_three_that_falls_costs_nothing", own, pick(1, 6)).await;
}

async fn hurt(name: &'static str, own: kafka::Cluster, times: u8) {
    let brokers = if own.kafka.bootstrap.contains(',') { 3 } else { 1 };
    let (_redis, mut drill) = begin(name, &own.kafka).await;
    let mut own = own;
    for time in 0..times {
        drill.taken(300).await;
        let broker = time % brokers + 1;
        own = tokio::task::spawn_blocking(move || {
            own.kill9(broker);
            own.start_node(broker);
            own
        })
        .await
        .unwrap();
        drill.taken(300).await;
    }
    drill.crowd.all_bound().await;
    all_agree(&drill.cluster, drill.crowd.len()).await;
    let verdict = drill.end_exact().await;
    assert_eq!(verdict.declared, 0, "{verdict}");
    drop(own);
}
