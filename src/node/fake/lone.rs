//! A node with a history, running shards, and clients whose sockets can be full.
//!
//! For tests with a paused clock: a test advances the time, and everything due by then happens.

use std::io::{self, IoSlice};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::several::{id, publication};
use super::{Fake, Scripted};
use crate::broker::Broker;
use crate::broker::history::HistoryStore;
use crate::broker::history::memory::MemoryHistory;
use crate::broker::memory::{MemoryBroker, MemoryRoster};
use crate::broker::roster::Roster;
use crate::claim::{Admission, Facts, Refusal, ResumeRequest, ResumeStream};
use crate::config::{Config, DevicePolicy};
use crate::disconnect::Disconnect;
use crate::hub::{Connection, Socket};
use crate::id::{Room, Uid};
use crate::message::{Entries, Epoch, Position, Target};
use crate::node::deliver::Delivery;
use crate::node::{Node, Resumed};
use crate::protocol::{Coding, Dialect, Form};
use crate::session::JoinReplay;

/// Protocol of the clients.
const FORM: Form = Form::websocket(Dialect::Yunque, Coding::Json);

/// A cluster of one node with a history.
pub(crate) struct Lone {
    pub(crate) node: Arc<Node>,
    fake: Fake,
    tasks: JoinSet<()>,
}

impl Lone {
    /// Creates the node from a changed configuration. Clients may join every room. `wrap` replaces the store that resumes
    /// read.
    pub(crate) async fn new(
        change: impl FnOnce(&mut Config),
        wrap: impl FnOnce(Arc<dyn HistoryStore>) -> Arc<dyn HistoryStore>,
    ) -> Self {
        let mut config = Config::default();
        (config.node.id, config.node.shards) = (id(1), 1);
        change(&mut config);
        let history = Arc::new(MemoryHistory::new(config.history.clone()));
        let store = wrap(Arc::clone(&history) as _);
        let name = config.node.id.clone();
        let engine = |delivery: Arc<Delivery>| -> (Arc<dyn Broker>, Arc<dyn Roster>) {
            let broker = MemoryBroker::new(name, delivery, Some(history));
            (Arc::new(broker), Arc::new(MemoryRoster::default()))
        };
        let (fake, _, shards) = Fake::over(&config, Arc::new(Scripted::default()), Some(store), engine);
        fake.node.join_cluster().await.expect("it is alone");
        let mut tasks = JoinSet::new();
        shards.into_iter().for_each(|shard| drop(tasks.spawn(shard)));
        tasks.spawn(Arc::clone(&fake.node).run_cluster());
        Self { node: Arc::clone(&fake.node), fake, tasks }
    }

    /// Lets every client into the room.
    pub(crate) fn open_room(&self, room: &str) {
        self.fake.set_access(room, crate::plugin::Access::Allow(None));
    }

    /// Attaches an unbound client.
    pub(crate) async fn attach(&mut self) -> LoneClient {
        let node = Arc::clone(&self.node);
        let pipe = Arc::new(Pipe::default());
        let socket = Arc::clone(&pipe) as Arc<dyn Socket>;
        let connection = node.attach(socket, Some(FORM), DevicePolicy::AllowAll).await.expect("the node has room");
        let client = LoneClient { node: Arc::clone(&node), connection: connection.clone(), pipe: Arc::clone(&pipe) };
        self.tasks.spawn(async move {
            pipe.shut_down.notified().await;
            node.detach(&connection).await;
        });
        client
    }

    /// Publishes a message with the text.
    pub(crate) async fn publish(&self, target: Target, text: &str) {
        self.node.publish(vec![publication(target, text)]).await;
    }

    /// Runs a task of the test.
    pub(crate) fn spawn(&mut self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }
}

/// A client of the node.
#[derive(Clone)]
pub(crate) struct LoneClient {
    node: Arc<Node>,
    pub(crate) connection: Connection,
    pipe: Arc<Pipe>,
}

/// One event on a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Seen {
    Kept(Received),
    Reply(Value),
}

/// A message as the client received it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Received {
    /// `u`, `all` or `r:ROOM`.
    pub(crate) stream: String,
    pub(crate) position: Position,
    pub(crate) text: String,
}

impl LoneClient {
    /// Binds the client, resumes these streams, and runs the replay in a task. Returns the elements of the answer.
    pub(crate) async fn resume(
        &self,
        uid: &str,
        rooms: &[&str],
        streams: Vec<(ResumeStream, Option<Position>)>,
    ) -> Result<Vec<Value>, Refusal> {
        let admission = Admission {
            uid: Uid::parse(uid).expect("a test's uid is valid"),
            device: None,
            rooms: rooms.iter().map(|room| Room::parse(room).expect("a test's room is valid")).collect(),
            expires: None,
            claims: Entries::new(),
        };
        let facts = Facts { resume: Some(ResumeRequest { streams, former: None }), ..Facts::default() };
        let resumed = self.node.bind(&self.connection, admission, facts).await?;
        Ok(run(resumed.expect("the client asks to resume")))
    }

    /// Joins a room after this position and runs the replay in a task. Returns the element of the answer.
    pub(crate) async fn join(&self, room: &str, since: Option<Position>) -> Result<Value, Refusal> {
        let room = Room::parse(room).expect("a test's room is valid");
        let replay = JoinReplay { since: Some(since), latest: false };
        let joined = self.node.request_join(&self.connection, room, Entries::new(), Some(replay)).await?;
        Ok(run(joined.resumed.expect("the client asks to resume")).remove(0))
    }

    /// Reason for which the node closed the connection.
    pub(crate) fn closed(&self) -> Option<Disconnect> {
        self.connection.closed()
    }

    /// Accepts so many more bytes from now on; `None` = any number.
    pub(crate) fn allow(&self, bytes: Option<usize>) {
        let waker = {
            let mut state = self.pipe.state.lock();
            state.room = bytes;
            state.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    /// Kept messages that the client received so far, in order.
    pub(crate) fn messages(&self) -> Vec<Received> {
        let message = |event| if let Seen::Kept(received) = event { Some(received) } else { None };
        self.events().into_iter().filter_map(message).collect()
    }

    /// Kept messages and replies in complete frames that the client received so far, in order.
    pub(crate) fn events(&self) -> Vec<Seen> {
        let event = |(kind, body): (u64, Value)| match kind {
            2 => kept(&body).map(Seen::Kept),
            4 => Some(Seen::Reply(body)),
            _ => None,
        };
        self.frames().into_iter().filter_map(event).collect()
    }

    /// Types and bodies of the complete frames.
    fn frames(&self) -> Vec<(u64, Value)> {
        let bytes = self.pipe.state.lock().written.clone();
        let mut rest = bytes.as_slice();
        let mut found = Vec::new();
        while let Some((opcode, payload, tail)) = split_frame(rest) {
            rest = tail;
            if opcode == 1 {
                let frame: Value = serde_json::from_slice(payload).expect("a frame is JSON");
                let body = serde_json::from_str(frame["content"].as_str().unwrap_or("null"));
                found.push((frame["type"].as_u64().expect("a frame has a type"), body.expect("a body is JSON")));
            }
        }
        found
    }
}

fn kept(message: &Value) -> Option<Received> {
    let epoch = Epoch::parse(message["epoch"].as_str()?)?;
    Some(Received {
        stream: message["stream"].as_str().unwrap_or("u").to_owned(),
        position: Position { epoch, offset: message["offset"].as_u64()?, id: message["id"].as_i64()? },
        text: message["content"]["text"].as_str().unwrap_or_default().to_owned(),
    })
}

/// Opcode and payload of the first frame, and the bytes after it. `None` if it is not complete.
fn split_frame(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[opcode, length], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match length {
        127 => rest.split_first_chunk().map(|(length, rest)| (u64::from_be_bytes(*length), rest))?,
        126 => rest.split_first_chunk().map(|(length, rest)| (u16::from_be_bytes(*length).into(), rest))?,
        length => (length.into(), rest),
    };
    let (payload, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    Some((opcode & 0x0f, payload, rest))
}

/// Runs the replay in a task. Returns the elements of the answer.
fn run(resumed: Resumed) -> Vec<Value> {
    tokio::spawn(resumed.replay.run());
    let answer = serde_json::from_str(&resumed.answer);
    answer.expect("the answer is a list")
}

/// Socket that accepts a limited number of bytes.
#[derive(Default)]
struct Pipe {
    state: Mutex<PipeState>,
    shut_down: Notify,
}

#[derive(Default)]
struct PipeState {
    written: Vec<u8>,
    /// Number of bytes that the socket still accepts. `None` = any number.
    room: Option<usize>,
    is_aborted: bool,
    waker: Option<Waker>,
}

impl Socket for Pipe {
    fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let state = &mut *self.state.lock();
        if state.is_aborted {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if state.room == Some(0) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let before = state.written.len();
        for part in parts {
            let taken = state.room.map_or(part.len(), |room| room.min(part.len()));
            state.room = state.room.map(|room| room - taken);
            state.written.extend_from_slice(&part[..taken]);
        }
        Ok(state.written.len() - before)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.state.lock();
        if state.room != Some(0) || state.is_aborted {
            return Poll::Ready(Ok(()));
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn shutdown(&self, abort: bool) {
        let waker = {
            let mut state = self.state.lock();
            state.is_aborted |= abort;
            state.waker.take()
        };
        waker.into_iter().for_each(Waker::wake);
        self.shut_down.notify_one();
    }
}

/// Time after which everything that is ready has run.
pub(crate) async fn run_ready() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}
