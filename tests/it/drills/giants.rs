//! Unreadable records and records of maximum size, by every way in, mixed with normal load.

use std::sync::Arc;

use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::json;

use super::{Topic, by_every_way, guests, nodes_on};
use crate::support::brokers::kafka::kafka;
use crate::support::brokers::redis::Redis;
use crate::support::brokers::resp::{Reply, Resp};
use crate::support::client::PATIENCE;
use crate::support::gateway::Gateway;
use crate::support::gateway::cluster::{Cluster, until};
use crate::support::ledger::drill::{Drill, pick};
use crate::support::ledger::uid;
use crate::support::wire::Form;

/// The largest body that a node accepts, and below it the most users of one envelope.
const MEBIBYTE: usize = 1 << 20;
const USERS: u32 = 10_000;
/// Messages of the large envelope.
const PARTS: usize = 20;

/// Every tenth record of each broker is no envelope. Then each way gets an envelope of maximum size, and one that names
/// the maximum number of users.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn poison_and_maximum_records_do_not_delay_others() {
    let (redis, topic, large) = (Redis::start(), Topic::create().await, Topic::large().await);
    let cluster = nodes_on(&redis, &format!("{}\n{}", topic.intake(), large.intake())).await;
    let guests = guests();
    let mut plan = by_every_way(&guests, &redis, &topic);
    // No messages for everyone: the two clients that wait for giants receive nothing else.
    plan.wide = 0;
    let drill = Drill::begin("poison_and_maximum_records_do_not_delay_others", cluster, &guests, &plan).await;
    let mut sender = BackEnd::of(&redis, &drill.cluster, [topic.name.clone(), large.name]).await;
    let mut sent = [0; 3];
    for number in 0..pick(45, 2_000) {
        // Nine of fifteen messages come through brokers, each in its own record.
        drill.taken(15).await;
        let door = number % 3;
        let was_taken = sender.send([Door::Stream, Door::Channel, Door::Topic][door], &poison(number)).await;
        sent[door] += usize::from(was_taken);
    }
    let mut giant = drill.cluster.node(0).connect("giant", Form::YunquePb).await;
    let mut far = drill.cluster.node(1).connect(&uid(WIDE + USERS - 1), Form::YunquePb).await;
    for door in [Door::Stream, Door::Channel, Door::LargeTopic, Door::Http] {
        assert!(sender.send(door, &mebibyte()).await, "{door:?}");
        for id in 1..=PARTS {
            assert_eq!(giant.message().await["id"], id, "{door:?}");
        }
        assert!(sender.send(door, &wide()).await, "{door:?}");
        assert_eq!(far.message().await["action"], "wide", "{door:?}");
    }
    let [stream, channel, records] = sent;
    until("every dead letter of the stream", async || sender.length("push:dead").await == stream).await;
    // A loss of the only reader is counted for every kind of record.
    until("every dead letter of the channel", async || {
        let lost = drill.cluster.counted("skylark_intake_lost_total").await;
        let dead = sender.length("chat:dead").await;
        dead <= channel && dead + lost >= channel
    })
    .await;
    let dead = kafka().read(&format!("{}.dead", topic.name), records).await;
    assert!(
        dead.iter()
            .all(|letter| letter.header("skylark.reason").is_some() && letter.header("skylark.offset").is_some()),
        "{dead:?}"
    );
    drill.end_exact().await;
}

/// Data of varying size that is no envelope.
fn poison(number: usize) -> Vec<u8> {
    let mut garbage = format!("poison {number}").into_bytes();
    garbage.resize(8 + number * 37 % 900, 0xff);
    garbage
}

/// Messages to one user, 1 MiB in total.
fn mebibyte() -> Vec<u8> {
    let envelope = |lengths: [usize; PARTS]| {
        let part = |(at, length): (usize, usize)| json!({"id": at + 1, "action": "giant", "content": {"text": "x".repeat(length)}});
        let messages: Vec<_> = lengths.into_iter().enumerate().map(part).collect();
        json!({"act": 2, "Uid": "giant", "msg": messages}).to_string().into_bytes()
    };
    let room = MEBIBYTE - envelope([0; PARTS]).len();
    let mut lengths = [room / PARTS; PARTS];
    lengths[0] += room % PARTS;
    let bytes = envelope(lengths);
    assert_eq!(bytes.len(), MEBIBYTE);
    bytes
}

/// One message to as many users as an envelope may name.
fn wide() -> Vec<u8> {
    let crowd: Vec<String> = (WIDE..WIDE + USERS).map(uid).collect();
    json!({"act": 1, "Uid": crowd.join(","), "msg": [{"id": 1, "action": "wide"}]}).to_string().into_bytes()
}

/// The first of these users. They are not part of the ledger.
const WIDE: u32 = 1_000_000;

#[derive(Debug, Clone, Copy)]
enum Door {
    Stream,
    Channel,
    Topic,
    LargeTopic,
    Http,
}

/// A back end that sends any bytes by every way in.
struct BackEnd {
    line: Resp,
    node: Arc<Gateway>,
    producer: FutureProducer,
    topics: [String; 2],
}

impl BackEnd {
    async fn of(redis: &Redis, cluster: &Cluster, topics: [String; 2]) -> Self {
        Self { line: redis.line().await, node: cluster.node(0), producer: kafka().producer(), topics }
    }

    /// True if the payload was accepted.
    async fn send(&mut self, door: Door, payload: &[u8]) -> bool {
        let topic = match door {
            Door::Stream => {
                let told = self.tell(&[b"XADD", b"push", b"*", b"data", payload]).await;
                return matches!(told, Reply::Text(_));
            }
            Door::Channel => return self.tell(&[b"PUBLISH", b"chat", payload]).await == Reply::Integer(1),
            Door::Http => {
                let headers = [("content-type", "application/json")];
                // A node closes an idle connection long before a long drill ends.
                return self.node.http().await.request("POST", "/publish", &headers, payload).await.status == 200;
            }
            Door::Topic => &self.topics[0],
            Door::LargeTopic => &self.topics[1],
        };
        let record: FutureRecord<'_, (), [u8]> = FutureRecord::to(topic).payload(payload);
        self.producer.send(record, PATIENCE).await.is_ok()
    }

    async fn tell(&mut self, words: &[&[u8]]) -> Reply {
        let words = words.iter().map(|word| word.to_vec()).collect();
        self.line.pipeline(&[words]).await.unwrap().remove(0)
    }

    /// Length of a stream.
    async fn length(&mut self, key: &str) -> usize {
        self.line.ask(&format!("XLEN {key}")).await.unwrap().integer().try_into().unwrap()
    }
}
