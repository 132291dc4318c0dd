//! Ids across restarts of a node: none is reused, regardless of the message rate and of the way the node ended.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::brokers::kafka::{kafka, unique};
use crate::support::brokers::redis::Redis;
use crate::support::client::Client;
use crate::support::gateway::cluster::until;
use crate::support::gateway::{Gateway, Setup};
use crate::support::wire::Form;

/// Messages per request.
const BATCH: usize = 500;
/// Requests. Their ids cover more seconds, at 1 024 ids a second, than pass until the node runs again.
const REQUESTS: usize = 60;

async fn cid(node: &Gateway, uid: &str) -> (Client, u64) {
    let client = node.connect(uid, Form::YunqueJson).await;
    let rows = node.get(&format!("/connections?uid={uid}")).await.data();
    let cid = rows["items"][0]["cid"].as_u64().unwrap();
    (client, cid)
}

/// Consumes many ids and returns the greatest.
async fn spend(node: &Gateway, client: &mut Client) -> u64 {
    let nobody: Vec<Value> = (0..BATCH).map(|_| json!({"receiver": "nobody", "action": "chat"})).collect();
    for _ in 0..REQUESTS {
        assert_eq!(node.post("/send/sendList", Value::from(nobody.clone())).await.status, 200);
    }
    node.post("/send", json!({"receiver": "1074", "action": "last"})).await.data();
    let message = client.message().await;
    assert_eq!(message["action"], "last");
    message["id"].as_u64().unwrap()
}

async fn lives_of(mut node: Gateway) {
    let mut greatest = 0;
    for life in 0..3 {
        until("readiness", async || node.get("/health/ready").await.status == 200).await;
        let (mut client, cid) = cid(&node, "1074").await;
        assert!(cid > greatest, "run {life} reused an id: connection {cid} is not above {greatest}");
        let last = spend(&node, &mut client).await;
        assert!(last >= cid + (BATCH * REQUESTS) as u64, "expected more ids between {cid} and {last}");
        greatest = last;
        node.signal(Signal::KILL);
        node.exit().await;
        node = node.again();
    }
}

#[tokio::test]
async fn no_id_comes_again_after_a_kill() {
    lives_of(Setup::default().start()).await;
}

#[tokio::test]
async fn no_id_comes_again_after_a_kill_over_redis() {
    let redis = Redis::start();
    lives_of(Setup::default().yaml(&redis.bus()).start()).await;
}

#[tokio::test]
async fn no_id_comes_again_after_a_kill_over_kafka() {
    lives_of(Setup::default().yaml(&kafka().bus(&unique("ids"))).start()).await;
}

#[tokio::test]
async fn start_with_invalid_ids_file_fails() {
    let folder = Setup::default().prepare();
    std::fs::create_dir(folder.path().join("state")).unwrap();
    std::fs::write(folder.path().join("state/ids-1"), "many\n").unwrap();
    let output = folder.command("serve").output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success() && said.contains("ids-1: expected the bound of the node's ids"), "{said}");
}

#[tokio::test]
async fn node_without_a_folder_for_its_ids_says_so_and_runs() {
    let node = Setup::default().yaml("node: {id: n1, state: \"\"}").start();
    node.said("ids are not reserved and start from the clock").await;
    cid(&node, "1074").await;
}
