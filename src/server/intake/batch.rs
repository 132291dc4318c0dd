//! Records that are published as one batch: what each asks for, how far it has come, and why it can never be accepted.
//!
//! Pure: the loop around it is [`super::line`].

use std::ops::Range;

use crate::id::NodeId;
use crate::message::{Identity, Origin, Publication};
use crate::node::{Fate, Place, Published, Record};
use crate::protocol::push::{self, Limits, PubEnvelope};
use crate::protocol::{MAX_TCP_BODY, check_size};

/// A record that was never settled so often is not tried again: something about it ends its readers.
pub(super) const MAX_TRIES: u32 = 5;

/// Why a record can never be accepted, as metrics say it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It is no envelope, or an envelope with a wrong field.
    Body,
    /// It, or a message of it, is more than may travel.
    TooLarge,
    /// It names a node that nobody knows.
    UnknownNode,
    /// It came [`MAX_TRIES`] times and never got through.
    Tries,
}

impl Why {
    pub(super) const ALL: [Self; 4] = [Self::Body, Self::TooLarge, Self::UnknownNode, Self::Tries];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::TooLarge => "too_large",
            Self::UnknownNode => "unknown_node",
            Self::Tries => "tries",
        }
    }
}

/// What stands on the dead letter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Poison {
    pub(super) why: Why,
    pub(super) reason: String,
}

impl Poison {
    fn new(why: Why, reason: impl Into<String>) -> Self {
        Self { why, reason: reason.into() }
    }
}

/// Records whose messages go to the bus together.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) entries: Vec<Entry>,
    messages: usize,
}

/// One record on its way.
pub(super) struct Entry {
    pub(super) record: Record,
    /// Why it is to be buried.
    pub(super) poison: Option<Poison>,
    /// Its messages that the bus has not answered for yet, by their places in the record.
    open: Vec<usize>,
}

/// What is to be published, and whose each message is: (entry, place in its record).
#[derive(Default)]
pub(super) struct Open {
    pub(super) publications: Vec<Publication>,
    owners: Vec<(usize, usize)>,
}

impl Batch {
    /// Cuts what was taken into batches of at most `limits.messages` messages, in order, each with what it asks for.
    ///
    /// A record that came before without being settled stands alone: if it ends this process, it ends no other's chance.
    pub(super) fn cut(records: Vec<Record>, limits: &Limits) -> Vec<(Self, Open)> {
        let mut batches: Vec<(Self, Open)> = Vec::new();
        for (at, record) in records.into_iter().enumerate() {
            // Only the first: those behind it may have come again for its sake.
            let spent = at == 0 && record.tries >= MAX_TRIES;
            let read =
                if spent { Err(Poison::new(Why::Tries, never_settled(record.tries))) } else { read(&record, limits) };
            let wanted = read.as_ref().map_or(0, Vec::len);
            let fits = |(batch, _): &&mut (Self, Open)| {
                let alone = record.tries > 0 || batch.entries.iter().any(|entry| entry.record.tries > 0);
                !alone && batch.messages + wanted <= limits.messages
            };
            match batches.last_mut().filter(|last| fits(last)) {
                Some((batch, open)) => batch.add(record, read, open),
                None => {
                    let (mut batch, mut open) = (Self::default(), Open::default());
                    batch.add(record, read, &mut open);
                    batches.push((batch, open));
                }
            }
        }
        batches
    }

    fn add(&mut self, record: Record, read: Result<Vec<Publication>, Poison>, open: &mut Open) {
        let at = self.entries.len();
        let (publications, poison) = match read {
            Ok(publications) => (publications, None),
            Err(poison) => (Vec::new(), Some(poison)),
        };
        self.messages += publications.len();
        let places: Range<usize> = 0..publications.len();
        open.owners.extend(places.clone().map(|place| (at, place)));
        open.publications.extend(publications);
        self.entries.push(Entry { record, poison, open: places.collect() });
    }

    /// Takes the answers to what was published; how many of them were final.
    pub(super) fn answer(&mut self, owners: &Open, published: Vec<Published>) -> usize {
        let mut finals = 0;
        for ((at, place), one) in owners.owners.iter().copied().zip(published) {
            let entry = &mut self.entries[at];
            let verdict = match one.fate {
                Fate::Unavailable => continue,
                Fate::Rejected { .. } | Fate::Dropped { .. } => None,
                Fate::Accepted { unknown_nodes, .. } if unknown_nodes.is_empty() => None,
                Fate::Accepted { unknown_nodes, .. } => {
                    let names: Vec<&str> = unknown_nodes.iter().map(NodeId::as_str).collect();
                    Some(Poison::new(Why::UnknownNode, format!("Sid: nobody knows node {}", names.join(", "))))
                }
                Fate::TooLarge(fault) => Some(Poison::new(Why::TooLarge, format!("msg[{place}]: {fault}"))),
                Fate::TooLargeForBroker { bytes, most } => {
                    let words =
                        format!("msg[{place}]: expected at most {most} bytes in a record of the bus, got {bytes}");
                    Some(Poison::new(Why::TooLarge, words))
                }
                Fate::TooManyHops => Some(Poison::new(Why::Body, format!("msg[{place}]: expected fewer hops"))),
            };
            finals += 1;
            entry.open.retain(|open| *open != place);
            if entry.poison.is_none() {
                entry.poison = verdict;
            }
        }
        finals
    }

    /// What the bus was unavailable for, read again: a batch keeps its records, not their messages.
    pub(super) fn open(&self, limits: &Limits) -> Open {
        let mut open = Open::default();
        for (at, entry) in self.entries.iter().enumerate().filter(|(_, entry)| !entry.open.is_empty()) {
            let publications = read(&entry.record, limits).unwrap_or_default();
            for (place, publication) in
                publications.into_iter().enumerate().filter(|(place, _)| entry.open.contains(place))
            {
                open.owners.push((at, place));
                open.publications.push(publication);
            }
        }
        open
    }

    /// Where its records stood.
    pub(super) fn places(&self) -> Vec<Place> {
        self.entries.iter().map(|entry| entry.record.place.clone()).collect()
    }
}

/// What the record asks to be published, each message with its identity.
fn read(record: &Record, limits: &Limits) -> Result<Vec<Publication>, Poison> {
    let PubEnvelope { pushes, nodes } = push::envelope(&record.payload, limits).map_err(|fault| {
        let why = if fault.over_limit { Why::TooLarge } else { Why::Body };
        Poison::new(why, fault.to_string())
    })?;
    if record.payload.len() > SURELY_SMALL {
        for (place, push) in pushes.iter().enumerate() {
            check_size(&push.message).map_err(|fault| Poison::new(Why::TooLarge, format!("msg[{place}]: {fault}")))?;
        }
    }
    let publication = |(index, push): (usize, push::Push)| {
        let identity = record.place.offset.map(|offset| Identity {
            line: record.place.line.clone(),
            offset,
            index: u32::try_from(index).unwrap_or(u32::MAX),
        });
        let plain = Publication::new(push.message, push.target, Origin::Broker);
        Publication { nodes: nodes.clone(), identity, ..plain }
    };
    Ok(pushes.into_iter().enumerate().map(publication).collect())
}

fn never_settled(tries: u32) -> String {
    format!("expected to be settled within {MAX_TRIES} tries, came {tries} times before")
}

/// No record of this size holds a message that some dialect cannot carry.
const SURELY_SMALL: usize = MAX_TCP_BODY / 4;
