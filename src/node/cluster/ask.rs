//! Questions to other nodes: sent as words on the bus, answered within half a second, or the node is told as missing.
//!
//! Knows not what is asked.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::Node;
use super::word;
use crate::broker::Address;
use crate::id::{NodeId, Uid};
use crate::protocol::cluster::{Answer, answer, question};
use crate::telemetry::names;

/// How long a question waits for its answers.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);
/// Answers that wait to be read; every node answers once.
const ANSWERS: usize = 4096;

/// What came back.
#[derive(Default)]
pub(super) struct Answers {
    pub(super) said: Vec<(NodeId, answer::Says)>,
    /// Nodes that should have answered and did not.
    pub(super) missing: Vec<NodeId>,
}

/// Who says what to a question; nothing is what this node has to say to its own.
type Heard = (NodeId, Option<answer::Says>);

/// Questions that wait for answers.
#[derive(Default)]
pub(super) struct Asks {
    open: Mutex<HashMap<u64, mpsc::Sender<Heard>>>,
}

impl Asks {
    /// Hands an answer to whoever waits for it.
    pub(super) fn take(&self, from: &NodeId, answer: Answer) {
        self.give(answer.number, from, answer.says);
    }

    /// This node heard its own question: it counts as reached, and has nothing to say to itself.
    pub(super) fn heard_own(&self, number: u64, me: &NodeId) {
        self.give(number, me, None);
    }

    fn give(&self, number: u64, from: &NodeId, says: Option<answer::Says>) {
        if let Some(waiting) = self.open.lock().get(&number) {
            let _ = waiting.try_send((from.clone(), says));
        }
    }
}

/// Whose answers are waited for.
enum Expected {
    Nodes(Vec<NodeId>),
    /// So many, this node included if it is reached.
    Count(u32),
}

impl Node {
    /// Asks every other node that holds connections.
    pub(super) async fn ask_all(&self, asks: question::Asks) -> Answers {
        let others: Vec<NodeId> = self.others().await.into_iter().map(|member| member.id).collect();
        if others.is_empty() {
            return Answers::default();
        }
        self.ask(Address::Everyone, asks, others).await
    }

    /// Asks one other node.
    pub(super) async fn ask_one(&self, node: &NodeId, asks: question::Asks) -> Answers {
        self.ask(Address::Node(node.clone()), asks, vec![node.clone()]).await
    }

    /// Asks the other nodes that hold the user: fewer words, but one that does not answer cannot be named.
    pub(super) async fn ask_holders(&self, uid: &Uid, asks: question::Asks) -> Answers {
        if self.others().await.is_empty() {
            return Answers::default();
        }
        // A bus that does not count whom a word reaches would make each such question wait for its whole time.
        if !self.cluster.counts_words.load(Ordering::Relaxed) {
            return self.ask_all(asks).await;
        }
        let answers = self.ask(Address::User(uid.clone()), asks.clone(), Vec::new()).await;
        if self.cluster.counts_words.load(Ordering::Relaxed) { answers } else { self.ask_all(asks).await }
    }

    async fn ask(&self, address: Address, asks: question::Asks, named: Vec<NodeId>) -> Answers {
        let deadline = Instant::now() + PATIENCE;
        let Some(number) = self.ids.take_one().await else { return Answers { said: Vec::new(), missing: named } };
        let (sender, mut heard) = mpsc::channel(ANSWERS);
        self.cluster.asks.open.lock().insert(number, sender);
        let _open = Open(&self.cluster.asks, number);
        let told = timeout_at(deadline, self.broker.tell(address.clone(), word::question(number, asks))).await;
        let reached = match told {
            Ok(Ok(reached)) => reached,
            Ok(Err(why)) => {
                tracing::debug!(%why, "a question was not sent");
                return Answers { said: Vec::new(), missing: named };
            }
            Err(_) => return Answers { said: Vec::new(), missing: named },
        };
        let expected = match (&address, reached) {
            (Address::User(_), Some(count)) => Expected::Count(count),
            (Address::User(_), None) => {
                self.cluster.counts_words.store(false, Ordering::Relaxed);
                return Answers::default();
            }
            // It reached nobody: nothing can come back.
            (Address::Node(_), Some(0)) => return Answers { said: Vec::new(), missing: named },
            _ => Expected::Nodes(named),
        };
        let answers = gather(&mut heard, expected, deadline).await;
        metrics::counter!(names::ANSWERS_MISSING).increment(answers.missing.len() as u64);
        answers
    }

    /// Sends a word that wants no answer; `false` if it was not sent.
    pub(super) async fn say(&self, address: Address, word: Bytes) -> bool {
        let told = self.broker.tell(address, word).await;
        if let Err(why) = &told {
            tracing::debug!(%why, "a word was not sent");
        }
        told.is_ok()
    }
}

async fn gather(heard: &mut mpsc::Receiver<Heard>, expected: Expected, deadline: Instant) -> Answers {
    let (mut answers, mut refused) = (Answers::default(), Vec::new());
    let (mut waiting, mut count) = match expected {
        Expected::Nodes(nodes) => (nodes, 0),
        Expected::Count(count) => (Vec::new(), count),
    };
    while count > 0 || !waiting.is_empty() {
        let Ok(Some((from, says))) = timeout_at(deadline, heard.recv()).await else { break };
        count = count.saturating_sub(1);
        match says {
            // It stays among the missing, and is waited for no longer.
            Some(answer::Says::Refused(why)) => {
                tracing::warn!(node = %from, why, "a node does not answer what it was asked");
                refused.push(from.clone());
            }
            Some(says) => answers.said.push((from.clone(), says)),
            None => {}
        }
        waiting.retain(|node| *node != from);
    }
    refused.extend(waiting);
    answers.missing = refused;
    answers
}

/// Closes the question when it goes: whoever stops waiting leaves nothing behind.
struct Open<'a>(&'a Asks, u64);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.lock().remove(&self.1);
    }
}

/// Names of missing nodes, each once.
pub(super) fn merge_missing(into: &mut Vec<NodeId>, more: Vec<NodeId>) {
    for node in more {
        if !into.contains(&node) {
            into.push(node);
        }
    }
}
