//! Replays: the node withholds live runs of a stream from a connection while it sends the stream's history.
//!
//! The shard of the connection holds the state ([`shard`](super::shard)). These methods send it one command each and
//! wait for the answer.

use bytes::Bytes;
use tokio::sync::oneshot;

use super::load::Load;
use super::shard::{Command, ReplayPage, ReplayStep};
use super::{Connection, Hub};
use crate::message::{Position, StreamName};

/// Result of [`Hub::end_replay`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplayEnd {
    /// The replay has ended. Withheld runs above the position are queued, and later runs flow.
    Done,
    /// Withheld runs were dropped because they exceeded a bound. The shard withholds the runs that arrive from now on.
    /// The caller reads the history again from its last position and ends the replay once more.
    Overflowed,
    /// The connection is closing or detached, or the stream is not under replay.
    Gone,
}

impl Hub {
    /// Withholds runs of these streams from the connection until [`Hub::end_replay`]. Returns once the shard withholds
    /// them, or false if the connection is gone. A stream that is already withheld stays so.
    ///
    /// Call it before the connection receives the streams ([`Hub::bind`], [`Hub::join`]), and read the history after
    /// it. A withheld run counts as delivered. Buffers are bounded: `queue.bytes / 4` and 1 024 runs a connection,
    /// 32 MiB a node. A connection is closed as a slow consumer 10 s after its last written page or extension, or at the
    /// third overflow.
    pub async fn begin_replay(&self, connection: &Connection, streams: Vec<StreamName>) -> bool {
        ask(connection, |answer| ReplayStep::Begin(streams, answer)).await.is_some()
    }

    /// Sends a page of `frames` frames to a connection under replay. The page is queued once the connection's queue is
    /// empty and has space for it. Returns true once it is written and the queue is empty again. Returns false if the
    /// connection is gone or no stream is under replay.
    ///
    /// A page never closes a connection because of a full queue. `queue.write_timeout` applies.
    pub async fn replay(&self, connection: &Connection, page: Bytes, frames: usize) -> bool {
        let load = Load::new(page.len(), frames);
        ask(connection, |written| ReplayStep::Page(ReplayPage { bytes: page, load, written })).await.is_some()
    }

    /// Extends the time of a replay whose caller waits for the node, not for the client. Returns false if the connection
    /// is gone or no stream is under replay.
    pub async fn extend_replay(&self, connection: &Connection) -> bool {
        ask(connection, ReplayStep::Extend).await.is_some()
    }

    /// Ends the replay of a stream whose history was sent up to `top`. Withheld runs of the same epoch up to `top` are
    /// dropped, the others are queued in order. A run across `top` is cut.
    ///
    /// Until the first run above `top`, at most for 30 s, the shard also drops later runs up to `top`: a store can be
    /// ahead of the delivery. Runs of another epoch are delivered. Runs of a room that the connection has left, or of a
    /// former user, are dropped.
    pub async fn end_replay(&self, connection: &Connection, stream: StreamName, top: Position) -> ReplayEnd {
        ask(connection, |answer| ReplayStep::End(stream, top, answer)).await.unwrap_or(ReplayEnd::Gone)
    }

    /// Ends all replays of the connection without a position: withheld runs are queued, waiting pages are dropped, and
    /// their callers get false. Runs dropped by an overflow stay lost, so the caller tells the client of a gap.
    pub async fn cancel_replay(&self, connection: &Connection) {
        let _ = ask(connection, ReplayStep::Cancel).await;
    }
}

/// Sends a step to the connection's shard and waits for the answer. `None` if the shard has stopped or dropped the step.
async fn ask<T>(connection: &Connection, step: impl FnOnce(oneshot::Sender<T>) -> ReplayStep) -> Option<T> {
    if connection.is_closed() {
        return None;
    }
    let (answer, answered) = oneshot::channel();
    let command = Command::Replay(connection.clone(), Box::new(step(answer)));
    connection.shard().mailbox.send(command).await.ok()?;
    answered.await.ok()
}
