//! The members of the cluster as this node knows them: read again with each renewal, and when somebody wants to be sure.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::Node;
use crate::broker::Unavailable;
use crate::broker::roster::Member;
use crate::id::NodeId;
use crate::telemetry::names;

/// How old the list may be by which others are asked: a node that has just come is not overlooked for longer.
pub(super) const AGE: Duration = Duration::from_secs(1);

/// The list that was read last.
#[derive(Default)]
pub(super) struct Members {
    list: ArcSwap<Vec<Member>>,
    read: Mutex<Option<Instant>>,
}

impl Members {
    pub(super) fn known(&self) -> Arc<Vec<Member>> {
        self.list.load_full()
    }
}

impl Node {
    /// Every living member, this node included, by id; as the engine knows them if it answers, else as they were known.
    pub async fn members(&self) -> Arc<Vec<Member>> {
        if let Err(why) = self.refresh_members().await {
            tracing::debug!(%why, "the members are shown as they were known");
        }
        self.cluster.members.known()
    }

    /// The same, at most so old.
    pub(super) async fn members_within(&self, age: Duration) -> Arc<Vec<Member>> {
        let fresh = self.cluster.members.read.lock().is_some_and(|read| read.elapsed() < age);
        if fresh { self.cluster.members.known() } else { self.members().await }
    }

    /// The other members that hold connections.
    pub(super) async fn others(&self) -> Vec<Member> {
        let known = self.members_within(AGE).await;
        known.iter().filter(|member| member.gateway && member.id != *self.id()).cloned().collect()
    }

    /// The member whose connections have this number in their ids.
    pub(super) async fn member_of(&self, number: u16) -> Option<NodeId> {
        let known = self.members_within(AGE).await;
        known.iter().find(|member| member.number == number).map(|member| member.id.clone())
    }

    pub(super) async fn refresh_members(&self) -> Result<(), Unavailable> {
        let members = self.cluster.roster.members().await?;
        let before = self.cluster.members.known();
        let of = |members: &[Member]| members.iter().map(|m| (m.id.clone(), m.incarnation)).collect::<Vec<_>>();
        if of(&before) != of(&members) {
            tracing::info!(members = ?of(&members), "the cluster's members");
        }
        metrics::gauge!(names::MEMBERS).set(members.len() as f64);
        self.cluster.members.list.store(Arc::new(members));
        *self.cluster.members.read.lock() = Some(Instant::now());
        Ok(())
    }
}
