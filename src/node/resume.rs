//! Resume: replays kept messages to a client that comes back, in order with the live messages.
//!
//! The order of the steps prevents gaps and duplicates. The shard withholds the live messages of a stream before the
//! connection can receive any ([`Resumer::begin`]). Then the node reads the stream ([`Resumer::read`]), replies, and
//! replays ([`Replay::run`]). The shard then sends the withheld messages above the position that was read. Independent of
//! engines and frames. [`limits`] bounds the resumes of the node.

mod limits;
mod reads;
mod replay;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use metrics::counter;
use tokio::sync::OwnedSemaphorePermit;

use super::connect::identity;
use crate::broker::history::{HistoryStore, Missed, Range, Start};
use crate::claim::{Refusal, ResumeRequest, ResumeStream};
use crate::hub::{Connection, Hub};
use crate::id::{ConnectionId, Room, Uid};
use crate::message::{Epoch, Position, StreamName};
use crate::plugin::{Event, PluginHost, ResumedStream};
use crate::session::JoinReplay;
use crate::telemetry::names;
use limits::{ResumeLimits, busy};
use reads::SharedReads;
pub use replay::Replay;
use replay::{First, Reader, Source, StreamReplay};

/// Most messages of one read.
const PAGE_MESSAGES: usize = 1_024;

/// Begins resumes.
pub(super) struct Resumer {
    hub: Arc<Hub>,
    store: Option<Arc<SharedReads>>,
    plugins: Arc<dyn PluginHost>,
    limits: Arc<ResumeLimits>,
}

/// A resume whose live messages are withheld. Not yet answered.
pub(super) struct Begun {
    streams: Vec<Asked>,
    former: Option<ConnectionId>,
    /// One of the resumes of the node. `None` if nothing is read.
    _permit: Option<OwnedSemaphorePermit>,
}

/// One stream that a client asks for.
struct Asked {
    stream: ResumeStream,
    start: Wanted,
    /// True if the client sent a position of the stream.
    is_resumed: bool,
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

impl Resumer {
    pub(super) fn new(hub: Arc<Hub>, store: Option<Arc<dyn HistoryStore>>, plugins: Arc<dyn PluginHost>) -> Self {
        let store = store.map(|store| Arc::new(SharedReads::new(store)));
        Self { hub, store, plugins, limits: Arc::default() }
    }

    /// Begins the resume of a connection that is about to be bound to `uid` and to join `rooms`. From the return on its
    /// live messages of the named streams are withheld. `is_bound`: the connection received live messages before.
    ///
    /// # Errors
    /// 503 with a time to wait if too many clients resume now. Nothing is changed then.
    pub(super) async fn begin_bind(
        &self,
        connection: &Connection,
        uid: &Uid,
        rooms: &[Room],
        request: ResumeRequest,
        is_bound: bool,
    ) -> Result<Begun, Refusal> {
        let streams = request.streams.into_iter().map(|(stream, position)| {
            let name = match &stream {
                ResumeStream::Own => Some(StreamName::User(uid.clone())),
                ResumeStream::Everyone => Some(StreamName::Everyone),
                ResumeStream::Room(room) if rooms.contains(room) => Some(StreamName::Room(room.clone())),
                ResumeStream::Room(_) => None,
            };
            let is_resumed = position.is_some();
            let start = match (name, position) {
                (None, _) => Wanted::Refused(None, "not_joined"),
                (Some(name), _) if is_bound => Wanted::Refused(Some(name), "already_bound"),
                (Some(name), None) => Wanted::Position(name),
                (Some(name), Some(position)) => Wanted::Since(name, position),
            };
            Asked { stream, start, is_resumed }
        });
        self.begin(connection, streams.collect(), request.former).await
    }

    /// Begins the replay of a room that the connection is about to join.
    ///
    /// # Errors
    /// As [`Resumer::begin_bind`].
    pub(super) async fn begin_join(
        &self,
        connection: &Connection,
        room: &Room,
        replay: JoinReplay,
    ) -> Result<Begun, Refusal> {
        let name = StreamName::Room(room.clone());
        let is_resumed = matches!(replay, JoinReplay { latest: false, since: Some(Some(_)) });
        let start = match replay {
            JoinReplay { latest: true, .. } => Wanted::Latest(name),
            JoinReplay { since: Some(Some(position)), .. } => Wanted::Since(name, position),
            JoinReplay { .. } => Wanted::Position(name),
        };
        let asked = Asked { stream: ResumeStream::Room(room.clone()), start, is_resumed };
        self.begin(connection, vec![asked], None).await
    }

    /// Answer for a room that the connection is in already.
    ///
    /// # Errors
    /// As [`Resumer::begin_bind`].
    pub(super) async fn refuse_join(&self, connection: &Connection, room: &Room) -> Result<Resumed, Refusal> {
        let start = Wanted::Refused(Some(StreamName::Room(room.clone())), "already_bound");
        let asked = Asked { stream: ResumeStream::Room(room.clone()), start, is_resumed: false };
        let begun = self.begin(connection, vec![asked], None).await?;
        Ok(self.read(connection, begun).await)
    }

    async fn begin(
        &self,
        connection: &Connection,
        mut streams: Vec<Asked>,
        former: Option<ConnectionId>,
    ) -> Result<Begun, Refusal> {
        if self.store.is_none() {
            streams.iter_mut().for_each(|asked| asked.start = Wanted::Refused(None, "off"));
            return Ok(Begun { streams, former, _permit: None });
        }
        let Some(permit) = self.limits.begin_resume().await else {
            counter!(names::HISTORY_RESUMES, "result" => "busy").increment(streams.len() as u64);
            return Err(busy());
        };
        let names: Vec<StreamName> = streams.iter().filter_map(|asked| asked.start.withheld().cloned()).collect();
        if !names.is_empty() {
            // Without the connection nothing is left to replay to.
            self.hub.begin_replay(connection, names).await;
        }
        Ok(Begun { streams, former, _permit: Some(permit) })
    }

    /// Reads the streams and makes the answer.
    pub(super) async fn read(&self, connection: &Connection, begun: Begun) -> Resumed {
        let mut answers = Vec::new();
        let (mut streams, mut resumed) = (Vec::new(), Vec::new());
        let joined = connection.rooms();
        for mut asked in begun.streams {
            if let Some(name @ StreamName::Room(room)) = asked.start.withheld().cloned().as_ref()
                && !joined.contains(room)
            {
                self.hub.end_replay(connection, name.clone(), nowhere()).await;
                asked.start = Wanted::Refused(None, "not_joined");
            }
            let (stream, is_resumed) = (asked.stream.clone(), asked.is_resumed);
            let answer = self.read_stream(connection, asked, begun.former, &mut streams).await;
            if is_resumed {
                resumed.push((stream, answer[RECOVERED] == true, answer[FRAMES].as_u64()));
            }
            answers.push(answer);
        }
        self.report(connection, resumed);
        let answer = serde_json::Value::Array(answers).to_string();
        let source = Source {
            hub: self.hub.clone(),
            store: self.store.clone(),
            limits: self.limits.clone(),
            connection: connection.clone(),
            former: begun.former,
        };
        let replay = Replay { streams, source };
        Resumed { answer, replay }
    }

    /// Tells the plugins the result for the streams that the client had a position of.
    fn report(&self, connection: &Connection, resumed: Vec<(ResumeStream, bool, Option<u64>)>) {
        if resumed.is_empty() || !self.plugins.wants_receipts() {
            return;
        }
        let Some(who) = identity(connection) else { return };
        let streams = resumed.into_iter().map(|(stream, recovered, count)| ResumedStream {
            name: match stream {
                ResumeStream::Own => StreamName::User(who.uid.clone()),
                ResumeStream::Everyone => StreamName::Everyone,
                ResumeStream::Room(room) => StreamName::Room(room),
            },
            recovered,
            count,
        });
        let streams = streams.collect();
        self.plugins.notify(Event::Resumed(who, streams), 0);
    }

    /// Ends a resume without its answer: withheld messages go out.
    pub(super) async fn cancel(&self, connection: &Connection) {
        self.hub.cancel_replay(connection).await;
    }

    async fn read_stream(
        &self,
        connection: &Connection,
        Asked { stream, start, .. }: Asked,
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
        let is_counted = page.messages.last().is_none_or(|(offset, _)| *offset == page.top.offset);
        let frames = match is_counted {
            true => {
                let reader = Reader::of(connection, former);
                i64::try_from(page.messages.iter().filter(|(_, kept)| reader.gets(kept)).count()).unwrap_or(i64::MAX)
            }
            false => -1,
        };
        let told = answer(&stream, Some(page.top), frames, reason);
        if let Some(name) = start.withheld().cloned() {
            let first = match (self.limits.try_hold(&page), range.start) {
                (Some(memory), _) => First::Read(page, Some(memory)),
                // The replay waits for memory and reads the page again.
                (None, Start::After(position)) => First::Unread(position),
                // The newest message: a second read could find a later one and leave out those before it.
                (None, Start::End) => First::Read(page, None),
            };
            streams.push(StreamReplay { stream, name, first, is_counted });
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

/// Places in an element of the answer.
const RECOVERED: usize = 1;
const FRAMES: usize = 5;

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
