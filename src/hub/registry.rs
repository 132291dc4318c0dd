//! Connections by id and by user. Independent of rooms and shards.
//!
//! The maps are sharded to reduce contention, and hashed with a secret key, because clients choose uids.

use std::collections::{BTreeMap, HashMap};
use std::ops;
use std::sync::atomic::{AtomicUsize, Ordering};

use ahash::RandomState;
use metrics::gauge;
use parking_lot::RwLock;
use smallvec::SmallVec;

use super::connection::Connection;
use super::{Binding, Bound, Former};
use crate::id::{ConnectionId, Uid};
use crate::telemetry::names;

/// Connections of one user, mostly one or two.
pub(super) type UserConnections = SmallVec<[Connection; 2]>;

const USER_MAPS: usize = 64;
const ID_MAPS: usize = 16;

/// Connections by id and by user.
pub(super) struct Registry {
    hasher: RandomState,
    users: Box<[RwLock<HashMap<Uid, UserConnections, RandomState>>]>,
    /// Ordered, so that a listing can continue after an id.
    by_id: Box<[RwLock<BTreeMap<u64, Connection>>]>,
    live: AtomicUsize,
    bound: AtomicUsize,
    online: AtomicUsize,
}

impl Registry {
    pub(super) fn new() -> Self {
        let hasher = RandomState::new();
        Self {
            users: (0..USER_MAPS).map(|_| RwLock::new(HashMap::with_hasher(hasher.clone()))).collect(),
            by_id: (0..ID_MAPS).map(|_| RwLock::default()).collect(),
            hasher,
            live: AtomicUsize::new(0),
            bound: AtomicUsize::new(0),
            online: AtomicUsize::new(0),
        }
    }

    /// Counts a new connection, unless `limit` is reached.
    pub(super) fn try_count(&self, limit: usize) -> bool {
        let next = |live| (live < limit).then_some(live + 1);
        let before = self.live.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        if let Ok(before) = before {
            set_gauge(names::CONNECTIONS, before + 1);
        }
        before.is_ok()
    }

    pub(super) fn insert(&self, connection: &Connection) {
        self.id_map(connection.id()).write().insert(connection.id().as_u64(), connection.clone());
    }

    /// Binds the connection and returns the changes. No effect on a detached connection.
    pub(super) fn bind(&self, connection: &Connection, mut binding: Binding) -> Bound {
        let hash = self.hash(binding.uid.as_str());
        // All connections of a user share one allocation of the uid.
        if let Some((uid, _)) = self.user_map(hash).read().get_key_value(&binding.uid) {
            binding.uid = uid.clone();
        }
        let uid = binding.uid.clone();
        let bound = connection.set_binding(binding, hash, |before| {
            let former = match before {
                Some(before) if before.uid == uid => return Bound::default(),
                Some(before) => Some(Former { last: self.unlist(&before.uid, connection), binding: before }),
                None => {
                    self.bound.fetch_add(1, Ordering::Relaxed);
                    None
                }
            };
            let mut users = self.user_map(hash).write();
            let connections = users.entry(uid).or_default();
            connections.push(connection.clone());
            let first = connections.len() == 1;
            if first {
                let before = self.online.fetch_add(1, Ordering::Relaxed);
                set_gauge(names::USERS, before + 1);
            }
            Bound { first, former }
        });
        bound.unwrap_or_default()
    }

    /// Removes the connection and returns true if it was its user's last one. Call it once, after no bind is possible.
    pub(super) fn remove(&self, connection: &Connection, binding: Option<&Binding>) -> bool {
        self.id_map(connection.id()).write().remove(&connection.id().as_u64());
        let before = self.live.fetch_sub(1, Ordering::Relaxed);
        set_gauge(names::CONNECTIONS, before - 1);
        let Some(binding) = binding else { return false };
        self.bound.fetch_sub(1, Ordering::Relaxed);
        self.unlist(&binding.uid, connection)
    }

    pub(super) fn connection(&self, id: ConnectionId) -> Option<Connection> {
        self.id_map(id).read().get(&id.as_u64()).cloned()
    }

    /// Returns the connections of the user.
    pub(super) fn user(&self, uid: &str) -> UserConnections {
        self.user_map(self.hash(uid)).read().get(uid).cloned().unwrap_or_default()
    }

    pub(super) fn has_user(&self, uid: &str) -> bool {
        self.user_map(self.hash(uid)).read().contains_key(uid)
    }

    pub(super) fn live(&self) -> usize {
        self.live.load(Ordering::Relaxed)
    }

    pub(super) fn page(&self, after: u64, limit: usize) -> Vec<Connection> {
        let above = (ops::Bound::Excluded(after), ops::Bound::Unbounded);
        let mut page = Vec::new();
        for map in &self.by_id {
            let map = map.read();
            page.extend(map.range(above).map(|(_, c)| c).filter(|c| c.is_bound()).take(limit).cloned());
        }
        page.sort_unstable_by_key(Connection::id);
        page.truncate(limit);
        page
    }

    pub(super) fn all(&self) -> Vec<Connection> {
        self.by_id.iter().flat_map(|map| map.read().values().cloned().collect::<Vec<_>>()).collect()
    }

    pub(super) fn counts(&self) -> (usize, usize) {
        (self.online.load(Ordering::Relaxed), self.bound.load(Ordering::Relaxed))
    }

    /// Value of [`Connection::user_hash`] for a connection of the user.
    pub(super) fn hash(&self, uid: &str) -> u64 {
        self.hasher.hash_one(uid) | 1
    }

    /// Removes the connection from the user's list and returns true if the list is now empty.
    fn unlist(&self, uid: &Uid, connection: &Connection) -> bool {
        let mut users = self.user_map(self.hash(uid.as_str())).write();
        let Some(connections) = users.get_mut(uid) else { return false };
        connections.retain(|other| !other.is(connection));
        let last = connections.is_empty();
        if last {
            users.remove(uid);
            let before = self.online.fetch_sub(1, Ordering::Relaxed);
            set_gauge(names::USERS, before - 1);
        }
        last
    }

    fn user_map(&self, hash: u64) -> &RwLock<HashMap<Uid, UserConnections, RandomState>> {
        // These bits differ from the low and the highest ones, which the maps use.
        &self.users[(hash >> 40) as usize % USER_MAPS]
    }

    fn id_map(&self, id: ConnectionId) -> &RwLock<BTreeMap<u64, Connection>> {
        &self.by_id[usize::try_from(id.as_u64() % ID_MAPS as u64).expect("below 16")]
    }
}

fn set_gauge(name: &'static str, value: usize) {
    gauge!(name).set(value as f64);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_with_up_to_two_connections_fits_48_bytes() {
        println!("entry of a user: {} bytes", size_of::<(Uid, UserConnections)>());
        assert!(size_of::<(Uid, UserConnections)>() <= 48);
    }
}
