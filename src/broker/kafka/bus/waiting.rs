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
pub(super) struct Waiting(Mutex<HashMap<u64, Answers>>);

/// Registration of one waiting publisher.
pub(super) struct Ticket<'a> {
    waiting: &'a Waiting,
    id: u64,
}

#[derive(Default)]
struct Answers {
    receipt: Receipt,
    /// Number of receipts: one per part of the envelope and node.
    count: usize,
    /// Nodes that sent a receipt, and those of them that had a receiver.
    nodes: HashSet<RecordOrigin>,
    reached: HashSet<RecordOrigin>,
    /// Users reported offline, with the number of reporting nodes.
    offline: HashMap<Uid, usize>,
    news: Arc<Notify>,
}

/// Sum of all receipts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) receipt: Receipt,
    /// Nodes that had a receiver.
    pub(super) nodes: u32,
}

impl Waiting {
    /// Registers a publisher. Must be called before the envelope is sent.
    pub(super) fn expect(&self, id: u64) -> Ticket<'_> {
        self.0.lock().entry(id).or_default();
        Ticket { waiting: self, id }
    }

    pub(super) fn answer(&self, from: RecordOrigin, delivered: Vec<EnvelopeReceipt>) {
        let mut waiting = self.0.lock();
        for EnvelopeReceipt { id, receipt } in delivered {
            let Some(answers) = waiting.get_mut(&id) else { continue };
            answers.count += 1;
            answers.nodes.insert(from);
            if receipt.delivered + receipt.full > 0 {
                answers.reached.insert(from);
            }
            answers.receipt.delivered += receipt.delivered;
            answers.receipt.full += receipt.full;
            receipt.offline.into_iter().for_each(|uid| *answers.offline.entry(uid).or_default() += 1);
            answers.news.notify_one();
        }
    }
}

impl Ticket<'_> {
    /// Waits until `until` or until `enough` receipts have arrived, and returns their sum.
    pub(super) async fn told(self, enough: Option<usize>, until: Instant) -> Told {
        let lacks = |answers: &Answers| enough.is_none_or(|enough| answers.count < enough);
        loop {
            let waiting =
                self.waiting.0.lock().get(&self.id).filter(|answers| lacks(answers)).map(|a| Arc::clone(&a.news));
            let Some(news) = waiting else { break };
            if timeout_at(until, news.notified()).await.is_err() {
                break;
            }
        }
        self.waiting.0.lock().remove(&self.id).map(Answers::sum).unwrap_or_default()
    }
}

/// Also runs when the publisher stops waiting.
impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.waiting.0.lock().remove(&self.id);
    }
}

impl Answers {
    /// Sums the receipts. A user is offline if every node reports it as offline.
    fn sum(self) -> Told {
        let all = self.nodes.len();
        let mut offline: Vec<Uid> =
            self.offline.into_iter().filter(|(_, count)| *count == all).map(|(uid, _)| uid).collect();
        offline.sort_unstable();
        let nodes = u32::try_from(self.reached.len()).unwrap_or(u32::MAX);
        Told { receipt: Receipt { offline, ..self.receipt }, nodes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(waiting: &Waiting, number: u16, delivered: u32, offline: &[&str]) {
        let offline = offline.iter().map(|uid| Uid::parse(uid).unwrap()).collect();
        let receipt = Receipt { delivered, full: 0, offline };
        waiting.answer(RecordOrigin { number, run_id: 1 }, vec![EnvelopeReceipt { id: 5, receipt }]);
    }

    #[tokio::test(start_paused = true)]
    async fn offline_is_who_is_so_everywhere() {
        let waiting = Waiting::default();
        let ticket = waiting.expect(5);
        answer(&waiting, 1, 2, &["b", "c"]);
        answer(&waiting, 2, 1, &["a", "c"]);
        answer(&waiting, 3, 0, &["a", "b", "c"]);
        let told = ticket.told(None, Instant::now()).await;
        assert_eq!(told.receipt, Receipt { delivered: 3, full: 0, offline: vec![Uid::parse("c").unwrap()] });
        assert_eq!(told.nodes, 2);
        answer(&waiting, 4, 1, &[]);
        assert!(waiting.0.lock().is_empty(), "nobody waits any more");
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_answer_ends_the_wait_and_so_does_the_time() {
        let waiting = Waiting::default();
        let begin = Instant::now();
        let until = begin + std::time::Duration::from_millis(500);
        let ticket = waiting.expect(5);
        let (told, ()) = tokio::join!(ticket.told(Some(2), until), async {
            answer(&waiting, 1, 1, &[]);
            answer(&waiting, 2, 1, &[]);
        });
        assert_eq!((told.nodes, begin.elapsed().as_millis()), (2, 0));
        let ticket = waiting.expect(5);
        answer(&waiting, 1, 1, &[]);
        assert_eq!((ticket.told(Some(2), until).await.nodes, begin.elapsed().as_millis()), (1, 500));
        drop(waiting.expect(6));
        assert!(waiting.0.lock().is_empty());
    }
}
