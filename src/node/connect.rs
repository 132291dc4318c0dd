//! The life of a connection: attach, admit, bind (device matrix, rooms, presence), rooms, kick, detach.
//!
//! Knows no frame beyond the kick message and no socket beyond the trait.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Node;
use super::devices::{Conflict, conflict};
use crate::claim::{Admission, Answer, Claim, Facts, Refusal};
use crate::clock;
use crate::config::DevicePolicy;
use crate::disconnect::Disconnect;
use crate::hub::{Binding, Connection, Former, Socket};
use crate::id::{ConnectionId, Device, Room};
use crate::message::{Entries, KICK_ACTION, Message, Target};
use crate::plugin::{Account, Call, Event, Identity, Transport};
use crate::protocol::{self, Form, ServerFrame};
use crate::session::{self, Whereabouts};

impl Node {
    /// Takes a new connection, unbound; `form` is `None` where the first frame will tell it, `devices` its listener's word.
    ///
    /// # Errors
    /// Why it is refused: too many connections, or the node drains.
    pub async fn attach(
        &self,
        socket: Arc<dyn Socket>,
        form: Option<Form>,
        devices: DevicePolicy,
    ) -> Result<Connection, Disconnect> {
        if self.is_draining() {
            return Err(Disconnect::RESTART);
        }
        let connection = self.hub.attach(socket, form).await.ok_or(Disconnect::TOO_MANY)?;
        connection.set_devices(devices);
        Ok(connection)
    }

    /// Asks the auth plugins; at most `limits.auth_calls` are under way at once, more wait.
    ///
    /// # Errors
    /// The plugin's refusal, or the host's in its place.
    pub async fn admit(&self, transport: Transport, claim: Claim) -> Result<Admission, Refusal> {
        let _turn = self.auth_calls.acquire().await.expect("the semaphore is never closed");
        self.plugins.admit(transport, claim).await
    }

    /// Binds the connection as admitted: device matrix (others may have to go), rooms, presence.
    /// A second bind of the same user adds what it says.
    ///
    /// # Errors
    /// A refusal if the connection is bound to another user or the claimed device is no valid name.
    pub async fn bind(&self, connection: &Connection, admission: Admission, facts: Facts) -> Result<(), Refusal> {
        if let Some(bound) = connection.binding().filter(|b| b.uid != admission.uid) {
            return Err(Refusal::new(
                "403",
                format!("the connection is bound to {}, not {}", bound.uid, admission.uid),
            ));
        }
        self.settle(connection, admission, facts, 0).await
    }

    /// Gives the connection to a user by a plugin's word, `hops` calls of plugins after something from outside, whoever it belonged to, and tells its client as if it had bound.
    ///
    /// # Errors
    /// A refusal if there is no such connection.
    pub(super) async fn login(&self, cid: ConnectionId, account: Account, hops: u8) -> Result<(), Refusal> {
        let Some(connection) = self.hub.connection(cid) else {
            return Err(Refusal::new("404", format!("connection {cid} is gone")));
        };
        let Account { admission, channel } = account;
        let (uid, expires) = (admission.uid.clone(), admission.expires);
        self.settle(&connection, admission, Facts { channel, ..Facts::default() }, hops).await?;
        let place = Whereabouts { cid, node: self.id.clone(), address: self.address.clone() };
        let reply = session::bind_reply(&uid, expires, &place, clock::now_millis());
        if let Some(form) = connection.form()
            && let Ok(frame) = protocol::encode(form, ServerFrame::Reply(&reply))
        {
            connection.send(frame).await;
        }
        Ok(())
    }

    /// The connection is this user's from now on: what the one before it leaves, device matrix, rooms, presence.
    async fn settle(
        &self,
        connection: &Connection,
        admission: Admission,
        facts: Facts,
        hops: u8,
    ) -> Result<(), Refusal> {
        let before = connection.binding().filter(|b| b.uid == admission.uid);
        let Admission { uid, device, rooms, expires, claims } = admission;
        let claimed = match facts.device.as_deref().filter(|d| !d.is_empty()) {
            Some(text) => Some(Device::parse(text).map_err(|e| Refusal::new("400", format!("deviceId: {e}")))?),
            None => None,
        };
        let earlier = before.as_deref();
        let binding = Binding {
            number: earlier.map_or_else(|| self.ids.next(), |b| b.number),
            uid,
            device: device.or(claimed).or_else(|| earlier.and_then(|b| b.device.clone())),
            channel: facts.channel.or_else(|| earlier.and_then(|b| b.channel.clone())),
            since: earlier.map_or_else(clock::now_millis, |b| b.since),
            expires,
            facts: merge(earlier.map(|b| &b.facts), &facts.rest, &claims),
        };
        let bound = self.hub.bind(connection, binding);
        if let Some(former) = bound.former {
            self.part(connection, &former, hops);
        }
        if bound.first {
            self.tell(connection, Event::Online, hops);
        }
        self.settle_devices(connection).await;
        for room in rooms {
            // A token's rooms are bounded like any other: what is over the bound is refused and left out.
            let _ = self.join_after(connection, room, hops);
        }
        Ok(())
    }

    /// The connection's socket is gone.
    pub async fn detach(&self, connection: &Connection) {
        let identity = identity(connection);
        let detached = self.hub.detach(connection).await;
        let Some(identity) = identity else { return };
        for room in detached.rooms {
            self.plugins.notify(Event::RoomLeft(identity.clone(), room), 0);
        }
        if detached.last {
            self.plugins.notify(Event::Offline(identity), 0);
        }
    }

    /// Asks the plugin that owns the key; `None` if none does.
    pub async fn handle(&self, call: Call) -> Option<Answer> {
        self.plugins.handle(call).await
    }

    /// A bound connection joins a room; `false` if it was in it.
    ///
    /// # Errors
    /// A refusal when it is not bound, or in as many rooms as it may be.
    pub async fn join(&self, connection: &Connection, room: Room) -> Result<bool, Refusal> {
        self.join_after(connection, room, 0)
    }

    /// The same, after so many calls of plugins.
    pub(super) fn join_after(&self, connection: &Connection, room: Room, hops: u8) -> Result<bool, Refusal> {
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
        let joined = self.hub.join(connection, &room);
        if joined {
            self.plugins.notify(Event::RoomJoined(identity, room), hops);
        }
        Ok(joined)
    }

    /// A connection leaves a room; `false` if it was not in it.
    pub async fn leave(&self, connection: &Connection, room: &Room) -> bool {
        self.leave_after(connection, room, 0)
    }

    /// The same, after so many calls of plugins.
    pub(super) fn leave_after(&self, connection: &Connection, room: &Room, hops: u8) -> bool {
        let left = self.hub.leave(connection, room);
        if left && let Some(identity) = identity(connection) {
            self.plugins.notify(Event::RoomLeft(identity, room.clone()), hops);
        }
        left
    }

    /// Closes the target's connections (connection, device, user, users) and says how many there were.
    pub async fn kick(&self, target: &Target, why: Disconnect, words: &str) -> usize {
        let mut connections = self.connections_of(target);
        // One that says goodbye already was not closed by this call.
        connections.retain(|connection| connection.closed().is_none());
        for connection in &connections {
            say_kicked(connection, words).await;
            connection.close(why).await;
        }
        connections.len()
    }

    /// The connection is another user's now: it is in none of the rooms that the former one joined.
    fn part(&self, connection: &Connection, former: &Former, hops: u8) {
        let identity = identity_of(connection, &former.binding);
        for room in connection.rooms() {
            if self.hub.leave(connection, &room) {
                self.plugins.notify(Event::RoomLeft(identity.clone(), room), hops);
            }
        }
        if former.last {
            self.plugins.notify(Event::Offline(identity), hops);
        }
    }

    /// Of each two connections of the user that exclude each other, the one that bound earlier goes.
    async fn settle_devices(&self, connection: &Connection) {
        let Some(mine) = connection.binding() else { return };
        let policy = connection.devices();
        for other in self.hub.user(mine.uid.as_str()) {
            let Some(theirs) = other.binding().filter(|_| other.id() != connection.id()) else { continue };
            let (loser, winner) = if theirs.number < mine.number { (&other, &mine) } else { (connection, &theirs) };
            match conflict(policy, &mine, &theirs) {
                Conflict::None => continue,
                Conflict::SameDevice => {}
                Conflict::OtherDevice => say_kicked(loser, device_name(winner)).await,
            }
            loser.close(Disconnect::REPLACED).await;
        }
    }

    fn tell(&self, connection: &Connection, event: fn(Identity) -> Event, hops: u8) {
        if let Some(identity) = identity(connection) {
            self.plugins.notify(event(identity), hops);
        }
    }
}

/// Who the connection belongs to, as plugins see it.
#[must_use]
pub(super) fn identity(connection: &Connection) -> Option<Identity> {
    Some(identity_of(connection, &*connection.binding()?))
}

fn identity_of(connection: &Connection, binding: &Binding) -> Identity {
    Identity {
        uid: binding.uid.clone(),
        cid: connection.id(),
        device: binding.device.clone(),
        channel: binding.channel.clone(),
    }
}

async fn say_kicked(connection: &Connection, words: &str) {
    let (Some(form), Some(binding)) = (connection.form(), connection.binding()) else { return };
    let message = Message {
        action: KICK_ACTION.to_owned(),
        content: [("text", words)].into_iter().collect(),
        sender: "0".to_owned(),
        receiver: binding.uid.to_string(),
        timestamp: clock::now_millis(),
        ..Message::default()
    };
    if let Ok(frame) = protocol::encode(form, ServerFrame::Message(&message)) {
        connection.send(frame).await;
    }
}

fn device_name(binding: &Binding) -> &str {
    let named = binding.facts.get("deviceName").filter(|n| !n.is_empty());
    named.or(binding.channel.as_deref()).unwrap_or("another device")
}

fn merge(earlier: Option<&Entries>, said: &Entries, claims: &Entries) -> Entries {
    let mut all = earlier.cloned().unwrap_or_default();
    for (key, value) in said.iter().chain(claims.iter()) {
        all.insert(key, value);
    }
    all
}
