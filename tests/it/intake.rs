//! Records that back ends put on a Redis topic reach clients like posts to `/publish`. Uses the real server, the built
//! node, and records in both codings.

mod identity;
mod kafka;
mod languages;
mod lease;
mod nodes;
mod rights;
mod stream;

use std::future::Future;

use redis::aio::MultiplexedConnection;
use serde_json::{Value, json};

use crate::support::acts::Cast;
use crate::support::brokers::redis::Redis;
use crate::support::client::{Client, within, without_position};
use crate::support::gateway::{Gateway, Setup};
use crate::support::wire::{Form, messages_pub};

/// The kinds of intake over Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Channel,
    Stream,
}

impl Kind {
    pub const ALL: [Self; 2] = [Self::Channel, Self::Stream];

    pub fn yaml(self, redis: &Redis) -> String {
        let kind = match self {
            Self::Channel => "redis",
            Self::Stream => "redis-stream",
        };
        format!("intakes: [{{kind: {kind}, topic: chat, url: \"{}\"}}]", redis.url())
    }

    /// Puts a record on the topic. The channel's only subscriber receives it.
    pub async fn publish(self, back_end: &mut MultiplexedConnection, payload: &[u8]) {
        match self {
            Self::Channel => assert_eq!(publish(back_end, payload).await, 1, "PUBLISH did not count one receiver"),
            Self::Stream => {
                let mut add = redis::cmd("XADD");
                let _: String = add.arg("chat").arg("*").arg("data").arg(payload).query_async(back_end).await.unwrap();
            }
        }
    }
}

/// Opens a connection of a back end.
pub async fn dial(redis: &Redis) -> MultiplexedConnection {
    let client = redis::Client::open(redis.url()).unwrap();
    within("the connection to Redis", client.get_multiplexed_async_connection()).await.unwrap()
}

/// Sends PUBLISH and returns the number of receivers.
pub async fn publish(back_end: &mut MultiplexedConnection, payload: &[u8]) -> usize {
    redis::cmd("PUBLISH").arg("chat").arg(payload).query_async(back_end).await.unwrap()
}

/// Repeats `ask` until it returns an answer, within the tests' patience.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut ask: impl FnMut() -> F) -> T {
    within(what, async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::task::yield_now().await;
        }
    })
    .await
}

/// Waits until the topic has `wanted` subscribers.
pub async fn subscribers(back_end: &MultiplexedConnection, wanted: usize) {
    until("the subscription", || async {
        let mut ask = redis::cmd("PUBSUB");
        let answer = ask.arg("NUMSUB").arg("chat").query_async(&mut back_end.clone()).await;
        let (_, count): (String, usize) = answer.unwrap();
        (count == wanted).then_some(())
    })
    .await;
}

/// The fields of a stream entry.
type Fields = Vec<(String, Vec<u8>)>;

/// The dead letters of the topic, each as its fields.
pub async fn dead(back_end: &mut MultiplexedConnection) -> Vec<Value> {
    let entries: Vec<(String, Fields)> =
        redis::cmd("XRANGE").arg("chat:dead").arg("-").arg("+").query_async(back_end).await.unwrap();
    let text = |(name, value): (String, Vec<u8>)| (name, Value::from(String::from_utf8_lossy(&value).into_owned()));
    entries.into_iter().map(|(_, fields)| Value::Object(fields.into_iter().map(text).collect())).collect()
}

/// The value of one sample of a metric.
pub async fn metric(gateway: &Gateway, line: &str) -> f64 {
    let page = gateway.get("/metrics").await.body;
    let found = page.lines().find_map(|l| l.strip_prefix(line)?.trim().parse().ok());
    found.unwrap_or(0.0)
}

/// A server, a node that reads from it, and a back end.
pub struct Bench {
    pub gateway: Gateway,
    pub back_end: MultiplexedConnection,
    pub redis: Redis,
    pub kind: Kind,
}

impl Bench {
    pub async fn new(kind: Kind) -> Self {
        let redis = Redis::start();
        let gateway = Setup::default().yaml(&kind.yaml(&redis)).start();
        let back_end = dial(&redis).await;
        if kind == Kind::Channel {
            subscribers(&back_end, 1).await;
        }
        Self { gateway, back_end, redis, kind }
    }

    pub async fn publish(&mut self, payload: &[u8]) {
        self.kind.publish(&mut self.back_end, payload).await;
    }

    /// Publishes a marker message for everyone: earlier messages arrive before it.
    pub async fn mark(&mut self, action: &str) {
        self.publish(json!({"msg": [{"action": action}]}).to_string().as_bytes()).await;
    }
}

#[tokio::test]
async fn every_act_reaches_whom_it_names_in_both_codings_and_kinds() {
    for kind in Kind::ALL {
        let mut bench = Bench::new(kind).await;
        let mut cast = Cast::on(&bench.gateway).await;
        for (at, (envelope, counts)) in cast.acts().into_iter().enumerate() {
            for payload in [envelope.to_string().into_bytes(), messages_pub(&envelope)] {
                let mark = format!("mark-{at}");
                bench.publish(&payload).await;
                bench.mark(&mark).await;
                assert_eq!(cast.counts_until(&mark).await, counts, "{kind:?}: {envelope}");
            }
        }
        // The last record names an unknown node, in both codings.
        let letters = until("the dead letters", || async {
            let letters = dead(&mut bench.back_end.clone()).await;
            (letters.len() == 2).then_some(letters)
        });
        for letter in letters.await {
            assert_eq!(letter["reason"], "Sid: unknown node nowhere", "{letter}");
        }
    }
}

#[tokio::test]
async fn a_message_is_the_one_that_http_would_give() {
    let message = json!({
        "id": 748, "action": "chat", "content": {"text": "你好", "n": "1"}, "sender": "1078", "receiver": "1074",
        "extra": {"avatar": "a.png"}, "title": "t", "image": "i.png", "sendTime": 1_700_000_000_000_i64,
    });
    let envelope = json!({"act": 2, "Uid": "1074", "type": 2, "msg": [message]});
    for kind in Kind::ALL {
        let mut bench = Bench::new(kind).await;
        let mut clients: Vec<Client> = Vec::new();
        for form in Form::ALL {
            clients.push(bench.gateway.connect("1074", form).await);
        }
        // The cim listeners admit one device at a time: the remaining client receives all three.
        let answer = bench.gateway.post("/publish", envelope.clone()).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
        bench.publish(envelope.to_string().as_bytes()).await;
        bench.publish(&messages_pub(&envelope)).await;
        for client in clients.iter_mut().filter(|client| !client.form.is_cim()) {
            let by_http = without_position(client.message().await);
            assert_eq!(by_http["content"]["text"], "你好");
            for _ in 0..2 {
                assert_eq!(without_position(client.message().await), by_http, "{kind:?}");
            }
        }
    }
}

#[tokio::test]
async fn one_record_in_ten_is_poison_and_none_waits_for_it() {
    for kind in Kind::ALL {
        let mut bench = Bench::new(kind).await;
        let mut client = bench.gateway.connect("1074", Form::YunqueJson).await;
        let poison: [&[u8]; 4] = [b"junk", b"{\"msg\":", b"{\"act\":9,\"msg\":[{}]}", b"\x22\xff\xff"];
        for at in 0..200 {
            if at % 10 == 5 {
                bench.publish(poison[at / 10 % poison.len()]).await;
            } else {
                let envelope = json!({"act": 2, "Uid": "1074", "msg": [{"action": "chat", "title": at.to_string()}]});
                bench.publish(envelope.to_string().as_bytes()).await;
            }
        }
        for at in (0..200).filter(|at| at % 10 != 5) {
            assert_eq!(client.message().await["title"], at.to_string(), "{kind:?}");
        }
        let letters = until("the dead letters", || async {
            let letters = dead(&mut bench.back_end.clone()).await;
            (letters.len() == 20).then_some(letters)
        });
        let letters = letters.await;
        for (at, letter) in letters.iter().enumerate() {
            assert_eq!(letter["data"], String::from_utf8_lossy(poison[at % poison.len()]).as_ref());
            assert_eq!((&letter["node"], &letter["tries"]), (&"n1".into(), &"1".into()), "{letter}");
            assert!(letter["origin"].as_str().unwrap().starts_with("chat"), "{letter}");
            assert!(letter["reason"].as_str().unwrap().contains("expected"), "{letter}");
        }
        let name = if kind == Kind::Channel { "redis chat" } else { "redis-stream chat" };
        let line = format!("skylark_intake_dead_letters_total{{intake=\"{name}\",reason=\"body\"}}");
        let counted = until("the count", || async {
            let count = metric(&bench.gateway, &line).await;
            (count >= 20.0).then_some(count)
        });
        assert!((counted.await - 20.0).abs() < 0.5);
    }
}

#[tokio::test]
async fn a_large_envelope_and_one_of_ten_thousand_users_are_taken_and_larger_ones_buried() {
    for kind in Kind::ALL {
        let mut bench = Bench::new(kind).await;
        let mut first = bench.gateway.connect("u0", Form::YunqueJson).await;
        let mut last = bench.gateway.connect("u9999", Form::CimJson).await;

        let text = "x".repeat(50_000);
        let messages: Vec<Value> = (0..20).map(|_| json!({"action": "chat", "content": {"text": text}})).collect();
        let mut envelope = json!({"act": 2, "Uid": "u0", "msg": messages}).to_string();
        let full = 1 << 20;
        envelope.push_str(&" ".repeat(full - envelope.len()));
        assert_eq!(envelope.len(), full);
        bench.publish(envelope.as_bytes()).await;
        for _ in 0..20 {
            assert_eq!(first.message().await["content"]["text"].as_str().unwrap().len(), text.len());
        }

        let users = |count: usize| (0..count).map(|at| format!("u{at}")).collect::<Vec<_>>().join(",");
        let to = |count: usize| json!({"act": 1, "Uid": users(count), "msg": [{"action": "many"}]});
        bench.publish(to(10_000).to_string().as_bytes()).await;
        bench.publish(&messages_pub(&to(10_000))).await;
        for client in [&mut first, &mut last] {
            for _ in 0..2 {
                assert_eq!(client.message().await["action"], "many", "{kind:?}");
            }
        }

        bench.publish(format!("{envelope} ").as_bytes()).await;
        bench.publish(to(10_001).to_string().as_bytes()).await;
        bench.mark("end").await;
        assert_eq!(first.message().await["action"], "end");
        let letters = until("the dead letters", || async {
            let letters = dead(&mut bench.back_end.clone()).await;
            (letters.len() == 2).then_some(letters)
        });
        let reasons: Vec<Value> = letters.await.into_iter().map(|letter| letter["reason"].clone()).collect();
        let expected =
            ["body: expected at most 1048576 bytes, got 1048577", "Uid: expected at most 10000 names, got more"];
        assert_eq!(reasons, expected, "{kind:?}");
    }
}

#[tokio::test]
async fn a_node_starts_without_its_engine_says_so_and_recovers() {
    for kind in Kind::ALL {
        let redis = Redis::start();
        redis.kill();
        let gateway = Setup::default().yaml(&kind.yaml(&redis)).start();
        let ready = || async { gateway.get("/health/ready").await };
        let words = until("the reason", || async {
            let body = ready().await.body;
            body.contains("intake redis").then_some(body)
        });
        assert!(words.await.contains("redis is unavailable"), "{kind:?}");
        redis.restart();
        until("readiness", || async { (ready().await.status == 200).then_some(()) }).await;
        let mut client = gateway.connect("1074", Form::YunquePb).await;
        let mut back_end = dial(&redis).await;
        if kind == Kind::Channel {
            subscribers(&back_end, 1).await;
        }
        kind.publish(&mut back_end, br#"{"Uid":"1074","msg":[{"action":"back"}]}"#).await;
        assert_eq!(client.message().await["action"], "back");
    }
}
