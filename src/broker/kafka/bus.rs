//! The bus over Kafka: one topic that every node reads from its end. A node skips records for other nodes by their
//! header.
//!
//! A stream (messages of a user, of a room, or for everyone) has one partition, so it keeps its order. Subscriptions
//! are local to the node: a subscribe needs no request once the node reads the topic. After an interruption a node
//! continues at its last offsets, so it loses nothing unless Kafka has. Independent of connections.

mod reader;
mod receipts;
mod sender;
pub mod skipping;

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
use self::receipts::ReceiptWaiters;
use self::sender::{Pending, Sender};
use super::address::{AddressHeader, LocalAddresses, parts};
use super::clients::{ErrorContext, KafkaClients, Topic, ended_connections, unavailable, unread_records};
use super::live_nodes::LiveNodes;
use super::topic_reader::{StartAt, TopicReader};
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
const HEARTBEAT: Duration = Duration::from_secs(1);
const SILENCE: Duration = Duration::from_secs(3);
/// Time for records in flight when the bus closes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

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
    clients: KafkaClients,
    options: BusOptions,
    origin: RecordOrigin,
    topic: String,
    receiver: Arc<dyn Deliver>,
    sender: Sender,
    errors: ErrorContext,
    addresses: RwLock<LocalAddresses>,
    receipts: ReceiptWaiters,
    live_nodes: Arc<LiveNodes>,
    /// Number of partitions. `None` until this node reads from their ends and its own records come back.
    open: watch::Sender<Option<usize>>,
    /// Time at which the last heartbeat came back.
    last_heartbeat: Mutex<Instant>,
    /// Reason why the reader cannot start.
    fault: Mutex<Option<String>>,
}

impl KafkaBus {
    /// Starts the bus, which delivers to `receiver`. The roster fills `live_nodes`, which tells the bus how many
    /// receipts to expect. Sends no request yet, so an unreachable Kafka is no error. Must run within a Tokio runtime.
    ///
    /// # Errors
    /// A property is unknown to librdkafka or not supported by this build.
    pub fn start(
        clients: &KafkaClients,
        options: BusOptions,
        live_nodes: Arc<LiveNodes>,
        receiver: Arc<dyn Deliver>,
        vitals: &Vitals,
    ) -> Result<Self, Unavailable> {
        let errors = ErrorContext::of(clients);
        let topic = format!("{}.bus", options.prefix);
        let origin = RecordOrigin::new(options.number);
        let writing = errors.with_statistics(|statistics| count_disconnects("publish", ended_connections(statistics)));
        let reading = errors.with_statistics(|statistics| {
            count_disconnects("subscribe", ended_connections(statistics));
            #[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
            gauge!(names::BUS_LAG, "engine" => "kafka").set(unread_records(statistics) as f64);
        });
        let sender = Sender::new(clients, &topic, options.record_bytes, writing)?;
        let topic_reader =
            TopicReader::new(clients, options.topic(&topic), StartAt::End, options.node.as_str(), reading)?;
        let shared = Arc::new(Shared {
            clients: clients.clone(),
            addresses: RwLock::new(LocalAddresses::of(&options.node, options.number, origin.run_id)),
            options,
            origin,
            topic,
            receiver,
            sender,
            errors,
            receipts: ReceiptWaiters::default(),
            live_nodes,
            open: watch::Sender::new(None),
            last_heartbeat: Mutex::new(Instant::now()),
            fault: Mutex::new(None),
        });
        let closing = watch::Sender::new(false);
        let mut tasks = JoinSet::new();
        let reader = Reader::new(Arc::clone(&shared), topic_reader);
        tasks.spawn(vitals.run("bus reader", reader.run(closing.subscribe())));
        Ok(Self { shared, closing, tasks: Mutex::new(tasks) })
    }

    async fn end(&self) {
        // Confirmations of records in flight still reach the publishers that wait for them.
        let sender = self.shared.sender.clone();
        let flushed = tokio::task::spawn_blocking(move || sender.close(CLOSE_TIMEOUT));
        if flushed.await.is_err() {
            tracing::warn!("flush of the bus producer panicked");
        }
        self.closing.send_replace(true);
        self.shared.open.send_replace(None);
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        if timeout(CLOSE_TIMEOUT, async { while tasks.join_next().await.is_some() {} }).await.is_err() {
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

    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<(), Unavailable>> {
        self.shared.addresses.write().subscribe(subscription);
        async { self.shared.wait_open(Instant::now() + ANSWER).await.map(|_| ()) }.boxed()
    }

    fn unsubscribe(&self, subscription: &Subscription) {
        self.shared.addresses.write().unsubscribe(subscription);
    }

    fn faults(&self) -> Vec<String> {
        self.shared.faults()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.end().boxed()
    }
}

fn count_disconnects(way: &'static str, connections: u64) {
    counter!(names::BUS_RECONNECTS, "engine" => "kafka", "way" => way).absolute(connections);
}

/// Result of sending one envelope.
enum SendResult {
    Parts(Vec<Pending>),
    TooLarge(usize),
    Failed,
}

impl SendResult {
    fn parts(&self) -> usize {
        if let Self::Parts(parts) = self { parts.len() } else { 0 }
    }
}

impl Shared {
    async fn publish(&self, batch: Batch) -> Vec<Fate> {
        let deadline = Instant::now() + ANSWER;
        let Ok(partitions) = self.wait_open(deadline).await else { return vec![Fate::Unavailable; batch.len()] };
        counter!(names::BUS_ENVELOPES, "engine" => "kafka", "way" => "broadcast").increment(batch.len() as u64);
        let mut sent = Vec::with_capacity(batch.len());
        for envelope in batch.iter() {
            let receipt_wait = envelope.receipts.then(|| self.receipts.expect(envelope.id));
            sent.push((self.send(envelope, partitions, deadline).await, receipt_wait));
        }
        let mut fates = Vec::with_capacity(batch.len());
        let mut receipt_waits = Vec::new();
        for (index, (sent, receipt_wait)) in sent.into_iter().enumerate() {
            let parts = sent.parts();
            fates.push(self.fate(&batch[index], sent, deadline).await);
            receipt_waits.extend(receipt_wait.map(|receipt_wait| (index, parts, receipt_wait)));
        }
        let until = Instant::now() + RECEIPTS;
        for (index, parts, receipt_wait) in receipt_waits {
            if let Fate::Accepted { receipt, nodes, .. } = &mut fates[index] {
                let expected = self.live_nodes.count().map(|nodes| nodes * parts);
                let sum = receipt_wait.wait(expected, until).await;
                (*receipt, *nodes) = (Some(sum.receipt), Some(sum.nodes));
            }
        }
        fates
    }

    async fn send(&self, envelope: &Envelope, partitions: usize, deadline: Instant) -> SendResult {
        let mut body = Vec::with_capacity(envelope.message.approximate_bytes() + 64);
        record::put_envelope(&mut body, envelope);
        let mut sent = Vec::new();
        for part in parts(&envelope.target, partitions) {
            let mut to = AddressHeader::target(&part);
            if envelope.receipts {
                // Nodes without a receiver also send a receipt.
                to = to.read_by_all();
            }
            let sequence = self.sender.next();
            let record = record::envelopes(self.origin, sequence, &part, 1, &body);
            if record.len() > self.options.record_bytes {
                return SendResult::TooLarge(record.len());
            }
            match self.sender.send(&to, &record, partitions, deadline).await {
                Some(pending) => sent.push(pending),
                None => return SendResult::Failed,
            }
        }
        SendResult::Parts(sent)
    }

    async fn fate(&self, envelope: &Envelope, sent: SendResult, deadline: Instant) -> Fate {
        let most = self.options.record_bytes;
        let parts = match sent {
            SendResult::Parts(parts) => parts,
            SendResult::TooLarge(bytes) => return Fate::TooLargeForBroker { bytes, most },
            SendResult::Failed => return Fate::Unavailable,
        };
        let unknown_nodes = self.live_nodes.unknown_of(&envelope.nodes);
        let mut fate =
            Fate::Accepted { positions: Vec::new(), is_unkept: false, receipt: None, nodes: None, unknown_nodes };
        for part in parts {
            match part.result(deadline).await {
                Ok(()) => {}
                // The topic was created with a smaller record limit than the configuration has.
                Err(sender::SendFailure::TooLarge(bytes)) => fate = Fate::TooLargeForBroker { bytes, most: bytes - 1 },
                Err(sender::SendFailure::Unconfirmed) => return Fate::Unavailable,
            }
        }
        fate
    }

    async fn send_cluster_message(&self, address: Address, message: Bytes) -> Result<Option<u32>, Unavailable> {
        let deadline = Instant::now() + ANSWER;
        let partitions = self.wait_open(deadline).await?;
        let record = record::cluster_message(self.origin, self.sender.next(), &self.options.node, &message);
        let sent = self.sender.send(&AddressHeader::address(&address), &record, partitions, deadline).await;
        match sent.ok_or(sender::SendFailure::Unconfirmed) {
            Ok(pending) => pending.result(deadline).await.map(|()| None).map_err(|_| self.current_fault()),
            Err(_) => Err(self.current_fault()),
        }
    }

    /// Waits until this node reads the topic, and returns the number of partitions.
    async fn wait_open(&self, deadline: Instant) -> Result<usize, Unavailable> {
        let mut open = self.open.subscribe();
        let opened = timeout_at(deadline, open.wait_for(Option::is_some)).await;
        opened.ok().and_then(Result::ok).and_then(|count| *count).ok_or_else(|| self.current_fault())
    }

    fn current_fault(&self) -> Unavailable {
        let why = self.fault.lock().clone().or_else(|| self.errors.last());
        unavailable(why.unwrap_or_else(|| format!("no answer from {}", self.clients.brokers())))
    }

    fn faults(&self) -> Vec<String> {
        let silence = self.last_heartbeat.lock().elapsed();
        if self.open.borrow().is_none() {
            return vec![format!("bus: {}", self.current_fault())];
        }
        if silence > SILENCE {
            let seconds = silence.as_secs();
            return vec![format!("bus: no own heartbeat received for {seconds} s: {}", self.current_fault())];
        }
        // A partition may be unreadable while heartbeats return through the others.
        self.errors.unreadable().map(|why| format!("bus: {why}")).into_iter().collect()
    }

    /// Sends heartbeats to this node, through each partition in turn.
    async fn send_heartbeats(&self, partitions: usize) {
        let mut timer = interval(HEARTBEAT);
        for turn in 0.. {
            timer.tick().await;
            self.sender.send_heartbeat(&AddressHeader::heartbeat(self.origin.run_id), turn % partitions.max(1));
        }
    }

    /// Notes a heartbeat that came back: records that are sent are received.
    fn on_heartbeat(&self, partitions: usize) {
        *self.last_heartbeat.lock() = Instant::now();
        let is_new = self.open.send_if_modified(|open| open.replace(partitions) != Some(partitions));
        if is_new {
            *self.fault.lock() = None;
            self.errors.clear();
            tracing::info!(topic = self.topic, partitions, "bus connected");
        }
    }

    fn set_fault(&self, fault: &Unavailable) {
        let mut last = self.fault.lock();
        if last.as_deref() != Some(&fault.why) {
            tracing::warn!(topic = self.topic, %fault, "bus unavailable; retrying");
            *last = Some(fault.why.clone());
        }
    }
}
