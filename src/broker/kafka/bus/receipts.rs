//! Publishers that wait for receipts. Collects the receipts of all nodes by envelope id.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use crate::broker::record::{EnvelopeReceipt, RecordOrigin};
use crate::id::Uid;
use crate::message::Receipt;

/// Waiting publishers, by envelope id.
#[derive(Default)]
pub(super) struct ReceiptWaiters(Mutex<HashMap<u64, ReceiptState>>);

/// Registration of one waiting publisher.
pub(super) struct ReceiptWait<'a> {
    waiting: &'a ReceiptWaiters,
    id: u64,
}

#[derive(Default)]
struct ReceiptState {
    receipt: Receipt,
    /// Number of receipts: one per part of the envelope and node.
    count: usize,
    /// Nodes that sent a receipt, and those of them that had a receiver.
    nodes: HashSet<RecordOrigin>,
    reached: HashSet<RecordOrigin>,
    /// Users reported offline, with the number of reporting nodes.
    offline: HashMap<Uid, usize>,
    changed: Arc<Notify>,
}

/// Sum of all receipts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ReceiptSum {
    pub(super) receipt: Receipt,
    /// Nodes that had a receiver.
    pub(super) nodes: u32,
}

impl ReceiptWaiters {
    /// Registers a publisher. Must be called before the envelope is sent.
    pub(super) fn expect(&self, id: u64) -> ReceiptWait<'_> {
        self.0.lock().entry(id).or_default();
        ReceiptWait { waiting: self, id }
    }

    pub(super) fn add(&self, from: RecordOrigin, delivered: Vec<EnvelopeReceipt>) {
        let mut waiting = self.0.lock();
        for EnvelopeReceipt { id, receipt } in delivered {
            let Some(state) = waiting.get_mut(&id) else { continue };
            state.count += 1;
            state.nodes.insert(from);
            if receipt.delivered + receipt.full > 0 {
                state.reached.insert(from);
            }
            state.receipt.delivered += receipt.delivered;
            state.receipt.full += receipt.full;
            receipt.offline.into_iter().for_each(|uid| *state.offline.entry(uid).or_default() += 1);
            state.changed.notify_one();
        }
    }
}

impl ReceiptWait<'_> {
    /// Waits until `until` or until `expected` receipts have arrived, and returns their sum.
    pub(super) async fn wait(self, expected: Option<usize>, until: Instant) -> ReceiptSum {
        let is_incomplete = |state: &ReceiptState| expected.is_none_or(|expected| state.count < expected);
        loop {
            let waiting = self
                .waiting
                .0
                .lock()
                .get(&self.id)
                .filter(|state| is_incomplete(state))
                .map(|a| Arc::clone(&a.changed));
            let Some(changed) = waiting else { break };
            if timeout_at(until, changed.notified()).await.is_err() {
                break;
            }
        }
        self.waiting.0.lock().remove(&self.id).map(ReceiptState::sum).unwrap_or_default()
    }
}

/// Also runs when the publisher stops waiting.
impl Drop for ReceiptWait<'_> {
    fn drop(&mut self) {
        self.waiting.0.lock().remove(&self.id);
    }
}

impl ReceiptState {
    /// Sums the receipts. A user is offline if every node reports it as offline.
    fn sum(self) -> ReceiptSum {
        let all = self.nodes.len();
        let mut offline: Vec<Uid> =
            self.offline.into_iter().filter(|(_, count)| *count == all).map(|(uid, _)| uid).collect();
        offline.sort_unstable();
        let nodes = u32::try_from(self.reached.len()).unwrap_or(u32::MAX);
        ReceiptSum { receipt: Receipt { offline, ..self.receipt }, nodes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(waiting: &ReceiptWaiters, number: u16, delivered: u32, offline: &[&str]) {
        let offline = offline.iter().map(|uid| Uid::parse(uid).unwrap()).collect();
        let receipt = Receipt { delivered, full: 0, offline };
        waiting.add(RecordOrigin { number, run_id: 1 }, vec![EnvelopeReceipt { id: 5, receipt }]);
    }

    #[tokio::test(start_paused = true)]
    async fn offline_is_who_is_so_everywhere() {
        let waiting = ReceiptWaiters::default();
        let receipt_wait = waiting.expect(5);
        add(&waiting, 1, 2, &["b", "c"]);
        add(&waiting, 2, 1, &["a", "c"]);
        add(&waiting, 3, 0, &["a", "b", "c"]);
        let received = receipt_wait.wait(None, Instant::now()).await;
        assert_eq!(received.receipt, Receipt { delivered: 3, full: 0, offline: vec![Uid::parse("c").unwrap()] });
        assert_eq!(received.nodes, 2);
        add(&waiting, 4, 1, &[]);
        assert!(waiting.0.lock().is_empty(), "nobody waits any more");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_answer_ends_the_wait_and_so_does_the_time() {
        let waiting = ReceiptWaiters::default();
        let begin = Instant::now();
        let until = begin + std::time::Duration::from_millis(500);
        let receipt_wait = waiting.expect(5);
        let (received, ()) = tokio::join!(receipt_wait.wait(Some(2), until), async {
            add(&waiting, 1, 1, &[]);
            add(&waiting, 2, 1, &[]);
        });
        assert_eq!((received.nodes, begin.elapsed().as_millis()), (2, 0));
        let receipt_wait = waiting.expect(5);
        add(&waiting, 1, 1, &[]);
        assert_eq!((receipt_wait.wait(Some(2), until).await.nodes, begin.elapsed().as_millis()), (1, 500));
        drop(waiting.expect(6));
        assert!(waiting.0.lock().is_empty());
    }
}
