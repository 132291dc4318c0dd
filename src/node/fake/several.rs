//! Several complete nodes on one shared bus, with clients that record the frames that they receive.
//!
//! For tests with a paused clock: a test advances the time, and everything due by then happens.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::{AbortHandle, JoinSet};

use super::shared::Shared;
use super::{Fake, Scripted};
use crate::claim::{Admission, Facts, Refusal};
use crate::config::{Config, DevicePolicy};
use crate::disconnect::Disconnect;
use crate::hub::{Connection, Socket};
use crate::id::{NodeId, Room, Uid};
use crate::message::{Entries, Message, Origin, Publication, Target};
use crate::node::deliver::Delivery;
use crate::node::{Node, Published};
use crate::plugin::{Access, Event};
use crate::protocol::{Coding, Dialect, Form};

/// Protocol of the clients.
const FORM: Form = Form::websocket(Dialect::Yunque, Coding::Json);

/// A cluster in one process.
pub(crate) struct Several {
    pub(crate) shared: Shared,
    nodes: Vec<Fake>,
    handles: Vec<Vec<AbortHandle>>,
    tasks: JoinSet<()>,
}

impl Several {
    /// Creates `count` nodes, n1 to nN, that know each other.
    pub(crate) async fn new(count: u16) -> Self {
        Self::with(count, |_| {}).await
    }

    /// Same as [`Several::new`], with a changed configuration.
    pub(crate) async fn with(count: u16, change: impl Fn(&mut Config)) -> Self {
        let mut several =
            Self { shared: Shared::default(), nodes: Vec::new(), handles: Vec::new(), tasks: JoinSet::new() };
        for number in 1..=count {
            several.start(number, &change).await;
        }
        several.refresh_members().await;
        several
    }

    async fn start(&mut self, number: u16, change: impl Fn(&mut Config)) {
        let mut config = Config::default();
        config.node.id = id(number);
        config.node.number = number;
        config.node.address = format!("10.0.0.{number}:8080");
        config.node.shards = 1;
        change(&mut config);
        let shared = self.shared.clone();
        let engine = |deliver: Arc<Delivery>| shared.engine(&id(number), number, deliver);
        let (fake, _, shards) = Fake::over(&config, Arc::new(Scripted::default()), None, engine);
        fake.node.join_cluster().await.expect("its name is its own");
        let mut handles: Vec<_> = shards.into_iter().map(|shard| self.tasks.spawn(shard)).collect();
        handles.push(self.tasks.spawn(Arc::clone(&fake.node).run_cluster()));
        self.handles.push(handles);
        self.nodes.push(fake);
    }

    /// Makes every node read the list of members.
    pub(crate) async fn refresh_members(&self) {
        for fake in &self.nodes {
            fake.node.members().await;
        }
    }

    /// Node with this number.
    pub(crate) fn node(&self, number: u16) -> &Arc<Node> {
        &self.fake(number).node
    }

    fn fake(&self, number: u16) -> &Fake {
        &self.nodes[usize::from(number) - 1]
    }

    /// Plugin events of all nodes since the last call, as `n1: online 1074`.
    pub(crate) fn events(&self) -> Vec<String> {
        let of = |fake: &Fake| {
            let node = fake.node.id().clone();
            let events = fake.events().into_iter().map(move |event| match event {
                Event::Online(who) => format!("{node}: online {}", who.uid),
                Event::Offline(who) => format!("{node}: offline {}", who.uid),
                Event::RoomJoined(who, room) => format!("{node}: {} joins {room}", who.uid),
                Event::RoomLeft(who, room) => format!("{node}: {} leaves {room}", who.uid),
                Event::Resumed(who, streams) => format!("{node}: {} resumes {}", who.uid, streams.len()),
                Event::Undelivered(uid, id, cause) => format!("{node}: {uid} lacks {id}, {cause:?}"),
            });
            events.collect::<Vec<_>>()
        };
        self.nodes.iter().flat_map(of).collect()
    }

    /// Sets the answer of a node's access plugins for this room.
    pub(crate) fn set_access(&self, number: u16, room: &str, access: Access) {
        self.fake(number).set_access(room, access);
    }

    /// Kills the node without a shutdown.
    pub(crate) fn kill(&self, number: u16) {
        self.shared.kill(&id(number));
        self.handles[usize::from(number) - 1].iter().for_each(AbortHandle::abort);
    }

    /// Attaches an unbound client to the node.
    pub(crate) async fn attach(&mut self, number: u16, devices: DevicePolicy) -> Result<TestClient, Disconnect> {
        let node = Arc::clone(self.node(number));
        let pipe = Arc::new(Pipe::default());
        let connection = node.attach(Arc::clone(&pipe) as Arc<dyn Socket>, Some(FORM), devices).await?;
        let client = TestClient { node: Arc::clone(&node), connection: connection.clone(), pipe: Arc::clone(&pipe) };
        let handle = self.tasks.spawn(async move {
            pipe.shut_down.notified().await;
            node.detach(&connection).await;
        });
        self.handles[usize::from(number) - 1].push(handle);
        Ok(client)
    }

    /// Attaches a client and binds it on a listener without device matrix.
    pub(crate) async fn connect(&mut self, number: u16, uid: &str, rooms: &[&str]) -> TestClient {
        let client = self.attach(number, DevicePolicy::AllowAll).await.expect("the node has room");
        client.bind(uid, "phone", "android", rooms).await.expect("a test's bind is valid");
        client
    }

    /// Publishes on the node and returns the result.
    pub(crate) async fn publish(&self, number: u16, target: Target, text: &str) -> Published {
        let mut publication = publication(target, text);
        publication.receipts = true;
        self.node(number).publish(vec![publication]).await.remove(0)
    }

    /// Advances the time and runs everything that is due.
    pub(crate) async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
        self.run_ready().await;
    }

    /// Runs all tasks that are ready.
    pub(crate) async fn run_ready(&self) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// A client of one node.
pub(crate) struct TestClient {
    pub(crate) node: Arc<Node>,
    pub(crate) connection: Connection,
    pipe: Arc<Pipe>,
}

impl TestClient {
    /// Binds the client.
    pub(crate) async fn bind(&self, uid: &str, device: &str, channel: &str, rooms: &[&str]) -> Result<(), Refusal> {
        let admission = Admission {
            uid: Uid::parse(uid).expect("a test's uid is valid"),
            device: None,
            rooms: rooms.iter().map(|room| Room::parse(room).expect("a test's room is valid")).collect(),
            expires: None,
            claims: Entries::new(),
        };
        let facts = Facts { device: Some(device.to_owned()), channel: Some(channel.to_owned()), ..Facts::default() };
        self.node.bind(&self.connection, admission, facts).await.map(drop)
    }

    /// Closes the client's socket.
    pub(crate) async fn leave(&self) {
        self.node.detach(&self.connection).await;
    }

    /// Reason for which the node closed the connection.
    pub(crate) fn closed(&self) -> Option<Disconnect> {
        self.connection.closed()
    }

    /// Texts of the received messages, in order.
    pub(crate) fn texts(&self) -> Vec<String> {
        let messages = self.frames().into_iter().filter(|(kind, _)| *kind == 2);
        messages.map(|(_, body)| body["content"]["text"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Keys of the received replies, in order.
    pub(crate) fn replies(&self) -> Vec<String> {
        let replies = self.frames().into_iter().filter(|(kind, _)| *kind == 4);
        replies.map(|(_, body)| body["key"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Text of the received close frame.
    pub(crate) fn close_text(&self) -> Option<String> {
        let close = self.payloads().into_iter().find(|(opcode, _)| *opcode == 8)?;
        close.1.get(2..).map(|text| String::from_utf8_lossy(text).into_owned())
    }

    /// Types and bodies of the received frames.
    fn frames(&self) -> Vec<(u64, Value)> {
        let texts = self.payloads().into_iter().filter(|(opcode, _)| *opcode == 1);
        let frame = |(_, payload): (u8, Vec<u8>)| {
            let frame: Value = serde_json::from_slice(&payload).expect("a frame is JSON");
            let content = frame["content"].as_str().unwrap_or("null");
            let body = serde_json::from_str(content).expect("a body is JSON");
            (frame["type"].as_u64().expect("a frame has a type"), body)
        };
        texts.map(frame).collect()
    }

    /// Opcodes and payloads of the written frames.
    fn payloads(&self) -> Vec<(u8, Vec<u8>)> {
        let bytes = self.pipe.bytes.lock().clone();
        let mut rest = bytes.as_slice();
        let mut found = Vec::new();
        while let [opcode, length, tail @ ..] = rest {
            let (length, tail) = match length {
                126 => (usize::from(u16::from_be_bytes([tail[0], tail[1]])), &tail[2..]),
                length => (usize::from(*length), tail),
            };
            found.push((opcode & 0x0f, tail[..length].to_vec()));
            rest = &tail[length..];
        }
        found
    }
}

/// Socket that accepts everything.
#[derive(Default)]
struct Pipe {
    bytes: Mutex<Vec<u8>>,
    shut_down: Notify,
}

impl Socket for Pipe {
    fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut bytes = self.bytes.lock();
        parts.iter().for_each(|part| bytes.extend_from_slice(part));
        Ok(parts.iter().map(|part| part.len()).sum())
    }

    fn poll_writable(&self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn shutdown(&self, _abort: bool) {
        self.shut_down.notify_one();
    }
}

/// Name of the node with this number.
pub(crate) fn id(number: u16) -> NodeId {
    NodeId::parse(&format!("n{number}")).expect("a valid name")
}

/// A publication from an API request.
pub(crate) fn publication(target: Target, text: &str) -> Publication {
    let content = [("text", text)].into_iter().collect();
    Publication::new(Message { action: "chat".to_owned(), content, ..Message::default() }, target, Origin::Http)
}
