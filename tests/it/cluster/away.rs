//! Redirection of clients: by the bind reply, by `/nodes/choose`, and by a node that is full or drains.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::{cluster_with, listed};
use crate::support::client::{Client, Dial};
use crate::support::gateway::Gateway;
use crate::support::gateway::cluster::{Cluster, address, name, until};
use crate::support::token::Claims;
use crate::support::wire::Form;

/// Opens an unbound client.
async fn dial(node: &Gateway, form: Form) -> Client {
    if form.is_cim() {
        return node.dial_cim(form).await;
    }
    let dial = Dial::path("/ws").subprotocol(form.subprotocol());
    Client::dial_over(node.pipe("ws").await, node.address("ws"), form, dial).await.expect("the upgrade succeeds")
}

/// The end of the connection: code, reason, and the address of the next node if there is one.
async fn sent_away(client: &mut Client) -> (u16, String, Option<String>) {
    if client.form == Form::CimTcp {
        let reply = client.reply().await;
        assert_eq!(reply["key"], "closing", "{reply}");
        assert_eq!(client.closed().await, None);
        let text = |value: &Value| value.as_str().map(str::to_owned);
        return (
            text(&reply["code"]).unwrap().parse().unwrap(),
            text(&reply["message"]).unwrap(),
            text(&reply["data"]["next"]),
        );
    }
    let (code, words) = client.closed().await.expect("the node sends a close frame");
    match words.split_once("; next ") {
        Some((reason, next)) => (code, reason.to_owned(), Some(next.to_owned())),
        None => (code, words, None),
    }
}

async fn chosen(cluster: &Cluster, place: usize, query: &str) -> Value {
    cluster.node(place).get(&format!("/nodes/choose?{query}")).await.data()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_node_names_a_node_with_free_capacity() {
    let room =
        |place: usize| format!("limits: {{connections: {}, connections_per_ip: 0, connects_per_ip: 0}}", 2 - place);
    let (_redis, cluster) = cluster_with(2, room).await;
    let full = cluster.node(0);
    let _inside = [full.connect("a", Form::YunquePb).await, full.connect("b", Form::CimPb).await];
    let words = "too many connections".to_owned();
    for form in Form::ALL {
        let mut client = dial(&full, form).await;
        assert_eq!(sent_away(&mut client).await, (4004, words.clone(), Some(address(1))), "{form:?}");
    }
    assert_eq!(chosen(&cluster, 0, "uid=c").await["address"], address(1).as_str());

    let _there = cluster.node(1).connect("c", Form::CimTcp).await;
    until("the other node to be reported as full", async || listed(&cluster, 0).await[1]["connections"] == 1).await;
    for form in Form::ALL {
        let mut client = dial(&full, form).await;
        assert_eq!(sent_away(&mut client).await, (4004, words.clone(), None), "{form:?}");
    }
    assert_eq!(full.get("/nodes/choose?uid=c").await.status, 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_drains_names_to_each_client_the_one_that_every_other_node_chooses() {
    let (_redis, cluster) = cluster_with(3, |_| "drain: {wait: 4s, step_percent: 100, grace: 15s}".to_owned()).await;
    let node = cluster.node(0);
    let (mut bound, mut unbound) = (Vec::new(), Vec::new());
    for (at, form) in Form::ALL.into_iter().cycle().take(3 * Form::ALL.len()).enumerate() {
        bound.push((format!("u{at}"), node.connect(&format!("u{at}"), form).await));
        unbound.push(dial(&node, form).await);
    }
    node.signal(Signal::TERM);
    cluster.unready(0).await;
    let others = [Some(address(1)), Some(address(2))];
    for form in Form::ALL {
        let (code, words, next) = sent_away(&mut dial(&node, form).await).await;
        assert_eq!((code, &*words, others.contains(&next)), (4003, "restart", true), "{form:?}: {next:?}");
    }
    until("the drain of the node to be known", async || listed(&cluster, 1).await[0]["draining"] == true).await;
    let mut named = BTreeSet::new();
    for (uid, mut client) in bound {
        let next = chosen(&cluster, 1, &format!("uid={uid}")).await["address"].as_str().map(str::to_owned);
        assert_eq!(sent_away(&mut client).await, (4003, "restart".to_owned(), next.clone()), "{uid}");
        named.extend(next);
    }
    assert_eq!(named.len(), 2, "the users were not redirected to both remaining nodes");
    for mut client in unbound {
        let (code, _, next) = sent_away(&mut client).await;
        assert_eq!((code, others.contains(&next)), (4003, true), "{:?}: {next:?}", client.form);
    }
    node.ended().await;
}

/// Connects users in turn to each node and compares their bind replies with the other nodes' answers.
async fn binds(cluster: &Cluster) -> BTreeSet<String> {
    let mut ids = BTreeSet::new();
    for at in 0..12 {
        let (place, uid) = (at % 3, format!("u{at}"));
        let form = Form::ALL[at % Form::ALL.len()];
        let (_client, reply) = cluster.node(place).connect_as(Claims::of(&uid), form).await;
        let query = format!("uid={uid}&ip=127.0.0.1");
        let other = chosen(cluster, (place + 1) % 3, &query).await;
        assert_eq!(chosen(cluster, place, &query).await, other, "{uid}");
        let next = Some(&other["address"]).filter(|_| other["id"] != name(place).as_str());
        assert_eq!(reply["data"].get("next"), next, "{uid} at {}: {reply}", name(place));
        ids.insert(other["id"].to_string());
    }
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_bind_reply_names_the_node_that_every_node_chooses() {
    let (_redis, by_user) = cluster_with(3, |_| String::new()).await;
    assert!(binds(&by_user).await.len() > 1, "all users were sent to one node");
    assert_eq!(by_user.node(0).get("/nodes/choose").await.status, 400);
    drop(by_user);
    let (_redis, by_ip) = cluster_with(3, |_| "cluster: {choose_by: ip}".to_owned()).await;
    assert_eq!(binds(&by_ip).await.len(), 1, "one address was sent to several nodes");
    let elsewhere = chosen(&by_ip, 0, "ip=192.0.2.1&uid=u0").await;
    assert_eq!(elsewhere, chosen(&by_ip, 2, "ip=192.0.2.1").await, "the user changed the choice by address");
    assert_eq!(elsewhere["number"], json!(elsewhere["id"].as_str().unwrap()[1..].parse::<u16>().unwrap()));
}
