//! Messages that come by brokers, under what goes wrong on that way: owners that fall or freeze, poison, sizes.

use std::time::Duration;

use serde_json::json;

use super::{NODES, all_agree, guests, intakes, mixed};
use crate::support::cluster::{Cluster, until};
use crate::support::ledger::drill::{Drill, pick};
use crate::support::ledger::uid;
use crate::support::redis::Redis;
use crate::support::resp::Reply;
use crate::support::wire::Form;

/// One batch in `wide` is for a room, and one for everyone; 0 = none, `None` = as the plan says.
async fn begin(name: &'static str, wide: Option<usize>) -> (Redis, Drill) {
    let redis = Redis::start();
    let cluster = Cluster::start(NODES, &format!("{}\n{}", redis.bus(), intakes())).await;
    let guests = guests();
    let mut plan = mixed(&guests, &redis);
    plan.wide = wide.unwrap_or(plan.wide);
    (redis, Drill::begin(name, cluster, &guests, &plan).await)
}

/// The place of the node that has the one subscription of the channel `chat`.
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

/// What it had read and not handed on is lost with it, as plain pub/sub is; another one has the channel two seconds later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_of_the_channel_that_is_killed_is_followed_by_another() {
    let (redis, mut drill) = begin("an_owner_of_the_channel_that_is_killed_is_followed_by_another", None).await;
    for _ in 0..pick(2, 20) {
        drill.taken(200).await;
        let place = owner(&redis).await;
        drill
            .broken(async {
                drill.cluster.kill(place).await;
                until("another owner", async || owner(&redis).await != place).await;
            })
            .await;
        drill.taken(100).await;
        drill.crowd.all_bound().await;
        drill.cluster.restart(place).await;
    }
    all_agree(&drill.cluster, drill.crowd.len()).await;
    drill.end_exact().await;
}

/// It wakes with a lease that is another's, and with what came to it before: nothing of that is delivered twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_owner_of_the_channel_that_freezes_does_nothing_twice() {
    let (redis, mut drill) = begin("an_owner_of_the_channel_that_freezes_does_nothing_twice", None).await;
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

/// Every tenth record is no envelope, one is as large as a body may be, and one is for ten thousand users.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_and_giants_hold_nobody_up() {
    // Nothing for everyone: the two who wait for giants hear nothing else.
    let (redis, drill) = begin("poison_and_giants_hold_nobody_up", Some(0)).await;
    let mut line = redis.line().await;
    let mut add = async |payload: Vec<u8>| {
        let words = [b"XADD".to_vec(), b"push".to_vec(), b"*".to_vec(), b"data".to_vec(), payload];
        let replies = line.pipeline(&[words.to_vec()]).await.unwrap();
        assert!(matches!(replies[0], Reply::Text(_)), "{replies:?}");
    };
    let poison = pick(40, 2_000);
    for number in 0..poison {
        drill.taken(10).await;
        let mut garbage = format!("poison {number}").into_bytes();
        garbage.resize(8 + drill_size(number), 0xff);
        add(garbage).await;
    }
    let mut giant = drill.cluster.node(0).connect("giant", Form::YunquePb).await;
    let mut far = drill.cluster.node(1).connect(&uid(1_004_321), Form::YunquePb).await;
    let text = "x".repeat(50_000);
    let messages: Vec<_> =
        (0..20).map(|n| json!({"id": n + 1, "action": "giant", "content": {"text": text}})).collect();
    add(json!({"act": 2, "Uid": "giant", "msg": messages}).to_string().into_bytes()).await;
    let crowd: Vec<String> = (1_000_000..1_010_000).map(uid).collect();
    let wide = json!({"act": 1, "Uid": crowd.join(","), "msg": [{"id": 1, "action": "wide"}]});
    add(wide.to_string().into_bytes()).await;
    for id in 1..=20 {
        assert_eq!(giant.message().await["id"], id);
    }
    assert_eq!(far.message().await["action"], "wide");
    drill.end_exact().await;
    let mut line = redis.line().await;
    until("every dead letter", async || line.ask("XLEN push:dead").await.unwrap().integer() == poison).await;
}

/// Poison of every size.
fn drill_size(number: i64) -> usize {
    usize::try_from(number * 37 % 900).unwrap()
}
