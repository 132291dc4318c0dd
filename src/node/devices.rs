//! Devices of a user: of two connections that exclude each other, the earlier bind loses, on one node and across nodes.
//!
//! [`matrix`] decides between two connections. A bind is announced to every node that has the user. A node subscribes
//! to the user before it announces, so of two concurrent binds, the other node receives at least the later
//! announcement. If its own bind has the greater number, it announces that back, so exactly one stays.

pub(super) mod matrix;

use std::sync::Arc;

use super::cluster::word;
use super::{kick, unavailable};
use crate::broker::roster::Roster;
use crate::broker::{Address, Broker};
use crate::claim::Refusal;
use crate::config::DevicePolicy;
use crate::disconnect::Disconnect;
use crate::hub::{Binding, Connection, Hub};
use crate::id::{NodeId, Uid};
use crate::protocol::cluster as wire;
use matrix::{Conflict, Contender, Loser, contest};

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
    pub(super) async fn settle(&self, connection: &Connection) -> Result<(), Refusal> {
        self.settle_here(connection).await;
        self.announce(connection).await
    }

    async fn settle_here(&self, connection: &Connection) {
        let Some(mine) = connection.binding() else { return };
        let newcomer = Contender::of(&mine);
        for other in self.hub.user(mine.uid.as_str()) {
            if other.id() == connection.id() {
                continue;
            }
            if let Some((conflict, winner)) = challenge(connection.devices(), &newcomer, &other).await {
                dismiss(connection, conflict, &winner.name).await;
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
        let newcomer = Contender::of(&binding);
        if !newcomer.excludes_any() {
            return Ok(());
        }
        let word = word::contender(&binding.uid, policy, &newcomer);
        let told = self.broker.send_cluster_message(Address::User(binding.uid.clone()), word).await;
        told.map(drop).map_err(|why| unavailable(&why))
    }

    /// Handles a bind on `from`. Closes the connections here that lose against it. If the new one loses, sends the
    /// winner back.
    pub(super) async fn meet(&self, from: &NodeId, contender: wire::Contender) {
        let (uid, policy, newcomer) = match word::read_contender(contender) {
            Ok(read) => read,
            Err(why) => return tracing::warn!(%from, %why, "bind announcement cannot be decoded; dropped"),
        };
        for holder in self.hub.user(uid.as_str()) {
            if let Some((_, winner)) = challenge(policy, &newcomer, &holder).await {
                let told = self
                    .broker
                    .send_cluster_message(Address::Node(from.clone()), word::contender(&uid, policy, &winner))
                    .await;
                if let Err(why) = told {
                    tracing::debug!(%why, "cluster message was not sent");
                }
            }
        }
    }
}

/// Closes `holder`, a connection of this node, if it loses against the newcomer. If the newcomer loses, returns the
/// conflict and the winner.
async fn challenge(policy: DevicePolicy, newcomer: &Contender, holder: &Connection) -> Option<(Conflict, Contender)> {
    let theirs = holder.binding().filter(|_| holder.closed().is_none())?;
    let theirs = Contender::of(&theirs);
    match contest(policy, newcomer, &theirs)? {
        (Loser::Newcomer, conflict) => Some((conflict, theirs)),
        (Loser::Holder, conflict) => {
            dismiss(holder, conflict, &newcomer.name).await;
            None
        }
    }
}

async fn dismiss(connection: &Connection, conflict: Conflict, winner: &str) {
    if conflict == Conflict::OtherDevice {
        kick::tell(connection, winner).await;
    }
    connection.close(Disconnect::REPLACED).await;
}
