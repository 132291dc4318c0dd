//! Membership of the cluster: members, their leases, the online users of each member, and increasing numbers per user.
//!
//! The engine stores this state; nodes run no consensus among themselves. Independent of connections.

use futures_util::future::BoxFuture;
use metrics::counter;

use super::Unavailable;
use crate::id::{NodeId, Uid};
use crate::telemetry::names;

/// One node, as the others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Name of the node.
    pub id: NodeId,
    /// Node number, part of its connection ids.
    pub number: u16,
    /// Incarnation, assigned by the engine at start. Of two members with one name, the greater incarnation is alive. 0
    /// before the first join.
    pub incarnation: u64,
    /// Address at which clients reach the node. Empty if the node knows none.
    pub address: String,
    /// True if the node accepts client connections.
    pub gateway: bool,
    /// True if the node reads from intakes.
    pub intake: bool,
    /// Version of Skylark.
    pub version: String,
    /// Live connections.
    pub connections: u64,
    /// Limit of live connections.
    pub capacity: u64,
    /// True while the node accepts no new connections.
    pub draining: bool,
    /// Start time, in milliseconds since 1970.
    pub started_at: i64,
}

/// Reason why a lease was not renewed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// The engine does not answer. Retry as long as the lease may still hold.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The lease expired, or a later incarnation of the same name has joined. Other nodes may already have reported the
    /// users of this node offline.
    #[error("the lease of node {0} is lost")]
    Lost(NodeId),
    /// Another living node has this name or number.
    #[error("{0}")]
    Taken(String),
}

/// A member whose lease expired without a leave, with some of its online users.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiredMember {
    /// Name of the member.
    pub id: NodeId,
    /// Incarnation whose lease expired.
    pub incarnation: u64,
    /// Users that were online there and on no other member. Each user is returned once, to one caller in the whole
    /// cluster.
    pub users: Vec<Uid>,
}

/// Keeps the membership of this node and lists the other members.
///
/// Guarantee: when several callers ask for the users of the same expired member, each user goes to one caller.
/// Time-outs use the clock of the engine, never wall clocks.
pub trait Roster: Send + Sync {
    /// Acquires a lease for `me` and returns its new incarnation. Users reported online earlier and not offline since
    /// are reported again under the new incarnation.
    ///
    /// # Errors
    /// [`LeaseError::Taken`] while another living node has its name or number.
    fn join(&self, me: &Member) -> BoxFuture<'_, Result<u64, LeaseError>>;

    /// Renews the lease and publishes the changed fields of `me`. Call it every three seconds: a lease lasts ten.
    ///
    /// # Errors
    /// [`LeaseError`].
    fn renew(&self, me: &Member) -> BoxFuture<'_, Result<(), LeaseError>>;

    /// Releases the lease. The online users of this node are dropped without an offline report.
    fn leave(&self) -> BoxFuture<'_, ()>;

    /// Lists the living members by id, this node included.
    ///
    /// # Errors
    /// [`Unavailable`].
    fn members(&self) -> BoxFuture<'_, Result<Vec<Member>, Unavailable>>;

    /// Returns a number greater than every number that any node got for this user before.
    ///
    /// # Errors
    /// [`Unavailable`].
    fn next_number(&self, uid: &Uid) -> BoxFuture<'_, Result<u64, Unavailable>>;

    /// Reports the first connection of the user on this node. Returns true if the user is online on no other member.
    ///
    /// # Errors
    /// [`Unavailable`]: the report is kept and sent once the engine is back.
    fn online(&self, uid: &Uid) -> BoxFuture<'_, Result<bool, Unavailable>>;

    /// Reports that the user has no connection on this node any more. Returns true if the user is online on no other
    /// member.
    ///
    /// # Errors
    /// Same as [`online`](Self::online).
    fn offline(&self, uid: &Uid) -> BoxFuture<'_, Result<bool, Unavailable>>;

    /// Returns expired members with the users that this caller must report offline. Empty if there is nothing to do.
    ///
    /// # Errors
    /// [`Unavailable`].
    fn expired(&self) -> BoxFuture<'_, Result<Vec<ExpiredMember>, Unavailable>>;
}

/// Counts a change of the node lease (taken, lost, given_back, fallen). All engines use it.
pub(super) fn count_lease_change(change: &'static str) {
    counter!(names::LEASE_CHANGES, "lease" => "node", "change" => change).increment(1);
}
