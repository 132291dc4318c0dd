//! Replay of one connection: withheld runs, waiting pages, and the filters after a replay.
//!
//! Independent of sockets, queues and metrics. A stream under replay passes two stages. Its runs are withheld while the
//! node sends its history. Then a filter drops runs that the client has from the history, until the first later one.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::hub::clock::Tick;
use crate::hub::connection::Connection;
use crate::hub::load::Load;
use crate::hub::{FrameRun, Span};
use crate::message::{Epoch, Message, Position, StreamName};
use crate::protocol::{Form, Frames};

/// Maximum number of runs withheld from one connection.
const MAX_RUNS: usize = 1024;
/// Number of the overflow that closes the connection.
const LAST_OVERFLOW: u8 = 3;
/// Maximum of bytes withheld on the node.
const MAX_NODE_BYTES: usize = 32 * 1024 * 1024;

/// Limits of one connection's replay.
#[derive(Debug, Clone)]
pub(super) struct ReplayLimits {
    /// Maximum of withheld bytes. An empty buffer accepts any single run.
    pub(super) bytes: usize,
    /// Maximum time without a written page or extension.
    pub(super) age: Tick,
    /// Maximum time of a filter.
    pub(super) filter: Tick,
}

/// Bytes withheld by all shards of the node.
#[derive(Debug, Default)]
pub(in crate::hub) struct WithheldBytes(AtomicUsize);

impl WithheldBytes {
    fn take(&self, bytes: usize) -> bool {
        let before = self.0.fetch_add(bytes, Ordering::Relaxed);
        let fits = before + bytes <= MAX_NODE_BYTES;
        if !fits {
            self.give_back(bytes);
        }
        fits
    }

    fn give_back(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Replay of one connection.
pub(super) struct Replay {
    streams: Vec<StreamReplay>,
    /// Number of withheld runs of all streams.
    runs: usize,
    /// Bytes of the withheld runs of all streams, also counted in `node`.
    bytes: usize,
    node: Arc<WithheldBytes>,
    /// Number of times that the runs exceeded a limit of the connection.
    overflows: u8,
    /// Tick of the last written page or extension. 0 = none yet.
    progressed: Tick,
    pages: VecDeque<ReplayPage>,
    /// Answer to the caller whose page is in the queue.
    writing: Option<oneshot::Sender<()>>,
    /// True while the metric of buffers counts this one.
    pub(super) is_counted: bool,
}

/// A page of history that waits for an empty queue.
pub(in crate::hub) struct ReplayPage {
    /// Complete frames.
    pub(in crate::hub) bytes: Bytes,
    /// Space that the page takes in the queue.
    pub(in crate::hub) load: Load,
    /// Answered once the page is written.
    pub(in crate::hub) written: oneshot::Sender<()>,
}

struct StreamReplay {
    name: StreamName,
    stage: Stage,
}

enum Stage {
    Withholding {
        runs: Vec<WithheldRun>,
        /// Tick of the begin, or of the last answered overflow.
        since: Tick,
        /// True from an overflow until its answer. Runs are dropped meanwhile, because the next read has them.
        overflowed: bool,
    },
    Filtering {
        epoch: Epoch,
        /// Offset of the last message that the client has from the history.
        top: u64,
        until: Tick,
    },
}

/// A withheld run. It shares the bytes and messages of the batch, but does not keep the batch's other runs in memory.
struct WithheldRun {
    epoch: Epoch,
    first: u64,
    last: u64,
    form: Form,
    bytes: Bytes,
    messages: SmallVec<[Arc<Message>; 1]>,
}

/// Complete frames for the queue, and their number.
pub(super) type Piece = (Bytes, usize);

/// Decision about a run.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum RunDecision {
    /// Queue the whole run.
    QueueWhole,
    /// Queue this part of the run.
    QueuePart(Piece),
    /// Queue nothing: the run is withheld, or the client has it.
    QueueNothing,
    /// Same as `QueueNothing`, but the buffer overflowed. With `true` the connection must be closed.
    Overflow(bool),
}

/// Result of the end of one stream's replay.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum StreamEnd {
    /// Runs were dropped. The stream stays withheld.
    Overflowed,
    /// Runs to queue, in order.
    Done(Vec<Piece>),
}

impl Replay {
    pub(super) fn new(node: Arc<WithheldBytes>) -> Self {
        Self {
            streams: Vec::new(),
            runs: 0,
            bytes: 0,
            node,
            overflows: 0,
            progressed: 0,
            pages: VecDeque::new(),
            writing: None,
            is_counted: false,
        }
    }

    /// Withholds the stream, unless it already is. A new replay replaces the filter of a former one.
    pub(super) fn begin(&mut self, name: StreamName, now: Tick) {
        let stage = Stage::Withholding { runs: Vec::new(), since: now, overflowed: false };
        match self.find(&name) {
            None => self.streams.push(StreamReplay { name, stage }),
            Some(at) if matches!(self.streams[at].stage, Stage::Filtering { .. }) => self.streams[at].stage = stage,
            Some(_) => {}
        }
    }

    /// Decides about a run that is due for the connection. `bytes` are its frames in `form`.
    pub(super) fn decide(
        &mut self,
        run: &FrameRun,
        (form, bytes): (Form, &Bytes),
        now: Tick,
        limits: &ReplayLimits,
    ) -> RunDecision {
        let Some(span) = &run.span else { return RunDecision::QueueWhole };
        let Some(at) = self.find(&span.stream) else { return RunDecision::QueueWhole };
        match self.streams[at].stage {
            Stage::Withholding { overflowed: true, .. } => RunDecision::QueueNothing,
            Stage::Withholding { .. } => {
                let messages = run.frames.messages().iter().cloned().collect();
                let Span { epoch, first, last, .. } = *span;
                self.withhold(at, WithheldRun { epoch, first, last, form, bytes: bytes.clone(), messages }, limits)
            }
            Stage::Filtering { epoch, until, .. } if now < until && epoch != span.epoch => RunDecision::QueueWhole,
            Stage::Filtering { top, until, .. } if now < until && span.last <= top => RunDecision::QueueNothing,
            Stage::Filtering { top, until, .. } => {
                self.streams.swap_remove(at);
                let is_cut = now < until && span.first <= top;
                let messages = run.frames.messages();
                if is_cut {
                    RunDecision::QueuePart(part_above(top, span, messages, form))
                } else {
                    RunDecision::QueueWhole
                }
            }
        }
    }

    fn withhold(&mut self, at: usize, run: WithheldRun, limits: &ReplayLimits) -> RunDecision {
        let length = run.bytes.len();
        if self.runs > 0 && (self.runs >= MAX_RUNS || self.bytes + length > limits.bytes) {
            self.overflows += 1;
            self.overflow();
            return RunDecision::Overflow(self.overflows >= LAST_OVERFLOW);
        }
        if !self.node.take(length) {
            // Not the fault of this connection, so it does not count.
            self.overflow();
            return RunDecision::Overflow(false);
        }
        self.runs += 1;
        self.bytes += length;
        if let Stage::Withholding { runs, .. } = &mut self.streams[at].stage {
            runs.push(run);
        }
        RunDecision::QueueNothing
    }

    /// Drops the withheld runs of all streams.
    fn overflow(&mut self) {
        for stream in &mut self.streams {
            if let Stage::Withholding { runs, overflowed, .. } = &mut stream.stage {
                *runs = Vec::new();
                *overflowed = true;
            }
        }
        self.node.give_back(std::mem::take(&mut self.bytes));
        self.runs = 0;
    }

    /// Ends the replay of a stream. `None` if the stream is not withheld.
    pub(super) fn end(
        &mut self,
        name: &StreamName,
        top: Position,
        now: Tick,
        limits: &ReplayLimits,
    ) -> Option<StreamEnd> {
        let at = self.find(name)?;
        let Stage::Withholding { runs, since, overflowed } = &mut self.streams[at].stage else { return None };
        if std::mem::take(overflowed) {
            *since = now;
            return Some(StreamEnd::Overflowed);
        }
        let runs = std::mem::take(runs);
        self.uncount(&runs);
        let is_passed = runs.iter().any(|run| run.epoch == top.epoch && run.last > top.offset);
        if is_passed {
            self.streams.swap_remove(at);
        } else {
            let until = now.saturating_add(limits.filter);
            self.streams[at].stage = Stage::Filtering { epoch: top.epoch, top: top.offset, until };
        }
        self.reset_overflows();
        Some(StreamEnd::Done(runs.into_iter().filter_map(|run| run.above(name, top)).collect()))
    }

    /// Ends the replay of a stream that the connection receives no more. Returns false if the stream is not withheld.
    pub(super) fn discard(&mut self, name: &StreamName) -> bool {
        let Some(at) = self.find(name) else { return false };
        let Stage::Withholding { runs, .. } = &mut self.streams[at].stage else { return false };
        let runs = std::mem::take(runs);
        self.uncount(&runs);
        self.streams.swap_remove(at);
        self.reset_overflows();
        true
    }

    /// Ends all replays. Returns the withheld runs of the `wanted` streams.
    pub(super) fn cancel(mut self, wanted: impl Fn(&StreamName) -> bool) -> Vec<Piece> {
        let streams = std::mem::take(&mut self.streams);
        let runs = streams.into_iter().filter(|stream| wanted(&stream.name)).flat_map(|stream| match stream.stage {
            Stage::Withholding { runs, .. } => runs,
            Stage::Filtering { .. } => Vec::new(),
        });
        runs.map(WithheldRun::whole).collect()
    }

    /// Adds a page. Returns false if no stream is withheld.
    pub(super) fn add_page(&mut self, page: ReplayPage) -> bool {
        let is_wanted = self.is_withholding();
        if is_wanted {
            self.pages.push_back(page);
        }
        is_wanted
    }

    /// True if a page waits for the queue.
    pub(super) fn has_pages(&self) -> bool {
        !self.pages.is_empty()
    }

    /// Answers the caller of the page in the queue, which is empty now. Returns the next page, with its load reserved.
    pub(super) fn next_page(&mut self, connection: &Connection, now: Tick) -> Option<(Bytes, Load)> {
        if let Some(written) = self.writing.take() {
            self.progressed = now;
            // The caller may have stopped waiting.
            let _ = written.send(());
        }
        self.pages.retain(|page| !page.written.is_closed());
        if !connection.reserve(self.pages.front()?.load) {
            // Space is reserved for runs on their way here. The page is due again after them.
            return None;
        }
        let ReplayPage { bytes, load, written } = self.pages.pop_front()?;
        self.writing = Some(written);
        Some((bytes, load))
    }

    /// Begins the time of the replay anew. Returns false if no stream is withheld.
    pub(super) fn extend(&mut self, now: Tick) -> bool {
        self.progressed = now;
        self.is_withholding()
    }

    /// Removes filters whose time is over.
    pub(super) fn expire(&mut self, now: Tick) {
        self.streams.retain(|stream| !matches!(stream.stage, Stage::Filtering { until, .. } if now >= until));
    }

    /// True if a stream is withheld for more than `age` without a written page or extension.
    pub(super) fn is_overdue(&self, now: Tick, age: Tick) -> bool {
        self.streams.iter().any(|stream| match stream.stage {
            Stage::Withholding { since, .. } => now > since.max(self.progressed).saturating_add(age),
            Stage::Filtering { .. } => false,
        })
    }

    /// True if a stream is withheld.
    pub(super) fn is_withholding(&self) -> bool {
        self.streams.iter().any(|stream| matches!(stream.stage, Stage::Withholding { .. }))
    }

    /// True if nothing is left to do.
    pub(super) fn is_over(&self) -> bool {
        self.streams.is_empty() && self.pages.is_empty() && self.writing.is_none()
    }

    /// Counts overflows anew once no stream is withheld.
    fn reset_overflows(&mut self) {
        if !self.is_withholding() {
            self.overflows = 0;
        }
    }

    fn find(&self, name: &StreamName) -> Option<usize> {
        self.streams.iter().position(|stream| stream.name == *name)
    }

    fn uncount(&mut self, runs: &[WithheldRun]) {
        let bytes = runs.iter().map(|run| run.bytes.len()).sum();
        self.runs -= runs.len();
        self.bytes -= bytes;
        self.node.give_back(bytes);
    }
}

impl Drop for Replay {
    fn drop(&mut self) {
        self.node.give_back(self.bytes);
    }
}

impl WithheldRun {
    fn whole(self) -> Piece {
        (self.bytes, self.messages.len())
    }

    /// The part that the client does not have from the history up to `top`.
    fn above(self, stream: &StreamName, top: Position) -> Option<Piece> {
        let Self { epoch, first, last, .. } = self;
        if epoch != top.epoch || first > top.offset {
            return Some(self.whole());
        }
        let span = Span { stream: stream.clone(), epoch, first, last };
        (last > top.offset).then(|| part_above(top.offset, &span, &self.messages, self.form))
    }
}

/// Encodes the messages of a run above the offset `top`, which is within the run.
fn part_above(top: u64, span: &Span, messages: &[Arc<Message>], form: Form) -> Piece {
    let known = usize::try_from(top + 1 - span.first).unwrap_or(usize::MAX);
    let rest: SmallVec<[Arc<Message>; 1]> = messages.iter().skip(known).cloned().collect();
    let id = rest.first().map_or(0, |message| message.id);
    let first = Position { epoch: span.epoch, offset: top + 1, id };
    let frames = Frames::of_stream(rest, Some(&span.stream), Some(first));
    (frames.bytes(form).clone(), frames.count())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Room;
    use crate::message::Target;

    const LIMITS: ReplayLimits = ReplayLimits { bytes: 1 << 30, age: 10, filter: 30 };

    fn run(stream: &StreamName, offset: u64, text: &str) -> FrameRun {
        let message = Message { title: text.to_owned(), ..Message::default() };
        let epoch = Epoch::new(1);
        let position = Position { epoch, offset, id: 0 };
        let frames = Frames::of_stream([Arc::new(message)].into_iter().collect(), Some(stream), Some(position));
        let span = Some(Span { stream: stream.clone(), epoch, first: offset, last: offset });
        FrameRun { target: Target::Everyone, no_echo: None, frames, span }
    }

    fn decide(replay: &mut Replay, run: &FrameRun) -> RunDecision {
        let form = Form::ALL[0];
        replay.decide(run, (form, run.frames.bytes(form)), 1, &LIMITS)
    }

    #[test]
    fn withheld_runs_beyond_1024_overflow_all_streams() {
        let (all, room) = (StreamName::Everyone, StreamName::Room(Room::parse("r").unwrap()));
        let mut replay = Replay::new(Arc::default());
        replay.begin(all.clone(), 1);
        replay.begin(room.clone(), 1);
        for offset in 1..=1024 {
            assert_eq!(decide(&mut replay, &run(&all, offset, "x")), RunDecision::QueueNothing);
        }
        assert_eq!(decide(&mut replay, &run(&room, 1, "x")), RunDecision::Overflow(false));
        assert_eq!(decide(&mut replay, &run(&room, 2, "x")), RunDecision::QueueNothing, "one round overflows once");
        let top = Position { epoch: Epoch::new(1), offset: 0, id: 0 };
        assert_eq!(replay.end(&all, top, 1, &LIMITS), Some(StreamEnd::Overflowed));
        assert_eq!(replay.end(&all, top, 1, &LIMITS), Some(StreamEnd::Done(Vec::new())));
        assert_eq!(replay.end(&all, top, 1, &LIMITS), None);
        assert_eq!(replay.end(&room, top, 1, &LIMITS), Some(StreamEnd::Overflowed));
    }

    #[test]
    fn full_node_overflows_buffers_without_closing_and_gets_its_bytes_back() {
        let node = Arc::<WithheldBytes>::default();
        let all = StreamName::Everyone;
        let text = "x".repeat(1 << 20);
        let mut replays: Vec<Replay> = (0..2).map(|_| Replay::new(Arc::clone(&node))).collect();
        for replay in &mut replays {
            replay.begin(all.clone(), 1);
        }
        for offset in 1..=31 {
            assert_eq!(decide(&mut replays[0], &run(&all, offset, &text)), RunDecision::QueueNothing);
        }
        for _ in 0..5 {
            assert_eq!(decide(&mut replays[1], &run(&all, 32, &text)), RunDecision::Overflow(false));
            let top = Position { epoch: Epoch::new(1), offset: 0, id: 0 };
            assert_eq!(replays[1].end(&all, top, 1, &LIMITS), Some(StreamEnd::Overflowed));
        }
        replays.remove(0);
        assert_eq!(node.0.load(Ordering::Relaxed), 0);
        assert_eq!(decide(&mut replays[0], &run(&all, 32, &text)), RunDecision::QueueNothing);
        assert!(node.0.load(Ordering::Relaxed) > text.len());
        assert!(replays.remove(0).cancel(|_| false).is_empty());
        assert_eq!(node.0.load(Ordering::Relaxed), 0);
    }
}
