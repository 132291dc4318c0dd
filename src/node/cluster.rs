//! Relations of this node to the other nodes of the cluster.
//!
//! The roster gives the node a *lease* ([`lease`]). While the node holds it, it accepts connections. [`membership`]
//! knows this node and the other members. [`choose`] tells clients which node to use, also those that this node refuses
//! or disconnects ([`away`]).
//!
//! Requests to other nodes are sent by [`ask`]. [`list`] and [`change`] use them. [`answer`] replies to requests, and
//! [`word`] encodes both. [`loss`] reports losses to clients. Independent of engines.

mod answer;
pub(super) mod ask;
pub(super) mod away;
pub(super) mod change;
pub(super) mod choose;
pub(super) mod lease;
pub mod list;
mod loss;
pub(super) mod membership;
#[cfg(test)]
mod tests;
pub(super) mod word;

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
use answer::Inbox;
use change::Changes;
pub use change::{Changed, Kicked};
use choose::Directions;
use lease::LeaseKeeper;
use list::Lists;
use loss::Losses;
use membership::Membership;

/// Maximum number of requests answered concurrently.
const AT_ONCE: usize = 64;

/// Everything that the node does with other nodes.
pub(super) struct Cluster {
    pub(super) membership: Arc<Membership>,
    pub(super) directions: Arc<Directions>,
    pub(super) lists: Lists,
    pub(super) changes: Arc<Changes>,
    keeper: LeaseKeeper,
    inbox: Inbox,
    losses: Losses,
}

impl Cluster {
    pub(super) fn new(
        hub: &Arc<Hub>,
        directions: Arc<Directions>,
        lists: Lists,
        changes: Arc<Changes>,
        devices: Arc<Devices>,
    ) -> Self {
        let membership = Arc::clone(&changes.membership);
        Self {
            keeper: LeaseKeeper::new(Arc::clone(hub), Arc::clone(&membership), Arc::clone(&directions)),
            inbox: Inbox::new(membership.me().id.clone(), devices, Arc::clone(&changes)),
            losses: Losses::new(Arc::clone(hub)),
            membership,
            directions,
            lists,
            changes,
        }
    }

    /// Handles a cluster message. Returns at once; [`Cluster::attend`] does the slow work.
    pub(super) fn on_message(&self, from: &NodeId, message: &Bytes) {
        self.inbox.receive(from, message);
    }

    /// Notes that messages for this node may be lost. Returns at once.
    pub(super) fn declare_loss(&self) {
        self.losses.declare();
    }

    /// Keeps the lease, answers requests, reports losses, ends memberships of rooms. Never returns.
    pub(super) async fn attend(&self, presence: &PresenceTracker, rooms: &Rooms) {
        let Some(mut words) = self.inbox.open() else { return };
        let mut answering: FuturesUnordered<BoxFuture<'_, ()>> = FuturesUnordered::new();
        let mut lease = Box::pin(self.keeper.keep());
        let mut looks = Box::pin(self.look_around(presence));
        let mut losses = Box::pin(self.losses.tell());
        let mut memberships = Box::pin(rooms.end_memberships());
        loop {
            tokio::select! {
                () = &mut lease => {}
                () = &mut looks => {}
                () = &mut losses => {}
                () = &mut memberships => {}
                Some(()) = answering.next() => {}
                Some((from, heard)) = words.recv(), if answering.len() < AT_ONCE => {
                    answering.push(Box::pin(self.inbox.act_on(from, heard)));
                }
            }
        }
    }

    /// Does the work that waits for the engine, after each answered renewal. Never returns. Runs beside the renewals,
    /// because it may make a call for each of 100 000 users.
    async fn look_around(&self, presence: &PresenceTracker) {
        loop {
            self.membership.lease.answered.notified().await;
            self.membership.refresh().await;
            presence.report_expired_members().await;
            presence.tell_untold().await;
        }
    }
}
