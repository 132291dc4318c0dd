//! The single reader of a plain Redis channel crashes or freezes.

use std::time::Duration;

use super::{all_agree, guests, mixed, nodes_on};
use crate::support::brokers::redis::Redis;
use crate::support::brokers::resp::Reply;
use crate::support::gateway::cluster::until;
use crate::support::ledger::drill::{Drill, pick};

async fn begin(name: &'static str) -> (Redis, Drill) {
    let redis = Redis::start();
    let (cluster, guests) = (nodes_on(&redis, "").await, guests());
    let drill = Drill::begin(name, cluster, &guests, &mixed(&guests, &redis)).await;
    (redis, drill)
}

/// The index of the node that holds the subscription of the channel `chat`.
async fn owner(redis: &Redis) -> usize {
    let mut line = redis.line().await;
    let mut found = None;
    until("an owner of the channel", async || {
        let Reply::List(keys) = line.ask("KEYS *chat*:owner").await.unwrap() else { return false };
        let Some(key) = keys.first() else { return false };
        if let Reply::Text(token) = line.ask(&format!("GET {}", key.text())).await.unwrap() {
            let number = token.split(' ').next().and_then(|node| node.strip_prefix('n')?.parse::<usize>().ok());
            found = number.map(|number| number - 1);
        }
        found.is_some()
    })
    .await;
    found.unwrap()
}

/// Messages read but not handed on are lost with the owner, as in plain pub/sub; another node takes the channel two
/// seconds later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_of_the_channel_that_is_killed_is_followed_by_another() {
    let (redis, mut drill) = begin("an_owner_of_the_channel_that_is_killed_is_followed_by_another").await;
    for _ in 0..pick(2, 20) {
        drill.taken(200).await;
        let place = owner(&redis).await;
        drill
            .broken(async {
                drill.cluster.kill(place).await;
                until("the new owner", async || owner(&redis).await != place).await;
            })
            .await;
        drill.taken(100).await;
        drill.crowd.all_bound().await;
        drill.cluster.restart(place).await;
    }
    all_agree(&drill.cluster, drill.crowd.len()).await;
    drill.end_exact().await;
}

/// The owner resumes after its lease has passed to another node, with messages it had received before: none is
/// delivered twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_of_the_channel_that_freezes_does_nothing_twice() {
    let (redis, mut drill) = begin("an_owner_of_the_channel_that_freezes_does_nothing_twice").await;
    for _ in 0..pick(1, 5) {
        drill.taken(200).await;
        let place = owner(&redis).await;
        drill
            .broken(async {
                drill.cluster.freeze(place);
                drill.run_for(Duration::from_secs(5)).await;
                drill.cluster.thaw(place);
                drill.cluster.ready(place).await;
            })
            .await;
        drill.crowd.all_bound().await;
    }
    all_agree(&drill.cluster, drill.crowd.len()).await;
    drill.end_exact().await;
}
