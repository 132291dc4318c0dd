//! Who belongs to the cluster: members and their leases, the users that each has online, numbers that only grow.
//!
//! The engine keeps it; nodes never agree among themselves. Knows no connection.

use futures_util::future::BoxFuture;
use metrics::counter;

use super::Unavailable;
use crate::id::{NodeId, Uid};
use crate::telemetry::names;

/// One node, as the others see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub id: NodeId,
    /// The number inside its connection ids.
    pub number: u16,
    /// Taken from the engine at start: of two members with one name the greater is the living one. 0 = none yet.
    pub incarnation: u64,
    /// Where clients reach it; empty = nowhere that it knows of.
    pub address: String,
    /// Whether it holds connections.
    pub gateway: bool,
    /// Whether it feeds from intakes.
    pub intake: bool,
    /// Skylark's version.
    pub version: String,
    /// Live connections.
    pub connections: u64,
    /// Most live connections.
    pub capacity: u64,
    /// It takes no new connection.
    pub draining: bool,
    /// When it started, milliseconds since 1970.
    pub started_at: i64,
}

/// Why a lease was not renewed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LeaseError {
    /// The engine does not answer: try again, as long as the lease may still hold.
    #[error(transparent)]
    Unavailable(#[from] Unavailable),
    /// The lease ran out, or a later incarnation of the same name has come: the node's users may be told offline
    /// already.
    #[error("the lease of node {0} is gone")]
    Lost(NodeId),
    /// Another living node has this name or number.
    #[error("{0}")]
    Taken(String),
}

/// A member whose lease ended without a goodbye, with some of the users it had online.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fallen {
    /// Who.
    pub id: NodeId,
    /// Which life of it.
    pub incarnation: u64,
    /// Users that it had online and no other member has. Each is given once, to one caller in the whole cluster.
    pub users: Vec<Uid>,
}

/// Keeps the membership of one node and tells of the others.
///
/// Guarantee: of several callers that ask for the same fallen member's users, each user goes to one. Time-outs are the
/// engine's, never wall clocks.
pub trait Roster: Send + Sync {
    /// Takes an incarnation and a lease for `me`; the incarnation. Users that were told online here and not offline since
    /// are told again, as this life's.
    ///
    /// # Errors
    /// [`LeaseError::Taken`] while another living node has its name or number.
    fn join(&self, me: &Member) -> BoxFuture<'_, Result<u64, LeaseError>>;

    /// Keeps the lease and tells the others what has changed in `me`. To be called every three seconds: a lease lives ten.
    ///
    /// # Errors
    /// [`LeaseError`].
    fn renew(&self, me: &Member) -> BoxFuture<'_, Result<(), LeaseError>>;

    /// Gives the lease back: what it had online is forgotten, nobody is told.
    fn leave(&self) -> BoxFuture<'_, ()>;

    /// Every living member, this node included, by id.
    ///
    /// # Errors
    /// [`Unavailable`].
    fn members(&self) -> BoxFuture<'_, Result<Vec<Member>, Unavailable>>;

    /// A number greater than each that any node got for this user before.
    ///
    /// # Errors
    /// [`Unavailable`].
    fn number(&self, uid: &Uid) -> BoxFuture<'_, Result<u64, Unavailable>>;

    /// The user has its first connection here. `true` when it had none on any other member.
    ///
    /// # Errors
    /// [`Unavailable`]: remembered, and told once the engine is back.
    fn online(&self, uid: &Uid) -> BoxFuture<'_, Result<bool, Unavailable>>;

    /// The user has no connection here any more. `true` when it has none on any other member either.
    ///
    /// # Errors
    /// As [`online`](Self::online).
    fn offline(&self, uid: &Uid) -> BoxFuture<'_, Result<bool, Unavailable>>;

    /// Members that fell, with users that this caller is to tell offline; empty when there is nothing to do.
    ///
    /// # Errors
    /// [`Unavailable`].
    fn fallen(&self) -> BoxFuture<'_, Result<Vec<Fallen>, Unavailable>>;
}

/// Counts what became of a node's lease (taken, lost, given_back, fallen), in every engine alike.
pub(super) fn lease_changed(change: &'static str) {
    counter!(names::LEASE_CHANGES, "lease" => "node", "change" => change).increment(1);
}
