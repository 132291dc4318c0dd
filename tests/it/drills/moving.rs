//! Devices move between nodes while messages arrive by every way in.

use std::time::Duration;

use super::{Topic, all_agree, by_every_way, guests, nodes_on};
use crate::support::brokers::redis::Redis;
use crate::support::ledger::crowd::Guests;
use crate::support::ledger::drill::{Drill, pick};

/// Duration of the long form; the short form has a number of moves.
const LONG: Duration = Duration::from_secs(300);
const MOVES: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_that_move_between_nodes_lose_nothing_and_hear_nothing_twice() {
    let (redis, topic) = (Redis::start(), Topic::create().await);
    let cluster = nodes_on(&redis, &topic.intake()).await;
    let guests = Guests { users: pick(40, 5_000), ..guests() };
    let name = "devices_that_move_between_nodes_lose_nothing_and_hear_nothing_twice";
    let mut drill = Drill::begin(name, cluster, &guests, &by_every_way(&guests, &redis, &topic)).await;
    let mut moves = 0;
    while pick(moves < MOVES, drill.elapsed() < LONG) {
        drill.move_one();
        drill.taken(pick(20, 100)).await;
        moves += 1;
    }
    drill.crowd.all_bound().await;
    all_agree(&drill.cluster, drill.crowd.len()).await;
    let verdict = drill.end_exact().await;
    println!("{moves} moves");
    assert_eq!(verdict.declared, 0, "a loss was declared without a fault: {verdict}");
}
