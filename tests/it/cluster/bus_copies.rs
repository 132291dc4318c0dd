//! Copies of a message on the bus, counted on the wire between Redis and each node. A user's message goes once to each
//! node that holds the user, a room's message once to each node with a member. Only a message for everyone is sent N
//! times. Over Kafka (`kafka`), each message is sent once.

mod kafka;

use std::ops::Range;

use serde_json::{Value, json};

use crate::support::brokers::redis::{Redis, bus_at};
use crate::support::client::Client;
use crate::support::dice::Dice;
use crate::support::gateway::Setup;
use crate::support::gateway::cluster::Cluster;
use crate::support::proxy::Proxy;
use crate::support::token::Claims;
use crate::support::wire::Form;

const PUSHES: usize = 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_three_nodes_a_message_is_copied_to_those_that_hold_its_user() {
    count(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_ten_nodes_a_message_is_copied_to_those_that_hold_its_user() {
    count(10).await;
}

async fn count(nodes: usize) {
    let redis = Redis::start();
    let mut proxies = Vec::new();
    for place in 0..nodes {
        proxies.push(Proxy::start(redis.address(), Dice(place as u64)).await);
    }
    let cluster = Cluster::with(nodes, |place| Setup::default().yaml(&bus_at(proxies[place].address))).await;
    let mut clients = audience(&cluster).await;
    let once = |places: &[usize]| (0..nodes).map(|place| usize::from(places.contains(&place)) * PUSHES).collect();
    let expected: [Vec<usize>; 3] = [once(&[0, nodes - 1]), once(&[1]), vec![PUSHES; nodes]];
    for ((path, body, receivers), expected) in pushes().into_iter().zip(expected) {
        proxies.iter().for_each(Proxy::record);
        let canonical = push(&cluster, path, &body, &mut clients[receivers]).await;
        let of = |proxy: &Proxy| proxy.recorded().iter().flat_map(|tape| pushed(tape)).collect::<Vec<usize>>();
        let records: Vec<Vec<usize>> = proxies.iter().map(of).collect();
        let bytes = records.iter().flatten().copied().max().unwrap_or_default();
        let copies: Vec<usize> = records.iter().map(Vec::len).collect();
        println!(
            "{nodes} nodes, {path}: {copies:?} copies of {PUSHES} messages, {bytes} bytes for a body of {canonical}"
        );
        assert_eq!(copies, expected, "{path}");
        assert!(bytes * 10 <= canonical * 13 + 640, "{path}: {bytes} bytes for a body of {canonical}");
    }
}

/// User `a` on the first and on the last node, and `b` in the room `r` on the second.
async fn audience(cluster: &Cluster) -> [Client; 3] {
    let (first, last, a) = (0, cluster.len() - 1, Claims::of("a"));
    [
        cluster.node(first).connect_as(a.clone().device("1"), Form::YunquePb).await.0,
        cluster.node(last).connect_as(a.device("2"), Form::YunquePb).await.0,
        cluster.node(1).connect_as(Claims::of("b").rooms(&["r"]), Form::YunquePb).await.0,
    ]
}

/// Pushes to the user `a`, to the room `r` and to everyone: the path, the body, and the clients that receive it.
fn pushes() -> [(&'static str, Value, Range<usize>); 3] {
    let body = json!({"action": "chat", "content": {"text": "x".repeat(160)}});
    let mut user = body.clone();
    user["receiver"] = "a".into();
    [
        ("/send", user, 0..2),
        ("/send/room", json!({"message": body.clone(), "room": "r"}), 2..3),
        ("/send/all", body, 0..3),
    ]
}

/// Pushes on a node in the middle, one message at a time, and waits for all. Returns the size of the canonical body.
async fn push(cluster: &Cluster, path: &str, body: &Value, receivers: &mut [Client]) -> usize {
    let mut http = cluster.node(cluster.len() / 2).http().await;
    let mut canonical = 0;
    for _ in 0..PUSHES {
        http.post(path, body).await.data();
    }
    for receiver in receivers {
        for _ in 0..PUSHES {
            receiver.message().await;
            // yunque's protobuf clients receive the canonical body after a type byte.
            canonical = receiver.payload.len() - 1;
        }
    }
    canonical
}

/// The size of each message that Redis pushed to a subscriber: `message`, channel, payload, as an array or a push.
fn pushed(tape: &[u8]) -> Vec<usize> {
    const HEAD: &[u8] = b"$7\r\nmessage\r\n";
    let starts = (0..tape.len().saturating_sub(HEAD.len())).filter(|at| tape[*at..].starts_with(HEAD));
    starts
        .map(|start| {
            let mut at = start + HEAD.len();
            for _ in 0..2 {
                let line = tape[at..].iter().position(|byte| *byte == b'\r').unwrap();
                let length: usize = std::str::from_utf8(&tape[at + 1..at + line]).unwrap().parse().unwrap();
                at += line + 2 + length + 2;
            }
            // `*3` or `>3` precedes it.
            at - start + 4
        })
        .collect()
}
