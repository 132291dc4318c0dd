//! Users whose devices move from node to node while messages come from all sides.

use super::{NODES, all_agree, guests, intakes, mixed};
use crate::support::cluster::Cluster;
use crate::support::ledger::crowd::Guests;
use crate::support::ledger::drill::{Drill, pick};
use crate::support::redis::Redis;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_that_move_between_nodes_lose_nothing_and_hear_nothing_twice() {
    let redis = Redis::start();
    let cluster = Cluster::start(NODES, &format!("{}\n{}", redis.bus(), intakes())).await;
    let guests = Guests { users: pick(40, 5_000), ..guests() };
    let name = "devices_that_move_between_nodes_lose_nothing_and_hear_nothing_twice";
    let mut drill = Drill::begin(name, cluster, &guests, &mixed(&guests, &redis)).await;
    for _ in 0..pick(60, 6_000) {
        let (device, place) = (drill.dice.roll(drill.crowd.len()), drill.dice.roll(NODES));
        drill.crowd.send_to(device, place);
        drill.taken(pick(20, 100)).await;
    }
    drill.crowd.all_bound().await;
    all_agree(&drill.cluster, drill.crowd.len()).await;
    let verdict = drill.end_exact().await;
    assert_eq!(verdict.declared, 0, "nothing was broken: {verdict}");
}
