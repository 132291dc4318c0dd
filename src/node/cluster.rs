//! What this node knows of the others, and what they ask of it.
//!
//! A node has a *lease* at the roster ([`lease`]); while it holds it, it accepts connections. It knows its neighbours by a
//! list that is read again with each renewal ([`members`]), tells clients which node to use ([`choose`], and [`away`] where it
//! does not take or keep them), asks the others what only they know ([`ask`], [`list`], [`change`]) and answers them
//! ([`answer`]); the words for it are [`word`]'s. One task a node ([`Node::attend`]) keeps the lease, answers, and tells
//! clients of losses ([`loss`]). Knows no engine.

mod announce;
mod answer;
mod ask;
mod away;
mod change;
mod choose;
pub(super) mod lease;
pub mod list;
mod loss;
mod members;
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
use members::Members;
use word::Heard;

/// Words of others that wait to be answered; more are lost, and whoever asked finds this node missing.
const INBOX: usize = 1024;
/// Words that are being answered at once.
const AT_ONCE: usize = 64;

/// What a node keeps of its cluster.
pub(super) struct Cluster {
    pub(super) roster: Arc<dyn Roster>,
    /// This node; what changes while it runs is filled in where it is shown.
    pub(super) me: Member,
    pub(super) lease: Lease,
    /// Users whose going is to be told once the engine answers.
    pub(super) untold: Mutex<Vec<Identity>>,
    /// Users with a connection here whose coming could not be told.
    pub(super) unannounced: Mutex<HashSet<Uid>>,
    members: Members,
    choose_by: ChooseBy,
    asks: Asks,
    /// `false` once the broker has shown that it does not count whom a word reaches.
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
    /// The node's life among others: keeps its lease, answers their words, tells clients of losses, ends memberships. Never
    /// returns; to be run once, and dropped when the node ends.
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
