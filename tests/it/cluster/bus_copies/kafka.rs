//! The same over Kafka, counted in the topic: one record per message for any number of nodes. Nodes without the
//! recipient skip a record by its header and do not read its body.

use serde_json::json;

use super::{PUSHES, audience, push, pushes};
use crate::support::brokers::kafka::{Found, kafka, unique};
use crate::support::gateway::cluster::{Cluster, until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_three_nodes_a_message_is_one_record() {
    count(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_ten_nodes_a_message_is_one_record() {
    count(10).await;
}

async fn count(nodes: usize) {
    let prefix = unique("copies");
    let topic = format!("{prefix}.bus");
    let cluster = Cluster::start(nodes, &kafka().bus(&prefix)).await;
    let mut clients = audience(&cluster).await;
    let mut before = 0;
    let mut for_user = None;
    for (path, body, receivers) in pushes() {
        let canonical = push(&cluster, path, &body, &mut clients[receivers]).await;
        let mut records = kafka().all(&topic).await;
        records.retain(|record| record.payload.windows(100).any(|window| window == [b'x'; 100]));
        let (count, bytes) = (records.len() - before, records.iter().map(size).max().unwrap_or_default());
        println!(
            "{nodes} nodes, {path}: {count} records of {PUSHES} messages, {bytes} bytes for a body of {canonical}"
        );
        assert_eq!(count, PUSHES, "{path}");
        assert!(bytes * 10 <= canonical * 13 + 640, "{path}: {bytes} bytes for a body of {canonical}");
        before = records.len();
        for_user = for_user.or(records.pop());
    }

    // The header addresses `a`, but the body is no record. Only the nodes that hold `a` open and refuse it. The next
    // record in the same partition needs an answer of every node.
    let read = r#"skylark_bus_records_total{engine="kafka",what="read"}"#;
    let before = sums(&cluster, read).await;
    kafka().put_beside(&topic, &for_user.unwrap(), b"\xff no record of any version").await;
    let body = json!({"receiver": "a", "action": "chat"});
    let told = cluster.node(1).post("/send?receipts=true", body).await.data();
    assert_eq!(told["nodes"], 2, "{told}");
    let has_come = |(now, before): (&f64, &f64)| now > before;
    until("every node to read on", async || sums(&cluster, read).await.iter().zip(&before).all(has_come)).await;
    let holds_a = |place: usize| place == 0 || place == nodes - 1;
    let expected: Vec<f64> = (0..nodes).map(|place| if holds_a(place) { 1.0 } else { 0.0 }).collect();
    assert_eq!(sums(&cluster, "skylark_bus_unreadable_total").await, expected);
    assert!(sums(&cluster, r#"skylark_bus_records_total{engine="kafka",what="skipped"}"#).await[0] > 0.0);
}

/// The value of a metric on each node.
async fn sums(cluster: &Cluster, name: &str) -> Vec<f64> {
    let mut sums = Vec::new();
    for place in 0..cluster.len() {
        sums.push(cluster.metric(place, name).await);
    }
    sums
}

/// Payload and headers of a record in bytes, without Kafka's framing in a batch.
fn size(record: &Found) -> usize {
    let headers = record.headers.iter().map(|(name, value)| name.len() + value.len());
    record.payload.len() + headers.sum::<usize>()
}
