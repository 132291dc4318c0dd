//! The ways in, as a publisher uses them: it sends a batch and gets an answer for each message.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Fate, Stream, room, text_of, uid};
use crate::support::brokers::resp::{Reply, Resp};
use crate::support::gateway::cluster::{Cluster, State};
use crate::support::http::{Http, Response};
use crate::support::wire::messages_pub;

/// A request without a response within this time counts as unanswered.
const PATIENCE: Duration = Duration::from_secs(30);

/// How a publisher publishes.
#[derive(Clone)]
pub enum Way {
    /// `POST` to this node or the next one that is up.
    Http { place: usize },
    /// `PUBLISH` on a Redis channel.
    Channel { redis: SocketAddr, channel: String },
    /// `XADD` to a Redis stream.
    RedisStream { redis: SocketAddr, key: String },
    /// A record of a Kafka topic, acknowledged by all replicas; its key is the stream's name.
    Kafka { brokers: String, topic: String },
}

impl Way {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Http { .. } => "http",
            Self::Channel { .. } => "redis channel",
            Self::RedisStream { .. } => "redis stream",
            Self::Kafka { .. } => "kafka",
        }
    }

    /// True if messages of one stream keep their order. Nodes share a Redis stream record by record, so its order is
    /// lost.
    pub fn is_ordered(&self) -> bool {
        !matches!(self, Self::RedisStream { .. })
    }

    /// Plain pub/sub: messages that its subscriber has read but not handed on are lost with the subscriber.
    pub fn is_at_most_once(&self) -> bool {
        matches!(self, Self::Channel { .. })
    }
}

/// One message of a batch.
#[derive(Debug, Clone, Copy)]
pub struct Item {
    pub id: u64,
    pub stream: Stream,
}

/// The answers for a batch, and the answer time of a node that was up.
pub struct Told {
    pub fates: Vec<Fate>,
    pub took: Option<Duration>,
    pub faults: Vec<String>,
}

/// The publisher's connection of a way; it reconnects automatically.
pub struct Outlet {
    way: Way,
    cluster: Arc<Cluster>,
    line: Option<Line>,
}

enum Line {
    Http(Http, usize),
    Redis(Resp),
    Kafka(FutureProducer, String),
}

impl Outlet {
    pub fn new(way: Way, cluster: Arc<Cluster>) -> Self {
        Self { way, cluster, line: None }
    }

    /// Publishes `items`: any number to users, or one message of another kind.
    pub async fn publish(&mut self, items: &[Item]) -> Told {
        let (begun, acts) = (Instant::now(), self.cluster.acts());
        let attempt = timeout(PATIENCE, self.attempt(items)).await;
        let mut told = match attempt {
            Ok(Ok(told)) => told,
            // An error breaks the connection, and the fate of the messages in flight is unknown.
            Ok(Err(_)) => self.unanswered(items, Vec::new()),
            Err(_) => {
                let late = self.has_run_since(&acts).then(|| format!("no answer within {PATIENCE:?}"));
                self.unanswered(items, late.into_iter().collect())
            }
        };
        let is_answered = told.fates.first().is_some_and(|fate| *fate != Fate::Unknown);
        told.took = (is_answered && self.has_run_since(&acts)).then(|| begun.elapsed());
        told
    }

    fn unanswered(&mut self, items: &[Item], faults: Vec<String>) -> Told {
        let fate = if self.line.take().is_some() { Fate::Unknown } else { Fate::Refused };
        Told { fates: vec![fate; items.len()], took: None, faults }
    }

    /// True if the node must answer: it was up all the time. Brokers that publishers talk to guarantee no time.
    fn has_run_since(&self, acts: &[usize]) -> bool {
        let Some(Line::Http(_, place)) = self.line else { return false };
        self.cluster.state(place) == State::Up && self.cluster.acts()[place] == acts[place]
    }

    async fn attempt(&mut self, items: &[Item]) -> io::Result<Told> {
        if let Some(Line::Http(_, place)) = &self.line
            && self.cluster.state(*place) != State::Up
        {
            self.line = None;
        }
        if self.line.is_none() {
            self.line = Some(self.connect().await?);
        }
        let line = self.line.as_mut().expect("the connection was just opened");
        match (line, &self.way) {
            (Line::Http(http, _), _) => {
                let (path, body) = request(items);
                let headers = [("content-type", "application/json")];
                let response = http.attempt("POST", path, &headers, body.to_string().as_bytes()).await?;
                if response.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
                    self.line = None;
                }
                Ok(read(&response, items))
            }
            (Line::Redis(redis), way) => {
                let commands: Vec<_> = items.iter().map(|item| command(way, *item)).collect();
                let replies = redis.pipeline(&commands).await?;
                Ok(taken(&replies))
            }
            (Line::Kafka(producer, topic), _) => Ok(produce(producer, topic, items).await),
        }
    }

    async fn connect(&mut self) -> io::Result<Line> {
        match &self.way {
            Way::Http { place } => {
                let place = self.cluster.up_from(*place);
                let address = self.cluster.node(place).address("api");
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(Line::Http(Http::over(Box::new(stream), address), place))
            }
            Way::Channel { redis, .. } | Way::RedisStream { redis, .. } => {
                Ok(Line::Redis(Resp::connect(*redis).await?))
            }
            Way::Kafka { brokers, topic } => {
                let mut settings = ClientConfig::new();
                settings.set("bootstrap.servers", brokers).set("acks", "all").set("enable.idempotence", "true");
                settings.set("linger.ms", "1").set("message.timeout.ms", "8000");
                let line = |producer| Line::Kafka(producer, topic.clone());
                settings.create().map(line).map_err(io::Error::other)
            }
        }
    }
}

fn message(id: u64) -> Value {
    json!({"id": id, "action": "drill", "title": id.to_string(), "content": {"text": text_of(id)}})
}

/// The API's path and body for a batch.
fn request(items: &[Item]) -> (&'static str, Value) {
    let list = |item: &Item| {
        let Stream::User(user) = item.stream else { panic!("a list has user streams only") };
        let mut message = message(item.id);
        message["receiver"] = uid(user).into();
        message
    };
    match items {
        [Item { id, stream: Stream::Room(number) }] => {
            ("/send/room", json!({"message": message(*id), "room": room(*number)}))
        }
        [Item { id, stream: Stream::Everyone }] => ("/send/all", message(*id)),
        list_items => ("/send/sendList", list_items.iter().map(list).collect()),
    }
}

/// Reads the fate of each message from a response. A 2xx for a message that was not accepted is a fault.
fn read(response: &Response, items: &[Item]) -> Told {
    let data = &response.json()["data"];
    let rows: Vec<Value> = match &data["items"] {
        Value::Array(rows) => rows.clone(),
        _ if data.is_object() => vec![data.clone()],
        _ => Vec::new(),
    };
    let mut faults = Vec::new();
    let is_good = response.status == 200;
    if is_good && rows.len() != items.len() || !is_good && response.status != 503 {
        faults.push(format!("status {} for {} messages: {}", response.status, items.len(), response.body));
    }
    let mut fates: Vec<Fate> = rows.iter().map(|row| fate(row, is_good)).collect();
    fates.resize(items.len(), Fate::Refused);
    if is_good && fates.contains(&Fate::Refused) {
        faults.push(format!("status 200, but a message was not accepted: {}", response.body));
    }
    Told { fates, took: None, faults }
}

fn fate(row: &Value, is_good: bool) -> Fate {
    let is_nobody =
        row["delivered"] == 0 || row["nodes"] == 0 || row["offline"].as_array().is_some_and(|o| !o.is_empty());
    match row {
        row if row["error"].is_object() => Fate::Refused,
        row if row["id"].is_null() && !is_good => Fate::Refused,
        _ if is_nobody => Fate::Nobody,
        _ => Fate::Acked,
    }
}

/// The envelope of one message: every second one is JSON.
fn payload(item: Item) -> Vec<u8> {
    let (act, to) = match item.stream {
        Stream::User(user) => (2, uid(user)),
        Stream::Room(number) => (7, room(number)),
        Stream::Everyone => (0, String::new()),
    };
    let envelope = json!({"act": act, "Uid": to, "msg": [message(item.id)]});
    if item.id.is_multiple_of(2) { messages_pub(&envelope) } else { envelope.to_string().into_bytes() }
}

/// The Redis command that publishes one message.
fn command(way: &Way, item: Item) -> Vec<Vec<u8>> {
    let payload = payload(item);
    let words: Vec<&[u8]> = match way {
        Way::Channel { channel, .. } => vec![b"PUBLISH", channel.as_bytes(), &payload],
        Way::RedisStream { key, .. } => vec![b"XADD", key.as_bytes(), b"*", FIELD, &payload],
        Way::Http { .. } | Way::Kafka { .. } => unreachable!("only ways over Redis have commands"),
    };
    words.into_iter().map(<[u8]>::to_vec).collect()
}

/// The field of a stream's entry that holds the envelope.
const FIELD: &[u8] = b"data";

/// `PUBLISH` answers the number of subscribers: 0, or 1 for the only one allowed. `XADD` answers an id.
fn taken(replies: &[Reply]) -> Told {
    let mut faults = Vec::new();
    let fates = replies.iter().map(|reply| match reply {
        Reply::Integer(0) | Reply::Error(_) => Fate::Refused,
        Reply::Integer(1) | Reply::Text(_) => Fate::Acked,
        other => {
            faults.push(format!("expected one subscriber, got {other:?}"));
            Fate::Acked
        }
    });
    Told { fates: fates.collect(), took: None, faults }
}

/// A message without a timely acknowledgement may still have been written.
async fn produce(producer: &FutureProducer, topic: &str, items: &[Item]) -> Told {
    let records: Vec<(String, Vec<u8>)> =
        items.iter().map(|item| (format!("{:?}", item.stream), payload(*item))).collect();
    let sends =
        records.iter().map(|(key, payload)| producer.send(FutureRecord::to(topic).key(key).payload(payload), PATIENCE));
    let sent = futures_util::future::join_all(sends).await;
    let fates = sent.iter().map(|sent| if sent.is_ok() { Fate::Acked } else { Fate::Unknown }).collect();
    Told { fates, took: None, faults: Vec::new() }
}
