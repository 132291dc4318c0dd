//! Relations of this node to the other nodes of the cluster.
//!
//! The roster gives the node a *lease* ([`lease`]). While the node holds it, it accepts connections. [`membership`]
//! knows this node and the other members. [`choose`] tells clients which node to use, also those that this node refuses
//! or disconnects ([`redirect`]).
//!
//! [`requests`] sends requests to other nodes for [`list`] and [`change`]. [`inbox`] replies to requests, and [`codec`]
//! encodes both. [`loss`] reports losses to clients. Independent of engines.

pub(super) mod change;
pub(super) mod choose;
pub(super) mod codec;
mod inbox;
pub(super) mod lease;
pub mod list;
mod loss;
pub(super) mod membership;
pub(super) mod redirect;
pub(super) mod requests;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;

use super::devices::Devices;
use super::presence::PresenceTracker;
use super::rooms::Rooms;
use crate::hub::Hub;
use crate::id::NodeId;
use change::Changes;
pub use change::{Changed, Kicked};
use choose::NodeChooser;
use inbox::Inbox;
use lease::LeaseKeeper;
use list::Lists;
use loss::Losses;
use membership::Membership;

/// Maximum number of requests answered concurrently.
const MAX_CONCURRENT: usize = 64;

/// Everything that the node does with other nodes.
pub(super) struct Cluster {
    pub(super) membership: Arc<Membership>,
    pub(super) chooser: Arc<NodeChooser>,
    pub(super) lists: Lists,
    pub(super) changes: Arc<Changes>,
    keeper: LeaseKeeper,
    inbox: Inbox,
    losses: Losses,
}

impl Cluster {
    pub(super) fn new(
        hub: &Arc<Hub>,
        chooser: Arc<NodeChooser>,
        lists: Lists,
        changes: Arc<Changes>,
        devices: Arc<Devices>,
    ) -> Self {
        let membership = Arc::clone(&changes.membership);
        Self {
            keeper: LeaseKeeper::new(Arc::clone(hub), Arc::clone(&membership), Arc::clone(&chooser)),
            inbox: Inbox::new(membership.me().id.clone(), devices, Arc::clone(&changes)),
            losses: Losses::new(Arc::clone(hub)),
            membership,
            chooser,
            lists,
            changes,
        }
    }

    /// Handles a cluster message. Returns at once; [`Cluster::run`] does the slow work.
    pub(super) fn on_message(&self, from: &NodeId, message: &Bytes) {
        self.inbox.receive(from, message);
    }

    /// Notes that messages for this node may be lost. Returns at once.
    pub(super) fn on_gap(&self) {
        self.losses.note();
    }

    /// Keeps the lease, answers requests, reports losses, ends memberships of rooms. Never returns.
    pub(super) async fn run(&self, presence: &PresenceTracker, rooms: &Rooms) {
        let Some(mut messages) = self.inbox.take_receiver() else { return };
        let mut answering: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
        let mut lease = Box::pin(self.keeper.run());
        let mut follow_up = Box::pin(self.after_renewals(presence));
        let mut losses = Box::pin(self.losses.report());
        let mut memberships = Box::pin(rooms.end_memberships());
        loop {
            tokio::select! {
                () = &mut lease => {}
                () = &mut follow_up => {}
                () = &mut losses => {}
                () = &mut memberships => {}
                Some(()) = answering.next() => {}
                Some((from, message)) = messages.recv(), if answering.len() < MAX_CONCURRENT => {
                    answering.push(Box::pin(self.inbox.handle(from, message)));
                }
            }
        }
    }

    /// Does the work that waits for the engine, after each answered renewal. Never returns. Runs beside the renewals,
    /// because it may make a call for each of 100 000 users.
    async fn after_renewals(&self, presence: &PresenceTracker) {
        loop {
            self.membership.lease.renewed.notified().await;
            self.membership.refresh().await;
            presence.report_expired_members().await;
            presence.repeat_offline_reports().await;
        }
    }
}
