//! A Redis that crashes, freezes or loses its data: losses are declared, and the cluster recovers without help.

use std::time::{Duration, Instant};

use super::{NODES, all_agree, guests, mixed, nodes_on};
use crate::support::brokers::redis::Redis;
use crate::support::ledger::Verdict;
use crate::support::ledger::drill::{Drill, pick};

async fn begin(name: &'static str) -> (Redis, Drill) {
    let redis = Redis::keeping();
    let (cluster, guests) = (nodes_on(&redis, "").await, guests());
    let drill = Drill::begin(name, cluster, &guests, &mixed(&guests, &redis)).await;
    (redis, drill)
}

/// Waits for full recovery and checks the ledger.
async fn recovered(mut drill: Drill) -> Verdict {
    drill.crowd.all_bound().await;
    drill.taken(400).await;
    all_agree(&drill.cluster, drill.crowd.len()).await;
    drill.end_exact().await
}

async fn all_ready(drill: &Drill) {
    for place in 0..NODES {
        drill.cluster.ready(place).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_killed_loses_only_what_is_declared() {
    let (redis, drill) = begin("a_redis_that_is_killed_loses_only_what_is_declared").await;
    for _ in 0..pick(2, 20) {
        drill.taken(200).await;
        drill
            .broken(async {
                redis.kill();
                drill.cluster.unready(0).await;
                drill.refused().await;
                redis.restart();
                all_ready(&drill).await;
            })
            .await;
    }
    let verdict = recovered(drill).await;
    assert!(verdict.declared > 0, "no client was notified of the loss: {verdict}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_forgot_everything_is_told_again() {
    let (redis, drill) = begin("a_redis_that_forgot_everything_is_told_again").await;
    for _ in 0..pick(1, 5) {
        drill.taken(200).await;
        drill
            .broken(async {
                redis.kill();
                drill.cluster.unready(0).await;
                redis.restart_empty();
                all_ready(&drill).await;
            })
            .await;
    }
    recovered(drill).await;
}

/// Redis does not answer, and every connection stays open. In the long form the freeze outlasts the lease, and nodes
/// give up their users.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_freezes_is_waited_for() {
    let (redis, drill) = begin("a_redis_that_freezes_is_waited_for").await;
    drill.taken(200).await;
    drill
        .broken(async {
            redis.freeze();
            let begun = Instant::now();
            drill.refused().await;
            drill.run_for(Duration::from_secs(pick(4, 30)).saturating_sub(begun.elapsed())).await;
            redis.thaw();
            all_ready(&drill).await;
        })
        .await;
    recovered(drill).await;
}
