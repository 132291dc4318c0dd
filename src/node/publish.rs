//! The one way in: number, size-check, judge once, hand to the broker as one batch.

use std::sync::Arc;

use super::Node;
use crate::broker::Outcome;
use crate::claim::Refusal;
use crate::clock;
use crate::id::NodeId;
use crate::message::{Envelope, MAX_HOPS, Publication, Receipt};
use crate::plugin::{Judgement, Unjudged};
use crate::protocol::{TooLarge, check_size};

/// What became of one publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The message's id.
    pub id: i64,
    /// Plugins that replaced the message, in order.
    pub replaced_by: Vec<Arc<str>>,
    /// How it ended.
    pub fate: Fate,
}

/// How a publication ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The broker took it.
    Accepted {
        /// What was delivered, where it is known at once.
        receipt: Option<Receipt>,
        /// How many nodes it reached, where the broker knows.
        nodes: Option<u32>,
        /// Nodes that it names and nobody knows.
        unknown_nodes: Vec<NodeId>,
    },
    /// A plugin said no.
    Rejected {
        /// Which one.
        plugin: Arc<str>,
        /// Its words.
        refusal: Refusal,
    },
    /// A plugin made it disappear.
    Dropped {
        /// Which one.
        plugin: Arc<str>,
    },
    /// A filter could not judge it: neither a yes nor a no.
    Unjudged(Unjudged),
    /// Some dialect could not carry it.
    TooLarge(TooLarge),
    /// More than a record of the broker may hold.
    TooLargeForBroker {
        /// What its record would hold, in bytes.
        bytes: usize,
        /// What one may.
        most: usize,
    },
    /// Plugin pushes gave rise to plugin pushes more than [`MAX_HOPS`] times.
    TooManyHops,
    /// The broker did not take it in time; what was under way may arrive all the same.
    Unavailable,
}

impl From<Outcome> for Fate {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Accepted { receipt, nodes, unknown_nodes, .. } => Self::Accepted { receipt, nodes, unknown_nodes },
            Outcome::TooLarge { bytes, most } => Self::TooLargeForBroker { bytes, most },
            Outcome::Unavailable => Self::Unavailable,
        }
    }
}

impl Node {
    /// Sends each publication through the plugins once and hands what passes to the broker as one batch.
    ///
    /// One result each, in order. Nothing of the batch is delivered before all of it has been judged.
    pub async fn publish(&self, batch: Vec<Publication>) -> Vec<Published> {
        let now = clock::now_millis();
        let Some(ids) = self.ids.take(batch.len()).await else {
            let unavailable =
                |p: &Publication| Published { id: p.message.id, replaced_by: Vec::new(), fate: Fate::Unavailable };
            batch.iter().for_each(|p| self.meters.count(p.origin, &Fate::Unavailable));
            return batch.iter().map(unavailable).collect();
        };
        let mut origins = Vec::with_capacity(batch.len());
        let mut published = Vec::with_capacity(batch.len());
        let mut judged = Vec::with_capacity(batch.len());
        for (publication, id) in batch.into_iter().zip(ids) {
            let envelope = envelope(publication, id, now);
            origins.push(envelope.origin);
            // What cannot travel costs no plugin a look: its work is bounded by what may be said.
            let stopped = beyond_bounds(&envelope);
            let id = envelope.message.id;
            if stopped.is_none() {
                judged.push((published.len(), envelope));
            }
            // What passes is unavailable until the broker says otherwise.
            published.push(Published { id, replaced_by: Vec::new(), fate: stopped.unwrap_or(Fate::Unavailable) });
        }
        let (places, mut envelopes): (Vec<usize>, Vec<Envelope>) = judged.into_iter().unzip();
        let judgements = self.plugins.judge(&mut envelopes).await;
        debug_assert_eq!(judgements.len(), envelopes.len(), "one judgement per envelope");

        let mut open = Vec::with_capacity(envelopes.len());
        let mut passed = Vec::with_capacity(envelopes.len());
        for ((i, envelope), judgement) in places.into_iter().zip(envelopes).zip(judgements) {
            let (replaced_by, stopped) = stop_reason(&envelope, judgement);
            published[i].replaced_by = replaced_by;
            match stopped {
                Some(fate) => published[i].fate = fate,
                None => {
                    open.push(i);
                    passed.push(envelope);
                }
            }
        }
        if !passed.is_empty() {
            let outcomes = self.broker.publish(passed.into()).await;
            for (i, outcome) in open.into_iter().zip(outcomes) {
                published[i].fate = Fate::from(outcome);
            }
        }
        origins.into_iter().zip(&published).for_each(|(origin, one)| self.meters.count(origin, &one.fate));
        published
    }
}

/// Gives the message an id and a time where it has none.
fn envelope(mut publication: Publication, id: u64, now: i64) -> Envelope {
    let message = &mut publication.message;
    if message.id == 0 || message.timestamp == 0 {
        let message = Arc::make_mut(message);
        if message.id == 0 {
            message.id = i64::try_from(id).expect("an id has at most 53 bits");
        }
        if message.timestamp == 0 {
            message.timestamp = now;
        }
    }
    publication.into_envelope(id, now)
}

/// Who replaced the message, and why it goes no further, if it does not.
fn stop_reason(envelope: &Envelope, judgement: Judgement) -> (Vec<Arc<str>>, Option<Fate>) {
    let replaced_by = match judgement {
        Judgement::Pass { replaced_by } => replaced_by,
        Judgement::Reject { plugin, refusal } => return (Vec::new(), Some(Fate::Rejected { plugin, refusal })),
        Judgement::Drop { plugin } => return (Vec::new(), Some(Fate::Dropped { plugin })),
        Judgement::Unjudged(unjudged) => return (Vec::new(), Some(Fate::Unjudged(unjudged))),
    };
    // A plugin may have made it larger than it came.
    let fate = if replaced_by.is_empty() { None } else { beyond_bounds(envelope) };
    (replaced_by, fate)
}

/// Why it cannot travel, if it cannot.
fn beyond_bounds(envelope: &Envelope) -> Option<Fate> {
    if envelope.hops > MAX_HOPS {
        return Some(Fate::TooManyHops);
    }
    check_size(&envelope.message).err().map(Fate::TooLarge)
}
