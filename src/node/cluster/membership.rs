//! Members of the cluster as this node knows them. The list is read with each renewal and whenever a fresh one is
//! needed.

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

/// Maximum age of the list used for requests, and so the longest time that a new node is overlooked.
pub(super) const AGE: Duration = Duration::from_secs(1);

/// Last list that was read.
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
    /// Every living member by id, this node included. Falls back to the last list if the engine does not answer.
    pub async fn members(&self) -> Arc<Vec<Member>> {
        if let Err(why) = self.refresh_members().await {
            tracing::debug!(%why, "the members are shown as they were known");
        }
        self.cluster.members.known()
    }

    /// Same as [`Node::members`], but uses a list younger than `age` without a read.
    pub(super) async fn members_within(&self, age: Duration) -> Arc<Vec<Member>> {
        let fresh = self.cluster.members.read.lock().is_some_and(|read| read.elapsed() < age);
        if fresh { self.cluster.members.known() } else { self.members().await }
    }

    /// Other members that accept connections.
    pub(super) async fn others(&self) -> Vec<Member> {
        let known = self.members_within(AGE).await;
        known.iter().filter(|member| member.gateway && member.id != *self.id()).cloned().collect()
    }

    /// Member whose connection ids have this number.
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
