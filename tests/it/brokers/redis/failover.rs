//! A failover behind a stable address, and a password rotation: the node recovers without help.
//!
//! Two real servers run behind a TCP proxy. Its target is switched while all connections to the old server stay open.

use std::net::SocketAddr;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::brokers::redis::{Redis, bus_at};
use crate::support::brokers::resp::Reply;
use crate::support::client::{Client, Seen};
use crate::support::dice::Dice;
use crate::support::gateway::cluster::{Cluster, until};
use crate::support::gateway::{Gateway, Setup};
use crate::support::proxy::Proxy;
use crate::support::wire::{Form, Frame};

/// Two servers, and the address that leads to one of them.
struct Pair {
    old: Redis,
    new: Redis,
    proxy: Proxy,
}

impl Pair {
    async fn start() -> Self {
        let old = Redis::start();
        let proxy = Proxy::start(old.address(), Dice(1)).await;
        Self { old, new: Redis::start(), proxy }
    }

    /// Makes `new` a replica of `old` and waits until it has all data.
    async fn replicate(&self) {
        replica_of(&self.new, self.old.address()).await;
        until("the replica to be in sync", async || {
            ask(&self.new, "INFO replication").await.contains("master_link_status:up")
        })
        .await;
    }

    /// Performs a failover: the replica becomes the master, the address leads to it, and the old master is demoted. No
    /// connection to the old master is closed.
    async fn fail_over(&self) {
        tell(&self.new, "REPLICAOF NO ONE").await;
        self.proxy.aim(self.new.address());
        replica_of(&self.old, self.new.address()).await;
    }

    /// Moves the address, and closes only the connections to the old server that do not subscribe.
    async fn leave_subscribers_behind(&self) {
        self.proxy.aim(self.new.address());
        self.old.line().await.ask("CLIENT KILL TYPE normal SKIPME yes").await.unwrap();
    }

    async fn old_is_left(&self) {
        until("the end of the subscription on the old server", async || pubsub_clients(&self.old).await == 0).await;
    }
}

async fn ask(redis: &Redis, command: &str) -> String {
    redis.line().await.ask(command).await.unwrap().text().to_owned()
}

async fn tell(redis: &Redis, command: &str) {
    assert_eq!(ask(redis, command).await, "OK", "{command}");
}

async fn replica_of(redis: &Redis, master: SocketAddr) {
    tell(redis, &format!("REPLICAOF {} {}", master.ip(), master.port())).await;
}

async fn pubsub_clients(redis: &Redis) -> usize {
    ask(redis, "CLIENT LIST TYPE pubsub").await.lines().count()
}

/// Returns the next message; skips the gap notice of a failover.
async fn message(client: &mut Client) -> Value {
    loop {
        match client.next().await {
            Seen::Frame(Frame::Message(message)) => return message,
            Seen::Frame(Frame::Reply(reply)) if reply["key"] == "gap" => {}
            other => panic!("expected a message, got {other:?}"),
        }
    }
}

/// Pushes to the user until one push reaches a node and the client receives it.
async fn reaches(node: &Gateway, client: &mut Client, uid: &str) {
    until("a push that reaches its node", async || {
        let told = node.post("/send", json!({"action": "chat", "content": {"text": "hi"}, "receiver": uid})).await;
        told.status == 200 && told.data()["nodes"] == 1
    })
    .await;
    assert_eq!(message(client).await["content"]["text"], "hi");
}

/// Publishes on the intake's channel until a node receives the message and the client gets it.
async fn hears(redis: &Redis, client: &mut Client) {
    let words = ["PUBLISH", "chat", r#"{"msg":[{"action":"heard"}]}"#].map(|word| word.as_bytes().to_vec());
    until("a subscription to the channel", async || {
        let replies = redis.line().await.pipeline(&[words.to_vec()]).await.unwrap();
        replies[0] == Reply::Integer(1)
    })
    .await;
    assert_eq!(client.message().await["action"], "heard");
}

/// Adds a record to the intake's stream, and the client has it.
async fn reads(redis: &Redis, client: &mut Client) {
    let words = ["XADD", "chat", "*", "data", r#"{"msg":[{"action":"heard"}]}"#].map(|word| word.as_bytes().to_vec());
    redis.line().await.pipeline(&[words.to_vec()]).await.unwrap();
    assert_eq!(client.message().await["action"], "heard");
}

async fn ready(node: &Gateway) {
    until("readiness", async || node.get("/health/ready").await.status == 200).await;
}

/// Changes the server's password and ends every connection but this one; the node may not log in any more.
async fn rotate(redis: &Redis, node: &Gateway) {
    let mut line = redis.line().await;
    line.ask("AUTH the-first-password").await.unwrap();
    line.ask("CONFIG SET requirepass the-second-password").await.unwrap();
    line.ask("CLIENT KILL TYPE normal SKIPME yes").await.unwrap();
    line.ask("CLIENT KILL TYPE pubsub SKIPME yes").await.unwrap();
    until("unreadiness after the refused login", async || node.get("/health/ready").await.status != 200).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_leave_a_redis_that_was_demoted() {
    let pair = Pair::start().await;
    pair.replicate().await;
    let cluster = Cluster::start(2, &bus_at(pair.proxy.address)).await;
    let mut client = cluster.node(1).connect("1074", Form::YunqueJson).await;
    reaches(&cluster.node(0), &mut client, "1074").await;
    pair.fail_over().await;
    pair.old_is_left().await;
    for place in 0..2 {
        cluster.ready(place).await;
    }
    reaches(&cluster.node(0), &mut client, "1074").await;
    cluster.node(0).said("READONLY").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscriber_of_the_bus_that_is_connected_and_deaf_is_dialled_anew() {
    let pair = Pair::start().await;
    let node = Setup::default().yaml(&bus_at(pair.proxy.address)).start();
    ready(&node).await;
    let mut client = node.connect("1074", Form::YunqueJson).await;
    reaches(&node, &mut client, "1074").await;
    pair.leave_subscribers_behind().await;
    assert_eq!(pubsub_clients(&pair.old).await, 1, "the old server has not one subscriber");
    pair.old_is_left().await;
    reaches(&node, &mut client, "1074").await;
}

async fn intake(pair: &Pair) -> (Gateway, Client) {
    let yaml = format!("intakes: [{{kind: redis, topic: chat, url: \"redis://{}\"}}]", pair.proxy.address);
    let node = Setup::default().yaml(&yaml).start();
    let mut client = node.connect("1074", Form::YunqueJson).await;
    hears(&pair.old, &mut client).await;
    (node, client)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn intake_leaves_a_redis_that_was_demoted() {
    let pair = Pair::start().await;
    pair.replicate().await;
    let (_node, mut client) = intake(&pair).await;
    pair.fail_over().await;
    pair.old_is_left().await;
    hears(&pair.new, &mut client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn intake_that_is_connected_and_deaf_subscribes_anew() {
    let pair = Pair::start().await;
    let (_node, mut client) = intake(&pair).await;
    pair.leave_subscribers_behind().await;
    pair.old_is_left().await;
    hears(&pair.new, &mut client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stream_intake_leaves_a_redis_that_was_demoted() {
    let pair = Pair::start().await;
    pair.replicate().await;
    let yaml = format!("intakes: [{{kind: redis-stream, topic: chat, url: \"redis://{}\"}}]", pair.proxy.address);
    let node = Setup::default().yaml(&yaml).start();
    let mut client = node.connect("1074", Form::YunqueJson).await;
    reads(&pair.old, &mut client).await;
    pair.fail_over().await;
    reads(&pair.new, &mut client).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotated_password_is_read_from_its_file_without_a_restart() {
    let redis = Redis::start();
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "the-first-password\n").unwrap();
    tell(&redis, "CONFIG SET requirepass the-first-password").await;
    let password = format!("{}\n    password: {{file: {file:?}}}", redis.bus());
    let node = Setup::default().yaml(&password).start();
    ready(&node).await;
    let mut client = node.connect("1074", Form::YunqueJson).await;

    rotate(&redis, &node).await;
    std::fs::write(&file, "the-second-password\n").unwrap();
    ready(&node).await;
    reaches(&node, &mut client, "1074").await;
    assert!(!node.log().contains("-password"), "the log contains a password");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotated_password_in_the_configuration_is_taken_by_sighup() {
    let redis = Redis::start();
    tell(&redis, "CONFIG SET requirepass the-first-password").await;
    let yaml = |password: &str| format!("{}\n    password: {password}", redis.bus());
    let node = Setup::default().yaml(&yaml("the-first-password")).start();
    ready(&node).await;
    rotate(&redis, &node).await;
    let config = node.folder.config();
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("the-first-password", "the-second-password")).unwrap();
    node.signal(Signal::HUP);
    ready(&node).await;
    node.said("bus.redis.password").await;
}
