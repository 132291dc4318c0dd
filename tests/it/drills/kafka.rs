//! Kafka as bus and as intake under faults: a broker crash, the loss of a leader of three replicas, and a group
//! rebalance.

use std::sync::Arc;

use super::{NODES, PATIENT, all_agree, guests, plan};
use crate::support::brokers::kafka::{self, Kafka, unique};
use crate::support::brokers::redis::Redis;
use crate::support::gateway::cluster::{Cluster, until};
use crate::support::ledger::Verdict;
use crate::support::ledger::drill::{Drill, pick};
use crate::support::ledger::ways::Way;

/// Partitions of the intake's topic: two for each node.
const PARTITIONS: i32 = 6;

/// Starts nodes on this bus that share a topic of this Kafka, and publishers, half of which produce to it. Returns the
/// topic's name too.
async fn begin(name: &'static str, kafka: &Kafka, bus: &str) -> (String, Drill) {
    let topic = unique("drill");
    kafka.create_topic(&topic, PARTITIONS).await;
    let brokers = kafka.bootstrap.clone();
    let intake = format!("intakes:\n  - {{kind: kafka, topic: {topic}, brokers: {brokers:?}}}");
    let cluster = Cluster::start(NODES, &format!("{bus}\n{intake}\n{PATIENT}")).await;
    let guests = guests();
    let mut plan = plan(&guests);
    plan.ways.truncate(NODES);
    plan.ways.extend([(); NODES].map(|()| Way::Kafka { brokers: brokers.clone(), topic: topic.clone() }));
    (topic, Drill::begin(name, cluster, &guests, &plan).await)
}

/// Checks that every device is back and that the ledger is exact without declared losses.
async fn end(mut drill: Drill) -> Verdict {
    drill.crowd.all_bound().await;
    all_agree(&drill.cluster, drill.crowd.len()).await;
    let verdict = drill.end_exact().await;
    assert_eq!(verdict.declared, 0, "{verdict}");
    verdict
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_that_move_on_a_kafka_bus_lose_nothing_and_hear_nothing_twice() {
    let (kafka, name) = (kafka::kafka(), "devices_that_move_on_a_kafka_bus_lose_nothing_and_hear_nothing_twice");
    let (_, mut drill) = begin(name, kafka, &kafka.bus(&unique("drill"))).await;
    for _ in 0..pick(60, 3_000) {
        let (device, place) = (drill.dice.roll(drill.crowd.len()), drill.dice.roll(NODES));
        drill.crowd.send_to(device, place);
        drill.taken(pick(20, 100)).await;
    }
    end(drill).await;
}

/// A crashed node leaves its partitions to the others and gets some back: nothing is lost or out of order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_shares_its_partitions_anew_loses_nothing() {
    let redis = Redis::start();
    regroup("a_group_that_shares_its_partitions_anew_loses_nothing", &redis.bus()).await;
}

/// The same with the bus, and the state of the users, on the same Kafka.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_falls_on_a_kafka_bus_costs_the_others_nothing() {
    let bus = kafka::kafka().bus(&unique("drill"));
    regroup("a_node_that_falls_on_a_kafka_bus_costs_the_others_nothing", &bus).await;
}

async fn regroup(name: &'static str, bus: &str) {
    let (_, mut drill) = begin(name, kafka::kafka(), bus).await;
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
    end(drill).await;
}

/// The broker still has everything it acknowledged; HTTP traffic continues meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kafka_that_falls_and_comes_back_loses_nothing() {
    let (own, redis) = (own(1).await, Redis::start());
    bounce("a_kafka_that_falls_and_comes_back_loses_nothing", own, &redis.bus()).await;
}

/// During the outage, every push is refused in time and nodes are not ready.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kafka_bus_that_falls_and_comes_back_loses_nothing_acked() {
    let own = own(1).await;
    let bus = own.kafka.bus("skylark");
    let verdict = bounce("a_kafka_bus_that_falls_and_comes_back_loses_nothing_acked", own, &bus).await;
    assert!(verdict.refused > 0, "no publish was refused: {verdict}");
}

async fn bounce(name: &'static str, own: Arc<kafka::KafkaCluster>, bus: &str) -> Verdict {
    let is_bus = bus.contains("kind: kafka");
    let (_, drill) = begin(name, &own.kafka, bus).await;
    for _ in 0..pick(1, 5) {
        drill.taken(300).await;
        hurt(&own, |own| own.kill9(1)).await;
        if is_bus {
            drill.cluster.unready(0).await;
            drill.refused().await;
        }
        hurt(&own, |own| own.start_node(1)).await;
        for place in 0..NODES {
            drill.cluster.ready(place).await;
        }
        drill.taken(300).await;
    }
    if is_bus {
        for metric in ["skylark_bus_reconnects_total", "skylark_bus_records_total", "skylark_lease_changes_total"] {
            until(metric, async || drill.cluster.metric(0, metric).await > 0.0).await;
        }
        until("each partition to be read by one node", async || {
            let mut partitions = 0.0;
            for place in 0..NODES {
                partitions += drill.cluster.metric(place, "skylark_intake_partitions").await;
            }
            partitions == f64::from(PARTITIONS)
        })
        .await;
    }
    end(drill).await
}

/// Three brokers, each record on all three, acknowledged by at least two. The leader of a bus partition is killed, then
/// a leader of the intake's topic: acked messages survive, and the two others continue.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_of_three_that_falls_costs_nothing_acked() {
    let own = own(3).await;
    let name = "a_leader_of_three_that_falls_costs_nothing_acked";
    let (intake, mut drill) = begin(name, &own.kafka, &own.kafka.bus("skylark")).await;
    let topics = ["skylark.bus".to_owned(), intake];
    for _ in 0..pick(1, 6) {
        for topic in &topics {
            drill.taken(300).await;
            let replicas = own.kafka.replicas(topic).await;
            let partition = drill.dice.roll(replicas.len());
            let fallen = replicas[partition].leader;
            println!("broker {fallen} is killed: it leads {topic}/{partition}");
            hurt(&own, move |own| own.kill9(u8::try_from(fallen).unwrap())).await;
            until("the new leader", async || {
                let leader = own.kafka.replicas(topic).await.get(partition).map_or(-1, |now| now.leader);
                leader >= 0 && leader != fallen
            })
            .await;
            drill.taken(300).await;
            hurt(&own, move |own| own.start_node(u8::try_from(fallen).unwrap())).await;
            for topic in &topics {
                until("all replicas in sync", async || {
                    let replicas = own.kafka.replicas(topic).await;
                    !replicas.is_empty() && replicas.iter().all(|now| now.in_sync.len() == 3)
                })
                .await;
            }
        }
    }
    end(drill).await;
}

async fn own(brokers: u8) -> Arc<kafka::KafkaCluster> {
    tokio::task::spawn_blocking(move || Arc::new(kafka::KafkaCluster::start(brokers))).await.unwrap()
}

/// The script blocks until it is done, so it runs on a blocking thread.
async fn hurt(own: &Arc<kafka::KafkaCluster>, act: impl FnOnce(&kafka::KafkaCluster) + Send + 'static) {
    let own = Arc::clone(own);
    tokio::task::spawn_blocking(move || act(&own)).await.unwrap();
}
