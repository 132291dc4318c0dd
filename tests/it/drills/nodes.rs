//! Nodes that exit and return: kill -9, drain, and a rolling restart.

use std::path::PathBuf;
use std::sync::Arc;

use super::{INTAKES, NODES, PATIENT, all_agree, guests, mixed, nodes_on, plan};
use crate::support::brokers::redis::Redis;
use crate::support::gateway::cluster::Cluster;
use crate::support::gateway::{Setup, built};
use crate::support::ledger::drill::{Drill, pick};

/// Clients on other nodes notice nothing; clients of the killed node reconnect to another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_costs_the_others_nothing() {
    let redis = Redis::start();
    let cluster = Cluster::start(NODES, &format!("{}\n{PATIENT}", redis.bus())).await;
    let guests = guests();
    let name = "a_node_that_is_killed_costs_the_others_nothing";
    let mut drill = Drill::begin(name, cluster, &guests, &plan(&guests)).await;
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
    assert_eq!(verdict.declared, 0, "the surviving nodes declared a loss: {verdict}");
}

/// The node sends its clients away in steps while others move, and hands over its part of every topic. Not even a plain
/// channel loses a message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_drains_while_users_move_loses_nothing() {
    let redis = Redis::start();
    let (wait, step) = pick(("100ms", 25), ("1s", 5));
    let cluster = nodes_on(&redis, &format!("drain: {{wait: {wait}, step_percent: {step}, grace: 30s}}")).await;
    let guests = guests();
    let name = "a_node_that_drains_while_users_move_loses_nothing";
    let mut drill = Drill::begin(name, cluster, &guests, &mixed(&guests, &redis)).await;
    for _ in 0..pick(1, 5) {
        drill.taken(200).await;
        let place = drill.dice.roll(NODES);
        let cluster = Arc::clone(&drill.cluster);
        let draining = tokio::spawn(async move { cluster.drain(place).await });
        while !draining.is_finished() {
            drill.move_one();
            drill.taken(20).await;
        }
        draining.await.unwrap();
        drill.crowd.all_bound().await;
        drill.cluster.restart(place).await;
    }
    all_agree(&drill.cluster, drill.crowd.len()).await;
    let verdict = drill.end_exact().await;
    assert_eq!(verdict.declared, 0, "{verdict}");
    assert!(verdict.closed.contains_key(&RESTART), "no client was closed with 4003: {verdict}");
}

/// Nodes are replaced one by one with another version, and back. Each drains and its users move to the others; the next
/// follows once it is up again. `OTHER` names another build of the command; without it, both versions are the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_loses_nothing() {
    let other = std::env::var_os("OTHER").map_or_else(built, PathBuf::from);
    let redis = Redis::start();
    let yaml = format!("{}\n{INTAKES}", redis.bus());
    let cluster = Cluster::with(NODES, |_| Setup::default().yaml(&yaml).program(&other)).await;
    let guests = guests();
    let name = "a_rolling_restart_under_load_loses_nothing";
    let mut drill = Drill::begin(name, cluster, &guests, &mixed(&guests, &redis)).await;
    for step in 0..NODES * pick(1, 4) {
        let place = step % NODES;
        let next = if (step / NODES).is_multiple_of(2) { built() } else { other.clone() };
        drill.taken(200).await;
        drill.cluster.drain(place).await;
        drill.crowd.all_bound().await;
        drill.cluster.restart_as(place, &next).await;
    }
    all_agree(&drill.cluster, drill.crowd.len()).await;
    let verdict = drill.end_exact().await;
    println!("between {} and {}", other.display(), built().display());
    assert_eq!(verdict.declared, 0, "{verdict}");
}

/// The close code of a draining node.
const RESTART: u16 = 4003;
