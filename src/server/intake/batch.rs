//! Records published as one batch: their messages, their progress, and the reason if one can never be accepted.
//!
//! Pure: the loop is in [`super::task`].

use std::ops::Range;
use std::sync::Arc;

use crate::id::NodeId;
use crate::message::{Origin, Publication, RecordIdentity};
use crate::node::{Fate, Published, Record, RecordPosition};
use crate::protocol::push::{self, PubEnvelope, PushLimits};
use crate::protocol::{MAX_TCP_BODY, check_size};

/// A record that was read this often without being completed is not tried again, because it may crash its readers.
pub(super) const MAX_TRIES: u32 = 5;

/// Reason for a dead letter, as metrics name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DeadLetterKind {
    /// The record is not a valid envelope.
    Body,
    /// The record or one of its messages exceeds a size limit.
    TooLarge,
    /// The record names an unknown node.
    UnknownNode,
    /// The record was read [`MAX_TRIES`] times and never completed.
    Tries,
    /// A filter failed to judge the record in [`MAX_TRIES`] tries, though it judges others.
    Unjudged,
}

impl DeadLetterKind {
    pub(super) const ALL: [Self; 5] = [Self::Body, Self::TooLarge, Self::UnknownNode, Self::Tries, Self::Unjudged];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::TooLarge => "too_large",
            Self::UnknownNode => "unknown_node",
            Self::Tries => "tries",
            Self::Unjudged => "unjudged",
        }
    }
}

/// Reason stored with a dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeadLetter {
    pub(super) kind: DeadLetterKind,
    pub(super) reason: String,
}

impl DeadLetter {
    fn new(kind: DeadLetterKind, reason: impl Into<String>) -> Self {
        Self { kind, reason: reason.into() }
    }
}

/// Records published together.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) entries: Vec<Entry>,
    messages: usize,
}

/// One record in progress.
pub(super) struct Entry {
    pub(super) record: Record,
    /// Set if the record is to become a dead letter.
    pub(super) dead_letter: Option<DeadLetter>,
    /// Messages without a reply of the bus yet, by their index in the record.
    open: Vec<usize>,
    /// Tries in which a filter could not judge a message of this record, though it judges others.
    unjudged: u32,
}

/// Result of one try.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TryResult {
    /// Messages that the bus accepted or a filter refused.
    pub(super) accepted: usize,
    /// True if the bus did not answer for some messages.
    pub(super) unavailable: bool,
    /// Reason if a filter can judge nothing at all; then the whole intake waits.
    pub(super) paused: Option<String>,
}

/// Messages to publish, and the owner of each one: (entry, index in its record).
#[derive(Default)]
pub(super) struct OpenMessages {
    pub(super) publications: Vec<Publication>,
    owners: Vec<(usize, usize)>,
}

impl Batch {
    /// Splits records into batches of at most `limits.messages` messages, in order, with their publications.
    ///
    /// A redelivered record gets its own batch: if it crashes this process, it does not affect other records.
    pub(super) fn split(records: Vec<Record>, limits: &PushLimits, intake: &Arc<str>) -> Vec<(Self, OpenMessages)> {
        let mut batches: Vec<(Self, OpenMessages)> = Vec::new();
        for (at, record) in records.into_iter().enumerate() {
            // Only the first record. Those after it may have been redelivered because of it.
            let is_used_up = at == 0 && record.tries >= MAX_TRIES;
            let read = if is_used_up {
                Err(DeadLetter::new(DeadLetterKind::Tries, never_completed(record.tries)))
            } else {
                read(&record, limits, intake)
            };
            let wanted = read.as_ref().map_or(0, Vec::len);
            let fits = |(batch, _): &&mut (Self, OpenMessages)| {
                let alone = record.tries > 0 || batch.entries.iter().any(|entry| entry.record.tries > 0);
                !alone && batch.messages + wanted <= limits.messages
            };
            match batches.last_mut().filter(|last| fits(last)) {
                Some((batch, open)) => batch.add(record, read, open),
                None => {
                    let (mut batch, mut open) = (Self::default(), OpenMessages::default());
                    batch.add(record, read, &mut open);
                    batches.push((batch, open));
                }
            }
        }
        batches
    }

    fn add(&mut self, record: Record, read: Result<Vec<Publication>, DeadLetter>, open: &mut OpenMessages) {
        let at = self.entries.len();
        let (publications, dead_letter) = match read {
            Ok(publications) => (publications, None),
            Err(dead_letter) => (Vec::new(), Some(dead_letter)),
        };
        self.messages += publications.len();
        let indexes: Range<usize> = 0..publications.len();
        open.owners.extend(indexes.clone().map(|index| (at, index)));
        open.publications.extend(publications);
        self.entries.push(Entry { record, dead_letter, open: indexes.collect(), unjudged: 0 });
    }

    /// Applies the results of the publications.
    pub(super) fn apply(&mut self, owners: &OpenMessages, published: Vec<Published>) -> TryResult {
        let mut result = TryResult::default();
        let mut failed = None;
        for ((at, index), one) in owners.owners.iter().copied().zip(published) {
            let entry = &mut self.entries[at];
            let verdict = match one.fate {
                Fate::Unavailable => {
                    result.unavailable = true;
                    continue;
                }
                Fate::Unjudged(unjudged) if unjudged.is_general => {
                    result.paused.get_or_insert(unjudged.reason);
                    continue;
                }
                Fate::Unjudged(unjudged) => {
                    if failed.replace(at) != Some(at) {
                        entry.unjudged += 1;
                    }
                    if entry.unjudged < MAX_TRIES {
                        continue;
                    }
                    let reason = format!("msg[{index}]: not judged after {MAX_TRIES} tries: {}", unjudged.reason);
                    Some(DeadLetter::new(DeadLetterKind::Unjudged, reason))
                }
                Fate::Rejected { .. } | Fate::Dropped { .. } => {
                    result.accepted += 1;
                    None
                }
                Fate::Accepted { unknown_nodes, .. } if unknown_nodes.is_empty() => {
                    result.accepted += 1;
                    None
                }
                Fate::Accepted { unknown_nodes, .. } => {
                    let names: Vec<&str> = unknown_nodes.iter().map(NodeId::as_str).collect();
                    Some(DeadLetter::new(
                        DeadLetterKind::UnknownNode,
                        format!("Sid: unknown node {}", names.join(", ")),
                    ))
                }
                fate @ (Fate::TooLarge(_) | Fate::TooLargeForBroker { .. }) => {
                    Some(DeadLetter::new(DeadLetterKind::TooLarge, format!("msg[{index}]: {fate}")))
                }
                fate @ Fate::TooManyHops => {
                    Some(DeadLetter::new(DeadLetterKind::Body, format!("msg[{index}]: {fate}")))
                }
            };
            entry.open.retain(|open| *open != index);
            if entry.dead_letter.is_none() {
                entry.dead_letter = verdict;
            }
        }
        result
    }

    /// True if some message has no reply yet.
    pub(super) fn is_open(&self) -> bool {
        self.entries.iter().any(|entry| !entry.open.is_empty())
    }

    /// Number of records that were not accepted whole.
    pub(super) fn unfinished(&self) -> usize {
        self.entries.iter().filter(|entry| !entry.open.is_empty() || entry.dead_letter.is_some()).count()
    }

    /// The messages for which the bus was unavailable. They are parsed again, because a batch keeps only records.
    pub(super) fn open(&self, limits: &PushLimits, intake: &Arc<str>) -> OpenMessages {
        let mut open = OpenMessages::default();
        for (at, entry) in self.entries.iter().enumerate().filter(|(_, entry)| !entry.open.is_empty()) {
            let publications = read(&entry.record, limits, intake).unwrap_or_default();
            for (index, publication) in
                publications.into_iter().enumerate().filter(|(index, _)| entry.open.contains(index))
            {
                open.owners.push((at, index));
                open.publications.push(publication);
            }
        }
        open
    }

    /// Positions of its records.
    pub(super) fn positions(&self) -> Vec<RecordPosition> {
        self.entries.iter().map(|entry| entry.record.position.clone()).collect()
    }
}

/// The publications of a record, each with its identity.
fn read(record: &Record, limits: &PushLimits, intake: &Arc<str>) -> Result<Vec<Publication>, DeadLetter> {
    let PubEnvelope { pushes, nodes } = push::envelope(&record.payload, limits).map_err(|fault| {
        let kind = if fault.over_limit { DeadLetterKind::TooLarge } else { DeadLetterKind::Body };
        DeadLetter::new(kind, fault.to_string())
    })?;
    if record.payload.len() > MAX_UNCHECKED_BYTES {
        for (index, push) in pushes.iter().enumerate() {
            check_size(&push.message)
                .map_err(|fault| DeadLetter::new(DeadLetterKind::TooLarge, format!("msg[{index}]: {fault}")))?;
        }
    }
    let publication = |(index, push): (usize, push::Push)| {
        let identity = record.position.offset.map(|offset| RecordIdentity {
            partition: record.position.partition.clone(),
            offset,
            index: u32::try_from(index).unwrap_or(u32::MAX),
        });
        let plain = Publication::new(push.message, push.target, Origin::Broker);
        Publication { nodes: nodes.clone(), identity, back_end: Some(Arc::clone(intake)), ..plain }
    };
    Ok(pushes.into_iter().enumerate().map(publication).collect())
}

fn never_completed(tries: u32) -> String {
    format!("expected to be processed within {MAX_TRIES} tries, was read {tries} times before")
}

/// A record up to this size cannot hold a message too large for a dialect.
const MAX_UNCHECKED_BYTES: usize = MAX_TCP_BODY / 4;
