//! Requests to other nodes, sent over the bus. A node that does not reply within half a second is reported as missing.
//!
//! Independent of the content of the requests.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use super::membership::Membership;
use super::word;
use crate::broker::{Address, Broker};
use crate::id::{IdSequence, NodeId, Uid};
use crate::protocol::cluster::{Answer, answer, question};
use crate::telemetry::names;

/// Time limit of a request.
pub(super) const PATIENCE: Duration = Duration::from_millis(500);
/// Maximum number of unread replies. Every node replies once.
const ANSWERS: usize = 4096;

/// Replies to a request.
#[derive(Default)]
pub(super) struct Answers {
    pub(super) said: Vec<(NodeId, answer::Says)>,
    /// Nodes that should have replied and did not.
    pub(super) missing: Vec<NodeId>,
}

/// A reply with its node. `None` for this node, which does not reply to itself.
type Heard = (NodeId, Option<answer::Says>);

/// Nodes whose replies are expected.
enum Expected {
    Nodes(Vec<NodeId>),
    /// Number of nodes reached, this node included if it is one of them.
    Count(u32),
}

/// Sends requests to other nodes.
pub(in crate::node) struct Requests {
    ids: Arc<IdSequence>,
    broker: Arc<dyn Broker>,
    membership: Arc<Membership>,
    /// Requests that wait for replies.
    open: Mutex<HashMap<u64, mpsc::Sender<Heard>>>,
    /// False once the broker has shown that it does not count the recipients of cluster messages.
    counts_words: AtomicBool,
}

impl Requests {
    pub(in crate::node) fn new(ids: Arc<IdSequence>, broker: Arc<dyn Broker>, membership: Arc<Membership>) -> Self {
        Self { ids, broker, membership, open: Mutex::default(), counts_words: AtomicBool::new(true) }
    }

    /// Passes a reply to the waiting request.
    pub(super) fn take(&self, from: &NodeId, answer: Answer) {
        self.give(answer.number, from, answer.says);
    }

    /// Notes that this node received its own request. It counts as reached and does not reply.
    pub(super) fn heard_own(&self, number: u64, me: &NodeId) {
        self.give(number, me, None);
    }

    fn give(&self, number: u64, from: &NodeId, says: Option<answer::Says>) {
        if let Some(waiting) = self.open.lock().get(&number) {
            let _ = waiting.try_send((from.clone(), says));
        }
    }

    /// Asks every other node that accepts connections.
    pub(super) async fn ask_all(&self, asks: question::Asks) -> Answers {
        let others: Vec<NodeId> = self.membership.others().await.into_iter().map(|member| member.id).collect();
        if others.is_empty() {
            return Answers::default();
        }
        self.ask(Address::Everyone, asks, others).await
    }

    /// Asks one other node.
    pub(super) async fn ask_one(&self, node: &NodeId, asks: question::Asks) -> Answers {
        self.ask(Address::Node(node.clone()), asks, vec![node.clone()]).await
    }

    /// Asks the other nodes that have the user. Sends fewer messages, but cannot name a node that does not reply.
    pub(super) async fn ask_holders(&self, uid: &Uid, asks: question::Asks) -> Answers {
        if self.membership.others().await.is_empty() {
            return Answers::default();
        }
        // On a bus without recipient counts each such request would wait for its full time limit.
        if !self.counts_words.load(Ordering::Relaxed) {
            return self.ask_all(asks).await;
        }
        let answers = self.ask(Address::User(uid.clone()), asks.clone(), Vec::new()).await;
        if self.counts_words.load(Ordering::Relaxed) { answers } else { self.ask_all(asks).await }
    }

    async fn ask(&self, address: Address, asks: question::Asks, named: Vec<NodeId>) -> Answers {
        let deadline = Instant::now() + PATIENCE;
        let Some(number) = self.ids.take_one().await else { return Answers { said: Vec::new(), missing: named } };
        let (sender, mut heard) = mpsc::channel(ANSWERS);
        self.open.lock().insert(number, sender);
        let _open = Open(self, number);
        let told =
            timeout_at(deadline, self.broker.send_cluster_message(address.clone(), word::question(number, asks))).await;
        let reached = match told {
            Ok(Ok(reached)) => reached,
            Ok(Err(why)) => {
                tracing::debug!(%why, "cluster request was not sent");
                return Answers { said: Vec::new(), missing: named };
            }
            Err(_) => return Answers { said: Vec::new(), missing: named },
        };
        let expected = match (&address, reached) {
            (Address::User(_), Some(count)) => Expected::Count(count),
            (Address::User(_), None) => {
                self.counts_words.store(false, Ordering::Relaxed);
                return Answers::default();
            }
            // The request reached no node, so no reply can arrive.
            (Address::Node(_), Some(0)) => return Answers { said: Vec::new(), missing: named },
            _ => Expected::Nodes(named),
        };
        let answers = gather(&mut heard, expected, deadline).await;
        metrics::counter!(names::ANSWERS_MISSING).increment(answers.missing.len() as u64);
        answers
    }

    /// Sends a message that needs no reply. Returns false if it was not sent.
    pub(super) async fn say(&self, address: Address, word: Bytes) -> bool {
        let told = self.broker.send_cluster_message(address, word).await;
        if let Err(why) = &told {
            tracing::debug!(%why, "cluster message was not sent");
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
            // The node stays in the list of missing ones, but is no longer waited for.
            Some(answer::Says::Refused(why)) => {
                tracing::warn!(node = %from, why, "node refused a cluster request");
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

/// Removes the request on drop, also if the caller stops waiting.
struct Open<'a>(&'a Requests, u64);

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.open.lock().remove(&self.1);
    }
}

/// Adds names of missing nodes, each once.
pub(super) fn merge_missing(into: &mut Vec<NodeId>, more: Vec<NodeId>) {
    for node in more {
        if !into.contains(&node) {
            into.push(node);
        }
    }
}
