//! The hub with in-memory sockets.

mod delivery;
mod life;
mod model;
mod replay;
mod replay_bounds;
mod replay_model;
mod stress;

use std::io::{self, IoSlice};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::load::Load;
use super::*;
use crate::disconnect::Disconnect;
use crate::message::{Message, Position};
use crate::protocol::{self, Coding, Dialect, ServerFrame, websocket};

const YUNQUE: Form = Form::websocket(Dialect::Yunque, Coding::Protobuf);
const JSON: Form = Form::websocket(Dialect::Yunque, Coding::Json);
const TCP: Form = Form::tcp(Dialect::Cim);

/// In-memory socket that accepts a limited number of bytes and records them.
#[derive(Default)]
struct Pipe(Mutex<PipeState>);

#[derive(Default)]
struct PipeState {
    written: Vec<u8>,
    writes: usize,
    /// Number of bytes that the socket still accepts. `None` = any number.
    room: Option<usize>,
    broken: bool,
    /// True if the next write panics.
    panics: bool,
    /// Arguments of the `shutdown` calls.
    shutdowns: Vec<bool>,
    waker: Option<Waker>,
}

impl Pipe {
    fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Accepts `room` more bytes from now on.
    fn allow(&self, room: Option<usize>) {
        let mut state = self.0.lock();
        state.room = room;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
    }

    fn panic_at_write(&self) {
        self.0.lock().panics = true;
    }

    fn break_it(&self) {
        self.0.lock().broken = true;
        self.allow(None);
    }

    fn written(&self) -> Vec<u8> {
        self.0.lock().written.clone()
    }

    fn writes(&self) -> usize {
        self.0.lock().writes
    }

    fn shutdowns(&self) -> Vec<bool> {
        self.0.lock().shutdowns.clone()
    }
}

impl Socket for Pipe {
    fn try_write(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        let state = &mut *self.0.lock();
        state.writes += 1;
        if state.panics {
            // Unlike `panic!`, this prints nothing.
            std::panic::resume_unwind(Box::new("a bug in a socket"));
        }
        if state.broken {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if !state.shutdowns.is_empty() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if state.room == Some(0) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let before = state.written.len();
        for part in parts {
            let left = state.room.map_or(part.len(), |room| room.min(part.len()));
            state.room = state.room.map(|room| room - left);
            state.written.extend_from_slice(&part[..left]);
        }
        Ok(state.written.len() - before)
    }

    fn poll_writable(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        if state.room != Some(0) || state.broken || state.shutdowns.contains(&true) {
            return Poll::Ready(Ok(()));
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn shutdown(&self, abort: bool) {
        let mut state = self.0.lock();
        state.shutdowns.push(abort);
        if let Some(waker) = state.waker.take().filter(|_| abort) {
            waker.wake();
        }
    }
}

fn settings() -> Settings {
    Settings {
        shards: 2,
        connections: 100_000,
        heartbeat: Heartbeat { interval: Duration::from_secs(25), max_missed: 2 },
        queue: Queue { bytes: 1 << 20, frames: 1024, write_timeout: Duration::from_secs(10), mailbox: 256 },
        unbound: Duration::from_secs(45),
        unbound_max: Duration::from_secs(300),
    }
}

/// Starts a hub with its shards on the current runtime.
fn start(settings: &Settings) -> Arc<Hub> {
    let (hub, tasks) = Hub::new(settings, Arc::new(IdSequence::new(1, SystemTime::now())));
    tasks.into_iter().for_each(|task| drop(tokio::spawn(task)));
    Arc::new(hub)
}

/// Attaches a connection and returns it with its socket.
async fn attach(hub: &Hub, form: Option<Form>) -> (Connection, Arc<Pipe>) {
    let pipe = Pipe::new();
    let connection = hub.attach(Arc::clone(&pipe) as Arc<dyn Socket>, form).await.unwrap();
    (connection, pipe)
}

/// Attaches a connection, binds it to `uid`, and returns it with its socket.
async fn bound(hub: &Hub, uid: &str, form: Form) -> (Connection, Arc<Pipe>) {
    let (connection, pipe) = attach(hub, Some(form)).await;
    hub.bind(&connection, binding(uid, None));
    (connection, pipe)
}

fn binding(uid: &str, device: Option<&str>) -> Binding {
    Binding {
        number: 0,
        uid: self::uid(uid),
        device: device.map(|device| Device::parse(device).unwrap()),
        is_device_admitted: false,
        channel: None,
        since: 0,
        expires: None,
        facts: Entries::new(),
        claims: Entries::new(),
    }
}

/// Joins a room. Returns false if the connection is already in the room or not bound.
fn join(hub: &Hub, connection: &Connection, room: &Room) -> bool {
    hub.join(connection, room, JoinTerms::default()) == Joined::New
}

fn uid(text: &str) -> Uid {
    Uid::parse(text).unwrap()
}

fn uids(texts: &[&str]) -> Arc<[Uid]> {
    texts.iter().map(|text| uid(text)).collect()
}

fn room(text: &str) -> Room {
    Room::parse(text).unwrap()
}

/// Builds a run with one message per text.
fn frames(texts: &[&str]) -> Frames {
    let message = |text: &&str| Arc::new(Message { title: (*text).to_owned(), ..Message::default() });
    Frames::new(texts.iter().map(message).collect())
}

fn to(target: Target, frames: &Frames) -> FrameRun {
    FrameRun { target, no_echo: None, frames: frames.clone(), span: None }
}

/// Position of a message in the first epoch of the tests. Its id is its offset.
fn position(offset: u64) -> Position {
    Position { epoch: Epoch::new(1), offset, id: i64::try_from(offset).unwrap() }
}

/// Builds a run of kept messages. The title of each is `<stream.offset>`.
fn kept(target: Target, epoch: Epoch, offsets: RangeInclusive<u64>) -> FrameRun {
    let stream = StreamName::of(&target).unwrap();
    let (first, last) = (*offsets.start(), *offsets.end());
    let message =
        |offset| Message { id: position(offset).id, title: format!("<{stream}.{offset}>"), ..Message::default() };
    let messages = offsets.map(|offset| Arc::new(message(offset))).collect();
    let frames = Frames::of_stream(messages, Some(&stream), Some(Position { epoch, ..position(first) }));
    FrameRun { target, no_echo: None, frames, span: Some(Span { stream, epoch, first, last }) }
}

async fn push(hub: &Hub, target: Target, frames: &Frames) -> Receipt {
    hub.route(vec![to(target, frames)]).await.remove(0)
}

fn delivered(delivered: u32) -> Receipt {
    Receipt { delivered, ..Receipt::default() }
}
