//! One node loses its connection to the engine: it reports this, gives up its users, and returns.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{NODES, PATIENT, all_agree, guests, plan};
use crate::support::brokers::redis::{Redis, bus_at};
use crate::support::dice::{Dice, given};
use crate::support::gateway::Setup;
use crate::support::gateway::cluster::Cluster;
use crate::support::ledger::drill::{Drill, pick};
use crate::support::proxy::{LineFault, Proxy};

/// The close code of a node that lost the engine.
const CUT_OFF: u16 = 4006;

/// The first partition lasts half a lease: clients stay and get a gap notice. The second outlasts the lease: a
/// node that the others consider gone must have no clients left.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_cut_off_gives_its_users_away_and_comes_back() {
    let redis = Redis::start();
    let proxy = Proxy::start(redis.address(), Dice(given("SEED", 1) as u64)).await;
    let way = |place| if place == 0 { proxy.address } else { redis.address() };
    let cluster = Cluster::with(NODES, |place| Setup::default().yaml(&bus_at(way(place))).yaml(PATIENT)).await;
    let guests = guests();
    let name = "a_node_that_is_cut_off_gives_its_users_away_and_comes_back";
    let mut drill = Drill::begin(name, cluster, &guests, &plan(&guests)).await;
    let mut held = Vec::new();
    for length in [5, pick(15, 60)].map(Duration::from_secs) {
        drill.taken(200).await;
        // A node learns of another one with the next renewal or on request.
        all_agree(&drill.cluster, drill.crowd.len()).await;
        held.push(drill.crowd.bound_at(0));
        drill
            .broken(async {
                let begun = Instant::now();
                proxy.set(LineFault::Silent);
                drill.cluster.unready(0).await;
                println!("unready {:.1?} after it was cut off for {length:?}", begun.elapsed());
                assert!(begun.elapsed() < length, "the node became unready only after the partition");
                misses_the_others(&drill.cluster).await;
                drill.run_for(length.saturating_sub(begun.elapsed())).await;
                proxy.set(LineFault::Clear);
                drill.cluster.ready(0).await;
            })
            .await;
        drill.crowd.all_bound().await;
    }
    all_agree(&drill.cluster, drill.crowd.len()).await;
    let verdict = drill.end_exact().await;
    assert!(verdict.gaps >= held[0], "not all {} clients of the node were notified of a gap: {verdict}", held[0]);
    let sent_away = verdict.closed.get(&CUT_OFF).copied().unwrap_or_default();
    assert!(sent_away >= held[1], "not all {} clients of the node were closed: {verdict}", held[1]);
}

/// Requests for the whole cluster name the unreachable nodes: a partial result is marked as partial.
async fn misses_the_others(cluster: &Cluster) {
    let data = cluster.node(0).get("/getOnlineUser?size=1").await.data();
    let missing: BTreeSet<&str> = data["missing"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    assert_eq!(missing, ["n2", "n3"].into(), "{data}");
}
