//! The bus over Kafka: one topic that every node reads from its end. A node skips records for other nodes by their
//! header.
//!
//! A stream (messages of a user, of a room, or for everyone) has one partition, so it keeps its order. Subscriptions
//! are local to the node: a subscribe needs no request once the node reads the topic. After an interruption a node
//! continues at its last offsets, so it loses nothing unless Kafka has. Independent of connections.

mod reader;
mod sender;
pub mod skipping;
mod waiting;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use metrics::{counter, gauge};
use parking_lot::{Mutex, RwLock};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, interval, timeout, timeout_at};

use self::reader::Reader;
pub(super) use self::reader::header;
use self::sender::{Pending, Sender};
use self::waiting::Waiting;
use super::address::{Mine, To, parts};
use super::census::Census;
use super::link::{Heard, Link, Topic, ended_connections, unavailable, unread};
use super::tail::{Begin, Tail};
use crate::broker::record::{self, RecordOrigin};
use crate::broker::{Address, Batch, Broker, Deliver, Fate, Subscription, Unavailable};
use crate::id::NodeId;
use crate::message::Envelope;
use crate::telemetry::names;
use crate::vital::Vitals;

/// Time limit of an answer. The contract allows two seconds; the rest is for the waiting caller.
const ANSWER: Duration = Duration::from_millis(1_900);
/// Time that a publisher waits for receipts.
const RECEIPTS: Duration = Duration::from_millis(500);
/// Interval of the heartbeats that a node sends to itself. Without one for [`SILENCE`] it is not ready.
const ECHO: Duration = Duration::from_secs(1);
const SILENCE: Duration = Duration::from_secs(3);
/// Time for records in flight when the bus closes.
const LAST_CALL: Duration = Duration::from_secs(2);

/// Settings of the bus.
#[derive(Debug, Clone)]
pub struct BusOptions {
    /// Id of this node.
    pub node: NodeId,
    /// Number of this node.
    pub number: u16,
    /// Prefix of the topic name.
    pub prefix: String,
    /// Maximum size of a record, in bytes.
    pub record_bytes: usize,
    /// Number of partitions, used when the topic is created.
    pub partitions: u16,
}

impl BusOptions {
    /// Settings used when the topic is missing and must be created.
    fn topic(&self, name: &str) -> Topic {
        let settings = vec![
            ("cleanup.policy", "delete".to_owned()),
            // Only nodes that were interrupted for a while read old records.
            ("retention.ms", "3600000".to_owned()),
            ("max.message.bytes", (self.record_bytes + (64 << 10)).to_string()),
        ];
        Topic { name: name.to_owned(), partitions: i32::from(self.partitions), settings }
    }
}

/// Kafka bus of one node.
pub struct KafkaBus {
    shared: Arc<Shared>,
    closing: watch::Sender<bool>,
    tasks: Mutex<JoinSet<()>>,
}

/// State shared by publishers and the reader.
struct Shared {
    link: Link,
    options: BusOptions,
    origin: RecordOrigin,
    topic: String,
    receiver: Arc<dyn Deliver>,
    sender: Sender,
    heard: Heard,
    mine: RwLock<Mine>,
    waiting: Waiting,
    census: Arc<Census>,
    /// Number of partitions. `None` until this node reads from their ends and its own records come back.
    open: watch::Sender<Option<usize>>,
    /// Time at which the last heartbeat came back.
    echoed: Mutex<Instant>,
    /// Reason why the reader cannot start.
    fault: Mutex<Option<String>>,
}

impl KafkaBus {
    /// Starts the bus, which delivers to `receiver`. The roster fills `census`, which tells the bus how many receipts
    /// to expect. Sends no request yet, so an unreachable Kafka is no error. Must run within a Tokio runtime.
    ///
    /// # Errors
    /// A property is unknown to librdkafka or not supported by this build.
    pub fn start(
        link: &Link,
        options: BusOptions,
        census: Arc<Census>,
        receiver: Arc<dyn Deliver>,
        vitals: &Vitals,
    ) -> Result<Self, Unavailable> {
        let heard = Heard::of(link);
        let topic = format!("{}.bus", options.prefix);
        let origin = RecordOrigin::new(options.number);
        let writing = heard.and_counting(|statistics| ended("publish", ended_connections(statistics)));
        let reading = heard.and_counting(|statistics| {
            ended("subscribe", ended_connections(statistics));
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
            gauge!(names::BUS_LAG, "engine" => "kafka").set(unread(statistics) as f64);
        });
        let sender = Sender::new(link, &topic, options.record_bytes, writing)?;
        let tail = Tail::new(link, options.topic(&topic), Begin::End, options.node.as_str(), reading)?;
        let shared = Arc::new(Shared {
            link: link.clone(),
            mine: RwLock::new(Mine::of(&options.node, options.number, origin.run_id)),
            options,
            origin,
            topic,
            receiver,
            sender,
            heard,
            waiting: Waiting::default(),
            census,
            open: watch::Sender::new(None),
            echoed: Mutex::new(Instant::now()),
            fault: Mutex::new(None),
        });
        let closing = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        let reader = Reader::new(Arc::clone(&shared), tail);
        tasks.spawn(vitals.run("bus reader", reader.run(closing.subscribe())));
        Ok(Self { shared, closing, tasks: Mutex::new(tasks) })
    }

    async fn end(&self) {
        // Confirmations of records in flight still reach the publishers that wait for them.
        let sender = self.shared.sender.clone();
        let flushed = tokio::task::spawn_blocking(move || sender.close(LAST_CALL));
        if flushed.await.is_err() {
            tracing::warn!("flush of the bus producer panicked");
        }
        self.closing.send_replace(true);
        self.shared.open.send_replace(None);
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        if timeout(LAST_CALL, async { while tasks.join_next().await.is_some() {} }).await.is_err() {
            tracing::warn!("bus reader did not end in time");
        }
        *self.shared.fault.lock() = Some("closed".to_owned());
    }
}

impl Broker for KafkaBus {
    fn publish(&self, batch: Batch) -> BoxFuture<'_, Vec<Fate>> {
        self.shared.publish(batch).boxed()
    }

    fn send_cluster_message(
        &self,
        address: Address,
        message: Bytes,
    ) -> BoxFuture<'_, Result<Option<u32>, Unavailable>> {
        self.shared.send_cluster_message(address, message).boxed()
    }

    fn subscribe(&self, stream: Subscription) -> BoxFuture<'_, Result<(), Unavailable>> {
        self.shared.mine.write().subscribe(stream);
        async { self.shared.opened(Instant::now() + ANSWER).await.map(|_| ()) }.boxed()
    }

    fn unsubscribe(&self, stream: &Subscription) {
        self.shared.mine.write().unsubscribe(stream);
    }

    fn faults(&self) -> Vec<String> {
        self.shared.faults()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.end().boxed()
    }
}

fn ended(way: &'static str, connections: u64) {
    counter!(names::BUS_RECONNECTS, "engine" => "kafka", "way" => way).absolute(connections);
}

/// Result of sending one envelope.
enum Sent {
    Parts(Vec<Pending>),
    TooLarge(usize),
    Failed,
}

impl Sent {
    fn parts(&self) -> usize {
        if let Self::Parts(parts) = self { parts.len() } else { 0 }
    }
}

impl Shared {
    async fn publish(&self, batch: Batch) -> Vec<Fate> {
        let deadline = Instant::now() + ANSWER;
        let Ok(partitions) = self.opened(deadline).await else { return vec![Fate::Unavailable; batch.len()] };
        counter!(names::BUS_ENVELOPES, "engine" => "kafka", "way" => "broadcast").increment(batch.len() as u64);
        let mut sent = Vec::with_capacity(batch.len());
        for envelope in batch.iter() {
            let ticket = envelope.receipts.then(|| self.waiting.expect(envelope.id));
            sent.push((self.send(envelope, partitions, deadline).await, ticket));
        }
        let mut outcomes = Vec::with_capacity(batch.len());
        let mut tickets = Vec::new();
        for (index, (sent, ticket)) in sent.into_iter().enumerate() {
            let parts = sent.parts();
            outcomes.push(self.outcome(&batch[index], sent, deadline).await);
            tickets.extend(ticket.map(|ticket| (index, parts, ticket)));
        }
        let until = Instant::now() + RECEIPTS;
        for (index, parts, ticket) in tickets {
            if let Fate::Accepted { receipt, nodes, .. } = &mut outcomes[index] {
                let enough = self.census.count().map(|nodes| nodes * parts);
                let told = ticket.told(enough, until).await;
                (*receipt, *nodes) = (Some(told.receipt), Some(told.nodes));
            }
        }
        outcomes
    }

    async fn send(&self, envelope: &Envelope, partitions: usize, deadline: Instant) -> Sent {
        let mut body = Vec::with_capacity(envelope.message.approximate_bytes() + 64);
        record::put_envelope(&mut body, envelope);
        let mut sent = Vec::new();
        for part in parts(&envelope.target, partitions) {
            let mut to = To::target(&part);
            if envelope.receipts {
                // Nodes without a receiver also send a receipt.
                to = to.read_by_all();
            }
            let sequence = self.sender.next();
            let record = record::envelopes(self.origin, sequence, &part, 1, &body);
            if record.len() > self.options.record_bytes {
                return Sent::TooLarge(record.len());
            }
            match self.sender.send(&to, &record, partitions, deadline).await {
                Some(pending) => sent.push(pending),
                None => return Sent::Failed,
            }
        }
        Sent::Parts(sent)
    }

    async fn outcome(&self, envelope: &Envelope, sent: Sent, deadline: Instant) -> Fate {
        let most = self.options.record_bytes;
        let parts = match sent {
            Sent::Parts(parts) => parts,
            Sent::TooLarge(bytes) => return Fate::TooLargeForBroker { bytes, most },
            Sent::Failed => return Fate::Unavailable,
        };
        let unknown_nodes = self.census.unknown_of(&envelope.nodes);
        let mut outcome = Fate::Accepted { position: None, receipt: None, nodes: None, unknown_nodes };
        for part in parts {
            match part.result(deadline).await {
                Ok(()) => {}
                // The topic was created with a smaller record limit than the configuration has.
                Err(sender::Failed::TooLarge(bytes)) => outcome = Fate::TooLargeForBroker { bytes, most: bytes - 1 },
                Err(sender::Failed::Away) => return Fate::Unavailable,
            }
        }
        outcome
    }

    async fn send_cluster_message(&self, address: Address, message: Bytes) -> Result<Option<u32>, Unavailable> {
        let deadline = Instant::now() + ANSWER;
        let partitions = self.opened(deadline).await?;
        let record = record::cluster_message(self.origin, self.sender.next(), &self.options.node, &message);
        let sent = self.sender.send(&To::address(&address), &record, partitions, deadline).await;
        match sent.ok_or(sender::Failed::Away) {
            Ok(pending) => pending.result(deadline).await.map(|()| None).map_err(|_| self.away()),
            Err(_) => Err(self.away()),
        }
    }

    /// Waits until this node reads the topic, and returns the number of partitions.
    async fn opened(&self, deadline: Instant) -> Result<usize, Unavailable> {
        let mut open = self.open.subscribe();
        let opened = timeout_at(deadline, open.wait_for(Option::is_some)).await;
        opened.ok().and_then(Result::ok).and_then(|count| *count).ok_or_else(|| self.away())
    }

    fn away(&self) -> Unavailable {
        let why = self.fault.lock().clone().or_else(|| self.heard.last());
        unavailable(why.unwrap_or_else(|| format!("no answer from {}", self.link.brokers())))
    }

    fn faults(&self) -> Vec<String> {
        let silence = self.echoed.lock().elapsed();
        if self.open.borrow().is_none() {
            return vec![format!("bus: {}", self.away())];
        }
        if silence > SILENCE {
            let seconds = silence.as_secs();
            return vec![format!("bus: no own heartbeat received for {seconds} s: {}", self.away())];
        }
        // A partition may be unreadable while heartbeats return through the others.
        self.heard.unreadable().map(|why| format!("bus: {why}")).into_iter().collect()
    }

    /// Sends heartbeats to this node, through each partition in turn.
    async fn echo(&self, partitions: usize) {
        let mut beat = interval(ECHO);
        for turn in 0.. {
            beat.tick().await;
            self.sender.echo(&To::echo(self.origin.run_id), turn % partitions.max(1));
        }
    }

    /// Notes a heartbeat that came back: records that are sent are received.
    fn echo_came(&self, partitions: usize) {
        *self.echoed.lock() = Instant::now();
        let news = self.open.send_if_modified(|open| open.replace(partitions) != Some(partitions));
        if news {
            *self.fault.lock() = None;
            self.heard.forget();
            tracing::info!(topic = self.topic, partitions, "bus connected");
        }
    }

    fn fail(&self, fault: &Unavailable) {
        let mut last = self.fault.lock();
        if last.as_deref() != Some(&fault.why) {
            tracing::warn!(topic = self.topic, %fault, "bus unavailable; retrying");
            *last = Some(fault.why.clone());
        }
    }
}
