//! Journal of the streams in memory: a log of their changes, from which the next process of the node restores them.
//!
//! Appends take a ticket in a queue, in the order of each stream. One thread writes the queue to numbered segments, all
//! waiting records with one call. A publish waits for the ticket of its message before it delivers, so no client and no
//! publisher hears of a message that a kill of the process could lose. After a failed write the streams lose the
//! messages that were not written, and the journal takes nothing until its folder can be written again.

mod queue;
mod record;
mod segment;
mod writer;

use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::oneshot;

pub use segment::{JournalError, check};

pub(super) use queue::{Item, Place, Refused};
pub(super) use record::{Append, Record, State};
pub(super) use segment::{Disk, Folder};

use crate::config::Fsync;
use crate::message::StreamName;
use crate::vital::Vitals;
use queue::Queue;
use record::Head;
use writer::Writer;

/// Size at which a segment ends, in approximate bytes.
const SEGMENT_BYTES: usize = 16 << 20;
/// Interval at which a failed folder is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The streams whose changes are in the journal.
pub(super) trait Streams: Send + Sync {
    /// Removes an append that was not written. `before` is the id of the message before it.
    fn roll_back(&self, append: &Append, before: i64);
    /// The whole of a stream, which is then in this segment. `None` if there is no such stream.
    fn state(&self, name: &StreamName, segment: u64) -> Option<State>;
    /// Names of all streams.
    fn names(&self) -> Vec<StreamName>;
}

/// Receives the records of a journal in order.
pub(super) trait Replay {
    /// Applies a record of this segment.
    fn apply(&mut self, record: Record, segment: u64);
    /// Forgets everything so far: a part of it is damaged.
    fn clear(&mut self);
}

/// How a journal is kept.
#[derive(Debug, Clone)]
pub(super) struct Options {
    pub(super) fsync: Fsync,
    /// Id of the machine's boot; empty = unknown.
    pub(super) boot: String,
    pub(super) segment_bytes: usize,
    pub(super) retry: Duration,
}

/// Handle of the journal. Dropping it ends the thread without a clean end.
pub(super) struct Journal {
    queue: Arc<Queue>,
}

/// A journal that was read and is not written yet.
pub(super) struct Opened {
    writer: Writer,
    /// Records that were read.
    pub(super) records: u64,
}

impl Options {
    /// Options of a node on this machine.
    pub(super) fn new(fsync: Fsync) -> Self {
        // Empty where there is no such file: then every start without a clean end counts as another boot.
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self { fsync, boot: boot.trim().to_owned(), segment_bytes: SEGMENT_BYTES, retry: RETRY }
    }

    fn head(&self) -> Head {
        Head { boot: self.boot.clone(), is_always: self.fsync == Fsync::Always }
    }
}

impl Opened {
    /// Locks the folder and replays its records. Begins a new segment.
    ///
    /// # Errors
    /// [`JournalError`].
    pub(super) fn open(
        path: &Path,
        options: Options,
        replay: &mut impl Replay,
    ) -> Result<(Journal, Self), JournalError> {
        Self::open_with(path, options, replay, |folder| Box::new(folder))
    }

    pub(super) fn open_with(
        path: &Path,
        options: Options,
        replay: &mut impl Replay,
        disk: impl FnOnce(Folder) -> Box<dyn Disk>,
    ) -> Result<(Journal, Self), JournalError> {
        let folder = Folder::open(path)?;
        let mut past = Past { folder: &folder, segments: Vec::new(), head: None, has_end: true, records: 0 };
        past.replay(replay)?;
        let renews = past.head.as_ref().is_some_and(|head| {
            !past.has_end && !head.is_always && (head.boot.is_empty() || head.boot != options.boot)
        });
        let (records, segments) = (past.records, past.segments);
        let number = segments.last().map_or(1, |(number, _)| number + 1);
        let queue = Arc::new(Queue::new(number, options.segment_bytes));
        let mut writer = Writer::new(Arc::clone(&queue), disk(folder), options, segments);
        let seed = renews.then(random);
        if let Err(error) = writer.begin(number, seed) {
            writer.begin_failed(&error, renews);
        }
        if let Some(seed) = seed {
            tracing::warn!(
                "the machine restarted before the history's journal was on its disk: all streams begin new epochs"
            );
            replay.apply(Record::Renew(seed), number);
        }
        Ok((Journal { queue }, Self { writer, records }))
    }

    /// Starts the writing thread.
    pub(super) fn start(self, streams: Weak<dyn Streams>, vitals: &Vitals) -> std::io::Result<()> {
        let vital = vitals.watch("history journal");
        let thread = std::thread::Builder::new().name("history-journal".to_owned());
        let writer = self.writer;
        thread.spawn(move || {
            writer.run(&streams);
            vital.done();
        })?;
        Ok(())
    }
}

/// The segments of former processes.
struct Past<'a> {
    folder: &'a Folder,
    /// Number and length of each.
    segments: Vec<(u64, u64)>,
    /// Head of the last segment.
    head: Option<Head>,
    /// True if the last record is an end.
    has_end: bool,
    records: u64,
}

impl Past<'_> {
    fn replay(&mut self, replay: &mut impl Replay) -> Result<(), JournalError> {
        let numbers = self.folder.numbers()?;
        for number in &numbers {
            let is_last = Some(number) == numbers.last();
            let segment = self.folder.read(*number, is_last)?;
            for record in segment.records {
                self.records += 1;
                self.has_end = record == Record::End;
                match record {
                    Record::Head(head) => self.head = Some(head),
                    record => replay.apply(record, *number),
                }
            }
            self.segments.push((segment.number, segment.length));
            let Some(why) = segment.damage else { continue };
            self.has_end = false;
            if is_last {
                tracing::info!(segment = number, length = segment.length, %why, "the cut end of the history's journal was removed");
            } else {
                tracing::error!(segment = number, offset = segment.length, %why, "a segment of the history's journal is damaged: the streams before this place are lost");
                replay.clear();
            }
        }
        Ok(())
    }
}

impl Journal {
    /// Adds an item. Returns its ticket, and the segment in which it will be.
    ///
    /// # Errors
    /// [`Refused`] if the journal is failing or behind. Nothing was added.
    pub(super) fn push(&self, item: Item) -> Result<Place, Refused> {
        self.queue.push(item)
    }

    /// Adds a change of a stream, or notes that the stream must be written once the journal works again.
    pub(super) fn push_or_owe(&self, item: Item) -> Option<Place> {
        self.queue.push_or_owe(item)
    }

    /// Waits until the item is written, with `fsync: always` until it is on the disk. Returns false if it is lost.
    pub(super) async fn written(&self, ticket: u64) -> bool {
        if !self.queue.is_settled(ticket) {
            let (reply, settled) = oneshot::channel();
            // A failing journal has settled everything.
            if self.push(Item::Barrier(reply)).is_ok() {
                // The thread answers each barrier, unless the node ends.
                let _ = settled.await;
            }
        }
        !self.queue.is_lost(ticket)
    }

    /// Waits until the item is on the disk. Returns false if it is lost.
    pub(super) async fn synced(&self, ticket: u64) -> bool {
        let (reply, settled) = oneshot::channel();
        if self.push(Item::Sync(reply)).is_ok() {
            // The thread answers each barrier, unless the node ends.
            let _ = settled.await;
        }
        !self.queue.is_lost(ticket)
    }

    /// Why the journal takes nothing, if so.
    pub(super) fn fault(&self) -> Option<String> {
        self.queue.fault()
    }

    /// Number of the current segment, and number and bytes of all segments.
    pub(super) fn extent(&self) -> Extent {
        self.queue.extent()
    }

    /// Removes all segments below this number once everything so far is written.
    pub(super) fn remove_below(&self, number: u64) {
        // A failing journal removes nothing; the next call repeats this.
        let _ = self.push(Item::Remove(number));
    }

    /// Writes what is queued and the end, and ends the thread. Later items are refused.
    pub(super) async fn close(&self) {
        let (reply, closed) = oneshot::channel();
        if self.push(Item::End(reply)).is_ok() {
            let _ = closed.await;
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.queue.abandon();
    }
}

/// Extent of the segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    /// Number of the oldest segment.
    pub(super) oldest: u64,
    /// Number of the current segment.
    pub(super) current: u64,
    /// Bytes of all segments.
    pub(super) bytes: u64,
    /// Bytes at which a segment ends.
    pub(super) segment_bytes: u64,
}

fn random() -> u64 {
    use std::hash::BuildHasher as _;
    // The system seeds each process, and the result differs for each call.
    std::hash::RandomState::new().hash_one(std::process::id())
}
