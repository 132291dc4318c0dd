//! Presence of users in the whole cluster: subscriptions, roster entries, and online and offline events.
//!
//! Independent of sockets. A user's first and last connection on this node change the subscription and the roster
//! entry. Both wait for the engine, so changes for one name run one after the other.

use ahash::RandomState;
use tokio::sync::{Mutex, MutexGuard};

use super::{Node, unavailable};
use crate::broker::Stream;
use crate::broker::roster::Fallen;
use crate::claim::Refusal;
use crate::code::Code;
use crate::disconnect::Disconnect;
use crate::id::{ConnectionId, Room, Uid};
use crate::plugin::{Event, Identity};

/// Locks by name. At most one task at a time changes the subscription of a name. Names share locks, so a task must not
/// take a second one.
pub(super) struct Turns {
    hasher: RandomState,
    slots: Box<[Mutex<()>]>,
}

/// Number of locks, large enough that concurrent connects seldom share one.
const TURNS: usize = 1024;
/// Maximum number of offline reports kept while the engine is unreachable. Further ones are dropped.
const MAX_UNTOLD: usize = 100_000;

impl Default for Turns {
    fn default() -> Self {
        Self { hasher: RandomState::new(), slots: (0..TURNS).map(|_| Mutex::default()).collect() }
    }
}

impl Turns {
    /// Waits for the lock of `name`.
    pub(super) async fn of(&self, name: &str) -> MutexGuard<'_, ()> {
        let slot = usize::try_from(self.hasher.hash_one(name) % TURNS as u64).expect("below TURNS");
        self.slots[slot].lock().await
    }
}

impl Node {
    /// Handles a new connection of the user on this node. `first` is true if the user had none here before. Subscribes
    /// the node to the user and updates the roster. Returns true if the user has come online with it.
    ///
    /// # Errors
    /// A 503 if the engine does not answer, because delivery to the client cannot be guaranteed.
    pub(super) async fn enter(&self, uid: &Uid, first: bool) -> Result<bool, Refusal> {
        let _turn = self.turns.of(uid.as_str()).await;
        // The online report of an earlier connection of the user may have failed.
        let first = first || self.cluster.unannounced.lock().contains(uid);
        let entered = self.hold_user(uid, first).await;
        if first {
            let mut unannounced = self.cluster.unannounced.lock();
            let _ = if entered.is_ok() { unannounced.remove(uid) } else { unannounced.insert(uid.clone()) };
        }
        entered
    }

    async fn hold_user(&self, uid: &Uid, first: bool) -> Result<bool, Refusal> {
        if !self.cluster.lease.is_held() {
            return Err(Refusal::new(Code::UNAVAILABLE, Disconnect::CUT_OFF.reason));
        }
        let held = self.broker.hold(Stream::User(uid.clone()));
        let online = if first {
            let (held, online) = tokio::join!(held, self.cluster.roster.online(uid));
            held.and(online)
        } else {
            held.await.map(|()| false)
        };
        online.map_err(|why| unavailable(&why))
    }

    /// Handles the end of the user's last connection here, the one of `identity`. Unless the user has a new connection,
    /// the node unsubscribes. Plugins get an offline event if no other node has the user.
    pub(super) async fn quit(&self, identity: Identity, hops: u8) {
        let _turn = self.turns.of(identity.uid.as_str()).await;
        if self.hub.has_user(identity.uid.as_str()) {
            return;
        }
        self.broker.release(&Stream::User(identity.uid.clone()));
        let was_told = !self.cluster.unannounced.lock().remove(&identity.uid);
        let gone = self.cluster.roster.offline(&identity.uid).await;
        // Without a lease, other nodes report all users of this node offline.
        if !self.cluster.lease.is_held() || !was_told {
            return;
        }
        match gone {
            Ok(true) => self.plugins.notify(Event::Offline(identity), hops),
            Ok(false) => {}
            Err(why) => {
                tracing::debug!(%why, "a user's going is told later");
                let mut untold = self.cluster.untold.lock();
                if untold.len() < MAX_UNTOLD {
                    untold.push(identity);
                }
            }
        }
    }

    /// Repeats failed offline reports, now that the engine answers again.
    pub(super) async fn tell_untold(&self) {
        let untold = std::mem::take(&mut *self.cluster.untold.lock());
        for identity in untold {
            self.quit(identity, 0).await;
        }
    }

    /// Sends offline events for the users of fallen members. Each user goes to one node in the whole cluster.
    pub(super) async fn tell_fallen(&self) {
        loop {
            let fallen = match self.cluster.roster.fallen().await {
                Ok(fallen) if fallen.is_empty() => return,
                Ok(fallen) => fallen,
                Err(why) => return tracing::debug!(%why, "fallen members are looked for later"),
            };
            for Fallen { id, incarnation, users } in fallen {
                tracing::warn!(node = %id, incarnation, users = users.len(), "a node fell: its users are told offline");
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
    /// Same as [`Node::enter`].
    pub(super) async fn hold_room(&self, room: &Room) -> Result<(), Refusal> {
        let _turn = self.turns.of(room.as_str()).await;
        let held = self.broker.hold(Stream::Room(room.clone())).await;
        held.map_err(|why| unavailable(&why))
    }

    /// Unsubscribes the node from the room if the member that left was the last one.
    pub(super) async fn release_room(&self, room: &Room) {
        let _turn = self.turns.of(room.as_str()).await;
        if !self.hub.has_room(room.as_str()) {
            self.broker.release(&Stream::Room(room.clone()));
        }
    }
}
