//! Relations of this node to the other nodes of the cluster.
//!
//! The roster gives the node a *lease* ([`lease`]). While the node holds it, it accepts connections. The list of
//! members is read with each renewal ([`membership`]). From it the node tells clients which node to use ([`choose`]), also
//! those that it refuses or disconnects ([`away`]).
//!
//! Requests to other nodes are in [`ask`], [`list`] and [`change`], the replies in [`answer`], and their encoding in
//! [`word`]. One task per node ([`Node::attend`]) keeps the lease, answers requests, and reports losses to clients
//! ([`loss`]). Independent of engines.

mod announce;
mod answer;
mod ask;
mod away;
mod change;
mod choose;
pub(super) mod lease;
pub mod list;
mod loss;
mod membership;
#[cfg(test)]
mod tests;
mod word;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc};

use super::Node;
use crate::broker::roster::{Member, Roster};
use crate::clock;
use crate::config::{ChooseBy, Config, Service};
use crate::id::{NodeId, Uid};
use crate::plugin::Identity;
use ask::Asks;
pub use change::{Changed, Kicked};
use lease::Lease;
use membership::Members;
use word::Heard;

/// Maximum number of queued requests of other nodes. Further ones are dropped, and the requesting node counts this node
/// as missing.
const INBOX: usize = 1024;
/// Maximum number of requests answered concurrently.
const AT_ONCE: usize = 64;

/// Cluster state of a node.
pub(super) struct Cluster {
    pub(super) roster: Arc<dyn Roster>,
    /// This node. Fields that change at run time are filled in on use.
    pub(super) me: Member,
    pub(super) lease: Lease,
    /// Users with an offline report that waits for the engine.
    pub(super) untold: Mutex<Vec<Identity>>,
    /// Users with a connection here and a failed online report.
    pub(super) unannounced: Mutex<HashSet<Uid>>,
    members: Members,
    choose_by: ChooseBy,
    asks: Asks,
    /// False once the broker has shown that it does not count the recipients of cluster messages.
    counts_words: AtomicBool,
    inbox: mpsc::Sender<(NodeId, Heard)>,
    waiting: Mutex<Option<mpsc::Receiver<(NodeId, Heard)>>>,
    lost: Notify,
}

impl Cluster {
    pub(super) fn new(config: &Config, roster: Arc<dyn Roster>) -> Self {
        let serves = |service| config.listeners.iter().any(|listener| listener.has(service));
        let (inbox, waiting) = mpsc::channel(INBOX);
        Self {
            roster,
            me: Member {
                id: config.node.id.clone(),
                number: config.node.number,
                incarnation: 0,
                address: config.node.address.clone(),
                gateway: [Service::Ws, Service::Cim, Service::CimTcp].into_iter().any(serves),
                intake: !config.intakes.is_empty(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                connections: 0,
                capacity: config.limits.connections as u64,
                draining: false,
                started_at: clock::now_millis(),
            },
            lease: Lease::default(),
            untold: Mutex::default(),
            unannounced: Mutex::default(),
            members: Members::default(),
            choose_by: config.cluster.choose_by,
            asks: Asks::default(),
            counts_words: AtomicBool::new(true),
            inbox,
            waiting: Mutex::new(Some(waiting)),
            lost: Notify::new(),
        }
    }
}

impl Node {
    /// Runs the cluster tasks of the node: keeps the lease, answers requests, reports losses, ends memberships. Never
    /// returns. Run it once and drop it when the node ends.
    pub async fn attend(self: Arc<Self>) {
        let Some(mut words) = self.cluster.waiting.lock().take() else { return };
        let mut answering: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
        let mut lease = Box::pin(self.keep_lease());
        let mut looks = Box::pin(self.look_around());
        let mut losses = Box::pin(self.tell_losses());
        let mut memberships = Box::pin(self.end_memberships());
        loop {
            tokio::select! {
                () = &mut lease => {}
                () = &mut looks => {}
                () = &mut losses => {}
                () = &mut memberships => {}
                Some(()) = answering.next() => {}
                Some((from, heard)) = words.recv(), if answering.len() < AT_ONCE => {
                    answering.push(Box::pin(self.act_on(from, heard)));
                }
            }
        }
    }
}
