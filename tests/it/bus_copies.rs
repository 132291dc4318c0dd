//! How often a message crosses the bus, counted on the wire between Redis and each node: once for each node that holds
//! its user, once for each node with a member of its room, and N times only for everyone.

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::cluster::Cluster;
use crate::support::dice::Dice;
use crate::support::gateway::Setup;
use crate::support::proxy::Proxy;
use crate::support::redis::{Redis, bus_at};
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

/// User `a` is on the first and the last node, `b` in the room `r` on the second.
async fn count(nodes: usize) {
    let redis = Redis::start();
    let mut proxies = Vec::new();
    for place in 0..nodes {
        proxies.push(Proxy::start(redis.address(), Dice(place as u64)).await);
    }
    let cluster = Cluster::with(nodes, |place| Setup::default().yaml(&bus_at(proxies[place].address))).await;
    let (first, last) = (0, nodes - 1);
    let a = Claims::of("a");
    let here = cluster.node(first).connect_as(a.clone().device("1"), Form::YunquePb).await.0;
    let there = cluster.node(last).connect_as(a.device("2"), Form::YunquePb).await.0;
    let b = cluster.node(1).connect_as(Claims::of("b").rooms(&["r"]), Form::YunquePb).await.0;

    let mut clients = [here, there, b];
    let once = |places: &[usize]| (0..nodes).map(|place| usize::from(places.contains(&place)) * PUSHES).collect();
    let body = json!({"action": "chat", "content": {"text": "x".repeat(160)}});
    let user = json!({"receiver": "a", "action": "chat", "content": {"text": "x".repeat(160)}});
    let room = json!({"message": body.clone(), "room": "r"});
    for (path, body, expected, receivers) in [
        ("/send", user, once(&[first, last]), 0..2),
        ("/send/room", room, once(&[1]), 2..3),
        ("/send/all", body, vec![PUSHES; nodes], 0..3),
    ] {
        let (copies, bytes, canonical) = push(&cluster, &proxies, path, &body, &mut clients[receivers]).await;
        println!(
            "{nodes} nodes, {path}: {copies:?} copies of {PUSHES} messages, {bytes} bytes for a body of {canonical}"
        );
        assert_eq!(copies, expected as Vec<usize>, "{path}");
        assert!(bytes * 10 <= canonical * 13 + 640, "{path}: {bytes} bytes for a body of {canonical}");
    }
}

/// Pushes at a node in the middle, one at a time, and waits until all came. Answers how many records of the bus each node
/// got, the size of the largest with all that Redis puts around it, and the size of the canonical body within.
async fn push(
    cluster: &Cluster,
    proxies: &[Proxy],
    path: &str,
    body: &Value,
    receivers: &mut [Client],
) -> (Vec<usize>, usize, usize) {
    proxies.iter().for_each(Proxy::record);
    let mut http = cluster.node(cluster.len() / 2).http().await;
    let mut canonical = 0;
    for _ in 0..PUSHES {
        http.post(path, body).await.data();
    }
    for receiver in receivers {
        for _ in 0..PUSHES {
            receiver.message().await;
            // What yunque's protobuf clients get is the canonical body behind a type byte.
            canonical = receiver.payload.len() - 1;
        }
    }
    let of = |proxy: &Proxy| proxy.recorded().iter().flat_map(|tape| pushed(tape)).collect::<Vec<usize>>();
    let records: Vec<Vec<usize>> = proxies.iter().map(of).collect();
    let largest = records.iter().flatten().copied().max().unwrap_or_default();
    (records.iter().map(Vec::len).collect(), largest, canonical)
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
            // Before it stands `*3` or `>3`.
            at - start + 4
        })
        .collect()
}
