//! Receiving end of the broker: groups a batch into runs of frames and passes all of them to the hub at once.
//!
//! Independent of plugins: filters have run on the publishing node.

use std::ops::Range;
use std::sync::{Arc, OnceLock, Weak};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::Node;
use crate::broker::{Batch, Deliver};
use crate::hub::{self, Hub};
use crate::id::NodeId;
use crate::message::{Envelope, Position, Receipt, StreamName, Target};
use crate::protocol::Frames;

/// Maximum length of a run in canonical bytes. A connection's queue accepts or refuses a run as a whole.
const MAX_RUN_BYTES: usize = 16 * 1024;

/// Passes batches to the hub, and cluster messages and losses to the node.
pub struct Delivery {
    hub: Arc<Hub>,
    /// Weak, because the node owns the broker, which owns this value. Set once both exist.
    node: OnceLock<Weak<Node>>,
}

impl Delivery {
    /// Delivers to the connections of `hub`.
    #[must_use]
    pub fn new(hub: Arc<Hub>) -> Self {
        Self { hub, node: OnceLock::new() }
    }

    /// Passes cluster messages and losses to `node` from now on. No other node sends any before.
    pub fn set_node(&self, node: Weak<Node>) {
        // A second call has no effect.
        let _ = self.node.set(node);
    }

    fn node(&self) -> Option<Arc<Node>> {
        self.node.get().and_then(Weak::upgrade)
    }

    async fn deliver_batch(&self, batch: Batch, positions: Vec<Option<Position>>) -> Vec<Receipt> {
        let runs = runs(&batch, &positions);
        let lengths: Vec<usize> = runs.iter().map(ExactSizeIterator::len).collect();
        let deliveries = runs.into_iter().map(|run| delivery(&batch[run.clone()], at(&positions, run.start))).collect();
        let receipts = self.hub.route(deliveries).await;
        // A run is queued or refused as a whole, so its envelopes have the same receipt.
        lengths.into_iter().zip(receipts).flat_map(|(length, receipt)| std::iter::repeat_n(receipt, length)).collect()
    }
}

impl Deliver for Delivery {
    fn deliver(&self, batch: Batch, positions: Vec<Option<Position>>) -> BoxFuture<'_, Vec<Receipt>> {
        self.deliver_batch(batch, positions).boxed()
    }

    fn on_cluster_message(&self, from: &NodeId, message: Bytes) {
        if let Some(node) = self.node() {
            node.cluster.on_message(from, &message);
        }
    }

    fn gap(&self) {
        if let Some(node) = self.node() {
            node.cluster.on_gap();
        }
    }
}

/// Groups neighbours with the same receivers and successive offsets. A run is encoded into one byte string and queued as
/// one entry.
fn runs(batch: &[Envelope], positions: &[Option<Position>]) -> Vec<Range<usize>> {
    let mut runs = Vec::new();
    let mut start = 0;
    let mut bytes = 0;
    for (i, envelope) in batch.iter().enumerate() {
        let size = envelope.message.approximate_bytes();
        let first = &batch[start];
        let same = envelope.target == first.target && envelope.no_echo == first.no_echo;
        if i > start && (!same || !follows(positions, i) || bytes + size > MAX_RUN_BYTES) {
            runs.push(start..i);
            (start, bytes) = (i, 0);
        }
        bytes += size;
    }
    if start < batch.len() {
        runs.push(start..batch.len());
    }
    runs
}

/// True if envelope `i` may share a run with the one before it: neither is kept, or it has the next offset.
fn follows(positions: &[Option<Position>], i: usize) -> bool {
    match (at(positions, i - 1), at(positions, i)) {
        (None, None) => true,
        (Some(before), Some(this)) => before.epoch == this.epoch && before.offset + 1 == this.offset,
        _ => false,
    }
}

fn at(positions: &[Option<Position>], i: usize) -> Option<Position> {
    positions.get(i).copied().flatten()
}

/// A run whose first message has the position `first`.
fn delivery(run: &[Envelope], first: Option<Position>) -> hub::FrameRun {
    let Envelope { target, no_echo, .. } = &run[0];
    // Only kept messages need the name of a user's stream: their frames do not carry it.
    let is_named = first.is_some() || !matches!(target, Target::User(_) | Target::Device(..));
    let stream = if is_named { StreamName::of(target) } else { None };
    let messages = run.iter().map(|e| Arc::clone(&e.message)).collect();
    let frames = Frames::of_stream(messages, stream.as_ref(), first);
    let span = stream.zip(first).map(|(stream, Position { epoch, offset, .. })| hub::Span {
        stream,
        epoch,
        first: offset,
        last: offset + run.len() as u64 - 1,
    });
    hub::FrameRun { target: target.clone(), no_echo: *no_echo, frames, span }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::id::Uid;
    use crate::message::{Message, Origin, Publication, Target};
    use crate::node::fake::Fake;
    use crate::protocol::Form;

    fn envelope(uid: &str, text: &str) -> Envelope {
        let message = Message { content: [("text", text)].into_iter().collect(), ..Message::default() };
        Publication::new(message, Target::User(Uid::parse(uid).unwrap()), Origin::Http).into_envelope(1, 0)
    }

    #[test]
    fn neighbours_for_the_same_receivers_are_one_run() {
        let batch = [envelope("a", "1"), envelope("a", "2"), envelope("b", "3"), envelope("a", "4")];
        let lengths: Vec<usize> = runs(&batch, &[]).iter().map(ExactSizeIterator::len).collect();
        assert_eq!(lengths, [2, 1, 1]);
        assert!(runs(&[], &[]).is_empty());
    }

    #[test]
    fn batch_over_the_run_limit_is_split() {
        let big = "x".repeat(MAX_RUN_BYTES - 200);
        let batch = [envelope("a", &big), envelope("a", &big), envelope("a", "y")];
        let lengths: Vec<usize> = runs(&batch, &[]).iter().map(ExactSizeIterator::len).collect();
        assert_eq!(lengths, [1, 2]);
    }

    #[tokio::test]
    async fn each_envelope_of_a_run_gets_its_own_counts() {
        let fake = Fake::new(&Config::default());
        for device in ["phone", "desk"] {
            fake.connect("a", device, "web", &[]).await.set_form(Form::ALL[0]);
        }
        let batch = [envelope("a", "1"), envelope("a", "2"), envelope("a", "3"), envelope("b", "4")];
        let receipts = Delivery::new(Arc::clone(&fake.node.hub)).deliver(batch.to_vec().into(), Vec::new()).await;
        let here = Receipt { delivered: 2, ..Receipt::default() };
        let away = Receipt { offline: vec![Uid::parse("b").unwrap()], ..Receipt::default() };
        assert_eq!(receipts, [here.clone(), here.clone(), here, away]);
    }
}
