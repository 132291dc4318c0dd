//! Membership of this node in the cluster, and the other members as this node knows them.
//!
//! The list of members is read with each renewal of the lease and whenever a fresh one is needed. [`super::lease`]
//! keeps the lease.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::time::Instant;

use super::lease::{Lease, LeaseState};
use crate::broker::Unavailable;
use crate::broker::roster::{LeaseError, Member, Roster};
use crate::clock;
use crate::config::{Config, Service};
use crate::hub::Hub;
use crate::id::NodeId;
use crate::telemetry::names;

/// Maximum age of the list used for requests, and so the longest time that a new node is overlooked.
pub(super) const AGE: Duration = Duration::from_secs(1);

/// This node and the other members.
pub(in crate::node) struct Membership {
    /// This node. [`Membership::own_member`] fills in the fields that change at run time.
    me: Member,
    hub: Arc<Hub>,
    roster: Arc<dyn Roster>,
    pub(super) lease: Lease,
    draining: AtomicBool,
    /// Last list that was read.
    list: ArcSwap<Vec<Member>>,
    read: Mutex<Option<Instant>>,
}

impl Membership {
    pub(in crate::node) fn new(config: &Config, hub: Arc<Hub>, roster: Arc<dyn Roster>) -> Self {
        let has_service = |service| config.listeners.iter().any(|listener| listener.has(service));
        Self {
            me: Member {
                id: config.node.id.clone(),
                number: config.node.number,
                incarnation: 0,
                address: config.node.address.clone(),
                gateway: [Service::Ws, Service::Cim, Service::CimTcp].into_iter().any(has_service),
                intake: !config.intakes.is_empty(),
                version: env!("CARGO_PKG_VERSION").to_owned(),
                connections: 0,
                capacity: config.limits.connections as u64,
                draining: false,
                started_at: clock::now_millis(),
            },
            hub,
            roster,
            lease: Lease::default(),
            draining: AtomicBool::new(false),
            list: ArcSwap::default(),
            read: Mutex::default(),
        }
    }

    /// This node, without the fields that change at run time.
    pub(in crate::node) fn me(&self) -> &Member {
        &self.me
    }

    /// Current description of this node for the others.
    pub(in crate::node) fn own_member(&self) -> Member {
        Member {
            incarnation: self.lease.incarnation(),
            connections: self.hub.live() as u64,
            draining: self.is_draining(),
            ..self.me.clone()
        }
    }

    /// True if the node may accept users.
    pub(in crate::node) fn is_held(&self) -> bool {
        self.lease.is_held()
    }

    /// Reason why the node may not accept users, in one sentence.
    pub(in crate::node) fn fault(&self) -> Option<String> {
        self.lease.fault()
    }

    /// Joins the cluster.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub(in crate::node) async fn join(&self) -> Result<(), LeaseError> {
        let joined = self.roster.join(&self.own_member()).await;
        match &joined {
            Ok(incarnation) => {
                self.lease.set(LeaseState::Held { incarnation: *incarnation });
                self.refresh().await;
                self.lease.renewed.notify_one();
            }
            Err(why) => self.lease.set(LeaseState::NotHeld(why.to_string())),
        }
        joined.map(drop)
    }

    /// Renews the lease once.
    pub(super) async fn renew(&self) -> Result<(), LeaseError> {
        self.roster.renew(&self.own_member()).await
    }

    /// Releases the lease.
    pub(in crate::node) async fn leave(&self) {
        self.lease.set(LeaseState::NotHeld("the node has left".to_owned()));
        self.roster.leave().await;
    }

    /// Tells the other nodes that this one drains.
    pub(in crate::node) fn begin_drain(&self) {
        self.draining.store(true, Ordering::Release);
        self.lease.renew_now.notify_one();
    }

    /// True from [`Membership::begin_drain`] on.
    pub(in crate::node) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Members as of the last read.
    pub(super) fn known(&self) -> Arc<Vec<Member>> {
        self.list.load_full()
    }

    /// Every living member by id, this node included. Falls back to the last list if the engine does not answer.
    pub(in crate::node) async fn members(&self) -> Arc<Vec<Member>> {
        if let Err(why) = self.read().await {
            tracing::debug!(%why, "member list cannot be read; using the last one");
        }
        self.known()
    }

    /// Same as [`Membership::members`], but uses a list younger than `age` without a read.
    pub(super) async fn members_within(&self, age: Duration) -> Arc<Vec<Member>> {
        let fresh = self.read.lock().is_some_and(|read| read.elapsed() < age);
        if fresh { self.known() } else { self.members().await }
    }

    /// Other members that accept connections.
    pub(super) async fn others(&self) -> Vec<Member> {
        let known = self.members_within(AGE).await;
        known.iter().filter(|member| member.gateway && member.id != self.me.id).cloned().collect()
    }

    /// Member whose connection ids have this number.
    pub(super) async fn member_of(&self, number: u16) -> Option<NodeId> {
        let known = self.members_within(AGE).await;
        known.iter().find(|member| member.number == number).map(|member| member.id.clone())
    }

    /// Reads the list. Keeps the last one if the engine does not answer.
    pub(super) async fn refresh(&self) {
        if let Err(why) = self.read().await {
            tracing::debug!(%why, "member list cannot be read; keeping the last one");
        }
    }

    async fn read(&self) -> Result<(), Unavailable> {
        let members = self.roster.members().await?;
        let before = self.known();
        let incarnations =
            |members: &[Member]| members.iter().map(|m| (m.id.clone(), m.incarnation)).collect::<Vec<_>>();
        if incarnations(&before) != incarnations(&members) {
            tracing::info!(members = ?incarnations(&members), "cluster members changed");
        }
        metrics::gauge!(names::MEMBERS).set(members.len() as f64);
        self.list.store(Arc::new(members));
        *self.read.lock() = Some(Instant::now());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::memory::MemoryRoster;
    use crate::hub::Settings;
    use crate::id::IdSequence;

    #[tokio::test]
    async fn membership_needs_a_roster_and_a_hub_only() {
        let config = Config::default();
        let ids = Arc::new(IdSequence::new(config.node.number, std::time::SystemTime::now()));
        let (hub, _shards) = Hub::new(&Settings::from(&config), ids);
        let membership = Membership::new(&config, Arc::new(hub), Arc::new(MemoryRoster::default()));
        assert!(!membership.is_held());
        membership.join().await.unwrap();
        assert!(membership.is_held() && membership.others().await.is_empty());
        assert_eq!(membership.member_of(config.node.number).await, Some(config.node.id));
        membership.begin_drain();
        assert!(membership.own_member().draining);
        membership.leave().await;
        assert_eq!(membership.fault().unwrap(), "the node is not in the cluster: the node has left");
    }
}
