//! Presence of users in the whole cluster: subscriptions, roster entries, and online and offline events.
//!
//! Independent of sockets. A user's first and last connection on this node change the subscription and the roster
//! entry. Both wait for the engine, so changes for one name run one after the other.

use std::collections::HashSet;
use std::sync::Arc;

use ahash::RandomState;
use tokio::sync::{Mutex, MutexGuard};

use super::cluster::membership::Membership;
use super::unavailable;
use crate::broker::roster::{ExpiredMember, Roster};
use crate::broker::{Broker, Subscription};
use crate::claim::Refusal;
use crate::code::Code;
use crate::disconnect::Disconnect;
use crate::hub::Hub;
use crate::id::{ConnectionId, Room, Uid};
use crate::plugin::{Event, Identity, PluginHost};

/// Number of locks, large enough that concurrent connects seldom share one.
const LOCKS: usize = 1024;
/// Maximum number of offline reports kept while the engine is unreachable. Further ones are dropped.
const MAX_PENDING_OFFLINE: usize = 100_000;

/// Keeps subscriptions and roster in step with the connections of this node.
pub(super) struct PresenceTracker {
    hub: Arc<Hub>,
    broker: Arc<dyn Broker>,
    roster: Arc<dyn Roster>,
    plugins: Arc<dyn PluginHost>,
    membership: Arc<Membership>,
    locks: NameLocks,
    /// Users with an offline report that waits for the engine.
    pub(super) pending_offline: parking_lot::Mutex<Vec<Identity>>,
    /// Users with a connection here and a failed online report.
    unreported_online: parking_lot::Mutex<HashSet<Uid>>,
}

impl PresenceTracker {
    pub(super) fn new(
        hub: Arc<Hub>,
        broker: Arc<dyn Broker>,
        roster: Arc<dyn Roster>,
        plugins: Arc<dyn PluginHost>,
        membership: Arc<Membership>,
    ) -> Self {
        Self {
            hub,
            broker,
            roster,
            plugins,
            membership,
            locks: NameLocks::default(),
            pending_offline: parking_lot::Mutex::default(),
            unreported_online: parking_lot::Mutex::default(),
        }
    }

    /// Handles a new connection of the user on this node. `first` is true if the user had none here before. Subscribes
    /// the node to the user and updates the roster. Returns true if the user has come online with it.
    ///
    /// # Errors
    /// A 503 if the engine does not answer, because delivery to the client cannot be guaranteed.
    pub(super) async fn add_connection(&self, uid: &Uid, first: bool) -> Result<bool, Refusal> {
        let _lock = self.locks.lock(uid.as_str()).await;
        // The online report of an earlier connection of the user may have failed.
        let first = first || self.unreported_online.lock().contains(uid);
        let added = self.subscribe_user(uid, first).await;
        if first {
            let mut unreported_online = self.unreported_online.lock();
            let _ = if added.is_ok() { unreported_online.remove(uid) } else { unreported_online.insert(uid.clone()) };
        }
        added
    }

    async fn subscribe_user(&self, uid: &Uid, first: bool) -> Result<bool, Refusal> {
        if !self.membership.is_held() {
            return Err(Refusal::new(Code::UNAVAILABLE, Disconnect::CUT_OFF.reason));
        }
        let subscribed = self.broker.subscribe(Subscription::User(uid.clone()));
        let online = if first {
            let (subscribed, online) = tokio::join!(subscribed, self.roster.online(uid));
            subscribed.and(online)
        } else {
            subscribed.await.map(|()| false)
        };
        online.map_err(|why| unavailable(&why))
    }

    /// Handles the end of the user's last connection here, the one of `identity`. Unless the user has a new connection,
    /// the node unsubscribes. Plugins get an offline event if no other node has the user.
    pub(super) async fn remove_user(&self, identity: Identity, hops: u8) {
        let _lock = self.locks.lock(identity.uid.as_str()).await;
        if self.hub.has_user(identity.uid.as_str()) {
            return;
        }
        self.broker.unsubscribe(&Subscription::User(identity.uid.clone()));
        let was_reported = !self.unreported_online.lock().remove(&identity.uid);
        let gone = self.roster.offline(&identity.uid).await;
        // Without a lease, other nodes report all users of this node offline.
        if !self.membership.is_held() || !was_reported {
            return;
        }
        match gone {
            Ok(true) => self.plugins.notify(Event::Offline(identity), hops),
            Ok(false) => {}
            Err(why) => {
                tracing::debug!(%why, "offline report deferred");
                let mut pending_offline = self.pending_offline.lock();
                if pending_offline.len() < MAX_PENDING_OFFLINE {
                    pending_offline.push(identity);
                }
            }
        }
    }

    /// Repeats failed offline reports, now that the engine answers again.
    pub(super) async fn repeat_offline_reports(&self) {
        let pending_offline = std::mem::take(&mut *self.pending_offline.lock());
        for identity in pending_offline {
            self.remove_user(identity, 0).await;
        }
    }

    /// Sends offline events for the users of expired members. Each user goes to one node in the whole cluster.
    pub(super) async fn report_expired_members(&self) {
        loop {
            let expired = match self.roster.expired().await {
                Ok(expired) if expired.is_empty() => return,
                Ok(expired) => expired,
                Err(why) => return tracing::debug!(%why, "expired members cannot be read; retrying later"),
            };
            for ExpiredMember { id, incarnation, users } in expired {
                let count = users.len();
                tracing::warn!(node = %id, incarnation, users = count, "node lost: its users are reported offline");
                for uid in users {
                    let identity = Identity { uid, cid: ConnectionId::UNKNOWN, device: None, channel: None };
                    self.plugins.notify(Event::Offline(identity), 0);
                }
            }
        }
    }

    /// Subscribes the node to the room of a new member.
    ///
    /// # Errors
    /// Same as [`PresenceTracker::add_connection`].
    pub(super) async fn subscribe_room(&self, room: &Room) -> Result<(), Refusal> {
        let _lock = self.locks.lock(room.as_str()).await;
        let subscribed = self.broker.subscribe(Subscription::Room(room.clone())).await;
        subscribed.map_err(|why| unavailable(&why))
    }

    /// Unsubscribes the node from the room if the member that left was the last one.
    pub(super) async fn unsubscribe_room(&self, room: &Room) {
        let _lock = self.locks.lock(room.as_str()).await;
        if !self.hub.has_room(room.as_str()) {
            self.broker.unsubscribe(&Subscription::Room(room.clone()));
        }
    }
}

/// Locks by name. At most one task at a time changes the subscription of a name. Names share locks, so a task must not
/// take a second one.
struct NameLocks {
    hasher: RandomState,
    slots: Box<[Mutex<()>]>,
}

impl Default for NameLocks {
    fn default() -> Self {
        Self { hasher: RandomState::new(), slots: (0..LOCKS).map(|_| Mutex::default()).collect() }
    }
}

impl NameLocks {
    /// Waits for the lock of `name`.
    async fn lock(&self, name: &str) -> MutexGuard<'_, ()> {
        let slot = usize::try_from(self.hasher.hash_one(name) % LOCKS as u64).expect("below LOCKS");
        self.slots[slot].lock().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::memory::MemoryRoster;
    use crate::config::Config;
    use crate::hub::Settings;
    use crate::id::IdSequence;
    use crate::node::fake::Scripted;

    #[tokio::test]
    async fn presence_needs_no_node() {
        let config = Config::default();
        let ids = Arc::new(IdSequence::new(config.node.number, std::time::SystemTime::now()));
        let (hub, _shards) = Hub::new(&Settings::from(&config), ids);
        let (hub, roster) = (Arc::new(hub), Arc::new(MemoryRoster::default()) as Arc<dyn Roster>);
        let script = Arc::new(Scripted::default());
        let membership = Arc::new(Membership::new(&config, Arc::clone(&hub), Arc::clone(&roster)));
        let presence = PresenceTracker::new(
            hub,
            Arc::clone(&script) as _,
            roster,
            Arc::clone(&script) as _,
            Arc::clone(&membership),
        );
        let uid = Uid::parse("1074").unwrap();
        assert_eq!(presence.add_connection(&uid, true).await.unwrap_err().code, "503", "no lease yet");
        membership.join().await.unwrap();
        assert_eq!(presence.add_connection(&uid, true).await, Ok(true));
        presence.remove_user(Identity { uid, cid: ConnectionId::UNKNOWN, device: None, channel: None }, 0).await;
        assert_eq!(script.subscriptions(), ["subscribe 1074", "unsubscribe 1074"]);
    }
}
