//! Rooms and their members, grouped by shard, so that a fan-out reaches only shards with members. Independent of users.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use ahash::RandomState;
use indexmap::IndexMap;
use metrics::gauge;
use parking_lot::RwLock;
use smallvec::SmallVec;

use super::connection::{Connection, JoinTerms, Joined};
use crate::id::Room;
use crate::telemetry::names;

const MAPS: usize = 64;
/// Number of members from which on the list of a shard is a map. The time of a leave then does not grow with the room.
const FEW: usize = 16;

/// All rooms with at least one member.
pub(super) struct Rooms {
    hasher: RandomState,
    maps: Box<[Map]>,
}

type Map = RwLock<HashMap<Room, Arc<RoomState>, RandomState>>;

/// One room. Its members hold a reference, so that a leave needs no search.
pub(super) struct RoomState {
    name: Room,
    members: RwLock<Members>,
}

#[derive(Default)]
struct Members {
    /// True once the room was found empty and removed from the list. Holders of a reference must not join it.
    removed: bool,
    by_shard: SmallVec<[ShardMembers; 1]>,
}

/// Members on one shard.
struct ShardMembers {
    shard: usize,
    list: MemberList,
}

enum MemberList {
    Few(SmallVec<[Connection; 2]>),
    Many(Box<IndexMap<u64, Connection, BuildHasherDefault<IdHasher>>>),
}

impl Rooms {
    pub(super) fn new() -> Self {
        let hasher = RandomState::new();
        let maps = (0..MAPS).map(|_| RwLock::new(HashMap::with_hasher(hasher.clone()))).collect();
        Self { hasher, maps }
    }

    pub(super) fn join(&self, connection: &Connection, room: &Room, terms: JoinTerms<'_>) -> Joined {
        connection.add_room(room, terms, || self.add_member(room, connection))
    }

    pub(super) fn leave(&self, connection: &Connection, room: &Room) -> bool {
        connection.remove_room(room, |state| {
            self.remove_member(state, connection);
        })
    }

    pub(super) fn leave_ended(&self, connection: &Connection) -> Vec<Room> {
        connection.remove_ended_rooms(|state| {
            self.remove_member(state, connection);
        })
    }

    /// Removes the connection from a room that its own list no longer contains. Returns the name of the room.
    pub(super) fn remove_member(&self, state: &Arc<RoomState>, connection: &Connection) -> Room {
        if state.remove(connection) {
            self.unlist(state);
        }
        state.name.clone()
    }

    /// Returns the room if it has a member.
    pub(super) fn find(&self, room: &str) -> Option<Arc<RoomState>> {
        self.map_of(room).read().get(room).cloned()
    }

    pub(super) fn members(&self, room: &str) -> Vec<Connection> {
        let Some(state) = self.find(room) else { return Vec::new() };
        let members = state.members.read();
        members.by_shard.iter().flat_map(|members| members.list.iter().cloned()).collect()
    }

    pub(super) fn all(&self) -> Vec<(Room, usize)> {
        let mut all = Vec::new();
        for map in &self.maps {
            all.extend(map.read().values().map(|state| (state.name.clone(), state.len())));
        }
        all.retain(|(_, members)| *members > 0);
        all
    }

    fn add_member(&self, room: &Room, connection: &Connection) -> Arc<RoomState> {
        loop {
            let state = self.find_or_create(room);
            if state.insert(connection) {
                return state;
            }
            self.unlist(&state);
        }
    }

    fn find_or_create(&self, room: &Room) -> Arc<RoomState> {
        if let Some(state) = self.find(room.as_str()) {
            return state;
        }
        let mut map = self.map_of(room.as_str()).write();
        let state = map.entry(room.clone()).or_insert_with(|| {
            gauge!(names::ROOMS).increment(1.0);
            Arc::new(RoomState { name: room.clone(), members: RwLock::default() })
        });
        Arc::clone(state)
    }

    /// Removes an empty room from the list, unless that was done before.
    fn unlist(&self, state: &Arc<RoomState>) {
        let mut map = self.map_of(state.name.as_str()).write();
        if map.get(&state.name).is_some_and(|listed| Arc::ptr_eq(listed, state)) {
            map.remove(&state.name);
            gauge!(names::ROOMS).decrement(1.0);
        }
    }

    fn map_of(&self, room: &str) -> &Map {
        // These bits differ from the low and the highest ones, which the maps use.
        &self.maps[(self.hasher.hash_one(room) >> 40) as usize % MAPS]
    }
}

impl RoomState {
    pub(super) fn name(&self) -> &Room {
        &self.name
    }

    /// Shards with members.
    pub(super) fn shards(&self) -> SmallVec<[usize; 4]> {
        self.members.read().by_shard.iter().map(|members| members.shard).collect()
    }

    /// Runs `each` for every member on `shard`. Joins and leaves of this room wait meanwhile.
    pub(super) fn for_each_on_shard(&self, shard: usize, each: impl FnMut(&Connection)) {
        let members = self.members.read();
        let on_shard = members.by_shard.iter().find(|members| members.shard == shard);
        on_shard.into_iter().flat_map(|members| members.list.iter()).for_each(each);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.members.read().by_shard.is_empty()
    }

    fn len(&self) -> usize {
        self.members.read().by_shard.iter().map(|members| members.list.len()).sum()
    }

    /// Adds a member. Returns false if the room was removed.
    fn insert(&self, connection: &Connection) -> bool {
        let mut members = self.members.write();
        if members.removed {
            return false;
        }
        let shard = connection.shard().index;
        let at = members.by_shard.iter().position(|members| members.shard == shard).unwrap_or_else(|| {
            members.by_shard.push(ShardMembers { shard, list: MemberList::Few(SmallVec::new()) });
            members.by_shard.len() - 1
        });
        members.by_shard[at].list.insert(connection);
        true
    }

    /// Removes a member. Returns true if the room is now empty.
    fn remove(&self, connection: &Connection) -> bool {
        let mut members = self.members.write();
        let shard = connection.shard().index;
        if let Some(at) = members.by_shard.iter().position(|members| members.shard == shard) {
            members.by_shard[at].list.remove(connection);
            if members.by_shard[at].list.len() == 0 {
                members.by_shard.swap_remove(at);
            }
        }
        members.removed = members.by_shard.is_empty();
        members.removed
    }
}

impl MemberList {
    fn len(&self) -> usize {
        match self {
            Self::Few(list) => list.len(),
            Self::Many(list) => list.len(),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Connection> {
        let (few, many) = match self {
            Self::Few(list) => (Some(list.iter()), None),
            Self::Many(list) => (None, Some(list.values())),
        };
        few.into_iter().flatten().chain(many.into_iter().flatten())
    }

    fn insert(&mut self, connection: &Connection) {
        match self {
            Self::Few(list) if list.len() < FEW => list.push(connection.clone()),
            Self::Few(list) => {
                let mut many: IndexMap<_, _, _> = list.drain(..).map(|member| (member.id().as_u64(), member)).collect();
                many.insert(connection.id().as_u64(), connection.clone());
                *self = Self::Many(Box::new(many));
            }
            Self::Many(list) => {
                list.insert(connection.id().as_u64(), connection.clone());
            }
        }
    }

    fn remove(&mut self, connection: &Connection) {
        match self {
            Self::Few(list) => list.retain(|member| !member.is(connection)),
            Self::Many(list) => {
                list.swap_remove(&connection.id().as_u64());
                // Shrinks a large room after most members left. The factor prevents a shrink at each leave.
                if list.len() < list.capacity() / 4 {
                    list.shrink_to(list.len() * 2);
                }
            }
        }
    }
}

/// Hasher for ids that this node created. No client chooses them, so one multiplication spreads them well enough.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        let product = (self.0 ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        self.0 = product ^ (product >> 32);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_room_is_small() {
        println!("room: {} bytes, a shard {}", size_of::<RoomState>(), size_of::<ShardMembers>());
        assert!(size_of::<RoomState>() <= 104, "{} bytes", size_of::<RoomState>());
    }
}
