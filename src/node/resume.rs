//! Resume: replays kept messages to a client that comes back, in order with the live messages.
//!
//! The order of the steps prevents gaps and duplicates. The shard withholds the live messages of a stream before the
//! connection can receive any ([`Resumer::begin`]). Then the node reads the stream ([`Resumer::read`]), replies, and
//! replays ([`Replay::run`]). The shard then sends the withheld messages above the position that was read. Independent of
//! engines and frames.

use std::sync::Arc;
use std::time::Duration;

use metrics::counter;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::broker::history::{HistoryStore, KeptMessage, Missed, Page, Range, Start};
use crate::claim::{Refusal, ResumeRequest, ResumeStream};
use crate::clock;
use crate::code::Code;
use crate::hub::{Connection, Hub, ReplayEnd};
use crate::id::{ConnectionId, Device, Room, Uid};
use crate::message::{Entries, Epoch, Message, Position, StreamName};
use crate::protocol::{self, Reply, ServerFrame};
use crate::session::JoinReplay;
use crate::telemetry::names;

/// Concurrent reads of resuming clients on this node.
const READS: usize = 256;
/// Longest wait of a client for its read.
const PATIENCE: Duration = Duration::from_secs(2);
/// Maximum size of one page of frames, in approximate bytes of its messages. A page has at least one message.
const PAGE_BYTES: usize = 64 << 10;
/// Most messages of one read.
const PAGE_MESSAGES: usize = 1_024;
/// Keys of the REPLYs that end a replay whose number of frames was not told before.
const END: &str = "replay_end";
const GAP: &str = "gap";

/// Begins resumes.
pub(super) struct Resumer {
    hub: Arc<Hub>,
    store: Option<Arc<dyn HistoryStore>>,
    reads: Arc<Semaphore>,
}

/// A resume whose live messages are withheld. Not yet answered.
pub(super) struct Begun {
    streams: Vec<Asked>,
    former: Option<ConnectionId>,
}

/// One stream that a client asks for.
struct Asked {
    stream: ResumeStream,
    start: Wanted,
}

/// Part of a stream that a client asks for.
enum Wanted {
    /// Its position, because the client is new.
    Position(StreamName),
    /// The messages after a position.
    Since(StreamName, Position),
    /// The newest message.
    Latest(StreamName),
    /// Nothing can be replayed, for this reason. The position is told if the stream is known.
    Refused(Option<StreamName>, &'static str),
}

/// Answer to the client with the replay that follows it.
pub struct Resumed {
    /// JSON text of the answer: stream, recovered, epoch, offset, id, number of frames, and a reason if not recovered.
    pub answer: String,
    /// The replay. Run it once the answer is queued.
    pub replay: Replay,
}

/// A replay that has not begun. Run it, or the connection is closed after some seconds.
pub struct Replay {
    hub: Arc<Hub>,
    store: Option<Arc<dyn HistoryStore>>,
    connection: Connection,
    former: Option<ConnectionId>,
    streams: Vec<StreamReplay>,
}

/// Replay of one stream.
struct StreamReplay {
    stream: ResumeStream,
    name: StreamName,
    page: Page,
    /// True if the client knows the number of frames.
    is_counted: bool,
    /// True to end after this page.
    is_last: bool,
}

impl Resumer {
    pub(super) fn new(hub: Arc<Hub>, store: Option<Arc<dyn HistoryStore>>) -> Self {
        Self { hub, store, reads: Arc::new(Semaphore::new(READS)) }
    }

    /// Begins the resume of a connection that is about to be bound to `uid` and to join `rooms`. From the return on its
    /// live messages of the named streams are withheld. `is_bound`: the connection received live messages before.
    pub(super) async fn begin_bind(
        &self,
        connection: &Connection,
        uid: &Uid,
        rooms: &[Room],
        request: ResumeRequest,
        is_bound: bool,
    ) -> Begun {
        let streams = request.streams.into_iter().map(|(stream, position)| {
            let name = match &stream {
                ResumeStream::Own => Some(StreamName::User(uid.clone())),
                ResumeStream::Everyone => Some(StreamName::Everyone),
                ResumeStream::Room(room) if rooms.contains(room) => Some(StreamName::Room(room.clone())),
                ResumeStream::Room(_) => None,
            };
            let start = match (name, position) {
                (None, _) => Wanted::Refused(None, "not_joined"),
                (Some(name), _) if is_bound => Wanted::Refused(Some(name), "already_bound"),
                (Some(name), None) => Wanted::Position(name),
                (Some(name), Some(position)) => Wanted::Since(name, position),
            };
            Asked { stream, start }
        });
        self.begin(connection, streams.collect(), request.former).await
    }

    /// Begins the replay of a room that the connection is about to join.
    pub(super) async fn begin_join(&self, connection: &Connection, room: &Room, replay: JoinReplay) -> Begun {
        let name = StreamName::Room(room.clone());
        let start = match replay {
            JoinReplay { latest: true, .. } => Wanted::Latest(name),
            JoinReplay { since: Some(Some(position)), .. } => Wanted::Since(name, position),
            JoinReplay { .. } => Wanted::Position(name),
        };
        self.begin(connection, vec![Asked { stream: ResumeStream::Room(room.clone()), start }], None).await
    }

    /// Answer for a room that the connection is in already.
    ///
    /// # Errors
    /// 503 if too many clients resume now.
    pub(super) async fn refuse_join(&self, connection: &Connection, room: &Room) -> Result<Resumed, Refusal> {
        let start = Wanted::Refused(Some(StreamName::Room(room.clone())), "already_bound");
        let asked = Asked { stream: ResumeStream::Room(room.clone()), start };
        let begun = self.begin(connection, vec![asked], None).await;
        self.read(connection, begun).await
    }

    async fn begin(&self, connection: &Connection, mut streams: Vec<Asked>, former: Option<ConnectionId>) -> Begun {
        if self.store.is_none() {
            streams.iter_mut().for_each(|asked| asked.start = Wanted::Refused(None, "off"));
        }
        let names: Vec<StreamName> = streams.iter().filter_map(|asked| asked.start.withheld().cloned()).collect();
        if !names.is_empty() {
            // Without the connection nothing is left to replay to.
            self.hub.begin_replay(connection, names).await;
        }
        Begun { streams, former }
    }

    /// Reads the streams and makes the answer.
    ///
    /// # Errors
    /// 503 if too many clients resume now. The live messages are no longer withheld then.
    pub(super) async fn read(&self, connection: &Connection, begun: Begun) -> Result<Resumed, Refusal> {
        let mut answers = Vec::new();
        let mut streams = Vec::new();
        let joined = connection.rooms();
        for mut asked in begun.streams {
            if let Some(name @ StreamName::Room(room)) = asked.start.withheld().cloned().as_ref()
                && !joined.contains(room)
            {
                self.hub.end_replay(connection, name.clone(), nowhere()).await;
                asked.start = Wanted::Refused(None, "not_joined");
            }
            let Ok(Ok(_turn)) = timeout(PATIENCE, self.reads.acquire()).await else {
                self.cancel(connection).await;
                return Err(Refusal::new(Code::UNAVAILABLE, "resume: too many clients resume now: try again later"));
            };
            answers.push(self.read_stream(connection, asked, begun.former, &mut streams).await);
        }
        let answer = serde_json::Value::Array(answers).to_string();
        let replay = Replay {
            hub: self.hub.clone(),
            store: self.store.clone(),
            connection: connection.clone(),
            former: begun.former,
            streams,
        };
        Ok(Resumed { answer, replay })
    }

    /// Ends a resume without its answer: withheld messages go out.
    pub(super) async fn cancel(&self, connection: &Connection) {
        self.hub.cancel_replay(connection).await;
    }

    async fn read_stream(
        &self,
        connection: &Connection,
        Asked { stream, start }: Asked,
        former: Option<ConnectionId>,
        streams: &mut Vec<StreamReplay>,
    ) -> serde_json::Value {
        let (name, range) = match &start {
            Wanted::Refused(None, reason) => return answer(&stream, None, 0, Some(reason)),
            Wanted::Position(name) | Wanted::Refused(Some(name), _) => (name, range(Start::End, 0, false)),
            Wanted::Latest(name) => (name, range(Start::End, 1, true)),
            Wanted::Since(name, position) => (name, range(Start::After(*position), PAGE_MESSAGES, false)),
        };
        let page = match &self.store {
            Some(store) => store.read(name, range).await.ok(),
            None => None,
        };
        let Some(page) = page else {
            let withheld = start.withheld().cloned();
            if let Some(name) = withheld {
                self.hub.end_replay(connection, name, nowhere()).await;
            }
            return answer(&stream, None, 0, Some("unavailable"));
        };
        let reason = match (&start, page.missed) {
            (Wanted::Refused(_, reason), _) => Some(*reason),
            (_, missed) => missed.map(Missed::as_str),
        };
        let is_last = !matches!(start, Wanted::Since(..)) || page.missed.is_some();
        let covers = is_last || page.messages.last().is_none_or(|(offset, _)| *offset == page.top.offset);
        let frames = match covers {
            true => {
                let reader = Reader::of(connection, former);
                i64::try_from(page.messages.iter().filter(|(_, kept)| reader.gets(kept)).count()).unwrap_or(i64::MAX)
            }
            false => -1,
        };
        let told = answer(&stream, Some(page.top), frames, reason);
        if let Some(name) = start.withheld() {
            streams.push(StreamReplay { stream, name: name.clone(), page, is_counted: covers, is_last });
        }
        told
    }
}

impl Wanted {
    /// The stream whose live messages are withheld.
    fn withheld(&self) -> Option<&StreamName> {
        match self {
            Self::Position(name) | Self::Since(name, _) | Self::Latest(name) => Some(name),
            Self::Refused(..) => None,
        }
    }
}

/// A position below every message, in an epoch of its own: all withheld messages go out.
fn nowhere() -> Position {
    Position { epoch: Epoch::new(0), offset: 0, id: 0 }
}

/// One element of the answer.
fn answer(stream: &ResumeStream, top: Option<Position>, frames: i64, reason: Option<&str>) -> serde_json::Value {
    let result = reason.unwrap_or("recovered").to_owned();
    counter!(names::HISTORY_RESUMES, "result" => result).increment(1);
    let epoch = top.as_ref().map_or("", |top| top.epoch.as_str());
    let (offset, id) = top.map_or((0, 0), |top| (top.offset, top.id));
    let mut element =
        vec![stream.to_string().into(), reason.is_none().into(), epoch.into(), offset.into(), id.into(), frames.into()];
    element.extend(reason.map(Into::into));
    serde_json::Value::Array(element)
}

fn range(start: Start, limit: usize, reverse: bool) -> Range {
    Range { start, limit, reverse }
}

impl Replay {
    /// Replays all streams, one after the other. Ends early if the connection ends.
    pub async fn run(self) {
        let reader = Reader::of(&self.connection, self.former);
        for stream in &self.streams {
            if self.run_stream(stream, &reader).await.is_none() {
                return;
            }
        }
    }

    /// Replays one stream. `None` if the connection has ended.
    async fn run_stream(&self, stream: &StreamReplay, reader: &Reader) -> Option<()> {
        let mut page = stream.page.clone();
        loop {
            self.send(&stream.name, &page, reader).await?;
            let position = end_of(&page);
            if !stream.is_last && position.offset < page.top.offset {
                page = self.next(stream, position).await?;
                continue;
            }
            let top = if stream.is_last { page.top } else { position };
            match self.hub.end_replay(&self.connection, stream.name.clone(), top).await {
                ReplayEnd::Gone => return None,
                ReplayEnd::Done if stream.is_counted => return Some(()),
                ReplayEnd::Done => return self.tell(END, stream, top).await,
                ReplayEnd::Overflowed => page = self.next(stream, top).await?,
            }
        }
    }

    /// Reads the messages after `position`. If they are gone, the client is told and continues at the top.
    async fn next(&self, stream: &StreamReplay, position: Position) -> Option<Page> {
        let page = self.store.as_ref()?.read(&stream.name, range(Start::After(position), PAGE_MESSAGES, false)).await;
        match page {
            Ok(page) if page.missed.is_none() => Some(page),
            Ok(page) => {
                self.tell(GAP, stream, page.top).await?;
                Some(page)
            }
            Err(_) => {
                self.tell(GAP, stream, position).await?;
                Some(Page { messages: Vec::new(), top: position, missed: None })
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
    async fn tell(&self, key: &str, stream: &StreamReplay, top: Position) -> Option<()> {
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
struct Reader {
    uid: Option<Uid>,
    device: Option<Device>,
    former: Option<ConnectionId>,
    now: i64,
}

impl Reader {
    fn of(connection: &Connection, former: Option<ConnectionId>) -> Self {
        let binding = connection.binding();
        let (uid, device) = (binding.as_ref().map(|b| b.uid.clone()), binding.and_then(|b| b.device.clone()));
        Self { uid, device, former, now: clock::now_millis() }
    }

    fn gets(&self, kept: &KeptMessage) -> bool {
        self.uid.as_ref().is_some_and(|uid| kept.is_for(uid, self.device.as_ref(), self.former, self.now))
    }
}
