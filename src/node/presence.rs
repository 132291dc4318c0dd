//! The coming and going of users as the whole cluster sees it: what is held for them, who is told that they are here.
//!
//! Knows no socket. A user's first and last connection on this node change what the broker holds and what the roster
//! counts; both wait for the engine, so what belongs to one name happens in turns.

use ahash::RandomState;
use tokio::sync::{Mutex, MutexGuard};

use super::{Node, unavailable};
use crate::broker::Stream;
use crate::broker::roster::Fallen;
use crate::claim::Refusal;
use crate::disconnect::Disconnect;
use crate::id::{ConnectionId, Room, Uid};
use crate::plugin::{Event, Identity};

/// Whose turn it is: at most one task at a time changes what this node holds for one name. Names share turns, so nobody
/// asks for a second one while it has one.
pub(super) struct Turns {
    hasher: RandomState,
    slots: Box<[Mutex<()>]>,
}

/// So many that a storm of connects seldom meets in one.
const TURNS: usize = 1024;
/// Users whose going could not be told while the engine was away; more are forgotten.
const MAX_UNTOLD: usize = 100_000;

impl Default for Turns {
    fn default() -> Self {
        Self { hasher: RandomState::new(), slots: (0..TURNS).map(|_| Mutex::default()).collect() }
    }
}

impl Turns {
    /// Waits for the turn of `name`.
    pub(super) async fn of(&self, name: &str) -> MutexGuard<'_, ()> {
        let slot = usize::try_from(self.hasher.hash_one(name) % TURNS as u64).expect("below TURNS");
        self.slots[slot].lock().await
    }
}

impl Node {
    /// The user has a connection here (`first`: it had none before): from now on the node gets what is for the user, and
    /// the cluster knows. Whether it has come online with it.
    ///
    /// # Errors
    /// A 503 when the engine does not answer: what the client would be promised could not be kept.
    pub(super) async fn enter(&self, uid: &Uid, first: bool) -> Result<bool, Refusal> {
        let _turn = self.turns.of(uid.as_str()).await;
        // An earlier connection of the user may be here still that could not be told.
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
            return Err(Refusal::new("503", Disconnect::CUT_OFF.reason));
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

    /// The user's last connection here, `identity`'s, is gone: unless another one has come meanwhile, the node wants no
    /// more of what is for the user, and the plugins hear that it is offline if no other node has it.
    pub(super) async fn quit(&self, identity: Identity, hops: u8) {
        let _turn = self.turns.of(identity.uid.as_str()).await;
        if self.hub.has_user(identity.uid.as_str()) {
            return;
        }
        self.broker.release(&Stream::User(identity.uid.clone()));
        let was_told = !self.cluster.unannounced.lock().remove(&identity.uid);
        let gone = self.cluster.roster.offline(&identity.uid).await;
        // Without a lease the others tell it, for all users of this node at once.
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

    /// Tells those whose going the engine could not be asked about, now that it answers again.
    pub(super) async fn tell_untold(&self) {
        let untold = std::mem::take(&mut *self.cluster.untold.lock());
        for identity in untold {
            self.quit(identity, 0).await;
        }
    }

    /// Tells the users of members that fell offline: each is given to one node in the whole cluster.
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

    /// A member has come into the room: from now on the node gets what is for it.
    ///
    /// # Errors
    /// As [`Node::enter`].
    pub(super) async fn hold_room(&self, room: &Room) -> Result<(), Refusal> {
        let _turn = self.turns.of(room.as_str()).await;
        let held = self.broker.hold(Stream::Room(room.clone())).await;
        held.map_err(|why| unavailable(&why))
    }

    /// A member has left the room: unless one is left, the node wants no more of what is for it.
    pub(super) async fn release_room(&self, room: &Room) {
        let _turn = self.turns.of(room.as_str()).await;
        if !self.hub.has_room(room.as_str()) {
            self.broker.release(&Stream::Room(room.clone()));
        }
    }
}
