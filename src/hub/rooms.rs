//! Rooms: which connections are in which, split by the shard that holds them, so that a fan-out touches only shards
//! with members. Knows no user.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use ahash::RandomState;
use indexmap::IndexMap;
use metrics::gauge;
use parking_lot::RwLock;
use smallvec::SmallVec;

use super::connection::{Connection, Joined, Terms};
use crate::id::Room;
use crate::telemetry::names;

const MAPS: usize = 64;
/// From so many members on, a part of a room is a map: leaving it must not take longer the fuller it is.
const FEW: usize = 16;

/// Every room with at least one member.
pub(super) struct Rooms {
    hasher: RandomState,
    maps: Box<[Map]>,
}

type Map = RwLock<HashMap<Room, Arc<RoomState>, RandomState>>;

/// One room. Its members hold it, so that leaving needs no search for it.
pub(super) struct RoomState {
    name: Room,
    members: RwLock<Members>,
}

#[derive(Default)]
struct Members {
    /// It was found empty and is no longer listed: whoever still holds it must not enter.
    dead: bool,
    parts: SmallVec<[Part; 1]>,
}

/// Members on one shard.
struct Part {
    shard: usize,
    links: Links,
}

enum Links {
    Few(SmallVec<[Connection; 2]>),
    Many(Box<IndexMap<u64, Connection, BuildHasherDefault<IdHasher>>>),
}

impl Rooms {
    pub(super) fn new() -> Self {
        let hasher = RandomState::new();
        let maps = (0..MAPS).map(|_| RwLock::new(HashMap::with_hasher(hasher.clone()))).collect();
        Self { hasher, maps }
    }

    pub(super) fn join(&self, connection: &Connection, room: &Room, terms: Terms<'_>) -> Joined {
        connection.add_room(room, terms, || self.enter(room, connection))
    }

    pub(super) fn leave(&self, connection: &Connection, room: &Room) -> bool {
        connection.drop_room(room, |state| {
            self.exit(state, connection);
        })
    }

    pub(super) fn leave_ended(&self, connection: &Connection) -> Vec<Room> {
        connection.drop_ended(|state| {
            self.exit(state, connection);
        })
    }

    /// Takes the connection, which does not list the room any more, out of it; tells the room's name.
    pub(super) fn exit(&self, state: &Arc<RoomState>, connection: &Connection) -> Room {
        if state.remove(connection) {
            self.bury(state);
        }
        state.name.clone()
    }

    /// The room, if it has a member.
    pub(super) fn find(&self, room: &str) -> Option<Arc<RoomState>> {
        self.near(room).read().get(room).cloned()
    }

    pub(super) fn members(&self, room: &str) -> Vec<Connection> {
        let Some(state) = self.find(room) else { return Vec::new() };
        let members = state.members.read();
        members.parts.iter().flat_map(|part| part.links.iter().cloned()).collect()
    }

    pub(super) fn all(&self) -> Vec<(Room, usize)> {
        let mut all = Vec::new();
        for map in &self.maps {
            all.extend(map.read().values().map(|state| (state.name.clone(), state.len())));
        }
        all.retain(|(_, members)| *members > 0);
        all
    }

    fn enter(&self, room: &Room, connection: &Connection) -> Arc<RoomState> {
        loop {
            let state = self.find_or_make(room);
            if state.insert(connection) {
                return state;
            }
            self.bury(&state);
        }
    }

    fn find_or_make(&self, room: &Room) -> Arc<RoomState> {
        if let Some(state) = self.find(room.as_str()) {
            return state;
        }
        let mut map = self.near(room.as_str()).write();
        let state = map.entry(room.clone()).or_insert_with(|| {
            gauge!(names::ROOMS).increment(1.0);
            Arc::new(RoomState { name: room.clone(), members: RwLock::default() })
        });
        Arc::clone(state)
    }

    /// Takes a dead room off the list, if nobody did.
    fn bury(&self, state: &Arc<RoomState>) {
        let mut map = self.near(state.name.as_str()).write();
        if map.get(&state.name).is_some_and(|listed| Arc::ptr_eq(listed, state)) {
            map.remove(&state.name);
            gauge!(names::ROOMS).decrement(1.0);
        }
    }

    fn near(&self, room: &str) -> &Map {
        // The maps use the low and the highest bits of the same hash.
        &self.maps[(self.hasher.hash_one(room) >> 40) as usize % MAPS]
    }
}

impl RoomState {
    pub(super) fn name(&self) -> &Room {
        &self.name
    }

    /// The shards that have members.
    pub(super) fn shards(&self) -> SmallVec<[usize; 4]> {
        self.members.read().parts.iter().map(|part| part.shard).collect()
    }

    /// Runs `each` for every member on `shard`. Joins and leaves of this room wait meanwhile.
    pub(super) fn on_shard(&self, shard: usize, each: impl FnMut(&Connection)) {
        let members = self.members.read();
        let part = members.parts.iter().find(|part| part.shard == shard);
        part.into_iter().flat_map(|part| part.links.iter()).for_each(each);
    }

    pub(super) fn is_dead(&self) -> bool {
        self.members.read().parts.is_empty()
    }

    fn len(&self) -> usize {
        self.members.read().parts.iter().map(|part| part.links.len()).sum()
    }

    /// `false` when the room is dead.
    fn insert(&self, connection: &Connection) -> bool {
        let mut members = self.members.write();
        if members.dead {
            return false;
        }
        let shard = connection.home().index;
        let at = members.parts.iter().position(|part| part.shard == shard).unwrap_or_else(|| {
            members.parts.push(Part { shard, links: Links::Few(SmallVec::new()) });
            members.parts.len() - 1
        });
        members.parts[at].links.insert(connection);
        true
    }

    /// Whether the room is dead now.
    fn remove(&self, connection: &Connection) -> bool {
        let mut members = self.members.write();
        let shard = connection.home().index;
        if let Some(at) = members.parts.iter().position(|part| part.shard == shard) {
            members.parts[at].links.remove(connection);
            if members.parts[at].links.len() == 0 {
                members.parts.swap_remove(at);
            }
        }
        members.dead = members.parts.is_empty();
        members.dead
    }
}

impl Links {
    fn len(&self) -> usize {
        match self {
            Self::Few(links) => links.len(),
            Self::Many(links) => links.len(),
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Connection> {
        let (few, many) = match self {
            Self::Few(links) => (Some(links.iter()), None),
            Self::Many(links) => (None, Some(links.values())),
        };
        few.into_iter().flatten().chain(many.into_iter().flatten())
    }

    fn insert(&mut self, connection: &Connection) {
        match self {
            Self::Few(links) if links.len() < FEW => links.push(connection.clone()),
            Self::Few(links) => {
                let mut many: IndexMap<_, _, _> = links.drain(..).map(|link| (link.id().as_u64(), link)).collect();
                many.insert(connection.id().as_u64(), connection.clone());
                *self = Self::Many(Box::new(many));
            }
            Self::Many(links) => {
                links.insert(connection.id().as_u64(), connection.clone());
            }
        }
    }

    fn remove(&mut self, connection: &Connection) {
        match self {
            Self::Few(links) => links.retain(|link| !link.is(connection)),
            Self::Many(links) => {
                links.swap_remove(&connection.id().as_u64());
                // A hall that emptied gives its room back; the factor keeps it from doing so at each step.
                if links.len() < links.capacity() / 4 {
                    links.shrink_to(links.len() * 2);
                }
            }
        }
    }
}

/// For ids that this node made: nobody outside chooses them, so one multiplication spreads them well enough.
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
        println!("room: {} bytes, a part {}", size_of::<RoomState>(), size_of::<Part>());
        assert!(size_of::<RoomState>() <= 104, "{} bytes", size_of::<RoomState>());
    }
}
