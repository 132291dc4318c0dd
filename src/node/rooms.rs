//! Rooms of one connection: join requests, joins, subscriptions, plugin events, and the end of memberships.
//!
//! Independent of other nodes: joins of their connections are in [`super::cluster`].

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::connect::{identity, identity_of};
use super::presence::PresenceTracker;
use super::resume::{Resumed, Resumer};
use crate::claim::Refusal;
use crate::clock;
use crate::code::Code;
use crate::config::LiveConfig;
use crate::hub::{Connection, Hub, JoinTerms, Joined};
use crate::id::Room;
use crate::message::Entries;
use crate::plugin::{Access, Event, Identity, JoinRequest, PluginHost};
use crate::protocol::{self, Reply, ServerFrame};
use crate::session::JoinReplay;

/// Key of the REPLY that reports the end of a membership to the client.
const ROOM_LEFT: &str = "room_left";

/// Result of a join request.
pub struct RoomJoin {
    /// False if the connection was already in the room.
    pub changed: bool,
    /// The replay, if the client asked for one. Run it after the REPLY.
    pub resumed: Option<Resumed>,
}

/// Members of rooms on this node.
pub(super) struct Rooms {
    hub: Arc<Hub>,
    plugins: Arc<dyn PluginHost>,
    presence: Arc<PresenceTracker>,
    resumer: Arc<Resumer>,
    access_calls: Semaphore,
    config: LiveConfig,
}

impl Rooms {
    pub(super) fn new(
        config: LiveConfig,
        hub: Arc<Hub>,
        plugins: Arc<dyn PluginHost>,
        presence: Arc<PresenceTracker>,
        resumer: Arc<Resumer>,
    ) -> Self {
        Self { hub, plugins, presence, resumer, access_calls: Semaphore::new(config.load().limits.auth_calls), config }
    }

    /// Handles a join request of a bound client. The access plugins decide first, then `clients.open_rooms`. With `replay`
    /// the client also asks for earlier messages of the room. After the return, every publish to the room on any node reaches
    /// the connection.
    ///
    /// If the client is in the room, the plugins are asked again only to extend a membership with an end.
    ///
    /// # Errors
    /// A refusal if the room is not open to this client, or if the connection is not bound or is in too many rooms.
    /// Also if access plugins or the engine do not answer.
    pub(super) async fn request_join(
        &self,
        connection: &Connection,
        room: Room,
        data: Entries,
        replay: Option<JoinReplay>,
    ) -> Result<RoomJoin, Refusal> {
        let binding = connection.binding().ok_or_else(not_bound)?;
        match connection.membership_ends(&room) {
            Some(false) => return self.joined_before(connection, &room, replay).await,
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
            let _permit = self.access_calls.acquire().await.expect("the semaphore is never closed");
            self.plugins.join(request).await
        };
        let until = match access {
            Access::Allow(until) => until,
            Access::Refuse(refusal) => return Err(refusal),
            Access::Abstain if self.config.load().clients.open_rooms.has(&room) => None,
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
            return Err(Refusal::new(Code::FORBIDDEN, format!("room: the membership in {room} has expired")));
        }
        let terms = JoinTerms { uid: Some(&binding.uid), until };
        let Some(replay) = replay else {
            let changed = self.enter_room(connection, room, terms, 0).await?;
            return Ok(RoomJoin { changed, resumed: None });
        };
        let replay = JoinReplay { latest: replay.latest || self.config.load().history.is_latest(&room), ..replay };
        if connection.rooms().contains(&room) {
            self.enter_room(connection, room.clone(), terms, 0).await?;
            return self.joined_before(connection, &room, Some(replay)).await;
        }
        // Must precede the join, so that no live message overtakes the replay.
        let begun = self.resumer.begin_join(connection, &room, replay).await?;
        match self.enter_room(connection, room, terms, 0).await {
            Ok(changed) => {
                let resumed = Some(self.resumer.read(connection, begun).await);
                Ok(RoomJoin { changed, resumed })
            }
            Err(refusal) => {
                self.resumer.cancel(connection).await;
                Err(refusal)
            }
        }
    }

    /// Answer to a request for a room that the connection is in: it received live messages before, so nothing is
    /// replayed.
    async fn joined_before(
        &self,
        connection: &Connection,
        room: &Room,
        replay: Option<JoinReplay>,
    ) -> Result<RoomJoin, Refusal> {
        let resumed = match replay {
            Some(_) => Some(self.resumer.refuse_join(connection, room).await?),
            None => None,
        };
        Ok(RoomJoin { changed: false, resumed })
    }

    /// Joins a room without asking the access plugins. `hops` counts the plugin calls since the external event.
    ///
    /// # Errors
    /// A refusal if the connection is not bound or is in too many rooms, or if the engine does not answer.
    pub(super) async fn join(&self, connection: &Connection, room: Room, hops: u8) -> Result<bool, Refusal> {
        self.enter_room(connection, room, JoinTerms::default(), hops).await
    }

    async fn enter_room(
        &self,
        connection: &Connection,
        room: Room,
        terms: JoinTerms<'_>,
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
        if let Err(refusal) = self.presence.subscribe_room(&room).await {
            self.hub.leave(connection, &room);
            self.presence.unsubscribe_room(&room).await;
            return Err(refusal);
        }
        self.plugins.notify(Event::RoomJoined(identity, room), hops);
        Ok(true)
    }

    fn check_room_count(&self, connection: &Connection) -> Result<(), Refusal> {
        let limit = self.config.load().clients.rooms;
        if connection.rooms().len() < limit {
            return Ok(());
        }
        Err(Refusal::new(Code::TOO_MANY, format!("room: expected at most {limit} rooms a connection, got one more")))
    }

    /// Leaves a room. Returns false if the connection was not in it. `hops` counts the plugin calls since the external
    /// event.
    pub(super) async fn leave(&self, connection: &Connection, room: &Room, hops: u8) -> bool {
        let left = self.hub.leave(connection, room);
        if left {
            self.after_leave(identity(connection), room, hops).await;
        }
        left
    }

    /// Leaves all rooms that the connection joined for its former user, `identity`.
    pub(super) async fn leave_all(&self, connection: &Connection, identity: &Identity, hops: u8) {
        for room in connection.rooms() {
            if self.hub.leave(connection, &room) {
                self.presence.unsubscribe_room(&room).await;
                self.plugins.notify(Event::RoomLeft(identity.clone(), room), hops);
            }
        }
    }

    /// Tells the plugins that the connection has left the room, and unsubscribes after the last member.
    async fn after_leave(&self, identity: Option<Identity>, room: &Room, hops: u8) {
        if let Some(identity) = identity {
            self.plugins.notify(Event::RoomLeft(identity, room.clone()), hops);
        }
        self.presence.unsubscribe_room(room).await;
    }

    /// Ends expired memberships and tells their clients. Never returns.
    pub(super) async fn end_memberships(&self) {
        loop {
            for connection in self.hub.memberships_ended().await {
                for room in self.hub.leave_ended(&connection) {
                    self.after_leave(identity(&connection), &room, 0).await;
                    send_room_left(&connection, &room).await;
                }
            }
        }
    }
}

async fn send_room_left(connection: &Connection, room: &Room) {
    let reply = Reply {
        key: ROOM_LEFT.to_owned(),
        code: Code::new(410).to_string(),
        message: "the membership in this room has expired".to_owned(),
        timestamp: clock::now_millis(),
        data: [("room", room.as_str())].into_iter().collect(),
    };
    if let Some(form) = connection.form()
        && let Ok(frame) = protocol::encode(form, ServerFrame::Reply(&reply))
    {
        connection.send(frame).await;
    }
}

pub(super) fn not_bound() -> Refusal {
    Refusal::new(Code::UNAUTHORIZED, "the connection is not bound to a user")
}
