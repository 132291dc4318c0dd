//! Devices of a user: of two connections that exclude each other, the earlier bind loses, on one node and across nodes.
//!
//! [`matrix`] decides between two connections. A bind is announced to every node that has the user. A node subscribes
//! to the user before it announces, so of two concurrent binds, the other node receives at least the later
//! announcement. If its own bind has the greater number, it announces that back, so exactly one stays.

pub(super) mod matrix;

use std::sync::Arc;

use super::cluster::codec;
use super::{kick, unavailable};
use crate::broker::roster::Roster;
use crate::broker::{Address, Broker};
use crate::claim::Refusal;
use crate::config::DevicePolicy;
use crate::disconnect::Disconnect;
use crate::hub::{Binding, Connection, Hub};
use crate::id::{NodeId, Uid};
use crate::protocol::cluster as wire;
use matrix::{BoundDevice, Conflict, Loser, loser_of};

/// Applies the device matrix.
pub(super) struct Devices {
    hub: Arc<Hub>,
    broker: Arc<dyn Broker>,
    roster: Arc<dyn Roster>,
}

impl Devices {
    pub(super) fn new(hub: Arc<Hub>, broker: Arc<dyn Broker>, roster: Arc<dyn Roster>) -> Self {
        Self { hub, broker, roster }
    }

    /// Bind number among the binds of the user. 0 if the device policy needs none.
    ///
    /// # Errors
    /// A 503 if the engine does not answer.
    pub(super) async fn number(
        &self,
        connection: &Connection,
        uid: &Uid,
        earlier: Option<&Binding>,
    ) -> Result<u64, Refusal> {
        if let Some(earlier) = earlier {
            return Ok(earlier.number);
        }
        if connection.devices() == DevicePolicy::AllowAll {
            return Ok(0);
        }
        self.roster.next_number(uid).await.map_err(|why| unavailable(&why))
    }

    /// Applies the matrix to a new bind, on this node first and then on the others.
    ///
    /// # Errors
    /// A 503 if the announcement failed: the same user may stay bound elsewhere.
    pub(super) async fn apply(&self, connection: &Connection) -> Result<(), Refusal> {
        self.apply_here(connection).await;
        self.announce(connection).await
    }

    async fn apply_here(&self, connection: &Connection) {
        let Some(mine) = connection.binding() else { return };
        let newcomer = BoundDevice::of(&mine);
        for other in self.hub.user(mine.uid.as_str()) {
            if other.id() == connection.id() {
                continue;
            }
            if let Some((conflict, winner)) = resolve_conflict(connection.devices(), &newcomer, &other).await {
                close_loser(connection, conflict, &winner.name).await;
            }
        }
    }

    /// Announces a bind to the other nodes of the user if it may exclude their connections.
    async fn announce(&self, connection: &Connection) -> Result<(), Refusal> {
        let policy = connection.devices();
        if policy == DevicePolicy::AllowAll || connection.closed().is_some() {
            return Ok(());
        }
        let Some(binding) = connection.binding() else { return Ok(()) };
        let newcomer = BoundDevice::of(&binding);
        if !newcomer.excludes_any() {
            return Ok(());
        }
        let message = codec::bind_announcement(&binding.uid, policy, &newcomer);
        let sent = self.broker.send_cluster_message(Address::User(binding.uid.clone()), message).await;
        sent.map(drop).map_err(|why| unavailable(&why))
    }

    /// Handles a bind on `from`. Closes the connections here that lose against it. If the new one loses, sends the
    /// winner back.
    pub(super) async fn on_bind_announcement(&self, from: &NodeId, announcement: wire::BindAnnouncement) {
        let (uid, policy, newcomer) = match codec::read_bind_announcement(announcement) {
            Ok(read) => read,
            Err(why) => return tracing::warn!(%from, %why, "bind announcement cannot be decoded; dropped"),
        };
        for holder in self.hub.user(uid.as_str()) {
            if let Some((_, winner)) = resolve_conflict(policy, &newcomer, &holder).await {
                let message = codec::bind_announcement(&uid, policy, &winner);
                let sent = self.broker.send_cluster_message(Address::Node(from.clone()), message).await;
                if let Err(why) = sent {
                    tracing::debug!(%why, "cluster message was not sent");
                }
            }
        }
    }
}

/// Closes `holder`, a connection of this node, if it loses against the newcomer. If the newcomer loses, returns the
/// conflict and the winner.
async fn resolve_conflict(
    policy: DevicePolicy,
    newcomer: &BoundDevice,
    holder: &Connection,
) -> Option<(Conflict, BoundDevice)> {
    let theirs = holder.binding().filter(|_| holder.closed().is_none())?;
    let theirs = BoundDevice::of(&theirs);
    match loser_of(policy, newcomer, &theirs)? {
        (Loser::Newcomer, conflict) => Some((conflict, theirs)),
        (Loser::Holder, conflict) => {
            close_loser(holder, conflict, &newcomer.name).await;
            None
        }
    }
}

async fn close_loser(connection: &Connection, conflict: Conflict, winner: &str) {
    if conflict == Conflict::OtherDevice {
        kick::send_kick_message(connection, winner).await;
    }
    connection.close(Disconnect::REPLACED).await;
}
