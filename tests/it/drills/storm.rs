//! A node crashes, and all its clients connect to another node at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::brokers::redis::Redis;
use crate::support::client::Client;
use crate::support::gateway::Gateway;
use crate::support::gateway::cluster::Cluster;
use crate::support::http::Http;
use crate::support::ledger::Clock;
use crate::support::ledger::crowd::{Crowd, FORMS, Guests};
use crate::support::ledger::drill::pick;
use crate::support::wire::Form;

/// Longest time of a push to a client that stayed connected.
pub(super) const STARVED: Duration = Duration::from_secs(2);

/// Half of the crowd is on each node; the first node's half arrives at the second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_reconnects_settles_and_starves_nobody() {
    let redis = Redis::start();
    let cluster = Arc::new(Cluster::start(2, &redis.bus()).await);
    let moving = pick(300, 5_000);
    let guests = Guests { users: 2 * moving, devices: 1, rooms: 0, forms: FORMS, detours: Default::default() };
    let mut crowd = Crowd::gather(&guests, &cluster, Clock::start()).await;

    let mut probe = Probe::at(&cluster.node(1)).await;
    let calm = probe.push_while(|pushes| pushes < 200).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let watched = Arc::clone(&is_over);
    let probing = tokio::spawn(async move { probe.push_while(|_| !watched.load(Ordering::SeqCst)).await });
    let begun = Instant::now();
    cluster.kill(0).await;
    crowd.all_bound().await;
    let settled = begun.elapsed();
    is_over.store(true, Ordering::SeqCst);
    let storm = probing.await.unwrap();
    println!(
        "{moving} of {} came back within {settled:.1?}; a push took {calm} before, {storm} meanwhile",
        guests.users
    );
    assert!(storm.worst < STARVED, "{storm}");
    cluster.restart(0).await;
    crowd.close(&[]).await;
}

/// The times of pushes to one user.
pub(super) struct Latency {
    pushes: usize,
    median: Duration,
    p99: Duration,
    pub(super) worst: Duration,
}

impl Latency {
    fn of(mut each: Vec<Duration>) -> Self {
        each.sort_unstable();
        let at = |share: usize| each[(each.len() * share / 100).min(each.len() - 1)];
        Self { pushes: each.len(), median: at(50), p99: at(99), worst: at(100) }
    }
}

impl std::fmt::Display for Latency {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { pushes, median, p99, worst } = self;
        write!(out, "{median:.1?} at the median, {p99:.1?} at p99, {worst:.1?} at worst ({pushes} pushes)")
    }
}

/// Pushes to a client of one node, one at a time.
pub(super) struct Probe {
    client: Client,
    http: Http,
}

impl Probe {
    pub(super) async fn at(node: &Gateway) -> Self {
        Self { client: node.connect("live", Form::YunquePb).await, http: node.http().await }
    }

    /// Pushes at least once.
    pub(super) async fn push_while(&mut self, goes_on: impl Fn(usize) -> bool) -> Latency {
        let mut each = Vec::new();
        while each.is_empty() || goes_on(each.len()) {
            let begun = Instant::now();
            self.http.post("/send", &json!({"receiver": "live", "action": "probe"})).await.data();
            self.client.message().await;
            each.push(begun.elapsed());
        }
        Latency::of(each)
    }
}
