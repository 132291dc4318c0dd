//! The thread that writes the journal.
//!
//! It writes all waiting records with one call and answers their barriers afterwards. After a failure it lets the
//! streams go back to what is written, and opens a new segment once the disk works again. That segment begins with the
//! streams whose records are missing.

use std::collections::VecDeque;
use std::io;
use std::sync::{Arc, Weak};
use std::time::Instant;

use metrics::{Counter, Gauge, Histogram, counter, gauge, histogram};

use super::queue::{Item, Owed, Queue, Taken};
use super::record::{Append, State, put_drop, put_end, put_head, put_renew};
use super::segment::Disk;
use super::{Options, Streams};
use crate::config::Fsync;
use crate::message::StreamName;
use crate::telemetry::names;

/// Bytes of records that are written with one call during a recovery.
const CHUNK: usize = 1 << 20;

/// State of the thread.
pub(super) struct Writer {
    queue: Arc<Queue>,
    disk: Box<dyn Disk>,
    options: Options,
    /// Number and length of each segment, the current one last. Failed bytes do not count.
    segments: VecDeque<(u64, u64)>,
    /// Frames that are not written yet.
    frames: Vec<u8>,
    /// Time of the first write after the last sync.
    unsynced: Option<Instant>,
    /// Time of the last failure, or of the last attempt to recover from it.
    failed: Option<Instant>,
    has_ended: bool,
    meters: Meters,
}

struct Meters {
    sync: Histogram,
    failures: Counter,
    bytes: Gauge,
}

impl Writer {
    pub(super) fn new(queue: Arc<Queue>, disk: Box<dyn Disk>, options: Options, segments: Vec<(u64, u64)>) -> Self {
        let meters = Meters {
            sync: histogram!(names::HISTORY_JOURNAL_SYNC),
            failures: counter!(names::HISTORY_JOURNAL_FAILURES),
            bytes: gauge!(names::HISTORY_JOURNAL_BYTES),
        };
        let segments = segments.into();
        Self {
            queue,
            disk,
            options,
            segments,
            frames: Vec::new(),
            unsynced: None,
            failed: None,
            has_ended: false,
            meters,
        }
    }

    /// Begins the segment. `seed` renews the epochs of the streams so far.
    pub(super) fn begin(&mut self, number: u64, seed: Option<u64>) -> io::Result<()> {
        self.disk.create(number)?;
        self.segments.push_back((number, 0));
        self.frames.clear();
        put_head(&mut self.frames, &self.options.head());
        seed.iter().for_each(|seed| put_renew(&mut self.frames, *seed));
        self.write()?;
        self.tell_extent();
        // Otherwise a kill of the machine would bring the former epochs back.
        if seed.is_some() { self.sync() } else { Ok(()) }
    }

    /// Begins with a failure: the folder cannot be written yet. With `owes_all` all streams are written once it can.
    pub(super) fn begin_failed(&mut self, error: &io::Error, owes_all: bool) {
        self.fail(
            Taken { items: Vec::new(), first: u64::MAX },
            "write",
            error,
            owes_all,
            &(Weak::<NoStreams>::new() as _),
        );
    }

    /// Runs until the journal has ended.
    pub(super) fn run(mut self, streams: &Weak<dyn Streams>) {
        while let Some(taken) = self.queue.take(self.wait()) {
            self.turn(taken, streams);
            if self.is_sync_due()
                && let Err(error) = self.sync()
            {
                self.fail(Taken { items: Vec::new(), first: u64::MAX }, "sync", &error, true, streams);
            }
            if self.failed.is_some_and(|failed| failed.elapsed() >= self.options.retry) {
                self.recover(streams);
            }
            if self.has_ended {
                break;
            }
        }
    }

    /// Longest time until there is something to do without items.
    fn wait(&self) -> std::time::Duration {
        match (self.failed, self.unsynced, self.options.fsync) {
            (Some(failed), ..) => self.options.retry.saturating_sub(failed.elapsed()),
            (None, Some(unsynced), Fsync::Every(interval)) => interval.saturating_sub(unsynced.elapsed()),
            _ => self.options.retry,
        }
    }

    fn is_sync_due(&self) -> bool {
        match self.options.fsync {
            Fsync::Every(interval) => self.unsynced.is_some_and(|unsynced| unsynced.elapsed() >= interval),
            Fsync::Always | Fsync::Os => false,
        }
    }

    /// Writes the items and answers their barriers.
    fn turn(&mut self, taken: Taken, streams: &Weak<dyn Streams>) {
        if taken.items.is_empty() {
            return;
        }
        let (first, count) = (taken.first, taken.items.len());
        let mut done = 0;
        match self.write_items(&taken.items, &mut done) {
            Ok(()) => {
                self.queue.settle(first + count as u64 - 1);
                self.answer(taken.items);
            }
            Err((what, error)) => {
                let mut items = taken.items;
                let rest = items.split_off(done);
                self.queue.settle((first + done as u64).saturating_sub(1));
                self.answer(items);
                self.fail(Taken { items: rest, first: first + done as u64 }, what, &error, what == "sync", streams);
            }
        }
    }

    /// Writes the items, the first `done` ones completely.
    fn write_items(&mut self, items: &[Item], done: &mut usize) -> Result<(), (&'static str, io::Error)> {
        let write = |error| ("write", error);
        let sync = |error| ("sync", error);
        let mut must_sync = self.options.fsync == Fsync::Always;
        for (index, item) in items.iter().enumerate() {
            match item {
                Item::Append(append, _) => append.put(&mut self.frames),
                Item::State(state) => state.put(&mut self.frames),
                Item::Drop(name) => put_drop(&mut self.frames, name),
                Item::Barrier(_) => {}
                Item::Sync(_) => must_sync = true,
                Item::End(_) => {
                    put_end(&mut self.frames);
                    must_sync = true;
                }
                Item::Rotate(_) | Item::Remove(_) => {
                    self.write().map_err(write)?;
                    if self.options.fsync != Fsync::Os || must_sync {
                        self.sync().map_err(sync)?;
                    }
                    *done = index;
                    match item {
                        Item::Rotate(number) => self.begin(*number, None).map_err(write)?,
                        Item::Remove(number) => self.remove_below(*number),
                        _ => {}
                    }
                    *done = index + 1;
                }
            }
        }
        self.write().map_err(write)?;
        if must_sync {
            self.sync().map_err(sync)?;
        }
        *done = items.len();
        self.tell_extent();
        Ok(())
    }

    fn answer(&mut self, items: Vec<Item>) {
        for item in items {
            match item {
                // A caller may have gone away.
                Item::Barrier(reply) | Item::Sync(reply) => drop(reply.send(())),
                Item::End(reply) => {
                    self.has_ended = true;
                    // Frees the lock of the folder first, so that the next owner finds it free.
                    self.disk = Box::new(Closed);
                    let _ = reply.send(());
                }
                Item::Append(..) | Item::State(_) | Item::Drop(_) | Item::Rotate(_) | Item::Remove(_) => {}
            }
        }
    }

    fn write(&mut self) -> io::Result<()> {
        if self.frames.is_empty() {
            return Ok(());
        }
        let written = self.disk.append(&self.frames);
        let length = u64::try_from(self.frames.len()).expect("64 bits hold a length");
        self.frames.clear();
        if self.frames.capacity() > CHUNK {
            self.frames = Vec::new();
        }
        written?;
        if let Some((_, current)) = self.segments.back_mut() {
            *current += length;
        }
        self.unsynced.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.unsynced.is_none() {
            return Ok(());
        }
        let begun = Instant::now();
        self.disk.sync()?;
        self.unsynced = None;
        self.meters.sync.record(begun.elapsed().as_secs_f64());
        Ok(())
    }

    fn remove_below(&mut self, number: u64) {
        while let Some((oldest, _)) = self.segments.front().copied().filter(|(oldest, _)| *oldest < number) {
            if let Err(error) = self.disk.remove(oldest)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(segment = oldest, %error, "a segment of the history's journal is not removed yet");
                break;
            }
            self.segments.pop_front();
        }
    }

    fn tell_extent(&self) {
        let total = self.segments.iter().map(|(_, length)| length).sum::<u64>();
        if let Some((oldest, _)) = self.segments.front() {
            self.queue.set_extent(*oldest, total);
        }
        self.meters.bytes.set(total as f64);
    }

    /// Refuses further items, rolls the streams back to what is written, and answers all that waits. After a failed sync
    /// the kernel may have dropped earlier records, too, so that all streams are written again.
    fn fail(&mut self, lost: Taken, what: &str, error: &io::Error, owes_all: bool, streams: &Weak<dyn Streams>) {
        let why = format!("{what}: {error}");
        let (queued, last) = self.queue.fail(lost.first, &why, owes_all);
        let items: Vec<Item> = lost.items.into_iter().chain(queued).collect();
        let appends = items.iter().filter(|item| matches!(item, Item::Append(..))).count();
        self.meters.failures.increment(1);
        tracing::error!(what, %error, lost = appends, "the history's journal failed: it takes no messages until its folder can be written again");
        self.failed = Some(Instant::now());
        self.unsynced = None;
        let streams = streams.upgrade();
        for item in items.iter().rev() {
            match item {
                Item::Append(append, before) => {
                    self.queue.owe(&append.name);
                    streams.iter().for_each(|streams| streams.roll_back(append, *before));
                }
                Item::State(state) => self.queue.owe(&state.name),
                Item::Drop(name) => self.queue.owe(name),
                Item::Rotate(_) | Item::Remove(_) | Item::Barrier(_) | Item::Sync(_) | Item::End(_) => {}
            }
        }
        self.queue.settle(last);
        self.answer(items);
    }

    /// Begins a new segment with the streams that are owed, and takes items again.
    fn recover(&mut self, streams: &Weak<dyn Streams>) {
        self.failed = Some(Instant::now());
        let Some(streams) = streams.upgrade() else { return };
        match self.try_recover(&*streams) {
            Ok(()) => {
                self.failed = None;
                tracing::info!("the history's journal works again");
            }
            Err(error) => tracing::debug!(%error, "the history's journal still fails"),
        }
    }

    fn try_recover(&mut self, streams: &dyn Streams) -> io::Result<()> {
        let (last, length) = self.segments.back().copied().unwrap_or_default();
        // The failed write may have left a part of a record.
        self.disk.cut(length)?;
        let number = if length == 0 { last.max(1) } else { last + 1 };
        if length == 0 {
            self.segments.pop_back();
        }
        self.begin(number, None)?;
        loop {
            let owed = self.queue.take_owed();
            if let Err(error) = self.write_owed(&owed, number, streams) {
                self.queue.put_owed(owed);
                // Leaves the space to the next attempt, which begins the segment anew.
                self.disk.cut(0)?;
                self.segments.iter_mut().for_each(|(own, length)| *length = if *own == number { 0 } else { *length });
                return Err(error);
            }
            if self.queue.reopen(number) {
                return Ok(());
            }
        }
    }

    fn write_owed(&mut self, owed: &Owed, segment: u64, streams: &dyn Streams) -> io::Result<()> {
        let names: Vec<StreamName> = match owed {
            Owed::Nothing => Vec::new(),
            Owed::Named(names) => names.iter().cloned().collect(),
            Owed::All => streams.names(),
        };
        self.frames.clear();
        for name in &names {
            match streams.state(name, segment) {
                Some(state) => state.put(&mut self.frames),
                None => put_drop(&mut self.frames, name),
            }
            if self.frames.len() >= CHUNK {
                self.write()?;
            }
        }
        self.write()?;
        if self.options.fsync == Fsync::Os { Ok(()) } else { self.sync() }
    }
}

/// The streams before the start.
struct NoStreams;

impl Streams for NoStreams {
    fn roll_back(&self, _: &Append, _: i64) {}

    fn state(&self, _: &StreamName, _: u64) -> Option<State> {
        None
    }

    fn names(&self) -> Vec<StreamName> {
        Vec::new()
    }
}

/// The disk after the end.
struct Closed;

impl Disk for Closed {
    fn create(&mut self, _: u64) -> io::Result<()> {
        Err(closed())
    }

    fn append(&mut self, _: &[u8]) -> io::Result<()> {
        Err(closed())
    }

    fn sync(&mut self) -> io::Result<()> {
        Err(closed())
    }

    fn cut(&mut self, _: u64) -> io::Result<()> {
        Err(closed())
    }

    fn remove(&mut self, _: u64) -> io::Result<()> {
        Err(closed())
    }
}

fn closed() -> io::Error {
    io::Error::other("the journal has ended")
}
