//! Rooms as one connection joins and leaves them: bound, held on the bus, told to plugins.
//!
//! Knows no other node: who joins somewhere else is asked in [`super::cluster`].

use std::sync::atomic::Ordering;

use super::Node;
use super::connect::identity;
use crate::claim::Refusal;
use crate::hub::Connection;
use crate::id::Room;
use crate::plugin::Event;

impl Node {
    /// A bound connection joins a room; `false` if it was in it. When this returns, what is published to the room from
    /// then on, on any node, reaches it.
    ///
    /// # Errors
    /// A refusal when it is not bound, in as many rooms as it may be, or the engine does not answer.
    pub async fn join(&self, connection: &Connection, room: Room) -> Result<bool, Refusal> {
        self.join_after(connection, room, 0).await
    }

    /// The same, after so many calls of plugins.
    pub(super) async fn join_after(&self, connection: &Connection, room: Room, hops: u8) -> Result<bool, Refusal> {
        let Some(identity) = identity(connection) else {
            return Err(Refusal::new("401", "the connection is not bound to a user"));
        };
        let rooms = connection.rooms();
        if rooms.contains(&room) {
            return Ok(false);
        }
        let limit = self.rooms_per_connection.load(Ordering::Relaxed);
        if rooms.len() >= limit {
            return Err(Refusal::new(
                "429",
                format!("room: expected at most {limit} rooms a connection, got one more"),
            ));
        }
        if !self.hub.join(connection, &room) {
            return Ok(false);
        }
        // Held after the join: whoever leaves last looks for members before it lets go of the room.
        if let Err(refusal) = self.hold_room(&room).await {
            self.hub.leave(connection, &room);
            self.release_room(&room).await;
            return Err(refusal);
        }
        self.plugins.notify(Event::RoomJoined(identity, room), hops);
        Ok(true)
    }

    /// A connection leaves a room; `false` if it was not in it.
    pub async fn leave(&self, connection: &Connection, room: &Room) -> bool {
        self.leave_after(connection, room, 0).await
    }

    /// The same, after so many calls of plugins.
    pub(super) async fn leave_after(&self, connection: &Connection, room: &Room, hops: u8) -> bool {
        let left = self.hub.leave(connection, room);
        if left {
            if let Some(identity) = identity(connection) {
                self.plugins.notify(Event::RoomLeft(identity, room.clone()), hops);
            }
            self.release_room(room).await;
        }
        left
    }
}
