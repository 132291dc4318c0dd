//! Nodes that fall and come back: kill -9, drain, a rolling restart.

use super::{NODES, all_agree, guests, plan};
use crate::support::cluster::Cluster;
use crate::support::ledger::drill::{Drill, pick};
use crate::support::redis::Redis;

async fn begin(name: &'static str) -> (Redis, Drill) {
    let redis = Redis::start();
    let cluster = Cluster::start(NODES, &redis.bus()).await;
    let guests = guests();
    (redis, Drill::begin(name, cluster, &guests, &plan(&guests)).await)
}

/// Whoever is on another node notices nothing; whoever was on the fallen one is back elsewhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_costs_the_others_nothing() {
    let (_redis, mut drill) = begin("a_node_that_is_killed_costs_the_others_nothing").await;
    for _ in 0..pick(2, 20) {
        drill.taken(200).await;
        let place = drill.dice.roll(NODES);
        drill.cluster.kill(place).await;
        drill.crowd.all_bound().await;
        drill.taken(200).await;
        drill.cluster.restart(place).await;
    }
    all_agree(&drill.cluster, drill.crowd.len()).await;
    let verdict = drill.end_exact().await;
    assert_eq!(verdict.declared, 0, "the survivors lost nothing: {verdict}");
}

/// Drained, its users moved to the others; the next one follows when it is back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_loses_nothing() {
    let (_redis, mut drill) = begin("a_rolling_restart_under_load_loses_nothing").await;
    for place in 0..NODES * pick(1, 5) {
        let place = place % NODES;
        drill.taken(200).await;
        drill.cluster.drain(place).await;
        drill.crowd.all_bound().await;
        drill.cluster.restart(place).await;
    }
    all_agree(&drill.cluster, drill.crowd.len()).await;
    let verdict = drill.end_exact().await;
    assert_eq!(verdict.declared, 0, "{verdict}");
}
