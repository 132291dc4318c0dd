//! The memory engine with a journal: start from its records, compaction, failures and the end.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::yield_now;
use tokio::time::sleep;

use super::replay::Replayed;
use super::stream::Stream;
use super::{MemoryHistory, random_epoch};
use crate::broker::history::journal::{Append, Extent, Item, Journal, JournalError, Opened, Options, State, Streams};
use crate::clock;
use crate::config::{History as Settings, OnFailure};
use crate::message::StreamName;
use crate::vital::Vitals;

/// Interval of looking for segments to remove.
const COMPACT: Duration = Duration::from_secs(1);
/// Interval while more streams wait to be copied.
const COMPACT_MORE: Duration = Duration::from_millis(100);
/// Looks between two complete surveys of a journal whose segment stays the same.
const SURVEYS: u32 = 60;
/// The oldest segment is copied if that takes at most this part of a segment.
const CHEAP_PART: u64 = 4;
/// It is also copied if all segments together take more than this many times the bytes of the streams, and more than
/// this many segments.
const MAX_WASTE: u64 = 4;

/// The journal did not take a message. Nothing was appended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) struct NotKept;

/// Part of the streams that needs the oldest segment.
#[derive(Debug, Default, Clone, Copy)]
struct Survey {
    /// The oldest segment that a stream needs, and the bytes of the streams that need it.
    oldest: Option<(u64, u64)>,
    /// Bytes of all streams.
    bytes: u64,
}

impl MemoryHistory {
    /// Opens the history: with `history.journal.dir` from its journal, and with every change written to it. The thread
    /// that writes is registered in `vitals`.
    ///
    /// # Errors
    /// [`JournalError`].
    pub fn open(settings: Settings, vitals: &Vitals) -> Result<Arc<Self>, JournalError> {
        if settings.journal.dir.as_os_str().is_empty() {
            return Ok(Arc::new(Self::new(settings)));
        }
        let options = Options::new(settings.journal.fsync);
        Self::open_with(settings, clock::since_1970(), vitals, |settings, replay| {
            Opened::open(&settings.journal.dir, options, replay)
        })
    }

    /// The same at this time since 1970, with a journal that `open` opens.
    pub(super) fn open_with(
        settings: Settings,
        now: Duration,
        vitals: &Vitals,
        open: impl FnOnce(&Settings, &mut Replayed<'_>) -> Result<(Journal, Opened), JournalError>,
    ) -> Result<Arc<Self>, JournalError> {
        let begun = std::time::Instant::now();
        let mut history = Self::new(settings);
        history.start.1 = now;
        let settings = history.settings.clone();
        let mut replayed = Replayed { streams: std::collections::HashMap::new(), settings: &settings };
        let (journal, opened) = open(&settings, &mut replayed)?;
        let records = opened.records;
        let (live, over) = replayed.finish(history.now());
        for name in over {
            journal.push_or_owe(Item::Drop(name));
        }
        history.journal = Some(journal);
        let streams = live.len();
        for (name, stream) in live {
            history.restore(&name, stream);
        }
        let history = Arc::new(history);
        let weak = Arc::downgrade(&history) as Weak<dyn Streams>;
        let dir = settings.journal.dir.clone();
        opened.start(weak, vitals).map_err(|error| JournalError::Io { path: dir, error })?;
        let ms = begun.elapsed().as_millis();
        tracing::info!(records, streams, ms, "the history was restored from its journal");
        Ok(history)
    }

    fn restore(&self, name: &StreamName, mut stream: Stream) {
        self.meters.streams.increment(1.0);
        self.account(0, stream.bytes());
        let mut map = self.near(name).lock();
        stream.age = map.next_age(stream.age.is_appended);
        map.by_age.insert(stream.age, name.clone());
        map.streams.insert(name.clone(), stream);
        drop(map);
        self.evict(name, |map| map.oldest(name));
    }

    /// Effect of a failure on kept messages.
    pub(in crate::broker) fn on_failure(&self) -> OnFailure {
        self.settings.on_failure
    }

    /// Why messages are not kept now, if so.
    #[must_use]
    pub fn fault(&self) -> Option<String> {
        self.journal.as_ref().and_then(Journal::fault)
    }

    /// Waits until the append with this ticket is in the journal. Returns false if it is lost. 0 = no journal.
    pub(in crate::broker) async fn written(&self, ticket: u64) -> bool {
        match &self.journal {
            Some(journal) if ticket > 0 => journal.written(ticket).await,
            _ => true,
        }
    }

    /// A message of the stream is delivered without being kept.
    pub(in crate::broker) fn pass_over(&self, name: &StreamName) {
        self.meters.unkept[1].increment(1);
        let mut map = self.near(name).lock();
        let Some(stream) = map.streams.get_mut(name) else { return };
        let before = stream.bytes();
        if stream.pass_over(random_epoch(&self.hasher, self.now())) {
            self.account(before, stream.bytes());
            self.journal.iter().for_each(|journal| self.write_state(journal, name, stream));
        }
    }

    /// Counts a message that was refused because it could not be kept.
    pub(in crate::broker) fn count_refused(&self) {
        self.meters.unkept[0].increment(1);
    }

    /// Writes what is queued to the journal and ends it. A history without a journal does nothing.
    pub async fn close(&self) {
        if let Some(journal) = &self.journal {
            journal.close().await;
        }
    }

    /// Removes segments of the journal that no stream needs, and copies streams out of old ones; never ends.
    pub(super) async fn compact(&self) {
        let Some(journal) = &self.journal else { return std::future::pending().await };
        let (mut looks, mut current) = (0, 0);
        loop {
            let extent = journal.extent();
            let is_due = extent.current != current || looks % SURVEYS == 0;
            (looks, current) = (looks + 1, extent.current);
            let copies_more = is_due && self.compact_once(journal, extent).await;
            if copies_more {
                current = 0;
            }
            sleep(if copies_more { COMPACT_MORE } else { COMPACT }).await;
        }
    }

    /// One step of the compaction. Returns true if more streams wait to be copied.
    pub(super) async fn compact_once(&self, journal: &Journal, extent: Extent) -> bool {
        let survey = self.survey().await;
        let (oldest, needed) = survey.oldest.unwrap_or((extent.current, 0));
        if oldest > extent.oldest {
            journal.remove_below(oldest.min(extent.current));
        }
        let is_cheap = needed <= extent.segment_bytes / CHEAP_PART;
        let is_waste = extent.bytes > MAX_WASTE * survey.bytes.max(extent.segment_bytes);
        oldest < extent.current && (is_cheap || is_waste) && self.copy_streams(journal, oldest, extent).await
    }

    async fn survey(&self) -> Survey {
        let mut survey = Survey::default();
        for map in &self.maps {
            for stream in map.lock().streams.values() {
                let bytes = stream.bytes() as u64;
                survey.bytes += bytes;
                survey.oldest = match (survey.oldest, stream.oldest_segment()) {
                    (Some((oldest, sum)), Some(own)) if own == oldest => Some((oldest, sum + bytes)),
                    (Some((oldest, sum)), Some(own)) if own > oldest => Some((oldest, sum)),
                    (_, Some(own)) => Some((own, bytes)),
                    (found, None) => found,
                };
            }
            yield_now().await;
        }
        survey
    }

    /// Copies streams that need this segment to the current one, at most a quarter of a segment at once.
    async fn copy_streams(&self, journal: &Journal, oldest: u64, extent: Extent) -> bool {
        let mut left = extent.segment_bytes / CHEAP_PART;
        for map in &self.maps {
            for (name, stream) in &mut map.lock().streams {
                if stream.oldest_segment() != Some(oldest) {
                    continue;
                }
                if left == 0 {
                    return true;
                }
                left = left.saturating_sub(stream.bytes() as u64);
                let Some(place) = journal.push_or_owe(Item::State(stream.state(name))) else { return false };
                stream.place_whole(place.segment);
            }
            yield_now().await;
        }
        // The oldest segment can be removed now.
        true
    }
}

impl Streams for MemoryHistory {
    fn roll_back(&self, append: &Append, before: i64) {
        let mut map = self.near(&append.name).lock();
        if let Some(stream) = map.streams.get_mut(&append.name) {
            let bytes = stream.bytes();
            stream.roll_back(append, before);
            self.account(bytes, stream.bytes());
        }
    }

    fn state(&self, name: &StreamName, segment: u64) -> Option<State> {
        let mut map = self.near(name).lock();
        let stream = map.streams.get_mut(name)?;
        stream.place_whole(segment);
        stream.ticket = 0;
        Some(stream.state(name))
    }

    fn names(&self) -> Vec<StreamName> {
        self.maps.iter().flat_map(|map| map.lock().streams.keys().cloned().collect::<Vec<_>>()).collect()
    }
}
