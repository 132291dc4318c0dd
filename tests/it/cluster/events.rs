//! Online and offline events for plugins: once in the whole cluster, also after a node is killed.

use std::collections::BTreeMap;

use serde_json::json;

use super::listed;
use crate::support::brokers::redis::Redis;
use crate::support::client::Client;
use crate::support::gateway::Setup;
use crate::support::gateway::cluster::{Cluster, until};
use crate::support::wire::Form;

/// The events plugin of each node pushes its events to this room.
const WATCH: &str = "grants = [\"outbox\"]\n[settings]\nannounce = \"watch\"\n";

/// A user in that room, with the number of notices per event text.
struct Watcher {
    client: Client,
    told: BTreeMap<String, usize>,
}

impl Watcher {
    async fn at(cluster: &Cluster, place: usize) -> Self {
        let client = cluster.node(place).connect("watcher", Form::YunqueJson).await;
        cluster.node(place).post("/room/join", json!({"room": "watch", "uid": "watcher"})).await.data();
        Self { client, told: BTreeMap::new() }
    }

    /// Reads until each of these events has been counted as often as given; other events are counted too.
    async fn until(&mut self, events: &BTreeMap<String, usize>) {
        while events.iter().any(|(event, times)| self.told.get(event).is_none_or(|told| told < times)) {
            let message = self.client.message().await;
            let content = |name: &str| message["content"][name].as_str().unwrap().to_owned();
            if content("uid") != "watcher" {
                *self.told.entry(format!("{} {}", content("what"), content("uid"))).or_default() += 1;
            }
        }
    }
}

fn events<'a>(what: &str, users: impl IntoIterator<Item = &'a str>) -> BTreeMap<String, usize> {
    users.into_iter().map(|user| (format!("{what} {user}"), 1)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_users_of_a_node_that_is_killed_are_told_offline_once_by_one_survivor() {
    let redis = Redis::start();
    let setup = |_| Setup::default().plugin("fault-events").manifest("fault-events", WATCH).yaml(&redis.bus());
    let cluster = Cluster::with(3, setup).await;
    until("all three nodes in the list", async || listed(&cluster, 0).await.len() == 3).await;
    let mut watcher = Watcher::at(&cluster, 0).await;

    let lost: Vec<String> = (0..50).map(|user| format!("u{user}")).collect();
    let lost = || lost.iter().map(String::as_str);
    let stay = ["both", "moves"];
    let mut clients = Vec::new();
    for user in lost().chain(stay) {
        clients.push(cluster.node(2).connect(user, Form::YunquePb).await);
    }
    let both = cluster.node(1).connect("both", Form::YunquePb).await;
    let mut expected = events("online", lost().chain(stay));
    watcher.until(&expected).await;

    cluster.kill(2).await;
    drop(clients);
    let moved = cluster.node(0).connect("moves", Form::YunquePb).await;
    expected.extend(events("offline", lost()));
    watcher.until(&expected).await;

    // A user that returns later produces online and offline events as usual. A user that never left goes offline now.
    cluster.restart(2).await;
    let back = cluster.node(2).connect("u0", Form::YunquePb).await;
    for client in [both, moved, back] {
        client.close().await;
    }
    expected.extend(events("offline", stay));
    expected.extend(["online u0", "offline u0"].map(|event| (event.to_owned(), 2)));
    watcher.until(&expected).await;
    assert_eq!(watcher.told, expected, "an event is repeated or unexpected");

    let fallen = |text: String| {
        let mut lines = text.lines().filter(|line| line.starts_with("skylark_lease_changes_total"));
        let line = lines.find(|line| line.contains("\"fallen\""));
        line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
    };
    let mut by = Vec::new();
    for place in 0..3 {
        by.push(fallen(cluster.node(place).get("/metrics").await.body));
    }
    assert!((by.iter().sum::<f64>() - 1.0).abs() < 0.5, "expected one report of the lost node, got {by:?} by node");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_of_two_nodes_that_fall_is_told_offline_once() {
    let redis = Redis::start();
    let setup = |_| Setup::default().plugin("fault-events").manifest("fault-events", WATCH).yaml(&redis.bus());
    let cluster = Cluster::with(3, setup).await;
    let mut watcher = Watcher::at(&cluster, 0).await;
    let mut clients = Vec::new();
    for place in [1, 2] {
        clients.push(cluster.node(place).connect(&format!("of-{place}"), Form::YunquePb).await);
        clients.push(cluster.node(place).connect("both", Form::YunquePb).await);
    }
    let users = ["of-1", "of-2", "both"];
    let mut expected = events("online", users);
    watcher.until(&expected).await;
    cluster.kill(1).await;
    cluster.kill(2).await;
    expected.extend(events("offline", users));
    watcher.until(&expected).await;

    cluster.node(0).connect("last", Form::YunquePb).await.close().await;
    expected.extend(events("online", ["last"]));
    expected.extend(events("offline", ["last"]));
    watcher.until(&expected).await;
    assert_eq!(watcher.told, expected);
}
