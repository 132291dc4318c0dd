//! A node for tests of the ways in: its broker and plugins answer what a test tells them, and remember what came.
//!
//! The hub is the real one, with no shard running: nothing is written to a socket. Several nodes that share a bus, with
//! shards and with clients that read what they are sent: [`shared`].

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
use crate::broker::memory::MemoryRoster;
use crate::broker::roster::Roster;
use crate::broker::{Address, Batch, Broker, Outcome, Stream, Unavailable};
use crate::claim::{Admission, Answer, Claim, Facts, Refusal};
use crate::config::{Config, DevicePolicy};
use crate::hub::{Connection, Hub, Settings, ShardTask, Socket};
use crate::id::{IdSequence, NodeId, Room, Uid};
use crate::message::{Entries, Envelope, Receipt, Target};
pub(crate) use crate::plugin::Judgement;
use crate::plugin::{Access, Call, Event, JoinRequest, PluginHost, Status, Transport, Word, WordFault};

/// A node whose broker and plugins are scripted.
pub(crate) struct Fake {
    pub(crate) node: Arc<Node>,
    broker: Arc<Scripted>,
    /// Never run: their mailboxes just stay open.
    _shards: Vec<ShardTask>,
}

impl Fake {
    /// As `config` says.
    pub(crate) fn new(config: &Config) -> Self {
        let script = Arc::new(Scripted::default());
        let bus = Arc::clone(&script);
        let (fake, _, shards) = Self::over(config, script, |_| (bus, Arc::new(MemoryRoster::default())));
        fake.node.join_cluster().now_or_never().expect("the memory's roster does not wait").expect("it is alone");
        Self { _shards: shards, ..fake }
    }

    /// On the bus and roster that `engine` gives for what is delivered; not of the cluster yet, the shards not run.
    fn over(
        config: &Config,
        script: Arc<Scripted>,
        engine: impl FnOnce(Arc<Delivery>) -> (Arc<dyn Broker>, Arc<dyn Roster>),
    ) -> (Self, Arc<Hub>, Vec<ShardTask>) {
        let ids = Arc::new(IdSequence::new(config.node.number, std::time::SystemTime::now()));
        let (hub, shards) = Hub::new(&Settings::from(config), Arc::clone(&ids));
        let hub = Arc::new(hub);
        let delivery = Arc::new(Delivery::new(Arc::clone(&hub)));
        let engine = engine(Arc::clone(&delivery));
        let plugins = Arc::clone(&script);
        let node = Arc::new(Node::new(config, ids, Arc::clone(&hub), engine, plugins));
        delivery.belongs_to(Arc::downgrade(&node));
        (Self { node, broker: script, _shards: Vec::new() }, hub, shards)
    }

    /// From now on the broker takes nothing.
    pub(crate) fn break_broker(&self) {
        self.broker.script.lock().broken = true;
    }

    /// It takes everything again.
    pub(crate) fn mend_broker(&self) {
        self.broker.script.lock().broken = false;
    }

    /// Why the bus should get no traffic.
    pub(crate) fn set_bus_faults(&self, faults: &[&str]) {
        self.broker.script.lock().bus_faults = faults.iter().map(|fault| (*fault).to_owned()).collect();
    }

    /// The streams that the node has asked for and let go of, since it was last asked.
    pub(crate) fn streams(&self) -> Vec<String> {
        std::mem::take(&mut self.broker.script.lock().streams)
    }

    /// What the filters answer to messages with this action; they let all others pass.
    pub(crate) fn judge(&self, action: &str, judgement: Judgement) {
        self.broker.script.lock().judgements.push((action.to_owned(), judgement));
    }

    /// What the access plugins answer about this room from now on; they abstain for all others.
    pub(crate) fn set_access(&self, room: &str, access: Access) {
        self.broker.script.lock().access.push((room.to_owned(), access));
    }

    /// The joins that the access plugins were asked about since they were last looked at.
    pub(crate) fn joins(&self) -> Vec<JoinRequest> {
        std::mem::take(&mut self.broker.script.lock().joins)
    }

    /// What they answer from now on.
    pub(crate) fn judge_anew(&self, action: &str, judgement: Judgement) {
        self.broker.script.lock().judgements.retain(|(known, _)| known != action);
        self.judge(action, judgement);
    }

    /// What the plugins say of themselves.
    pub(crate) fn set_plugins(&self, status: Vec<Status>) {
        self.broker.script.lock().status = status;
    }

    /// What the plugin host says of itself.
    pub(crate) fn set_plugin_faults(&self, faults: &[&str]) {
        self.broker.script.lock().faults = faults.iter().map(|fault| (*fault).to_owned()).collect();
    }

    /// The batches that reached the broker since it was last asked.
    pub(crate) fn batches(&self) -> Vec<Batch> {
        std::mem::take(&mut self.broker.script.lock().batches)
    }

    /// What the operator told single plugins since they were last asked.
    pub(crate) fn words(&self) -> Vec<(String, Word)> {
        std::mem::take(&mut self.broker.script.lock().words)
    }

    /// What plugins were told since they were last asked.
    pub(crate) fn events(&self) -> Vec<Event> {
        std::mem::take(&mut self.broker.script.lock().events)
    }

    /// An unbound connection of a listener with this device policy.
    pub(crate) async fn attach(&self, devices: DevicePolicy) -> Connection {
        self.node.attach(Arc::new(DeafSocket), None, devices).await.expect("the node has room")
    }

    /// A bound connection.
    pub(crate) async fn connect(&self, uid: &str, device: &str, channel: &str, rooms: &[&str]) -> Connection {
        let connection = self.attach(DevicePolicy::AllowAll).await;
        let admission = Admission {
            uid: Uid::parse(uid).expect("a test's uid is valid"),
            device: None,
            rooms: rooms.iter().map(|r| Room::parse(r).expect("a test's room is valid")).collect(),
            expires: None,
            claims: [("plan", "gold")].into_iter().collect(),
        };
        let facts = Facts { device: Some(device.to_owned()), channel: Some(channel.to_owned()), rest: Entries::new() };
        self.node.bind(&connection, admission, facts).await.expect("a test's bind is valid");
        connection
    }
}

/// Broker and plugins in one.
#[derive(Default)]
struct Scripted {
    script: Mutex<Script>,
}

#[derive(Default)]
struct Script {
    broken: bool,
    judgements: Vec<(String, Judgement)>,
    access: Vec<(String, Access)>,
    joins: Vec<JoinRequest>,
    status: Vec<Status>,
    words: Vec<(String, Word)>,
    faults: Vec<String>,
    bus_faults: Vec<String>,
    streams: Vec<String>,
    batches: Vec<Batch>,
    events: Vec<Event>,
}

fn name(stream: &Stream) -> &str {
    match stream {
        Stream::User(uid) => uid.as_str(),
        Stream::Room(room) => room.as_str(),
    }
}

/// What tests look at beside what everybody may ask.
impl Node {
    /// A user's connections here.
    pub(crate) fn user(&self, uid: &str) -> Vec<Connection> {
        self.hub.user(uid)
    }

    /// A room's connections here.
    pub(crate) fn room(&self, room: &str) -> Vec<Connection> {
        self.hub.room(room)
    }

    /// Rooms with members here.
    pub(crate) fn rooms(&self) -> Vec<(Room, usize)> {
        self.hub.rooms()
    }

    /// The connection with this id.
    pub(crate) fn connection(&self, cid: u64) -> Option<Connection> {
        self.hub.connection(crate::id::ConnectionId::new(cid)?)
    }
}

/// One connection of each user takes a message, except of those whose uid begins with `off`.
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
    fn publish(&self, batch: Batch) -> BoxFuture<'_, Vec<Outcome>> {
        let mut script = self.script.lock();
        let outcome = |envelope: &Envelope| match script.broken {
            true => Outcome::Unavailable,
            false => Outcome::Accepted {
                position: None,
                receipt: Some(receipt(&envelope.target)),
                nodes: Some(1),
                unknown_nodes: envelope.nodes.iter().filter(|n| n.as_str() != "here").cloned().collect::<Vec<NodeId>>(),
            },
        };
        let outcomes = batch.iter().map(outcome).collect();
        script.batches.push(batch);
        std::future::ready(outcomes).boxed()
    }

    fn tell(&self, _: Address, _: Bytes) -> BoxFuture<'_, Result<Option<u32>, Unavailable>> {
        std::future::ready(Ok(Some(1))).boxed()
    }

    fn hold(&self, stream: Stream) -> BoxFuture<'_, Result<(), Unavailable>> {
        let mut script = self.script.lock();
        script.streams.push(format!("hold {}", name(&stream)));
        let broken = Unavailable { engine: "script", why: "it is broken".to_owned() };
        std::future::ready(if script.broken { Err(broken) } else { Ok(()) }).boxed()
    }

    fn release(&self, stream: &Stream) {
        self.script.lock().streams.push(format!("release {}", name(stream)));
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
        let refusal = Refusal::new("401", "no plugin");
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

    fn status(&self) -> Vec<Status> {
        self.script.lock().status.clone()
    }

    fn obey(&self, name: &str, word: Word) -> BoxFuture<'_, Result<Status, WordFault>> {
        let mut script = self.script.lock();
        script.words.push((name.to_owned(), word));
        let status = script.status.iter().find(|status| *status.name == *name).cloned();
        std::future::ready(status.ok_or(WordFault::Unknown)).boxed()
    }

    fn faults(&self) -> Vec<String> {
        self.script.lock().faults.clone()
    }
}

/// Takes nothing and says nothing.
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
