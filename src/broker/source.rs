//! Source of an intake's records: a topic, a stream or a channel. The folder of each engine implements it, and
//! `server/intake` reads it.
//!
//! Does not look into the payload of a record.

use std::future::ready;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::Unavailable;

/// One record of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Payload of the record.
    pub payload: Bytes,
    /// Position of the record. A redelivered record has the same position.
    pub position: RecordPosition,
    /// Number of earlier deliveries that were not completed. 0 if the engine does not count them.
    pub tries: u32,
}

/// Position of a record. It identifies the record across redeliveries.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordPosition {
    /// Name of an ordered sequence of records: the topic and, if it has partitions, the partition.
    pub partition: Arc<str>,
    /// Offset in the partition, which increases along it. `None` if the record cannot be read again.
    pub offset: Option<u64>,
}

/// Reason why records are not accepted yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Delay {
    /// A filter can judge nothing, or fails on a record.
    Plugin,
    /// The bus does not answer.
    Bus,
    /// The source's own engine does not answer.
    Engine,
}

impl Delay {
    /// The reason as a metric label.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plugin => "plugin",
            Self::Bus => "bus",
            Self::Engine => "engine",
        }
    }
}

/// A reader with a position in a partition.
///
/// Guarantee: records of one partition arrive in order. If the engine keeps a position, every record that was not completed
/// is redelivered to this reader or to another member of its group.
pub trait Source: Send {
    /// Waits for records and returns at least one, in order. Must not be called again before the previous records are
    /// completed. Cancel safe: records that were read arrive with the next call or are redelivered.
    ///
    /// # Errors
    /// [`Unavailable`]: call again. The source reconnects by itself, with a growing pause between attempts.
    fn take(&mut self) -> BoxFuture<'_, Result<Vec<Record>, Unavailable>>;

    /// Returns true if this reader still owns these records of the last `take`. Called before each attempt to publish
    /// them. After a possible change of owner the records are lost to this reader, and the source has counted them.
    /// Records that were `tried` may still arrive, because an attempt without an answer is not recalled.
    ///
    /// # Errors
    /// [`Unavailable`]: the ownership cannot be determined now.
    fn still_owns<'a>(
        &'a mut self,
        _positions: &'a [RecordPosition],
        _tried: bool,
    ) -> BoxFuture<'a, Result<bool, Unavailable>> {
        ready(Ok(true)).boxed()
    }

    /// Completes these records: they were accepted or dead-lettered and are not redelivered.
    ///
    /// # Errors
    /// [`Unavailable`]: the records may be redelivered with the same positions.
    fn complete<'a>(&'a mut self, positions: &'a [RecordPosition]) -> BoxFuture<'a, Result<(), Unavailable>>;

    /// Writes a record that can never be accepted to the dead letters, with the reason and its position. The record
    /// must still be completed.
    ///
    /// # Errors
    /// [`Unavailable`]: the dead letter was not written.
    fn dead_letter<'a>(&'a mut self, record: &'a Record, reason: &'a str) -> BoxFuture<'a, Result<(), Unavailable>>;

    /// Keeps this reader alive for the engine. Called every few seconds while the last records wait to be accepted.
    fn keep_alive(&mut self) -> BoxFuture<'_, ()> {
        ready(()).boxed()
    }

    /// Tells why the current records wait. `None` means that they no longer do.
    fn set_delay(&mut self, _delay: Option<Delay>) {}

    /// Tells that a drain gave up this many of the current records. A source whose engine does not redeliver counts them as
    /// lost.
    fn abandon(&mut self, _records: usize, _delay: Delay) {}

    /// Number of records that wait behind the taken ones, by the engine's latest report.
    fn lag(&self) -> Option<u64> {
        None
    }

    /// Lasting fault that affects some records while others still arrive; `take` does not report it.
    fn fault(&self) -> Option<Unavailable> {
        None
    }

    /// Stops reading. Returns the records that were already read and would not be redelivered to any reader.
    fn stop(&mut self) -> BoxFuture<'_, Vec<Record>> {
        ready(Vec::new()).boxed()
    }

    /// Gives up everything that this reader holds exclusively (group membership, the only subscription). Records need
    /// not be completed first.
    fn close(&mut self) -> BoxFuture<'_, ()>;
}
