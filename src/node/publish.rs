//! Publishing: assigns ids, checks sizes, runs the filters once, and hands the batch to the broker.

use std::sync::Arc;

use super::Node;
use crate::broker::Outcome;
use crate::claim::Refusal;
use crate::clock;
use crate::id::NodeId;
use crate::message::{Envelope, MAX_HOPS, Publication, Receipt};
use crate::plugin::{Judgement, Unjudged};
use crate::protocol::{TooLarge, check_size};

/// Result of one publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// Id of the message.
    pub id: i64,
    /// Plugins that replaced the message, in order.
    pub replaced_by: Vec<Arc<str>>,
    /// Result of the publication.
    pub fate: Fate,
}

/// Result of a publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The broker accepted the message.
    Accepted {
        /// Delivery counts, if they are known at once.
        receipt: Option<Receipt>,
        /// Number of nodes reached, if the broker knows.
        nodes: Option<u32>,
        /// Nodes that the message names and the cluster does not know.
        unknown_nodes: Vec<NodeId>,
    },
    /// A plugin rejected the message.
    Rejected {
        /// Name of the plugin.
        plugin: Arc<str>,
        /// Refusal of the plugin.
        refusal: Refusal,
    },
    /// A plugin dropped the message.
    Dropped {
        /// Name of the plugin.
        plugin: Arc<str>,
    },
    /// A filter failed to judge the message, so it was neither passed nor rejected.
    Unjudged(Unjudged),
    /// A client protocol cannot carry the message.
    TooLarge(TooLarge),
    /// The message exceeds the record limit of the broker.
    TooLargeForBroker {
        /// Size that its record would have, in bytes.
        bytes: usize,
        /// Largest size of a record.
        most: usize,
    },
    /// A chain of plugin pushes was longer than [`MAX_HOPS`].
    TooManyHops,
    /// The broker did not accept the message in time. Copies in flight may still arrive.
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
    /// Runs the filters once on each publication and hands the passed ones to the broker as one batch.
    ///
    /// Returns one result per publication, in order. No message is delivered before the whole batch is judged.
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
            // Messages that cannot be sent do not reach the plugins, so that the size of plugin input is bounded.
            let stopped = beyond_bounds(&envelope);
            let id = envelope.message.id;
            if stopped.is_none() {
                judged.push((published.len(), envelope));
            }
            // A passed message is unavailable until the broker accepts it.
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

/// Sets a missing id and a missing time.
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

/// Returns the plugins that replaced the message, and the reason if the message stops here.
fn stop_reason(envelope: &Envelope, judgement: Judgement) -> (Vec<Arc<str>>, Option<Fate>) {
    let replaced_by = match judgement {
        Judgement::Pass { replaced_by } => replaced_by,
        Judgement::Reject { plugin, refusal } => return (Vec::new(), Some(Fate::Rejected { plugin, refusal })),
        Judgement::Drop { plugin } => return (Vec::new(), Some(Fate::Dropped { plugin })),
        Judgement::Unjudged(unjudged) => return (Vec::new(), Some(Fate::Unjudged(unjudged))),
    };
    // A plugin may have enlarged the message.
    let fate = if replaced_by.is_empty() { None } else { beyond_bounds(envelope) };
    (replaced_by, fate)
}

/// Returns the fate of a message that exceeds a limit.
fn beyond_bounds(envelope: &Envelope) -> Option<Fate> {
    if envelope.hops > MAX_HOPS {
        return Some(Fate::TooManyHops);
    }
    check_size(&envelope.message).err().map(Fate::TooLarge)
}
