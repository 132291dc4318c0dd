//! One node that cannot reach the engine, while everything else can: it says so, gives its users away, and comes back.

use std::time::Duration;

use super::{NODES, all_agree, guests, plan};
use crate::support::cluster::Cluster;
use crate::support::dice::{Dice, given};
use crate::support::gateway::Setup;
use crate::support::ledger::drill::{Drill, pick};
use crate::support::proxy::{Proxy, Weather};
use crate::support::redis::{Redis, bus_at};

/// For so long that its lease ends: nodes that believe it gone and clients that are still on it must not be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_gives_its_users_away_and_comes_back() {
    let redis = Redis::start();
    let proxy = Proxy::start(redis.address(), Dice(given("SEED", 1) as u64)).await;
    let way = |place| if place == 0 { proxy.address } else { redis.address() };
    let cluster = Cluster::with(NODES, |place| Setup::default().yaml(&bus_at(way(place)))).await;
    let guests = guests();
    let name = "a_node_that_is_cut_off_gives_its_users_away_and_comes_back";
    let mut drill = Drill::begin(name, cluster, &guests, &plan(&guests)).await;
    for length in [5, pick(15, 60)].map(Duration::from_secs) {
        drill.taken(200).await;
        drill
            .broken(async {
                proxy.set(Weather::Silent);
                drill.run_for(length).await;
                proxy.set(Weather::Clear);
                drill.cluster.ready(0).await;
            })
            .await;
        drill.crowd.all_bound().await;
    }
    all_agree(&drill.cluster, drill.crowd.len()).await;
    drill.end_exact().await;
}
