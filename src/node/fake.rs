//! A node for tests of entry points. Broker and plugins return scripted answers and record their calls.
//!
//! The hub is real but runs no shard, so nothing is written to sockets. For several nodes with a shared bus, running
//! shards and reading clients see [`shared`].

pub(crate) mod lone;
pub(crate) mod several;
pub(crate) mod shared;

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;

use super::Node;
use super::deliver::Delivery;
use crate::broker::history::HistoryStore;
use crate::broker::history::memory::MemoryHistory;
use crate::broker::memory::{MemoryBroker, MemoryRoster};
use crate::broker::roster::Roster;
use crate::broker::{Address, Batch, Broker, Fate, Subscription, Unavailable};
use crate::claim::{Admission, Answer, Claim, Facts, Refusal};
use crate::code::Code;
use crate::config::{Config, DevicePolicy, LiveConfig};
use crate::hub::{Connection, Hub, Settings, ShardTask, Socket};
use crate::id::{IdSequence, NodeId, Room, Uid};
use crate::message::{Envelope, Receipt, Target};
pub(crate) use crate::plugin::Judgement;
use crate::plugin::{
    Access, Call, Event, JoinRequest, PluginCommand, PluginCommandFault, PluginHost, Status, Transport,
};

/// A node with scripted broker and plugins.
pub(crate) struct Fake {
    pub(crate) node: Arc<Node>,
    pub(crate) config: LiveConfig,
    broker: Arc<Scripted>,
    /// Not run unless a test asks for it; keeps the mailboxes open.
    shards: Vec<ShardTask>,
}

impl Fake {
    /// Creates the node from `config`.
    pub(crate) fn new(config: &Config) -> Self {
        let script = Arc::new(Scripted::default());
        let bus = Arc::clone(&script);
        Self::alone(config, script, None, |_| (bus, Arc::new(MemoryRoster::default())))
    }

    /// Creates the node from `config` on the memory broker with a history. The plugins are scripted.
    pub(crate) fn with_history(config: &Config) -> Self {
        let history = Arc::new(MemoryHistory::new(config.history.clone()));
        let store: Arc<dyn HistoryStore> = Arc::clone(&history) as _;
        Self::alone(config, Arc::new(Scripted::default()), Some(store), |delivery| {
            let broker = MemoryBroker::new(config.node.id.clone(), delivery, Some(history));
            (Arc::new(broker), Arc::new(MemoryRoster::default()))
        })
    }

    /// Creates the only node of a cluster.
    fn alone(
        config: &Config,
        script: Arc<Scripted>,
        history: Option<Arc<dyn HistoryStore>>,
        engine: impl FnOnce(Arc<Delivery>) -> (Arc<dyn Broker>, Arc<dyn Roster>),
    ) -> Self {
        let (fake, _, shards) = Self::over(config, script, history, engine);
        fake.node.join_cluster().now_or_never().expect("the memory's roster does not wait").expect("it is alone");
        Self { shards, ..fake }
    }

    /// Creates the node with the bus and roster from `engine`. It has not joined the cluster, and no shard runs.
    fn over(
        config: &Config,
        script: Arc<Scripted>,
        history: Option<Arc<dyn HistoryStore>>,
        engine: impl FnOnce(Arc<Delivery>) -> (Arc<dyn Broker>, Arc<dyn Roster>),
    ) -> (Self, Arc<Hub>, Vec<ShardTask>) {
        let ids = Arc::new(IdSequence::new(config.node.number, std::time::SystemTime::now()));
        let (hub, shards) = Hub::new(&Settings::from(config), Arc::clone(&ids));
        let hub = Arc::new(hub);
        let delivery = Arc::new(Delivery::new(Arc::clone(&hub)));
        let engine = engine(Arc::clone(&delivery));
        let plugins = Arc::clone(&script);
        let live = LiveConfig::new(config.clone());
        let node = Arc::new(Node::new(live.clone(), ids, Arc::clone(&hub), engine, plugins, history));
        delivery.set_node(Arc::downgrade(&node));
        (Self { node, config: live, broker: script, shards: Vec::new() }, hub, shards)
    }

    /// Runs the shards from now on, so that time limits of connections hold.
    pub(crate) fn run_shards(&mut self) {
        for shard in self.shards.drain(..) {
            tokio::spawn(shard);
        }
    }

    /// Makes the broker refuse everything.
    pub(crate) fn break_broker(&self) {
        self.broker.script.lock().broken = true;
    }

    /// Makes the broker accept everything again.
    pub(crate) fn mend_broker(&self) {
        self.broker.script.lock().broken = false;
    }

    /// Sets the faults of the bus.
    pub(crate) fn set_bus_faults(&self, faults: &[&str]) {
        self.broker.script.lock().bus_faults = faults.iter().map(|fault| (*fault).to_owned()).collect();
    }

    /// Subscribes and unsubscribes since the last call.
    pub(crate) fn subscriptions(&self) -> Vec<String> {
        self.broker.subscriptions()
    }

    /// Sets the filters' judgement of messages with this action. They pass all others.
    pub(crate) fn judge(&self, action: &str, judgement: Judgement) {
        self.broker.script.lock().judgements.push((action.to_owned(), judgement));
    }

    /// Sets the access plugins' answer for this room. They abstain for all others.
    pub(crate) fn set_access(&self, room: &str, access: Access) {
        self.broker.script.lock().access.push((room.to_owned(), access));
    }

    /// Join requests to the access plugins since the last call.
    pub(crate) fn joins(&self) -> Vec<JoinRequest> {
        std::mem::take(&mut self.broker.script.lock().joins)
    }

    /// Replaces the filters' judgement of messages with this action.
    pub(crate) fn judge_anew(&self, action: &str, judgement: Judgement) {
        self.broker.script.lock().judgements.retain(|(known, _)| known != action);
        self.judge(action, judgement);
    }

    /// Sets the status of the plugins.
    pub(crate) fn set_plugins(&self, status: Vec<Status>) {
        self.broker.script.lock().status = status;
    }

    /// Sets the faults of the plugin host.
    pub(crate) fn set_plugin_faults(&self, faults: &[&str]) {
        self.broker.script.lock().faults = faults.iter().map(|fault| (*fault).to_owned()).collect();
    }

    /// Batches that reached the broker since the last call.
    pub(crate) fn batches(&self) -> Vec<Batch> {
        std::mem::take(&mut self.broker.script.lock().batches)
    }

    /// Operator commands to plugins since the last call.
    pub(crate) fn commands(&self) -> Vec<(String, PluginCommand)> {
        std::mem::take(&mut self.broker.script.lock().commands)
    }

    /// Plugin events since the last call.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.broker.events()
    }

    /// Lets an events plugin export `receipts` from now on.
    pub(crate) fn want_receipts(&self) {
        self.broker.script.lock().wants_receipts = true;
    }

    /// Attaches an unbound connection of a listener with this device policy.
    pub(crate) async fn attach(&self, devices: DevicePolicy) -> Connection {
        self.node.attach(Arc::new(DeafSocket), None, devices).await.expect("the node has room")
    }

    /// Attaches and binds a connection.
    pub(crate) async fn connect(&self, uid: &str, device: &str, channel: &str, rooms: &[&str]) -> Connection {
        let connection = self.attach(DevicePolicy::AllowAll).await;
        let admission = Admission {
            uid: Uid::parse(uid).expect("a test's uid is valid"),
            device: None,
            rooms: rooms.iter().map(|r| Room::parse(r).expect("a test's room is valid")).collect(),
            expires: None,
            claims: [("plan", "gold")].into_iter().collect(),
        };
        let facts = Facts { device: Some(device.to_owned()), channel: Some(channel.to_owned()), ..Facts::default() };
        self.node.bind(&connection, admission, facts).await.expect("a test's bind is valid");
        connection
    }
}

/// Broker and plugins in one type.
#[derive(Default)]
pub(in crate::node) struct Scripted {
    script: Mutex<Script>,
}

impl Scripted {
    /// Plugin events since the last call.
    pub(in crate::node) fn events(&self) -> Vec<Event> {
        std::mem::take(&mut self.script.lock().events)
    }

    /// Subscribes and unsubscribes since the last call.
    pub(in crate::node) fn subscriptions(&self) -> Vec<String> {
        std::mem::take(&mut self.script.lock().subscriptions)
    }
}

#[derive(Default)]
struct Script {
    broken: bool,
    judgements: Vec<(String, Judgement)>,
    access: Vec<(String, Access)>,
    joins: Vec<JoinRequest>,
    status: Vec<Status>,
    commands: Vec<(String, PluginCommand)>,
    faults: Vec<String>,
    bus_faults: Vec<String>,
    subscriptions: Vec<String>,
    batches: Vec<Batch>,
    events: Vec<Event>,
    wants_receipts: bool,
}

fn name(subscription: &Subscription) -> &str {
    match subscription {
        Subscription::User(uid) => uid.as_str(),
        Subscription::Room(room) => room.as_str(),
    }
}

/// Additional queries for tests.
impl Node {
    /// Connections of a user on this node.
    pub(crate) fn user(&self, uid: &str) -> Vec<Connection> {
        self.hub.user(uid)
    }

    /// Connections of a room on this node.
    pub(crate) fn room(&self, room: &str) -> Vec<Connection> {
        self.hub.room(room)
    }

    /// Rooms with members on this node.
    pub(crate) fn rooms(&self) -> Vec<(Room, usize)> {
        self.hub.rooms()
    }

    /// Connection with this id.
    pub(crate) fn connection(&self, cid: u64) -> Option<Connection> {
        self.hub.connection(crate::id::ConnectionId::new(cid)?)
    }
}

/// Receipt of a message that one connection of each user accepts. Users with a uid that starts with `off` are offline.
fn receipt(target: &Target) -> Receipt {
    let users = match target {
        Target::User(uid) | Target::Device(uid, _) | Target::ConnectionOf(uid, _) => std::slice::from_ref(uid),
        Target::Users(uids) => uids,
        _ => return Receipt { delivered: 1, ..Receipt::default() },
    };
    let offline: Vec<Uid> = users.iter().filter(|uid| uid.as_str().starts_with("off")).cloned().collect();
    let delivered = u32::try_from(users.len() - offline.len()).expect("a test's list is short");
    Receipt { delivered, full: 0, offline }
}

impl Broker for Scripted {
    fn publish(&self, batch: Batch) -> BoxFuture<'_, Vec<Fate>> {
        let mut script = self.script.lock();
        let fate = |envelope: &Envelope| match script.broken {
            true => Fate::Unavailable,
            false => Fate::Accepted {
                positions: Vec::new(),
                is_unkept: false,
                receipt: Some(receipt(&envelope.target)),
                nodes: Some(1),
                unknown_nodes: envelope.nodes.iter().filter(|n| n.as_str() != "here").cloned().collect::<Vec<NodeId>>(),
            },
        };
        let fates = batch.iter().map(fate).collect();
        script.batches.push(batch);
        std::future::ready(fates).boxed()
    }

    fn send_cluster_message(&self, _: Address, _: Bytes) -> BoxFuture<'_, Result<Option<u32>, Unavailable>> {
        std::future::ready(Ok(Some(1))).boxed()
    }

    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<(), Unavailable>> {
        let mut script = self.script.lock();
        script.subscriptions.push(format!("subscribe {}", name(&subscription)));
        let broken = Unavailable { engine: "script", why: "it is broken".to_owned() };
        std::future::ready(if script.broken { Err(broken) } else { Ok(()) }).boxed()
    }

    fn unsubscribe(&self, subscription: &Subscription) {
        self.script.lock().subscriptions.push(format!("unsubscribe {}", name(subscription)));
    }

    fn faults(&self) -> Vec<String> {
        self.script.lock().bus_faults.clone()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        std::future::ready(()).boxed()
    }
}

impl PluginHost for Scripted {
    fn admit(&self, _transport: Transport, _claim: Claim) -> BoxFuture<'_, Result<Admission, Refusal>> {
        let refusal = Refusal::new(Code::UNAUTHORIZED, "no plugin");
        std::future::ready(Err(refusal)).boxed()
    }

    fn join(&self, request: JoinRequest) -> BoxFuture<'_, Access> {
        let mut script = self.script.lock();
        let scripted = script.access.iter().rev().find(|(room, _)| *room == request.room.as_str());
        let access = scripted.map_or(Access::Abstain, |(_, access)| access.clone());
        script.joins.push(request);
        std::future::ready(access).boxed()
    }

    fn judge<'a>(&'a self, batch: &'a mut [Envelope]) -> BoxFuture<'a, Vec<Judgement>> {
        let script = self.script.lock();
        let of = |envelope: &Envelope| {
            let scripted = script.judgements.iter().find(|(action, _)| *action == envelope.message.action);
            scripted.map_or(Judgement::Pass { replaced_by: Vec::new() }, |(_, judgement)| judgement.clone())
        };
        std::future::ready(batch.iter().map(of).collect()).boxed()
    }

    fn handle(&self, _call: Call) -> BoxFuture<'_, Option<Answer>> {
        std::future::ready(None).boxed()
    }

    fn notify(&self, event: Event, _: u8) {
        self.script.lock().events.push(event);
    }

    fn wants_receipts(&self) -> bool {
        self.script.lock().wants_receipts
    }

    fn status(&self) -> Vec<Status> {
        self.script.lock().status.clone()
    }

    fn execute(&self, name: &str, command: PluginCommand) -> BoxFuture<'_, Result<Status, PluginCommandFault>> {
        let mut script = self.script.lock();
        script.commands.push((name.to_owned(), command));
        let status = script.status.iter().find(|status| *status.name == *name).cloned();
        std::future::ready(status.ok_or(PluginCommandFault::Unknown)).boxed()
    }

    fn faults(&self) -> Vec<String> {
        self.script.lock().faults.clone()
    }
}

/// Socket that accepts and sends nothing.
struct DeafSocket;

impl Socket for DeafSocket {
    fn try_write(&self, _parts: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn poll_writable(&self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn shutdown(&self, _abort: bool) {}
}
