//! Replays of a shard's connections: a table beside the slots, with entries only while a replay runs.
//!
//! A flag in the slot tells deliveries of an entry, so that connections without a replay cost one branch. Every end of
//! a connection removes its entry, and the drop of an entry answers its callers.

mod buffer;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ahash::RandomState;
use bytes::Bytes;
use metrics::{Counter, Gauge, counter, gauge};
use tokio::sync::oneshot;

pub(in crate::hub) use buffer::{ReplayPage, WithheldBytes};

use super::slots::{ReserveResult, Slots};
use crate::disconnect::Disconnect;
use crate::hub::clock::{Clock, Tick};
use crate::hub::connection::Connection;
use crate::hub::{FrameRun, ReplayEnd, Settings};
use crate::message::{Position, StreamName};
use crate::protocol::Form;
use crate::telemetry::names;
use buffer::{Piece, Replay, ReplayLimits, RunDecision, StreamEnd};

/// Time without a written page or extension after which a connection under replay is closed.
const MAX_AGE: Duration = Duration::from_secs(10);
/// Maximum time for which a store may be ahead of the delivery.
const FILTER: Duration = Duration::from_secs(30);

/// Step of a replay. The drop of a step tells its caller that the connection is gone.
pub(in crate::hub) enum ReplayStep {
    /// Withholds runs of these streams.
    Begin(Vec<StreamName>, oneshot::Sender<()>),
    /// Sends a page.
    Page(ReplayPage),
    /// Extends the time of the replay.
    Extend(oneshot::Sender<()>),
    /// Ends the replay of a stream at a position.
    End(StreamName, Position, oneshot::Sender<ReplayEnd>),
    /// Ends all replays.
    Cancel(oneshot::Sender<()>),
}

/// Part of a run that goes to a connection now.
pub(super) enum RunPart {
    /// The whole run.
    Whole,
    /// These frames of it, with their number.
    Part(Bytes, usize),
    /// No frame. The run counts as delivered, or with [`ReserveResult::Full`] it closed the connection.
    None(ReserveResult),
}

/// Replays by slot index.
pub(super) struct Replays {
    table: HashMap<u32, Box<Replay>, RandomState>,
    limits: ReplayLimits,
    node: Arc<WithheldBytes>,
    buffers: Gauge,
    overflows: Counter,
}

impl Replays {
    pub(super) fn new(settings: &Settings, clock: &Clock, node: Arc<WithheldBytes>) -> Self {
        let limits =
            ReplayLimits { bytes: settings.queue.bytes / 4, age: clock.ticks(MAX_AGE), filter: clock.ticks(FILTER) };
        Self {
            table: HashMap::default(),
            limits,
            node,
            buffers: gauge!(names::HISTORY_REPLAY_BUFFERS),
            overflows: counter!(names::HISTORY_REPLAY_BUFFER_OVERFLOWS),
        }
    }

    fn begin(&mut self, index: u32, streams: Vec<StreamName>, now: Tick) {
        let node = &self.node;
        let replay = self.table.entry(index).or_insert_with(|| Box::new(Replay::new(Arc::clone(node))));
        streams.into_iter().for_each(|name| replay.begin(name, now));
    }

    fn decide(&mut self, index: u32, run: &FrameRun, encoded: (Form, &Bytes), now: Tick) -> RunDecision {
        let Some(replay) = self.table.get_mut(&index) else { return RunDecision::QueueWhole };
        let decision = replay.decide(run, encoded, now, &self.limits);
        if matches!(decision, RunDecision::Overflow(_)) {
            self.overflows.increment(1);
        }
        decision
    }

    fn end(&mut self, index: u32, name: &StreamName, top: Position, now: Tick) -> Option<StreamEnd> {
        self.table.get_mut(&index)?.end(name, top, now, &self.limits)
    }

    /// True if a page waits for the connection's queue.
    fn has_pages(&self, index: u32) -> bool {
        self.table.get(&index).is_some_and(|replay| replay.has_pages())
    }

    fn remove(&mut self, index: u32) -> Option<Box<Replay>> {
        let replay = self.table.remove(&index)?;
        if replay.is_counted {
            self.buffers.decrement(1.0);
        }
        Some(replay)
    }

    /// Counts the buffer, and removes an entry that is over. Returns true if there is an entry.
    fn update(&mut self, index: u32) -> bool {
        let Some(replay) = self.table.get_mut(&index) else { return false };
        if replay.is_over() {
            self.remove(index);
            return false;
        }
        let is_buffer = replay.is_withholding();
        match (std::mem::replace(&mut replay.is_counted, is_buffer), is_buffer) {
            (false, true) => self.buffers.increment(1.0),
            (true, false) => self.buffers.decrement(1.0),
            (false, false) | (true, true) => {}
        }
        true
    }
}

impl Slots {
    /// Executes a step for an open connection. Drops it for any other.
    pub(super) fn replay(&mut self, connection: &Connection, step: ReplayStep) {
        let index = connection.slot();
        if self.get(index).is_none_or(|slot| !slot.is_open()) {
            return;
        }
        let now = self.now();
        match step {
            // Without a caller, no end would follow.
            ReplayStep::Begin(_, answer) if answer.is_closed() => {}
            ReplayStep::Begin(streams, answer) => {
                self.replays.begin(index, streams, now);
                self.update_replay(index);
                let _ = answer.send(());
            }
            ReplayStep::Page(page) => {
                let is_added = self.replays.table.get_mut(&index).is_some_and(|replay| replay.add_page(page));
                if is_added {
                    self.mark_dirty(index);
                }
            }
            ReplayStep::Extend(answer) => {
                if self.replays.table.get_mut(&index).is_some_and(|replay| replay.extend(now)) {
                    let _ = answer.send(());
                }
            }
            ReplayStep::End(name, top, answer) => {
                if let Some(end) = self.end_stream(index, connection, &name, top) {
                    let _ = answer.send(end);
                }
            }
            ReplayStep::Cancel(answer) => {
                if let Some(replay) = self.replays.remove(index) {
                    self.update_replay(index);
                    let pieces = replay.cancel(|name| may_receive(connection, name));
                    self.release(index, pieces);
                }
                let _ = answer.send(());
            }
        }
    }

    /// Ends the replay of a stream. `None` if the stream is not withheld, or if the connection was closed meanwhile.
    fn end_stream(
        &mut self,
        index: u32,
        connection: &Connection,
        name: &StreamName,
        top: Position,
    ) -> Option<ReplayEnd> {
        if !may_receive(connection, name) {
            let is_discarded = self.replays.table.get_mut(&index).is_some_and(|replay| replay.discard(name));
            self.update_replay(index);
            return is_discarded.then_some(ReplayEnd::Done);
        }
        match self.replays.end(index, name, top, self.now())? {
            StreamEnd::Overflowed => Some(ReplayEnd::Overflowed),
            StreamEnd::Done(pieces) => {
                self.update_replay(index);
                self.release(index, pieces).then_some(ReplayEnd::Done)
            }
        }
    }

    /// Queues withheld runs. Returns false if the connection was closed because its queue is full.
    fn release(&mut self, index: u32, pieces: Vec<Piece>) -> bool {
        pieces.into_iter().all(|(bytes, frames)| self.queue(index, bytes, frames) == ReserveResult::Reserved)
    }

    /// Decides about a run for a connection with a replay.
    #[cold]
    pub(super) fn part_to_queue(&mut self, index: u32, run: &FrameRun, bytes: &Bytes) -> RunPart {
        let now = self.now();
        let open = self.get(index).filter(|slot| slot.is_open());
        let Some(form) = open.and_then(|slot| slot.connection.form()) else { return RunPart::Whole };
        let decision = self.replays.decide(index, run, (form, bytes), now);
        if decision == RunDecision::Overflow(true) {
            self.begin_close(index, Disconnect::SLOW_CONSUMER, None);
            return RunPart::None(ReserveResult::Full);
        }
        if self.replays.has_pages(index) {
            // The page may have waited for the space that this run does not need.
            self.mark_dirty(index);
        }
        self.update_replay(index);
        match decision {
            RunDecision::QueueWhole => RunPart::Whole,
            RunDecision::QueuePart((bytes, frames)) => RunPart::Part(bytes, frames),
            RunDecision::QueueNothing | RunDecision::Overflow(_) => RunPart::None(ReserveResult::Reserved),
        }
    }

    /// Answers the caller of a written page and queues the next page. Returns true if there was one. Call it with an
    /// empty queue.
    pub(super) fn next_page(&mut self, index: u32) -> bool {
        let now = self.now();
        let Some(connection) = self.get(index).map(|slot| slot.connection.clone()) else { return false };
        let page = self.replays.table.get_mut(&index).and_then(|replay| replay.next_page(&connection, now));
        let Some((bytes, load)) = page else {
            self.update_replay(index);
            return false;
        };
        self.push(index, bytes, load);
        true
    }

    /// Closes connections whose replay takes too long, removes old filters, and tries waiting pages again.
    pub(super) fn check_replays(&mut self) {
        if self.replays.table.is_empty() {
            return;
        }
        let (now, age) = (self.now(), self.replays.limits.age);
        let indices: Vec<u32> = self.replays.table.keys().copied().collect();
        for index in indices {
            let Some(replay) = self.replays.table.get_mut(&index) else { continue };
            replay.expire(now);
            if replay.is_overdue(now, age) {
                self.begin_close(index, Disconnect::SLOW_CONSUMER, None);
                continue;
            }
            if replay.has_pages() {
                self.mark_dirty(index);
            }
            self.update_replay(index);
        }
    }

    /// Removes the replay of a connection that ends.
    pub(super) fn drop_replay(&mut self, index: u32) {
        if self.get(index).is_some_and(|slot| slot.has_replay) {
            self.replays.remove(index);
            self.update_replay(index);
        }
    }

    /// Brings the flag of the slot in step with the table.
    fn update_replay(&mut self, index: u32) {
        let has_replay = self.replays.update(index);
        self.set_replay(index, has_replay);
    }
}

/// True if the connection still receives the stream. Never call it with a room locked: joins lock in the other order.
fn may_receive(connection: &Connection, name: &StreamName) -> bool {
    match name {
        StreamName::Everyone => true,
        StreamName::User(uid) => connection.binding().is_some_and(|binding| binding.uid == *uid),
        StreamName::Room(room) => connection.membership_ends(room).is_some(),
    }
}
