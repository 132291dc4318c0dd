//! The cluster's guarantees under faults. Each drill is a ledger (`support/ledger.rs`) over real processes, short here
//! and long with `tests/drills`. docs/drills.md has the table of the long ones.

mod channel;
mod engine;
mod giants;
mod journal;
mod kafka;
mod moving;
mod nodes;
mod partition;
mod resume;
mod storm;
mod throttled;

use std::collections::HashMap;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{interval, timeout};

use crate::support::brokers::kafka::{kafka, unique};
use crate::support::brokers::redis::Redis;
use crate::support::client::PATIENCE;
use crate::support::gateway::cluster::Cluster;
use crate::support::ledger::crowd::{FORMS, Guests};
use crate::support::ledger::drill::pick;
use crate::support::ledger::load::Plan;
use crate::support::ledger::uid;
use crate::support::ledger::ways::Way;

const NODES: usize = 3;

/// Users with two devices each in a few rooms.
fn guests() -> Guests {
    let users = pick(40, 1_000);
    Guests { users, devices: 2, rooms: users / 10, forms: FORMS, detours: HashMap::new() }
}

/// Two HTTP publishers per node: about 400 messages a second in the short form.
fn plan(guests: &Guests) -> Plan {
    let ways = (0..2 * NODES).map(|number| Way::Http { place: number % NODES }).collect();
    let period = Duration::from_millis(pick(60, 20));
    Plan { users: guests.users, rooms: guests.rooms, ways, period, batch: 4, wide: pick(10, 2_000) }
}

/// Nodes of a drill reply late on a busy machine, and its verdict counts complete answers only.
const PATIENT: &str = "cluster: {reply_timeout: 30s}";

/// The topics of this Redis that back ends publish to.
const INTAKES: &str = "intakes:\n  - {kind: redis, topic: chat}\n  - {kind: redis-stream, topic: push}";

/// Adds the same number of publishers on a Redis channel and on a Redis stream.
fn mixed(guests: &Guests, redis: &Redis) -> Plan {
    let mut plan = plan(guests);
    let (redis, channel, key) = (redis.address(), "chat".to_owned(), "push".to_owned());
    for _ in 0..NODES {
        plan.ways.push(Way::Channel { redis, channel: channel.clone() });
        plan.ways.push(Way::RedisStream { redis, key: key.clone() });
    }
    plan
}

/// Nodes on this Redis with its topics and additional configuration.
async fn nodes_on(redis: &Redis, more: &str) -> Cluster {
    Cluster::start(NODES, &format!("{}\n{PATIENT}\n{INTAKES}\n{more}", redis.bus())).await
}

/// A topic of the shared Kafka.
struct Topic {
    brokers: String,
    name: String,
}

impl Topic {
    /// Creates a topic with two partitions for each node.
    async fn create() -> Self {
        let topic = Self::named();
        kafka().create_topic(&topic.name, 6).await;
        topic
    }

    /// Creates a topic for records larger than 1 MiB.
    async fn large() -> Self {
        let topic = Self::named();
        kafka().create_large_topic(&topic.name).await;
        topic
    }

    fn named() -> Self {
        Self { brokers: kafka().bootstrap.clone(), name: unique("drill") }
    }

    /// An entry of a node's list of intakes, after [`INTAKES`].
    fn intake(&self) -> String {
        let Self { brokers, name } = self;
        format!("  - {{kind: kafka, topic: {name}, group: {name}, brokers: {brokers:?}}}")
    }

    fn way(&self) -> Way {
        Way::Kafka { brokers: self.brokers.clone(), topic: self.name.clone() }
    }
}

/// All three ingresses: the publishers of [`mixed`], and as many Kafka publishers as each other broker way has. The
/// fifteen publishers send 2 000 messages a second in the long form.
fn by_every_way(guests: &Guests, redis: &Redis, topic: &Topic) -> Plan {
    let mut plan = mixed(guests, redis);
    plan.ways.extend([(); NODES].map(|()| topic.way()));
    plan.period = Duration::from_millis(pick(60, 29));
    plan
}

/// Waits until every node reports the same connections, online users and their nodes, rooms, and chosen node of each
/// user. State that was lost and rebuilt is the same on all.
async fn all_agree(cluster: &Cluster, connections: usize) {
    let mut last = String::new();
    let agreed = async {
        let mut looks = interval(Duration::from_millis(100));
        loop {
            looks.tick().await;
            let mut all = Vec::new();
            for place in 0..cluster.len() {
                all.push(told(cluster, place).await);
            }
            last = match all.into_iter().collect::<Result<Vec<_>, _>>() {
                Ok(all) if all[0][0]["connections"] != connections => format!("{}", all[0][0]),
                Ok(all) => match difference(&all) {
                    Some(difference) => difference,
                    None => return,
                },
                Err(missing) => missing,
            };
        }
    };
    assert!(timeout(PATIENCE, agreed).await.is_ok(), "the nodes disagree about {connections} connections: {last}");
}

/// The first answers that differ between nodes.
fn difference(all: &[Vec<Value>]) -> Option<String> {
    (0..all[0].len())
        .map(|at| all.iter().map(|told| &told[at]).collect::<Vec<_>>())
        .find(|answers| answers.windows(2).any(|pair| pair[0] != pair[1]))
        .map(|answers| format!("{answers:?}"))
}

/// The answers of a node about the cluster.
///
/// # Errors
/// The first answer that another node is missing from, or that is a failure.
async fn told(cluster: &Cluster, place: usize) -> Result<Vec<Value>, String> {
    let mut http = cluster.node(place).http().await;
    let lists = ["/getOnlineUser?size=50", "/connections?size=50", "/rooms?size=1000"].map(str::to_owned);
    let choices = (0..20).map(|user| format!("/nodes/choose?uid={}", uid(user)));
    let mut told = Vec::new();
    for path in lists.into_iter().chain(choices) {
        let answer = http.get(&path).await;
        if answer.status != 200 {
            return Err(format!("node {place} answers {path} with {}", answer.status));
        }
        let mut data = answer.data();
        if let Some(missing) = data.get("missing") {
            return Err(format!("node {place} answers {path} without {missing}"));
        }
        // Without `node.address`, only the node itself knows its address.
        data.as_object_mut().map(|data| data.remove("address"));
        told.push(data);
    }
    Ok(told)
}
