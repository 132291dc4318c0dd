//! Fixtures of the bus contract: engines that several nodes share, and receivers that record their input.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use skylark::app::engine::Engine;
use skylark::broker::roster::Member;
use skylark::broker::{Batch, Broker, Deliver, Fate};
use skylark::config::{BusKind, Config};
use skylark::id::NodeId;
use skylark::message::{Envelope, Message, Origin, Position, Publication, Receipt, Target};
use skylark::vital::Vitals;
use tokio::sync::watch;

use super::kafka;
use super::redis::Redis;
use crate::support::client::within;

/// The real engine under test, for any number of nodes.
pub trait Bus: Sized + Send + Sync + 'static {
    /// True if several nodes meet on the engine and it can be unavailable.
    const IS_SHARED: bool;
    /// True if a user's messages reach only nodes that hold the user, and the outcome says how many nodes.
    const IS_ROUTED: bool;

    fn start() -> Self;

    /// Adds the settings with which a node uses this engine.
    fn configure(&self, config: &mut Config);

    /// Kills the engine at once; data that it had not persisted is lost.
    fn kill(&mut self);

    fn restart(&mut self);

    /// Freezes the engine: connections stay open and no request is answered.
    fn pause(&self);

    fn resume(&self);

    /// Writes these bytes to the place from which every node reads records.
    fn inject(&self, record: &[u8]) -> impl Future<Output = ()> + Send;
}

/// A bus of one node: it shares nothing and cannot be unavailable.
pub struct MemoryBus;

impl Bus for MemoryBus {
    const IS_SHARED: bool = false;
    const IS_ROUTED: bool = false;

    fn start() -> Self {
        Self
    }

    fn configure(&self, config: &mut Config) {
        config.bus.kind = BusKind::Memory;
    }

    fn kill(&mut self) {
        unreachable!("the memory bus is not shared by nodes")
    }

    fn restart(&mut self) {
        unreachable!("the memory bus is not shared by nodes")
    }

    fn pause(&self) {
        unreachable!("the memory bus is not shared by nodes")
    }

    fn resume(&self) {
        unreachable!("the memory bus is not shared by nodes")
    }

    async fn inject(&self, _: &[u8]) {
        unreachable!("the memory bus is not shared by nodes")
    }
}

impl Bus for Redis {
    const IS_SHARED: bool = true;
    const IS_ROUTED: bool = true;

    fn start() -> Self {
        Redis::start()
    }

    fn configure(&self, config: &mut Config) {
        config.bus.kind = BusKind::Redis;
        config.bus.redis.url = self.url();
        config.bus.linger = Duration::from_millis(200);
    }

    fn kill(&mut self) {
        Redis::kill(self);
    }

    fn restart(&mut self) {
        Redis::restart(self);
    }

    fn pause(&self) {
        self.freeze();
    }

    fn resume(&self) {
        self.thaw();
    }

    async fn inject(&self, record: &[u8]) {
        let command = [b"PUBLISH", &b"skylark:all"[..], record].map(<[u8]>::to_vec).to_vec();
        let nodes = self.line().await.pipeline(&[command]).await.unwrap().remove(0).integer();
        assert!(nodes > 0, "no node subscribes to skylark:all");
    }
}

/// The Kafka that all tests share, with topics that belong to this test alone.
pub struct SharedKafka {
    prefix: String,
}

impl Bus for SharedKafka {
    const IS_SHARED: bool = true;
    const IS_ROUTED: bool = false;

    fn start() -> Self {
        Self { prefix: kafka::unique("bus") }
    }

    fn configure(&self, config: &mut Config) {
        config.bus.kind = BusKind::Kafka;
        config.bus.prefix.clone_from(&self.prefix);
        config.bus.kafka.brokers.clone_from(&kafka::kafka().bootstrap);
    }

    fn kill(&mut self) {
        unreachable!("the shared Kafka belongs to all tests")
    }

    fn restart(&mut self) {
        unreachable!("the shared Kafka belongs to all tests")
    }

    fn pause(&self) {
        unreachable!("the shared Kafka belongs to all tests")
    }

    fn resume(&self) {
        unreachable!("the shared Kafka belongs to all tests")
    }

    async fn inject(&self, record: &[u8]) {
        kafka::kafka().put(&format!("{}.bus", self.prefix), record).await;
    }
}

impl Bus for kafka::KafkaCluster {
    const IS_SHARED: bool = true;
    const IS_ROUTED: bool = false;

    fn start() -> Self {
        Self::start(1)
    }

    fn configure(&self, config: &mut Config) {
        config.bus.kind = BusKind::Kafka;
        config.bus.kafka.brokers.clone_from(&self.kafka.bootstrap);
    }

    fn kill(&mut self) {
        self.kill9(1);
    }

    fn restart(&mut self) {
        self.start_node(1);
    }

    fn pause(&self) {
        self.signal(1, rustix::process::Signal::STOP);
    }

    fn resume(&self) {
        self.signal(1, rustix::process::Signal::CONT);
    }

    async fn inject(&self, record: &[u8]) {
        self.kafka.put("skylark.bus", record).await;
    }
}

/// One node on the bus.
pub struct Seat {
    pub id: NodeId,
    pub number: u16,
    pub engine: Engine,
    pub heard: Arc<Recorder>,
}

/// Records the input of a node in order.
pub struct Recorder {
    came: watch::Sender<Vec<Came>>,
    /// No input is accepted while the gate is closed.
    gate: watch::Sender<bool>,
    receipt: Mutex<Receipt>,
}

/// One recorded input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Came {
    /// An envelope: its target and its text.
    Message(Target, String),
    Word(NodeId, Bytes),
    Gap,
}

impl Default for Recorder {
    fn default() -> Self {
        let receipt = Receipt { delivered: 1, ..Receipt::default() };
        Self { came: watch::Sender::default(), gate: watch::Sender::new(true), receipt: Mutex::new(receipt) }
    }
}

impl Recorder {
    /// Sets the receipt that each envelope gets from now on.
    pub fn answer(&self, receipt: Receipt) {
        *self.receipt.lock() = receipt;
    }

    /// Accepts no input until the gate is opened.
    pub fn close_gate(&self) {
        self.gate.send_replace(false);
    }

    pub fn open_gate(&self) {
        self.gate.send_replace(true);
    }

    pub fn all(&self) -> Vec<Came> {
        self.came.borrow().clone()
    }

    pub fn texts(&self) -> Vec<String> {
        texts(&self.came.borrow())
    }

    pub fn gaps(&self) -> usize {
        self.came.borrow().iter().filter(|came| **came == Came::Gap).count()
    }

    /// Waits until `is_enough` accepts the recorded input.
    pub async fn until(&self, what: &str, is_enough: impl Fn(&[Came]) -> bool) {
        let mut came = self.came.subscribe();
        let waited = came.wait_for(|came| is_enough(came));
        drop(within(what, waited).await.unwrap());
    }

    /// Waits for `count` messages and returns the texts of all messages.
    pub async fn messages(&self, count: usize) -> Vec<String> {
        self.until(&format!("{count} messages"), |came| texts(came).len() >= count).await;
        self.texts()
    }
}

fn texts(came: &[Came]) -> Vec<String> {
    came.iter().filter_map(|came| if let Came::Message(_, text) = came { Some(text.clone()) } else { None }).collect()
}

impl Deliver for Recorder {
    fn deliver(&self, batch: Batch, _: Vec<Option<Position>>) -> BoxFuture<'_, Vec<Receipt>> {
        async move {
            let mut gate = self.gate.subscribe();
            gate.wait_for(|open| *open).await.expect("the recorder holds the sender of the gate");
            let came = |envelope: &Envelope| {
                let text = envelope.message.content.get("text").unwrap_or_default();
                Came::Message(envelope.target.clone(), text.to_owned())
            };
            self.came.send_modify(|all| all.extend(batch.iter().map(came)));
            batch.iter().map(|_| self.receipt.lock().clone()).collect()
        }
        .boxed()
    }

    fn on_cluster_message(&self, from: &NodeId, word: Bytes) {
        self.came.send_modify(|all| all.push(Came::Word(from.clone(), word)));
    }

    fn gap(&self) {
        self.came.send_modify(|all| all.push(Came::Gap));
    }
}

impl Seat {
    /// Starts a node on `bus` and waits until it is ready.
    pub async fn take(bus: &impl Bus, name: &str, number: u16) -> Self {
        let seat = Self::take_early(bus, name, number);
        seat.ready().await;
        seat
    }

    /// Starts a node without waiting; its engine may be unavailable.
    pub fn take_early(bus: &impl Bus, name: &str, number: u16) -> Self {
        let heard = Arc::new(Recorder::default());
        let mut config = Config::default();
        config.node.id = name.parse().unwrap();
        config.node.number = number;
        bus.configure(&mut config);
        let engine = Engine::start(&config, Arc::clone(&heard) as _, &Vitals::default()).unwrap();
        Self { id: config.node.id, number, engine, heard }
    }

    /// Waits until the bus reports no fault.
    pub async fn ready(&self) {
        until("a broker without faults", || self.broker().faults().is_empty()).await;
    }

    pub fn broker(&self) -> &dyn Broker {
        &*self.engine.broker
    }

    /// The member that the other nodes see.
    pub fn member(&self) -> Member {
        Member {
            id: self.id.clone(),
            number: self.number,
            incarnation: 0,
            address: format!("ws://{}", self.id),
            gateway: true,
            intake: false,
            version: "0.1.0".to_owned(),
            connections: 0,
            capacity: 100,
            draining: false,
            started_at: 1,
        }
    }

    /// Publishes one message and returns its outcome.
    pub async fn publish(&self, target: Target, text: &str) -> Fate {
        self.publish_all(vec![envelope(target, text)]).await.remove(0)
    }

    pub async fn publish_all(&self, batch: Vec<Envelope>) -> Vec<Fate> {
        let count = batch.len();
        let outcomes = within("the results of the publish", self.broker().publish(batch.into())).await;
        assert_eq!(outcomes.len(), count, "the publish has not one result for each envelope");
        outcomes
    }
}

pub fn envelope(target: Target, text: &str) -> Envelope {
    let message = Message { content: [("text", text)].into_iter().collect(), ..Message::default() };
    Publication::new(message, target, Origin::Http).into_envelope(unique(), 0)
}

pub fn user(uid: &str) -> Target {
    Target::User(uid.parse().unwrap())
}

pub fn is_accepted(outcome: &Fate) -> bool {
    matches!(outcome, Fate::Accepted { .. })
}

/// Number of nodes that accepted the message.
#[track_caller]
pub fn nodes(outcome: &Fate) -> Option<u32> {
    match outcome {
        Fate::Accepted { nodes, .. } => *nodes,
        other => panic!("expected Fate::Accepted, got {other:?}"),
    }
}

/// Polls `is_so` every 10 ms until it returns true.
pub async fn until(what: &str, is_so: impl Fn() -> bool) {
    let mut looks = tokio::time::interval(Duration::from_millis(10));
    within(what, async {
        while !is_so() {
            looks.tick().await;
        }
    })
    .await;
}

fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}
