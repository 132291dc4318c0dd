//! Publishers that wait for receipts. Sums the receipts of the reached nodes until all have arrived.
//!
//! Independent of connections.

use ahash::AHashMap;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::broker::record::EnvelopeReceipt;
use crate::id::Uid;
use crate::message::Receipt;

/// Waiting publishers, by envelope id.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    sums: Mutex<AHashMap<u64, Sum>>,
    changed: Notify,
}

/// Receipts of one envelope so far.
#[derive(Debug, Default)]
struct Sum {
    receipts: u32,
    delivered: u32,
    full: u32,
    /// Number of nodes that reported each user as offline.
    offline: AHashMap<Uid, u32>,
}

impl Waiters {
    /// Registers an envelope for receipts.
    pub(super) fn expect(&self, id: u64) {
        self.sums.lock().insert(id, Sum::default());
    }

    /// Adds received receipts.
    pub(super) fn add(&self, list: Vec<EnvelopeReceipt>) {
        let mut sums = self.sums.lock();
        for EnvelopeReceipt { id, receipt } in list {
            // The receipt is late, or was requested by an earlier run of this node.
            let Some(sum) = sums.get_mut(&id) else { continue };
            sum.receipts += 1;
            sum.delivered = sum.delivered.saturating_add(receipt.delivered);
            sum.full = sum.full.saturating_add(receipt.full);
            receipt.offline.into_iter().for_each(|uid| *sum.offline.entry(uid).or_default() += 1);
        }
        drop(sums);
        self.changed.notify_waiters();
    }

    /// Waits until `receipts` receipts of the envelope have arrived.
    pub(super) async fn wait_for(&self, id: u64, receipts: u32) {
        loop {
            let changed = self.changed.notified();
            if self.sums.lock().get(&id).is_none_or(|sum| sum.receipts >= receipts) {
                return;
            }
            changed.await;
        }
    }

    /// Removes the envelope and returns the sum of its receipts. `nodes` holds the number of nodes reached for each
    /// named user. A user is offline if all of them report it.
    pub(super) fn take(&self, id: u64, nodes: &[(Uid, u32)]) -> Receipt {
        let sum = self.sums.lock().remove(&id).unwrap_or_default();
        let reports = |uid: &Uid| sum.offline.get(uid).copied().unwrap_or(0);
        let offline = nodes.iter().filter(|(uid, nodes)| reports(uid) >= *nodes).map(|(uid, _)| uid.clone()).collect();
        Receipt { delivered: sum.delivered, full: sum.full, offline }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn delivered(id: u64, delivered: u32, offline: &[&str]) -> EnvelopeReceipt {
        let offline = offline.iter().map(|uid| uid.parse().unwrap()).collect();
        EnvelopeReceipt { id, receipt: Receipt { delivered, full: 1, offline } }
    }

    #[tokio::test]
    async fn receipts_add_up_and_offline_is_what_all_say() {
        let waiters = Waiters::default();
        waiters.expect(7);
        waiters.add(vec![delivered(7, 1, &["a"]), delivered(8, 9, &[])]);
        waiters.add(vec![delivered(7, 2, &["a", "b"])]);
        waiters.wait_for(7, 2).await;
        let [a, b, c, d]: [Uid; 4] = ["a", "b", "c", "d"].map(|uid| uid.parse().unwrap());
        let receipt = waiters.take(7, &[(a.clone(), 2), (b, 2), (c.clone(), 0), (d, 1)]);
        assert_eq!(receipt, Receipt { delivered: 3, full: 2, offline: vec![a, c] });
        waiters.wait_for(7, 99).await;
        assert_eq!(waiters.take(7, &[]), Receipt::default(), "each is told once");
    }
}
