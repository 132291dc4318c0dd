//! Publishing: assigns ids, checks sizes, runs the filters once, decides the retention, and hands the batch to the
//! broker.

mod meters;
mod retention;
mod undelivered;

use std::sync::Arc;

use super::rooms::not_bound;
use crate::broker::{Batch, Broker};
use crate::claim::Refusal;
use crate::clock;
use crate::code::Code;
use crate::config::History;
use crate::fate::{Fate, Published};
use crate::hub::Connection;
use crate::id::IdSequence;
use crate::message::{Envelope, MAX_HOPS, Origin, Publication, Publisher, Target};
use crate::plugin::{Judgement, PluginHost};
use crate::protocol::check_size;
use crate::session::ClientMessage;
use meters::Meters;
use retention::RetentionPolicy;

/// Publishes messages. The only caller of [`Broker::publish`].
pub(super) struct Publishing {
    ids: Arc<IdSequence>,
    plugins: Arc<dyn PluginHost>,
    broker: Arc<dyn Broker>,
    retention: RetentionPolicy,
    meters: Meters,
}

impl Publishing {
    /// `history` is `None` if the node keeps no messages.
    pub(super) fn new(
        ids: Arc<IdSequence>,
        plugins: Arc<dyn PluginHost>,
        broker: Arc<dyn Broker>,
        history: Option<History>,
    ) -> Self {
        Self { ids, plugins, broker, retention: RetentionPolicy::new(history), meters: Meters::new() }
    }

    /// Runs the filters once on each publication and hands the passed ones to the broker as one batch.
    ///
    /// Returns one result per publication, in order. No message is delivered before the whole batch is judged.
    pub(super) async fn publish(&self, batch: Vec<Publication>) -> Vec<Published> {
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
            let stopped = check_limits(&envelope);
            let id = envelope.message.id;
            if stopped.is_none() {
                judged.push((published.len(), envelope));
            }
            // A passed message is unavailable until the broker accepts it.
            published.push(Published { id, replaced_by: Vec::new(), fate: stopped.unwrap_or(Fate::Unavailable) });
        }
        let (indexes, mut envelopes): (Vec<usize>, Vec<Envelope>) = judged.into_iter().unzip();
        let judgements = self.plugins.judge(&mut envelopes).await;
        debug_assert_eq!(judgements.len(), envelopes.len(), "one judgement per envelope");

        let mut passed_indexes = Vec::with_capacity(envelopes.len());
        let mut passed = Vec::with_capacity(envelopes.len());
        for ((i, mut envelope), judgement) in indexes.into_iter().zip(envelopes).zip(judgements) {
            let (replaced_by, stopped) = stop_reason(&envelope, judgement);
            published[i].replaced_by = replaced_by;
            match stopped {
                Some(fate) => published[i].fate = fate,
                None => {
                    self.retention.decide(&mut envelope);
                    passed_indexes.push(i);
                    passed.push(envelope);
                }
            }
        }
        if !passed.is_empty() {
            let batch: Batch = passed.into();
            let fates = self.broker.publish(Arc::clone(&batch)).await;
            if self.plugins.wants_receipts() {
                undelivered::report(&*self.plugins, &batch, &fates);
            }
            for (i, fate) in passed_indexes.into_iter().zip(fates) {
                published[i].fate = fate;
            }
        }
        origins.into_iter().zip(&published).for_each(|(origin, one)| self.meters.count(origin, &one.fate));
        published
    }

    /// Publishes a client's message.
    ///
    /// # Errors
    /// A refusal if the connection is not bound or is not in the room that it writes to.
    pub(super) async fn publish_from(
        &self,
        connection: &Connection,
        message: ClientMessage,
    ) -> Result<Published, Refusal> {
        let binding = connection.binding().ok_or_else(not_bound)?;
        let ClientMessage { message, target } = message;
        if let Target::Room(room) = &target
            && !connection.rooms().contains(room)
        {
            return Err(Refusal::new(Code::FORBIDDEN, format!("to: expected a joined room, got {room}")));
        }
        let cid = connection.id();
        let publication = Publication {
            from: Some(Publisher { uid: binding.uid.clone(), cid }),
            no_echo: Some(cid),
            ..Publication::new(message, target, Origin::Client)
        };
        Ok(self.publish(vec![publication]).await.pop().expect("one result per publication"))
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
    let fate = if replaced_by.is_empty() { None } else { check_limits(envelope) };
    (replaced_by, fate)
}

/// Returns the fate of a message that exceeds a limit.
fn check_limits(envelope: &Envelope) -> Option<Fate> {
    if envelope.hops > MAX_HOPS {
        return Some(Fate::TooManyHops);
    }
    check_size(&envelope.message).err().map(Fate::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::fake::Scripted;
    use crate::node::fake::several::publication;

    #[tokio::test]
    async fn publishing_needs_ids_plugins_and_a_broker_only() {
        let script = Arc::new(Scripted::default());
        let ids = Arc::new(IdSequence::new(1, std::time::SystemTime::now()));
        let publishing = Publishing::new(ids, Arc::clone(&script) as _, Arc::clone(&script) as _, None);
        let batch = ["a", "b"].map(|text| publication(Target::Everyone, text));
        let published = publishing.publish(batch.into()).await;
        assert!(published.iter().all(|one| one.fate.code() == Code::OK), "{published:?}");
    }
}
