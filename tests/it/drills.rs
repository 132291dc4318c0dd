//! What the cluster promises, under everything that goes wrong: each drill is a ledger (`support/ledger.rs`) over real
//! processes, short here and long by `tests/drills`. docs/operations.md has the table of the long ones.

mod engine;
mod intake;
mod kafka;
mod moving;
mod nodes;
mod partition;
mod storm;

use std::collections::HashMap;
use std::time::Duration;

use crate::support::cluster::Cluster;
use crate::support::ledger::crowd::{FORMS, Guests};
use crate::support::ledger::drill::pick;
use crate::support::ledger::load::Plan;
use crate::support::ledger::ways::Way;
use crate::support::redis::Redis;

const NODES: usize = 3;

/// Users with two devices each, in a few rooms.
fn guests() -> Guests {
    let users = pick(40, 1_000);
    Guests { users, devices: 2, rooms: users / 10, forms: FORMS, detours: HashMap::new() }
}

/// Two publishers over HTTP at each node: about 400 messages a second in the short form.
fn plan(guests: &Guests) -> Plan {
    let ways = (0..2 * NODES).map(|number| Way::Http { place: number % NODES }).collect();
    let period = Duration::from_millis(pick(60, 20));
    Plan { users: guests.users, rooms: guests.rooms, ways, period, batch: 4, wide: pick(10, 2_000) }
}

/// The topics that back ends publish to.
fn intakes() -> &'static str {
    "intakes:\n  - {kind: redis, topic: chat}\n  - {kind: redis-stream, topic: push}"
}

/// The same, and as many by a Redis channel and a Redis stream.
fn mixed(guests: &Guests, redis: &Redis) -> Plan {
    let mut plan = plan(guests);
    let (redis, channel, key) = (redis.address(), "chat".to_owned(), "push".to_owned());
    for _ in 0..NODES {
        plan.ways.push(Way::Channel { redis, channel: channel.clone() });
        plan.ways.push(Way::RedisStream { redis, key: key.clone() });
    }
    plan
}

/// Every node names the same users and connections: what was lost and found again is the same for all.
async fn all_agree(cluster: &Cluster, connections: usize) {
    for place in 0..cluster.len() {
        crate::support::cluster::until(&format!("the whole crowd in the list of n{}", place + 1), async || {
            let answer = cluster.node(place).get("/getOnlineUser?size=1").await;
            answer.status == 200 && answer.data()["connections"] == connections
        })
        .await;
    }
}
