//! Replays kept messages page by page, after the answer to the client.
//!
//! The node's memory bounds all pages together ([`super::limits`]). A replay that waits for memory holds no page.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::timeout;

use super::limits::{self, ResumeLimits};
use super::reads::SharedReads;
use super::{PAGE_MESSAGES, range};
use crate::broker::Unavailable;
use crate::broker::history::{KeptMessage, MAX_PAGE_BYTES, Page, Start};
use crate::claim::ResumeStream;
use crate::clock;
use crate::code::Code;
use crate::hub::{Connection, Hub, ReplayEnd};
use crate::id::{ConnectionId, Device, Uid};
use crate::message::{Entries, Message, Position, StreamName};
use crate::protocol::{self, Reply, ServerFrame};
use crate::telemetry::names;

/// Maximum size of one page of frames, in approximate bytes of its messages. A page has at least one message.
const PAGE_BYTES: usize = 64 << 10;
/// Interval at which a waiting replay tells its shard that it waits. Shorter than the age at which the shard closes the
/// connection.
const EXTEND: Duration = Duration::from_secs(3);
/// Keys of the REPLYs that end a replay whose number of frames was not told before.
const END: &str = "replay_end";
const GAP: &str = "gap";

/// A replay that has not begun. Run it, or the connection is closed after some seconds.
pub struct Replay {
    pub(super) streams: Vec<StreamReplay>,
    pub(super) source: Source,
}

/// The history and the connection that gets it.
pub(super) struct Source {
    pub(super) hub: Arc<Hub>,
    pub(super) store: Option<Arc<SharedReads>>,
    pub(super) limits: Arc<ResumeLimits>,
    pub(super) connection: Connection,
    pub(super) former: Option<ConnectionId>,
}

/// Replay of one stream.
pub(super) struct StreamReplay {
    pub(super) stream: ResumeStream,
    pub(super) name: StreamName,
    pub(super) first: First,
    /// True if the client knows the number of frames.
    pub(super) is_counted: bool,
}

/// First page of a replay.
pub(super) enum First {
    /// Read, with its memory if the node had some.
    Read(Arc<Page>, Option<OwnedSemaphorePermit>),
    /// To be read after this position.
    Unread(Position),
}

/// A stream by the names that the client and the node use.
struct Stream {
    stream: ResumeStream,
    name: StreamName,
}

/// A page with its part of the node's memory.
struct HeldPage {
    page: Arc<Page>,
    _memory: OwnedSemaphorePermit,
}

impl Replay {
    /// Replays all streams, one after the other. Ends early if the connection ends.
    pub async fn run(self) {
        let Self { streams, source } = self;
        for stream in streams {
            if source.replay(stream).await.is_none() {
                return;
            }
        }
    }
}

impl Source {
    /// Replays one stream. `None` if the connection has ended.
    async fn replay(&self, StreamReplay { stream, name, first, is_counted }: StreamReplay) -> Option<()> {
        let stream = &Stream { stream, name };
        let reader = Reader::of(&self.connection, self.former);
        let mut held = match first {
            First::Read(page, Some(memory)) => HeldPage { page, _memory: memory },
            First::Read(page, None) => {
                let memory = self.wait(self.limits.hold(limits::size(&page))).await?;
                HeldPage { page, _memory: memory }
            }
            First::Unread(position) => self.next(stream, position).await?,
        };
        loop {
            self.send(&stream.name, &held.page, &reader).await?;
            let (position, top) = (end_of(&held.page), held.page.top);
            drop(held);
            if position.offset < top.offset {
                held = self.next(stream, position).await?;
                continue;
            }
            match self.hub.end_replay(&self.connection, stream.name.clone(), position).await {
                ReplayEnd::Gone => return None,
                ReplayEnd::Done if is_counted => return Some(()),
                ReplayEnd::Done => return self.tell(END, stream, position).await,
                ReplayEnd::Overflowed => held = self.next(stream, position).await?,
            }
        }
    }

    /// Reads the messages after `position`. If they are gone, the client is told and continues at the top.
    async fn next(&self, stream: &Stream, position: Position) -> Option<HeldPage> {
        match self.read(&stream.name, position).await? {
            Ok(held) if held.page.missed.is_none() => Some(held),
            Ok(held) => {
                self.tell(GAP, stream, held.page.top).await?;
                Some(held)
            }
            Err(_) => {
                self.tell(GAP, stream, position).await?;
                let page = Arc::new(Page { messages: Vec::new(), top: position, missed: None });
                Some(HeldPage { page, _memory: self.limits.hold(0).await })
            }
        }
    }

    /// Reads a page once the node has memory for it. `None` if the connection has ended.
    async fn read(&self, name: &StreamName, after: Position) -> Option<Result<HeldPage, Unavailable>> {
        let store = self.store.as_ref()?;
        let mut wanted = MAX_PAGE_BYTES;
        loop {
            let mut memory = self.wait(self.limits.hold(wanted)).await?;
            let permit = self.wait(self.limits.begin_read()).await?;
            let page = match store.read(name, range(Start::After(after), PAGE_MESSAGES, false)).await {
                Ok(page) => page,
                Err(error) => return Some(Err(error)),
            };
            drop(permit);
            let bytes = limits::size(&page);
            if let Some(rest) = wanted.checked_sub(bytes) {
                drop(memory.split(rest));
                return Some(Ok(HeldPage { page, _memory: memory }));
            }
            // A single large message.
            wanted = bytes;
        }
    }

    /// Waits for a bound of the node. The wait does not count toward the age of the replay. `None` if the connection has
    /// ended.
    async fn wait<T>(&self, future: impl Future<Output = T>) -> Option<T> {
        let mut future = pin!(future);
        loop {
            if let Ok(done) = timeout(EXTEND, &mut future).await {
                return Some(done);
            }
            if !self.hub.extend_replay(&self.connection).await {
                return None;
            }
        }
    }

    /// Sends the messages of a page that are for this reader, in pages of frames.
    async fn send(&self, name: &StreamName, page: &Page, reader: &Reader) -> Option<()> {
        let form = self.connection.form()?;
        let messages: Vec<(u64, &Message)> = page
            .messages
            .iter()
            .filter(|(_, kept)| reader.gets(kept))
            .map(|(at, kept)| (*at, &*kept.message))
            .collect();
        let mut rest = messages.as_slice();
        while !rest.is_empty() {
            let (now, later) = rest.split_at(length(rest));
            let frames = protocol::kept_frames(form, now, name, page.top.epoch);
            if !self.hub.replay(&self.connection, frames, now.len()).await {
                return None;
            }
            counter!(names::HISTORY_RESUME_MESSAGES).increment(now.len() as u64);
            rest = later;
        }
        Some(())
    }

    /// Tells the client the position from which it continues.
    async fn tell(&self, key: &str, stream: &Stream, top: Position) -> Option<()> {
        let code = if key == GAP { Code::new(206) } else { Code::OK };
        let mut data = Entries::new();
        data.insert("stream", stream.stream.to_string());
        data.insert("epoch", top.epoch.as_str());
        data.insert("offset", top.offset.to_string());
        data.insert("id", top.id.to_string());
        let reply = Reply {
            key: key.to_owned(),
            code: code.to_string(),
            message: String::new(),
            timestamp: clock::now_millis(),
            data,
        };
        let form = self.connection.form()?;
        let frame = protocol::encode(form, ServerFrame::Reply(&reply)).ok()?;
        self.connection.send(frame).await.then_some(())
    }
}

/// Number of messages in the next page of frames.
fn length(messages: &[(u64, &Message)]) -> usize {
    let mut bytes = 0;
    let fits = |(_, message): &&(u64, &Message)| {
        bytes += message.approximate_bytes();
        bytes <= PAGE_BYTES
    };
    messages.iter().take_while(fits).count().max(1)
}

/// Position of the last message of the page; the top if the page is empty.
fn end_of(page: &Page) -> Position {
    let last = page.messages.last();
    last.map_or(page.top, |(offset, kept)| Position { epoch: page.top.epoch, offset: *offset, id: kept.message.id })
}

/// The connection that a replay is for.
pub(super) struct Reader {
    uid: Option<Uid>,
    device: Option<Device>,
    former: Option<ConnectionId>,
    now: i64,
}

impl Reader {
    pub(super) fn of(connection: &Connection, former: Option<ConnectionId>) -> Self {
        let binding = connection.binding();
        let (uid, device) = (binding.as_ref().map(|b| b.uid.clone()), binding.and_then(|b| b.device.clone()));
        Self { uid, device, former, now: clock::now_millis() }
    }

    pub(super) fn gets(&self, kept: &KeptMessage) -> bool {
        self.uid.as_ref().is_some_and(|uid| kept.is_for(uid, self.device.as_ref(), self.former, self.now))
    }
}
