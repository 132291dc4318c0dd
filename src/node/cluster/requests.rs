//! Requests to other nodes, sent over the bus. A node that does not reply in time is reported as missing.
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

use super::codec;
use super::membership::Membership;
use crate::broker::{Address, Broker};
use crate::id::{IdSequence, NodeId, Uid};
use crate::protocol::cluster::{ClusterReply, cluster_reply::Reply, cluster_request::Request};
use crate::telemetry::names;

/// Maximum number of unread replies. Every node replies once.
const MAX_UNREAD_REPLIES: usize = 4096;

/// Replies to a request.
#[derive(Default)]
pub(super) struct Replies {
    pub(super) received: Vec<(NodeId, Reply)>,
    /// Nodes that should have replied and did not.
    pub(super) missing: Vec<NodeId>,
}

/// A reply with its node. `None` for this node, which does not reply to itself.
type NodeReply = (NodeId, Option<Reply>);

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
    /// Time limit of a request.
    timeout: Duration,
    /// Requests that wait for replies.
    pending: Mutex<HashMap<u64, mpsc::Sender<NodeReply>>>,
    /// False once the broker has shown that it does not count the recipients of cluster messages.
    counts_recipients: AtomicBool,
}

impl Requests {
    pub(in crate::node) fn new(
        ids: Arc<IdSequence>,
        broker: Arc<dyn Broker>,
        membership: Arc<Membership>,
        timeout: Duration,
    ) -> Self {
        Self { ids, broker, membership, timeout, pending: Mutex::default(), counts_recipients: AtomicBool::new(true) }
    }

    /// Passes a reply to the waiting request.
    pub(super) fn on_reply(&self, from: &NodeId, reply: ClusterReply) {
        self.forward(reply.number, from, reply.reply);
    }

    /// Notes that this node received its own request. It counts as reached and does not reply.
    pub(super) fn on_own_request(&self, number: u64, me: &NodeId) {
        self.forward(number, me, None);
    }

    fn forward(&self, number: u64, from: &NodeId, reply: Option<Reply>) {
        if let Some(waiting) = self.pending.lock().get(&number) {
            let _ = waiting.try_send((from.clone(), reply));
        }
    }

    /// Asks every other node that accepts connections.
    pub(super) async fn ask_all(&self, request: Request) -> Replies {
        let others: Vec<NodeId> = self.membership.others().await.into_iter().map(|member| member.id).collect();
        if others.is_empty() {
            return Replies::default();
        }
        self.ask(Address::Everyone, request, others).await
    }

    /// Asks one other node.
    pub(super) async fn ask_one(&self, node: &NodeId, request: Request) -> Replies {
        self.ask(Address::Node(node.clone()), request, vec![node.clone()]).await
    }

    /// Asks the other nodes that have the user. Sends fewer messages, but cannot name a node that does not reply.
    pub(super) async fn ask_nodes_of(&self, uid: &Uid, request: Request) -> Replies {
        if self.membership.others().await.is_empty() {
            return Replies::default();
        }
        // On a bus without recipient counts each such request would wait for its full time limit.
        if !self.counts_recipients.load(Ordering::Relaxed) {
            return self.ask_all(request).await;
        }
        let replies = self.ask(Address::User(uid.clone()), request.clone(), Vec::new()).await;
        if self.counts_recipients.load(Ordering::Relaxed) { replies } else { self.ask_all(request).await }
    }

    async fn ask(&self, address: Address, request: Request, nodes: Vec<NodeId>) -> Replies {
        let deadline = Instant::now() + self.timeout;
        let Some(number) = self.ids.take_one().await else { return Replies { received: Vec::new(), missing: nodes } };
        let (sender, mut incoming) = mpsc::channel(MAX_UNREAD_REPLIES);
        self.pending.lock().insert(number, sender);
        let _pending = PendingRequest(self, number);
        let message = codec::request(number, request);
        let sent = timeout_at(deadline, self.broker.send_cluster_message(address.clone(), message)).await;
        let reached = match sent {
            Ok(Ok(reached)) => reached,
            Ok(Err(why)) => {
                tracing::debug!(%why, "cluster request was not sent");
                return Replies { received: Vec::new(), missing: nodes };
            }
            Err(_) => return Replies { received: Vec::new(), missing: nodes },
        };
        let expected = match (&address, reached) {
            (Address::User(_), Some(count)) => Expected::Count(count),
            (Address::User(_), None) => {
                self.counts_recipients.store(false, Ordering::Relaxed);
                return Replies::default();
            }
            // The request reached no node, so no reply can arrive.
            (Address::Node(_), Some(0)) => return Replies { received: Vec::new(), missing: nodes },
            _ => Expected::Nodes(nodes),
        };
        let replies = collect_replies(&mut incoming, expected, deadline).await;
        metrics::counter!(names::ANSWERS_MISSING).increment(replies.missing.len() as u64);
        replies
    }

    /// Sends a message that needs no reply. Returns false if it was not sent.
    pub(super) async fn send(&self, address: Address, message: Bytes) -> bool {
        let sent = self.broker.send_cluster_message(address, message).await;
        if let Err(why) = &sent {
            tracing::debug!(%why, "cluster message was not sent");
        }
        sent.is_ok()
    }
}

async fn collect_replies(incoming: &mut mpsc::Receiver<NodeReply>, expected: Expected, deadline: Instant) -> Replies {
    let (mut replies, mut refused) = (Replies::default(), Vec::new());
    let (mut waiting, mut count) = match expected {
        Expected::Nodes(nodes) => (nodes, 0),
        Expected::Count(count) => (Vec::new(), count),
    };
    while count > 0 || !waiting.is_empty() {
        let Ok(Some((from, reply))) = timeout_at(deadline, incoming.recv()).await else { break };
        count = count.saturating_sub(1);
        match reply {
            // The node stays in the list of missing ones, but is no longer waited for.
            Some(Reply::Refused(why)) => {
                tracing::warn!(node = %from, why, "node refused a cluster request");
                refused.push(from.clone());
            }
            Some(reply) => replies.received.push((from.clone(), reply)),
            None => {}
        }
        waiting.retain(|node| *node != from);
    }
    refused.extend(waiting);
    replies.missing = refused;
    replies
}

/// Removes the request on drop, also if the caller stops waiting.
struct PendingRequest<'a>(&'a Requests, u64);

impl Drop for PendingRequest<'_> {
    fn drop(&mut self) {
        self.0.pending.lock().remove(&self.1);
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
