//! Rooms of one connection: join requests, joins, subscriptions, plugin events, and the end of memberships.
//!
//! Independent of other nodes: joins of their connections are in [`super::cluster`].

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use super::Node;
use super::connect::{identity, identity_of};
use crate::claim::Refusal;
use crate::clock;
use crate::code::Code;
use crate::hub::{Connection, Joined, Terms};
use crate::id::Room;
use crate::message::Entries;
use crate::plugin::{Access, Event, Identity, JoinRequest};
use crate::protocol::{self, Reply, ServerFrame};

/// Key of the REPLY that reports the end of a membership to the client.
const ENDED: &str = "room_left";

/// Rooms that every bound client may join.
#[derive(Debug, Default)]
pub(super) struct OpenRooms {
    names: HashSet<String>,
    prefixes: Vec<String>,
}

impl OpenRooms {
    /// Parses `clients.open_rooms`: names, and prefixes that end with `*`.
    pub(super) fn new(patterns: &[String]) -> Self {
        let mut open = Self::default();
        for pattern in patterns {
            match pattern.strip_suffix('*') {
                Some(prefix) => open.prefixes.push(prefix.to_owned()),
                None => drop(open.names.insert(pattern.clone())),
            }
        }
        open
    }

    fn has(&self, room: &Room) -> bool {
        let room = room.as_str();
        self.names.contains(room) || self.prefixes.iter().any(|prefix| room.starts_with(prefix.as_str()))
    }
}

impl Node {
    /// Handles a join request of a bound client. The access plugins decide first, then `clients.open_rooms`. Returns
    /// false if the connection was already in the room. After the return, every publish to the room on any node reaches
    /// the connection.
    ///
    /// If the client is in the room, the plugins are asked again only to extend a membership with an end.
    ///
    /// # Errors
    /// A refusal if the room is not open to this client, or if the connection is not bound or is in too many rooms.
    /// Also if access plugins or the engine do not answer.
    pub async fn request_join(&self, connection: &Connection, room: Room, data: Entries) -> Result<bool, Refusal> {
        let binding = connection.binding().ok_or_else(not_bound)?;
        match connection.membership_ends(&room) {
            Some(false) => return Ok(false),
            Some(true) => {}
            None => self.check_room_count(connection)?,
        }
        let request = JoinRequest {
            who: identity_of(connection, &binding),
            claims: binding.claims.clone(),
            room: room.clone(),
            data,
        };
        let access = {
            let _turn = self.access_calls.acquire().await.expect("the semaphore is never closed");
            self.plugins.join(request).await
        };
        let until = match access {
            Access::Allow(until) => until,
            Access::Refuse(refusal) => return Err(refusal),
            Access::Abstain if self.open_rooms.load().has(&room) => None,
            Access::Abstain => {
                return Err(Refusal::new(Code::FORBIDDEN, format!("room: {room} is not open to this client")));
            }
            Access::Unavailable => {
                return Err(Refusal::new(
                    Code::UNAVAILABLE,
                    "room: the access plugins cannot answer now: try again later",
                ));
            }
        };
        if until.is_some_and(|until| u128::from(until) * 1_000 <= clock::since_1970().as_millis()) {
            return Err(Refusal::new(Code::FORBIDDEN, format!("room: the time for {room} is over")));
        }
        self.enter_room(connection, room, Terms { uid: Some(&binding.uid), until }, 0).await
    }

    /// Joins a room without asking the access plugins. `hops` counts the plugin calls since the external event.
    ///
    /// # Errors
    /// A refusal if the connection is not bound or is in too many rooms, or if the engine does not answer.
    pub(super) async fn join_after(&self, connection: &Connection, room: Room, hops: u8) -> Result<bool, Refusal> {
        self.enter_room(connection, room, Terms::default(), hops).await
    }

    async fn enter_room(
        &self,
        connection: &Connection,
        room: Room,
        terms: Terms<'_>,
        hops: u8,
    ) -> Result<bool, Refusal> {
        let identity = identity(connection).ok_or_else(not_bound)?;
        if connection.membership_ends(&room).is_none() {
            self.check_room_count(connection)?;
        }
        match self.hub.join(connection, &room, terms) {
            Joined::New => {}
            Joined::Already => return Ok(false),
            Joined::Gone => return Err(not_bound()),
        }
        // Must follow the join: the last member to leave checks for other members before it unsubscribes.
        if let Err(refusal) = self.hold_room(&room).await {
            self.hub.leave(connection, &room);
            self.release_room(&room).await;
            return Err(refusal);
        }
        self.plugins.notify(Event::RoomJoined(identity, room), hops);
        Ok(true)
    }

    fn check_room_count(&self, connection: &Connection) -> Result<(), Refusal> {
        let limit = self.rooms_per_connection.load(Ordering::Relaxed);
        if connection.rooms().len() < limit {
            return Ok(());
        }
        Err(Refusal::new(Code::TOO_MANY, format!("room: expected at most {limit} rooms a connection, got one more")))
    }

    /// Leaves a room. Returns false if the connection was not in it.
    pub async fn leave(&self, connection: &Connection, room: &Room) -> bool {
        self.leave_after(connection, room, 0).await
    }

    /// Same as [`Node::leave`], after `hops` plugin calls.
    pub(super) async fn leave_after(&self, connection: &Connection, room: &Room, hops: u8) -> bool {
        let left = self.hub.leave(connection, room);
        if left {
            self.has_left(identity(connection), room, hops).await;
        }
        left
    }

    async fn has_left(&self, identity: Option<Identity>, room: &Room, hops: u8) {
        if let Some(identity) = identity {
            self.plugins.notify(Event::RoomLeft(identity, room.clone()), hops);
        }
        self.release_room(room).await;
    }

    /// Ends expired memberships and tells their clients. Never returns.
    pub(super) async fn end_memberships(&self) {
        loop {
            for connection in self.hub.memberships_ended().await {
                for room in self.hub.leave_ended(&connection) {
                    self.has_left(identity(&connection), &room, 0).await;
                    self.tell_ended(&connection, &room).await;
                }
            }
        }
    }

    async fn tell_ended(&self, connection: &Connection, room: &Room) {
        let reply = Reply {
            key: ENDED.to_owned(),
            code: Code::new(410).to_string(),
            message: "the time in this room is over".to_owned(),
            timestamp: clock::now_millis(),
            data: [("room", room.as_str())].into_iter().collect(),
        };
        if let Some(form) = connection.form()
            && let Ok(frame) = protocol::encode(form, ServerFrame::Reply(&reply))
        {
            connection.send(frame).await;
        }
    }
}

pub(super) fn not_bound() -> Refusal {
    Refusal::new(Code::UNAUTHORIZED, "the connection is not bound to a user")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_room_is_open_by_its_name_or_a_prefix() {
        let patterns =
            |texts: &[&str]| OpenRooms::new(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>());
        let room = |text: &str| Room::parse(text).unwrap();
        let open = patterns(&["lobby", "public:*"]);
        for (name, is_open) in
            [("lobby", true), ("lobby2", false), ("public:", true), ("public:a", true), ("publi", false)]
        {
            assert_eq!(open.has(&room(name)), is_open, "{name}");
        }
        assert!(patterns(&["*"]).has(&room("anything")) && !patterns(&[]).has(&room("anything")));
    }
}
