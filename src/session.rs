//! What one connection may say and what it is answered: a state machine, (input, now) → actions.
//!
//! Knows no socket, no clock, no plugin and no hub: who drives it ([`crate::server`]) does what the actions say and
//! feeds the outcome back. One SendBody is under way at a time, so answers come in the order of the questions.
//!
//! Built-in keys: `client_bind`, `client_refresh`, `client_set_tag`, `client_remove_tag`, `room_join`, `room_leave`,
//! `message`. Any other key goes to the plugin that owns it. A refusal to let a client in is always a REPLY with the key
//! `client_handshake`, which sets the stop flag of CIM's SDKs, and then a close.

mod bind;
mod chat;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::claim::{Admission, Answer, Claim, Facts, Refusal};
use crate::disconnect::Disconnect;
use crate::id::{ConnectionId, NodeId, Room, Uid};
use crate::message::{Entries, Message, Target};
use crate::protocol::{Reply, SendBody};
use bind::Purpose;

/// Largest value of a fact, tag or channel that a client says of itself, in bytes.
pub const MAX_FACT_BYTES: usize = 256;

/// The protocol state of one connection.
#[derive(Debug)]
pub struct Session {
    /// When it was opened, milliseconds since 1970.
    since: i64,
    /// Who it belongs to, once the auth plugins said so.
    holder: Option<Box<Admission>>,
    waiting: Waiting,
}

/// What happened. Each action but `Reply`, `SetTag`, `Extend` and `Close` is answered by the input it names.
pub enum Input {
    /// The transport stands; with a token in it the connection asks to be bound at once.
    Opened(Option<Box<Claim>>),
    /// The transport refuses the client: it is told in band.
    Refused(Disconnect, Refusal),
    /// A SendBody came.
    Sent(SendBody),
    /// A plugin gave the connection to this user since it last spoke; the client has been told.
    Given(Box<Admission>),
    /// After [`Action::Admit`].
    Admitted(Result<Box<Admission>, Refusal>),
    /// After [`Action::Bind`].
    Bound(Result<Whereabouts, Refusal>),
    /// After [`Action::Handle`]: the plugin's code, words and data; `None` when no plugin owns the key.
    Handled(Option<Answer>),
    /// After [`Action::Join`]: `false` if it was in the room.
    Joined(Result<bool, Refusal>),
    /// After [`Action::Leave`]: `false` if it was not in the room.
    Left(bool),
    /// After [`Action::Publish`].
    Published(Outcome),
}

/// What is to be done now, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this to the client.
    Reply(Reply),
    /// Ask the auth plugins.
    Admit(Box<Claim>),
    /// Bind the connection as admitted, with what the client said of itself.
    Bind(Box<Admission>, Facts),
    /// Add what the bound client said of itself; answered like [`Action::Bind`]. The claims stay.
    Rebind(Box<Admission>, Facts),
    /// Ask the plugin that owns the key.
    Handle {
        /// The key.
        key: String,
        /// Its data.
        data: Entries,
    },
    /// Join a room, if the client may; with what it sent beside the room.
    Join(Room, Entries),
    /// Leave a room.
    Leave(Room),
    /// Set or remove the tag.
    SetTag(Option<String>),
    /// Publish for the client. For a room only if the connection is in it.
    Publish(Box<Said>),
    /// Give the unbound connection so much time from now.
    Extend(Duration),
    /// Close the connection. Nothing follows.
    Close(Disconnect),
}

/// What the operator allows, as far as a session asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Whether a client may send `message`.
    pub publish: bool,
    /// Time to bind.
    pub unbound: Duration,
    /// The most that handlers may stretch it to, from the opening on.
    pub unbound_max: Duration,
}

/// Where a bound client is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Whereabouts {
    /// Its connection.
    pub cid: ConnectionId,
    /// The node's name.
    pub node: NodeId,
    /// The node's address for clients; empty = it is not known.
    pub address: String,
    /// Address of the node to dial the next time, where that is another one.
    pub next: Option<String>,
}

/// A client's message to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// What is said; the sender is the client's user, whatever it typed.
    pub message: Message,
    /// A user or a room.
    pub target: Target,
}

/// What became of a client's message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It went out.
    Accepted {
        /// Its id.
        id: i64,
        /// Connections that got it, where that is known.
        delivered: Option<u32>,
        /// Users who have no connection.
        offline: Vec<Uid>,
    },
    /// A plugin made it disappear.
    Dropped {
        /// Its id.
        id: i64,
    },
    /// It went nowhere: not joined, refused, too large, or the way is shut.
    Refused(Refusal),
}

/// What has to come back before the next SendBody is looked at.
#[derive(Debug)]
enum Waiting {
    Nothing,
    Auth(Box<Purpose>),
    /// The admission counts once the bind went well.
    Bind(Box<(Purpose, Admission)>),
    Handler(String),
    Join(Room),
    Leave(Room),
    Publish,
    /// For nothing, ever again.
    Closing,
}

impl Session {
    /// Of a connection opened at `now` (milliseconds since 1970).
    #[must_use]
    pub fn new(now: i64) -> Self {
        Self { since: now, holder: None, waiting: Waiting::Nothing }
    }

    /// The user that it is bound to.
    #[must_use]
    pub fn uid(&self) -> Option<&Uid> {
        self.holder.as_deref().map(|admission| &admission.uid)
    }

    /// Second since 1970 at which its admission ends.
    #[must_use]
    pub fn expires(&self) -> Option<u64> {
        self.holder.as_deref().and_then(|admission| admission.expires)
    }

    /// Whether it has said [`Action::Close`].
    #[must_use]
    pub fn is_closing(&self) -> bool {
        matches!(self.waiting, Waiting::Closing)
    }

    /// Takes what happened at `now` (milliseconds since 1970) and says what to do.
    ///
    /// An answer that nothing waits for is ignored, and so is everything after [`Action::Close`].
    pub fn on(&mut self, input: Input, now: i64, rules: &Rules) -> Vec<Action> {
        if self.is_closing() {
            return Vec::new();
        }
        match (input, std::mem::replace(&mut self.waiting, Waiting::Nothing)) {
            (Input::Opened(claim), _) => self.opened(claim),
            (Input::Refused(why, refusal), _) => self.refuse(why, refusal, now),
            (Input::Given(admission), waiting) => {
                self.holder = Some(admission);
                self.waiting = waiting;
                Vec::new()
            }
            (Input::Sent(body), Waiting::Nothing) => self.sent(body, now, rules),
            (Input::Admitted(answer), Waiting::Auth(purpose)) => self.admitted(answer, *purpose, now),
            (Input::Bound(answer), Waiting::Bind(pending)) => self.bound(answer, *pending, now),
            (Input::Handled(answer), Waiting::Handler(key)) => self.handled(answer, key, now, rules),
            (Input::Joined(Ok(changed)), Waiting::Join(room)) => changed_room("room_join", &room, changed, now),
            (Input::Joined(Err(refusal)), Waiting::Join(_)) => vec![deny("room_join", refusal, now)],
            (Input::Left(changed), Waiting::Leave(room)) => changed_room("room_leave", &room, changed, now),
            (Input::Published(outcome), Waiting::Publish) => vec![chat::answer(outcome, now)],
            (_, waiting) => {
                self.waiting = waiting;
                Vec::new()
            }
        }
    }

    fn sent(&mut self, body: SendBody, now: i64, rules: &Rules) -> Vec<Action> {
        let SendBody { key, data, .. } = body;
        let built_in = match key.as_str() {
            "client_bind" => self.client_bind(&data),
            "client_refresh" => self.client_refresh(&data),
            "client_set_tag" => self.set_tag(&data, now),
            "client_remove_tag" => self.remove_tag(now),
            "room_join" => self.room_join(&data),
            "room_leave" => self.room_leave(&data),
            "message" => self.message(&data, rules),
            _ => {
                self.waiting = Waiting::Handler(key.clone());
                return vec![Action::Handle { key, data }];
            }
        };
        built_in.unwrap_or_else(|refusal| vec![deny(&key, refusal, now)])
    }

    fn set_tag(&self, data: &Entries, now: i64) -> Result<Vec<Action>, Refusal> {
        self.user()?;
        let tag = required(data, "tag")?;
        bounded("tag", tag)?;
        let done = reply("client_set_tag", "200", String::new(), Entries::new(), now);
        Ok(vec![Action::SetTag(Some(tag.to_owned())), done])
    }

    fn remove_tag(&self, now: i64) -> Result<Vec<Action>, Refusal> {
        self.user()?;
        let done = reply("client_remove_tag", "200", String::new(), Entries::new(), now);
        Ok(vec![Action::SetTag(None), done])
    }

    fn room_join(&mut self, data: &Entries) -> Result<Vec<Action>, Refusal> {
        let room = self.room(data)?;
        let rest = data.iter().filter(|(key, _)| *key != "room").collect();
        self.waiting = Waiting::Join(room.clone());
        Ok(vec![Action::Join(room, rest)])
    }

    fn room_leave(&mut self, data: &Entries) -> Result<Vec<Action>, Refusal> {
        let room = self.room(data)?;
        self.waiting = Waiting::Leave(room.clone());
        Ok(vec![Action::Leave(room)])
    }

    /// The room that a bound client names.
    fn room(&self, data: &Entries) -> Result<Room, Refusal> {
        self.user()?;
        Room::parse(required(data, "room")?).map_err(|e| invalid(format!("room: {e}")))
    }

    fn message(&mut self, data: &Entries, rules: &Rules) -> Result<Vec<Action>, Refusal> {
        let uid = self.user()?;
        if !rules.publish {
            return Err(Refusal::new("403", "clients may not publish here"));
        }
        let said = chat::parse(data, uid)?;
        self.waiting = Waiting::Publish;
        Ok(vec![Action::Publish(Box::new(said))])
    }

    fn handled(&self, answer: Option<Answer>, key: String, now: i64, rules: &Rules) -> Vec<Action> {
        let Some(Answer { code, message, data }) = answer else {
            let words = format!("key: nobody here answers {:?}", shortened(&key));
            return vec![reply(&key, "404", words, Entries::new(), now)];
        };
        let mut actions = Vec::with_capacity(2);
        if self.holder.is_none() && code == "200" {
            actions.extend(self.extension(now, rules).map(Action::Extend));
        }
        actions.push(Action::Reply(Reply { key, code, message, timestamp: now, data }));
        actions
    }

    /// A handler that serves an unbound client (a login by QR code, say) gives it time to go on.
    fn extension(&self, now: i64, rules: &Rules) -> Option<Duration> {
        let age = Duration::from_millis(u64::try_from(now - self.since).unwrap_or(0));
        let left = rules.unbound_max.checked_sub(age)?;
        Some(left.min(rules.unbound)).filter(|d| !d.is_zero())
    }

    fn user(&self) -> Result<&Uid, Refusal> {
        self.uid().ok_or_else(|| Refusal::new("401", "the connection is not bound to a user"))
    }

    /// Tells the client in the one way that every SDK of the family understands, and closes.
    fn refuse(&mut self, why: Disconnect, refusal: Refusal, now: i64) -> Vec<Action> {
        self.waiting = Waiting::Closing;
        // CIM's SDKs stop dialling at 401 only; a fault of ours must let them come back.
        let (code, why) = match refusal.is_ours() {
            true => (refusal.code, Disconnect::INTERNAL),
            false => ("401".to_owned(), why),
        };
        vec![reply("client_handshake", &code, refusal.reason, Entries::new(), now), Action::Close(why)]
    }
}

/// How a client hears that its connection has its user.
#[must_use]
pub fn bind_reply(uid: &Uid, expires: Option<u64>, place: &Whereabouts, now: i64) -> Reply {
    bind::reply_to("client_bind", uid, expires, place, now)
}

fn changed_room(key: &str, room: &Room, changed: bool, now: i64) -> Vec<Action> {
    let data = [("room", room.as_str()), ("changed", if changed { "true" } else { "false" })].into_iter().collect();
    vec![reply(key, "200", String::new(), data, now)]
}

fn reply(key: &str, code: &str, message: String, data: Entries, now: i64) -> Action {
    Action::Reply(Reply { key: key.to_owned(), code: code.to_owned(), message, timestamp: now, data })
}

fn deny(key: &str, refusal: Refusal, now: i64) -> Action {
    reply(key, &refusal.code, refusal.reason, Entries::new(), now)
}

fn invalid(words: String) -> Refusal {
    Refusal::new("400", words)
}

/// A field that must be there and say something.
fn required<'a>(data: &'a Entries, field: &str) -> Result<&'a str, Refusal> {
    match data.get(field) {
        None => Err(invalid(format!("{field}: expected a non-empty string, got nothing"))),
        Some("") => Err(invalid(format!("{field}: expected a non-empty string, got \"\""))),
        Some(text) => Ok(text),
    }
}

fn optional<'a>(data: &'a Entries, field: &str) -> Option<&'a str> {
    data.get(field).filter(|text| !text.is_empty())
}

fn bounded(field: &str, text: &str) -> Result<(), Refusal> {
    if text.len() > MAX_FACT_BYTES {
        return Err(invalid(format!("{field}: expected at most {MAX_FACT_BYTES} bytes, got {}", text.len())));
    }
    Ok(())
}

/// Enough of a text to know it again.
fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(64)]
}
