//! Rooms of one connection: joins, leaves, and memberships with an end.
//!
//! The shard watches the first end of each connection and reports the connection. The node then removes it from the
//! rooms.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::super::clock::Tick;
use super::super::rooms::RoomState;
use super::{Connection, LockedState};
use crate::id::{Room, Uid};

/// Conditions of a join.
#[derive(Debug, Clone, Copy, Default)]
pub struct JoinTerms<'a> {
    /// Required user of the connection, if set.
    pub uid: Option<&'a Uid>,
    /// End of the membership, in seconds since 1970. `None` = the end of the connection.
    pub until: Option<u64>,
}

/// Result of a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Joined {
    /// The connection has joined the room.
    New,
    /// The connection already was in the room. If its membership had an end, the new end replaces it.
    Already,
    /// The connection is detached, not bound, or bound to another user.
    Gone,
}

/// Connections with an ended membership, each at most once.
#[derive(Default)]
pub(in crate::hub) struct EndedMemberships {
    connections: Mutex<Vec<Connection>>,
    added: Notify,
}

/// Ends of a connection's memberships: room and tick.
#[derive(Default)]
pub(super) struct MembershipEnds {
    list: Vec<(Room, Tick)>,
}

impl EndedMemberships {
    /// Waits until there are connections, and takes them.
    pub(in crate::hub) async fn take(&self) -> Vec<Connection> {
        loop {
            let ended = std::mem::take(&mut *self.connections.lock());
            if !ended.is_empty() {
                return ended;
            }
            self.added.notified().await;
        }
    }
}

impl Connection {
    /// End of the membership in a room: `None` = not in the room, `Some(false)` = no end.
    #[must_use]
    pub fn membership_ends(&self, room: &Room) -> Option<bool> {
        let locked = self.0.locked.lock();
        let is_member = locked.rooms.iter().any(|state| state.name() == room);
        is_member.then(|| locked.end_of(room).is_some())
    }

    /// Adds the room returned by `add_member`, unless the connection is in it, not bound, or detached.
    pub(in crate::hub) fn add_room(
        &self,
        room: &Room,
        terms: JoinTerms<'_>,
        add_member: impl FnOnce() -> Arc<RoomState>,
    ) -> Joined {
        let mut locked = self.0.locked.lock();
        let is_expected_user = || terms.uid.is_none_or(|uid| self.binding().is_some_and(|binding| binding.uid == *uid));
        if locked.detached || !self.is_bound() || !is_expected_user() {
            return Joined::Gone;
        }
        let end = terms.until.map(|at| self.0.shard.clock.at_unix_time(at));
        let joined = if locked.rooms.iter().any(|state| state.name() == room) { Joined::Already } else { Joined::New };
        // A membership without an end never gets one.
        let end = end.filter(|_| joined == Joined::New || locked.end_of(room).is_some());
        if joined == Joined::New {
            let state = add_member();
            locked.rooms.push(state);
        }
        locked.set_end(room, end);
        self.update_first_end(&locked);
        drop(locked);
        if end.is_some() {
            self.0.shard.request_check(self);
        }
        joined
    }

    /// Removes the room from the list and runs `remove_member` with it under the lock of the list.
    pub(in crate::hub) fn remove_room(&self, room: &Room, remove_member: impl FnOnce(&Arc<RoomState>)) -> bool {
        let mut locked = self.0.locked.lock();
        let is_removed = locked.remove(room, remove_member);
        self.update_first_end(&locked);
        is_removed
    }

    /// Same as `remove_room`, for every room with an ended membership. Returns their names.
    pub(in crate::hub) fn remove_ended_rooms(&self, mut remove_member: impl FnMut(&Arc<RoomState>)) -> Vec<Room> {
        self.0.reported.store(false, Ordering::Release);
        let now = self.0.shard.clock.now();
        let mut locked = self.0.locked.lock();
        let mut due: Vec<Room> = locked.ends.iter().flat_map(|ends| ends.due(now)).cloned().collect();
        due.retain(|room| locked.remove(room, &mut remove_member));
        self.update_first_end(&locked);
        drop(locked);
        if self.first_end().is_some() {
            self.0.shard.request_check(self);
        }
        due
    }

    /// Tick at which the first membership ends.
    pub(in crate::hub) fn first_end(&self) -> Option<Tick> {
        Some(self.0.first_end.load(Ordering::Relaxed)).filter(|tick| *tick != 0)
    }

    /// Reports an ended membership. The shard watches the next end once the report was taken.
    pub(in crate::hub) fn report_end(&self) {
        self.0.first_end.store(0, Ordering::Relaxed);
        if !self.0.reported.swap(true, Ordering::AcqRel) {
            let ended = &self.0.shard.ended_memberships;
            ended.connections.lock().push(self.clone());
            ended.added.notify_one();
        }
    }

    /// Makes the shard watch the first end.
    fn update_first_end(&self, locked: &LockedState) {
        let first = locked.ends.iter().filter_map(|ends| ends.first()).min();
        self.0.first_end.store(first.unwrap_or(0), Ordering::Relaxed);
    }
}

impl LockedState {
    fn end_of(&self, room: &Room) -> Option<Tick> {
        let ends = self.ends.as_deref()?;
        ends.list.iter().find(|(name, _)| name == room).map(|(_, end)| *end)
    }

    fn set_end(&mut self, room: &Room, end: Option<Tick>) {
        if let Some(ends) = &mut self.ends {
            ends.list.retain(|(name, _)| name != room);
        }
        match end {
            Some(end) => self.ends.get_or_insert_default().list.push((room.clone(), end)),
            None => drop(self.ends.take_if(|ends| ends.list.is_empty())),
        }
    }

    fn remove(&mut self, room: &Room, remove_member: impl FnOnce(&Arc<RoomState>)) -> bool {
        self.set_end(room, None);
        let Some(at) = self.rooms.iter().position(|state| state.name() == room) else { return false };
        let state = self.rooms.remove(at);
        remove_member(&state);
        true
    }
}

impl MembershipEnds {
    fn first(&self) -> Option<Tick> {
        self.list.iter().map(|(_, end)| *end).min()
    }

    fn due(&self, now: Tick) -> impl Iterator<Item = &Room> {
        self.list.iter().filter(move |(_, end)| *end <= now).map(|(room, _)| room)
    }
}
