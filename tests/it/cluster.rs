//! Three nodes as processes on one Redis: clients and back ends see one cluster from every node.

mod away;
mod bus_copies;
mod events;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::brokers::redis::Redis;
use crate::support::client::{Client, Seen};
use crate::support::gateway::Setup;
use crate::support::gateway::cluster::{Cluster, name, until};
use crate::support::token::Claims;
use crate::support::wire::{Form, Frame};

/// `count` nodes that know each other. The Redis lives as long as its value.
async fn cluster(count: usize) -> (Redis, Cluster) {
    cluster_with(count, |_| String::new()).await
}

/// The same, with additional configuration for each node by its index.
async fn cluster_with(count: usize, yaml: impl Fn(usize) -> String) -> (Redis, Cluster) {
    let redis = Redis::start();
    let cluster = Cluster::with(count, |place| Setup::default().yaml(&redis.bus()).yaml(&yaml(place))).await;
    for place in 0..count {
        until("every node in every list", async || listed(&cluster, place).await.len() == count).await;
    }
    (redis, cluster)
}

async fn listed(cluster: &Cluster, place: usize) -> Vec<Value> {
    cluster.node(place).get("/nodes").await.data()["items"].as_array().unwrap().clone()
}

async fn uids(cluster: &Cluster, place: usize, query: &str) -> BTreeSet<String> {
    let data = cluster.node(place).get(&format!("/getOnlineUser?{query}")).await.data();
    data["items"].as_array().unwrap().iter().map(|item| item["uid"].as_str().unwrap().to_owned()).collect()
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

/// A phone that has sent its bind request.
async fn dialled(cluster: &Cluster, place: usize, uid: &str, device: &str) -> Client {
    let mut client = cluster.node(place).dial_cim(Form::CimJson).await;
    let token = Claims::of(uid).mint();
    client
        .sent("client_bind", json!({"token": token, "channel": "android", "deviceId": device, "deviceName": device}))
        .await;
    client
}

async fn phone(cluster: &Cluster, place: usize, uid: &str, device: &str) -> Client {
    let mut client = dialled(cluster, place, uid, device).await;
    let reply = client.reply().await;
    assert_eq!((&reply["key"], &reply["code"]), (&json!("client_bind"), &json!("200")), "{reply}");
    client
}

/// Checks that the client was told of its replacement, before or after its bind reply, and was closed. Reads to the end
/// of the socket, which sends the close echo: without it, a node waits for `queue.write_timeout`.
async fn was_replaced(client: &mut Client, by: &str) {
    let mut told = false;
    loop {
        match client.next().await {
            Seen::Frame(Frame::Message(message)) => told |= message["action"] == "999" && message["content"] == by,
            Seen::Frame(_) => {}
            Seen::Closed(why) => {
                assert_eq!((told, why.map(|(code, _)| code)), (true, Some(4502)));
                assert_eq!(client.next().await, Seen::Closed(None));
                return;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_push_a_room_and_a_kick_reach_clients_of_other_nodes() {
    let (_redis, cluster) = cluster(3).await;
    let mut yunque = cluster.node(1).connect("1074", Form::YunqueJson).await;
    let mut cim = cluster.node(2).connect("1075", Form::CimPb).await;

    let message = json!({"action": "chat", "content": {"text": "hi"}});
    let mut push = message.clone();
    push["receiver"] = "1074".into();
    let told = cluster.node(0).post("/send", push.clone()).await.data();
    assert_eq!((&told["queued"], &told["nodes"], told.get("delivered")), (&json!(true), &json!(1), None), "{told}");
    assert_eq!(yunque.message().await["content"], json!({"text": "hi"}));
    let told = cluster.node(0).post("/send?receipts=true", push).await.data();
    assert_eq!((&told["delivered"], told.get("queued")), (&json!(1), None), "{told}");
    yunque.message().await;

    let change = json!({"room": "lobby", "uids": ["1074", "1075", "1076"]});
    let told = cluster.node(0).post("/room/join", change).await.data();
    assert_eq!((&told["joined"], &told["offline"]), (&json!(2), &json!(["1076"])), "{told}");
    let told = cluster.node(0).post("/send/room", json!({"message": message, "room": "lobby"})).await.data();
    assert_eq!(told["nodes"], 2, "{told}");
    assert_eq!((&yunque.message().await["action"], &cim.message().await["action"]), (&json!("chat"), &json!("chat")));
    let rooms = cluster.node(1).get("/rooms").await.data();
    assert_eq!(rooms["items"], json!([{"room": "lobby", "connections": 2}]));

    let cid = cluster.node(0).get("/connections?uid=1075").await.data()["items"][0]["cid"].clone();
    let told = cluster.node(1).post("/kick", json!({"cid": cid, "reason": "out"})).await.data();
    assert_eq!(told, json!({"closed": 1}));
    assert_eq!(cim.message().await["action"], "999");
    assert_eq!(cim.close_code().await, 4503);
    let told = cluster.node(0).post("/kick", json!({"uid": "1074"})).await.data();
    assert_eq!(told, json!({"closed": 1}));
    assert_eq!(yunque.message().await["action"], "999");
    assert_eq!(yunque.close_code().await, 4503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_simultaneous_logins_exactly_one_stays() {
    let (_redis, cluster) = cluster(2).await;
    for round in 0..10 {
        let uid = format!("u{round}");
        let (one, two) = tokio::join!(dialled(&cluster, 0, &uid, "one"), dialled(&cluster, 1, &uid, "two"));
        let (mut one, mut two) = (one, two);
        let (winner, mut lives) = tokio::select! {
            () = was_replaced(&mut one, "two") => ("two", two),
            () = was_replaced(&mut two, "one") => ("one", one),
        };
        // The loser is listed until its socket has ended.
        until("the other device to be replaced", async || {
            let data = cluster.node(0).get(&format!("/connections?uid={uid}")).await.data();
            data["connections"] == 1 && data["items"][0]["device"] == winner
        })
        .await;
        assert_eq!(lives.ask("no_such_key", json!({})).await["code"], "404", "the winning device got no answer");
    }
    let mut first = phone(&cluster, 0, "later", "one").await;
    let _second = phone(&cluster, 1, "later", "two").await;
    was_replaced(&mut first, "two").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_cover_the_whole_cluster() {
    let (_redis, cluster) = cluster(3).await;
    let mut clients = Vec::new();
    for user in 0..9 {
        clients.push(cluster.node(user % 3).connect(&format!("u{user}"), Form::YunquePb).await);
    }
    clients.push(cluster.node(2).connect("u0", Form::YunquePb).await);
    let all = names(["u0", "u1", "u2", "u3", "u4", "u5", "u6", "u7", "u8"]);
    for place in 0..3 {
        assert_eq!(uids(&cluster, place, "").await, all);
        let data = cluster.node(place).get("/connections?size=4").await.data();
        assert_eq!((&data["connections"], data["items"].as_array().map(Vec::len)), (&json!(10), Some(4)), "{data}");
        let (mut seen, mut cursor) = (Vec::new(), "0".to_owned());
        loop {
            let data = cluster.node(place).get(&format!("/getOnlineUser?size=2&cursor={cursor}")).await.data();
            seen.extend(data["items"].as_array().unwrap().iter().map(|item| item["uid"].as_str().unwrap().to_owned()));
            let Some(next) = data.get("cursor") else { break };
            cursor = next.as_str().unwrap().to_owned();
        }
        assert_eq!(
            (seen.len(), seen.into_iter().collect::<BTreeSet<_>>()),
            (9, all.clone()),
            "the pages do not list each connection once"
        );
    }
    let both = cluster.node(1).get("/getOnlineUser?uid=u0").await.data();
    assert_eq!(both["items"][0]["connections"], 2, "{both}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_killed_vanishes_with_its_users_and_comes_back() {
    let (_redis, cluster) = cluster(3).await;
    let _moved = cluster.node(0).connect("stays", Form::YunquePb).await;
    let _gone = cluster.node(2).connect("gone", Form::YunquePb).await;
    let _both = cluster.node(2).connect("stays", Form::YunquePb).await;
    assert_eq!(uids(&cluster, 1, "").await, names(["gone", "stays"]));

    cluster.freeze(2);
    let data = cluster.node(1).get("/connections").await.data();
    assert_eq!(
        (&data["missing"], &data["connections"]),
        (&json!([name(2)]), &json!(1)),
        "the frozen node is not listed as missing"
    );
    cluster.kill(2).await;
    until("the dead node off the list", async || listed(&cluster, 1).await.len() == 2).await;
    until("its users to be offline", async || uids(&cluster, 1, "").await == names(["stays"])).await;
    let data = cluster.node(1).get("/connections").await.data();
    assert_eq!(data.get("missing"), None, "{data}");
    until("a report of the lost node", async || {
        cluster.node(0).log().contains("node lost") || cluster.node(1).log().contains("node lost")
    })
    .await;

    cluster.restart(2).await;
    let _back = cluster.node(2).connect("gone", Form::YunquePb).await;
    until("the node to be listed again", async || uids(&cluster, 0, "").await == names(["gone", "stays"])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_who_moves_gets_everything_once_and_every_node_chooses_alike() {
    let (_redis, cluster) = cluster(3).await;
    let mut here = cluster.node(0).connect("mover", Form::YunqueJson).await;
    for step in 0..6 {
        let text = format!("{step}");
        let push = json!({"receiver": "mover", "action": "chat", "content": {"text": text}});
        // The next node may still hold the user from before; with a receipt, its copy has been handed out too.
        cluster.node((step + 1) % 3).post("/send?receipts=true", push).await.data();
        assert_eq!(here.message().await["content"]["text"], text.as_str());
        let next = cluster.node((step + 1) % 3).connect("mover", Form::YunqueJson).await;
        here.close().await;
        let only = format!("the only connection of the user after step {step}");
        until(&only, async || cluster.node(0).get("/connections?uid=mover").await.data()["connections"] == 1).await;
        here = next;
    }

    let mut chosen = Vec::new();
    for place in 0..3 {
        chosen.push(cluster.node(place).get("/nodes/choose?uid=mover").await.data()["id"].clone());
    }
    assert!(chosen.iter().all(|id| *id == chosen[0]), "{chosen:?}");
    let place = (0..3).find(|place| chosen[0] == name(*place).as_str()).unwrap();
    cluster.drain(place).await;
    let others: Vec<usize> = (0..3).filter(|other| *other != place).collect();
    until("the node that left to be off the list", async || listed(&cluster, others[0]).await.len() == 2).await;
    let now = cluster.node(others[0]).get("/nodes/choose?uid=mover").await.data()["id"].clone();
    assert_ne!(now, chosen[0]);
}

/// Returns the next message and skips gap notices before it.
async fn after_gaps(client: &mut Client) -> Value {
    loop {
        match client.next().await {
            Seen::Frame(Frame::Reply(reply)) if reply["key"] == "gap" => {}
            Seen::Frame(Frame::Message(message)) => return message,
            other => panic!("expected a MESSAGE, got {other:?}"),
        }
    }
}

/// A gap is a REPLY in every dialect and framing: apps on CIM's SDKs display no message, and the connection stays open.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_comes_back_empty_costs_no_client_its_connection_and_each_is_told() {
    let (redis, cluster) = cluster(2).await;
    let mut clients = Vec::new();
    for (at, form) in Form::ALL.into_iter().enumerate() {
        clients.push((format!("u{at}"), cluster.node(0).connect(&format!("u{at}"), form).await));
    }
    redis.kill();
    cluster.unready(0).await;
    redis.restart_empty();
    for place in 0..2 {
        cluster.ready(place).await;
        until("both nodes in the list", async || listed(&cluster, place).await.len() == 2).await;
    }
    assert!(cluster.metric(0, "skylark_losses_declared_total").await >= 1.0);
    for (uid, client) in &mut clients {
        let gap = client.reply().await;
        assert_eq!((&gap["key"], &gap["code"]), (&json!("gap"), &json!("206")), "{:?}: {gap}", client.form);
        let push = json!({"receiver": uid, "action": "still there"});
        cluster.node(1).post("/send", push).await.data();
        assert_eq!(after_gaps(client).await["action"], "still there", "{:?}", client.form);
    }
}

#[tokio::test]
async fn push_to_a_users_connection_on_another_node_spares_another_user() {
    let (_redis, cluster) = cluster(2).await;
    let (mut alice, hers) = cluster.node(1).connect_as(Claims::of("alice"), Form::YunquePb).await;
    let (mut bob, his) = cluster.node(1).connect_as(Claims::of("bob"), Form::YunquePb).await;
    let push = async |bind: &Value| {
        let envelope = json!({"act": 3, "Uid": "alice", "Cid": bind["data"]["cid"], "msg": [{"action": "chat"}]});
        cluster.node(0).post("/publish?receipts=true", envelope).await.data()["items"][0].clone()
    };
    let item = push(&his).await;
    assert_eq!((&item["delivered"], &item["notOfUser"]["uid"]), (&json!(0), &json!("alice")), "{item}");
    let item = push(&hers).await;
    assert_eq!((&item["delivered"], &item["notOfUser"]), (&json!(1), &Value::Null), "{item}");
    assert_eq!(alice.message().await["action"], "chat");
    assert_eq!(bob.drain().await, Vec::<Value>::new());
}
