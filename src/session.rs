//! The protocol state machine of one connection: (input, now) → actions.
//!
//! Independent of sockets, clocks, plugins and the hub: the driver ([`crate::server`]) performs the actions and feeds
//! the results back. One SendBody is processed at a time, so answers keep the order of the requests.
//!
//! Built-in keys: `client_bind`, `client_refresh`, `client_set_tag`, `client_remove_tag`, `room_join`, `room_leave`,
//! `message`. Any other key goes to the plugin that owns it. A client that is not admitted gets a REPLY with the key
//! `client_handshake`, which sets the stop flag of CIM's SDKs, and then a close.

mod bind;
mod chat;
mod resume;
#[cfg(test)]
mod tests;

use std::time::Duration;

use crate::claim::{Admission, Answer, Claim, Facts, Refusal};
use crate::code::Code;
use crate::disconnect::Disconnect;
use crate::fate::Published;
use crate::id::{ConnectionId, NodeId, Room, Uid};
use crate::message::{Entries, Message, Position, Target};
use crate::protocol::{Reply, SendBody};
use bind::Purpose;
use resume::ReplayBudget;

/// Maximum length of a fact, tag or channel that a client sends about itself, in bytes.
pub const MAX_FACT_BYTES: usize = 256;

/// The protocol state of one connection. Its user is part of the binding, which each input comes with.
#[derive(Debug)]
pub struct Session {
    /// Time of opening, milliseconds since 1970.
    opened_at: i64,
    pending: Pending,
    replays: ReplayBudget,
}

/// Events. Each action except `Reply`, `SetTag`, `Extend` and `Close` is answered by the input that names it.
pub enum Input {
    /// The transport is open. With a token in the claim, the connection asks to be bound at once.
    Opened(Option<Box<Claim>>),
    /// The transport refuses the client, which is told in band.
    Refused(Disconnect, Refusal),
    /// A SendBody came.
    Sent(SendBody),
    /// After [`Action::Admit`].
    Admitted(Result<Box<Admission>, Refusal>),
    /// After [`Action::Bind`].
    Bound(Result<ClientLocation, Refusal>),
    /// After [`Action::Handle`]: code, message and data of the plugin; `None` if no plugin owns the key.
    Handled(Option<Answer>),
    /// After [`Action::Join`].
    Joined(Result<JoinOutcome, Refusal>),
    /// After [`Action::Leave`]: `false` if the connection was not in the room.
    Left(bool),
    /// After [`Action::Publish`]. An error was refused before it reached a filter.
    Published(Result<Published, Refusal>),
}

/// Commands to the driver, to be performed in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Send this to the client.
    Reply(Reply),
    /// Ask the auth plugins to admit the client.
    Admit(Box<Claim>),
    /// Bind the connection as admitted, with the facts that the client sent.
    Bind(Box<Admission>, Facts),
    /// Add the facts of a client that is already bound; answered like [`Action::Bind`].
    Rebind(Facts),
    /// Ask the plugin that owns the key.
    Handle {
        /// The key.
        key: String,
        /// Its data.
        data: Entries,
    },
    /// Join a room, if the client may. The entries are the fields of the request for the access plugins. The last part
    /// is set if the client asks for earlier messages of the room.
    Join(Room, Entries, Option<JoinReplay>),
    /// Leave a room.
    Leave(Room),
    /// Set or remove the tag.
    SetTag(Option<String>),
    /// Publish for the client. A room is a valid target only if the connection is in it.
    Publish(Box<ClientMessage>),
    /// Extend the deadline of the unbound connection to this long from now.
    Extend(Duration),
    /// Close the connection. Nothing follows.
    Close(Disconnect),
}

/// The user of a connection, as its binding says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoundUser<'a> {
    /// The user.
    pub uid: &'a Uid,
    /// End of the admission, seconds since 1970.
    pub expires: Option<u64>,
}

/// Operator settings that the session needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// True if clients may send `message`.
    pub publish: bool,
    /// Time allowed for the bind.
    pub unbound: Duration,
    /// Upper bound of extensions by handlers, counted from the opening.
    pub unbound_max: Duration,
}

/// Location of a bound client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientLocation {
    /// The connection.
    pub cid: ConnectionId,
    /// The node's name.
    pub node: NodeId,
    /// The node's address for clients; empty = unknown.
    pub address: String,
    /// Address of the node to connect to next time, if it is another one.
    pub next: Option<String>,
    /// Result of the resume as JSON text, such as `[["u",true,"k3v9x0ab",57,9217,16]]`. `None` if the client asked for
    /// none.
    pub resume: Option<String>,
}

/// Messages of a room that a client asks for when it joins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JoinReplay {
    /// The client's position. `Some(None)` = the client is new in the stream and asks for the present position.
    pub since: Option<Option<Position>>,
    /// True to replay only the newest message. Wins over `since`.
    pub latest: bool,
}

/// Result of a join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinOutcome {
    /// False if the connection was already in the room.
    pub changed: bool,
    /// Result of the replay in the form of [`ClientLocation::resume`], with one element. `None` if the client asked for
    /// none.
    pub resume: Option<String>,
}

/// A message from one client to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientMessage {
    /// The message. Its sender is always the bound user, not the text that the client typed.
    pub message: Message,
    /// A user or a room.
    pub target: Target,
}

/// The result that the session waits for before it processes the next SendBody.
#[derive(Debug)]
enum Pending {
    Nothing,
    Auth(Box<Purpose>),
    /// User and expiry are told when the bind succeeds.
    Bind(Box<(Purpose, Uid, Option<u64>)>),
    Handler(String),
    Join(Room),
    Leave(Room),
    Publish,
    /// Closing is final.
    Closing,
}

impl Session {
    /// Creates the session of a connection opened at `now` (milliseconds since 1970).
    #[must_use]
    pub fn new(now: i64) -> Self {
        Self { opened_at: now, pending: Pending::Nothing, replays: ReplayBudget::default() }
    }

    /// True once [`Action::Close`] was returned.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        matches!(self.pending, Pending::Closing)
    }

    /// Processes an input at `now` (milliseconds since 1970) and returns the actions to perform. `bound_user` is the
    /// user to which the connection is bound now.
    ///
    /// Ignores an answer that the session does not wait for, and every input after [`Action::Close`].
    pub fn on(&mut self, input: Input, bound_user: Option<BoundUser<'_>>, now: i64, rules: &Rules) -> Vec<Action> {
        if self.is_closing() {
            return Vec::new();
        }
        match (input, std::mem::replace(&mut self.pending, Pending::Nothing)) {
            (Input::Opened(claim), _) => self.opened(claim, now),
            (Input::Refused(why, refusal), _) => self.refuse(why, refusal, now),
            (Input::Sent(body), Pending::Nothing) => self.sent(body, bound_user, now, rules),
            (Input::Admitted(answer), Pending::Auth(purpose)) => self.admitted(answer, *purpose, bound_user, now),
            (Input::Bound(answer), Pending::Bind(pending)) => self.bound(answer, *pending, now),
            (Input::Handled(answer), Pending::Handler(key)) => {
                self.handled(answer, key, bound_user.is_some(), now, rules)
            }
            (Input::Joined(Ok(outcome)), Pending::Join(room)) => vec![joined(&room, outcome, now)],
            (Input::Joined(Err(refusal)), Pending::Join(_)) => vec![deny("room_join", refusal, now)],
            (Input::Left(changed), Pending::Leave(room)) => vec![left(&room, changed, now)],
            (Input::Published(Ok(published)), Pending::Publish) => vec![chat::answer(published, now)],
            (Input::Published(Err(refusal)), Pending::Publish) => vec![deny("message", refusal, now)],
            (_, pending) => {
                self.pending = pending;
                Vec::new()
            }
        }
    }

    fn sent(&mut self, body: SendBody, bound_user: Option<BoundUser<'_>>, now: i64, rules: &Rules) -> Vec<Action> {
        let SendBody { key, data, .. } = body;
        let built_in = match key.as_str() {
            "client_bind" => self.client_bind(&data, bound_user, now),
            "client_refresh" => self.client_refresh(&data, bound_user),
            "client_set_tag" => set_tag(&data, bound_user, now),
            "client_remove_tag" => remove_tag(bound_user, now),
            "room_join" => self.room_join(&data, bound_user, now),
            "room_leave" => self.room_leave(&data, bound_user),
            "message" => self.message(&data, bound_user, rules),
            _ => {
                self.pending = Pending::Handler(key.clone());
                return vec![Action::Handle { key, data }];
            }
        };
        built_in.unwrap_or_else(|refusal| vec![deny(&key, refusal, now)])
    }

    fn room_join(
        &mut self,
        data: &Entries,
        bound_user: Option<BoundUser<'_>>,
        now: i64,
    ) -> Result<Vec<Action>, Refusal> {
        let room = room(data, bound_user)?;
        let replay = resume::join_replay(data)?;
        self.replays.take(usize::from(replay.is_some()), now)?;
        let named = ["room", resume::SINCE, resume::LATEST];
        let rest = data.iter().filter(|(key, _)| !named.contains(key)).collect();
        self.pending = Pending::Join(room.clone());
        Ok(vec![Action::Join(room, rest, replay)])
    }

    fn room_leave(&mut self, data: &Entries, bound_user: Option<BoundUser<'_>>) -> Result<Vec<Action>, Refusal> {
        let room = room(data, bound_user)?;
        self.pending = Pending::Leave(room.clone());
        Ok(vec![Action::Leave(room)])
    }

    fn message(
        &mut self,
        data: &Entries,
        bound_user: Option<BoundUser<'_>>,
        rules: &Rules,
    ) -> Result<Vec<Action>, Refusal> {
        let uid = user(bound_user)?;
        if !rules.publish {
            return Err(Refusal::new(Code::FORBIDDEN, "clients may not publish: clients.publish is off"));
        }
        let message = chat::parse(data, uid)?;
        self.pending = Pending::Publish;
        Ok(vec![Action::Publish(Box::new(message))])
    }

    fn handled(&self, answer: Option<Answer>, key: String, is_bound: bool, now: i64, rules: &Rules) -> Vec<Action> {
        let Some(Answer { code, message, data }) = answer else {
            let words = format!("key: no plugin handles {:?}", shortened(&key));
            return vec![reply(&key, Code::NOT_FOUND, words, Entries::new(), now)];
        };
        let mut actions = Vec::with_capacity(2);
        if !is_bound && code == Code::OK {
            actions.extend(self.extension(now, rules).map(Action::Extend));
        }
        actions.push(Action::Reply(Reply { key, code: code.to_string(), message, timestamp: now, data }));
        actions
    }

    /// Time granted to an unbound client after a handler served it (a login by QR code, for example).
    fn extension(&self, now: i64, rules: &Rules) -> Option<Duration> {
        let age = Duration::from_millis(u64::try_from(now - self.opened_at).unwrap_or(0));
        let left = rules.unbound_max.checked_sub(age)?;
        Some(left.min(rules.unbound)).filter(|d| !d.is_zero())
    }

    /// Refuses the client with the one reply that every CIM SDK understands, and closes.
    fn refuse(&mut self, why: Disconnect, refusal: Refusal, now: i64) -> Vec<Action> {
        self.pending = Pending::Closing;
        // CIM's SDKs stop reconnecting at 401 only. After a failure of the node they must reconnect.
        let (code, why) = match refusal.code.is_server_fault() {
            true if refusal.retry.is_some() => (refusal.code, Disconnect::BUSY),
            true => (refusal.code, Disconnect::INTERNAL),
            false => (Code::UNAUTHORIZED, why),
        };
        vec![deny("client_handshake", Refusal { code, ..refusal }, now), Action::Close(why)]
    }
}

/// The reply that tells a client its user.
#[must_use]
pub fn bind_reply(uid: &Uid, expires: Option<u64>, location: &ClientLocation, now: i64) -> Reply {
    bind::reply_to("client_bind", uid, expires, location, now)
}

fn user(bound_user: Option<BoundUser<'_>>) -> Result<&Uid, Refusal> {
    bound_user
        .map(|bound_user| bound_user.uid)
        .ok_or_else(|| Refusal::new(Code::UNAUTHORIZED, "the connection is not bound to a user"))
}

/// Reads the room from the request of a bound client.
fn room(data: &Entries, bound_user: Option<BoundUser<'_>>) -> Result<Room, Refusal> {
    user(bound_user)?;
    Room::parse(required(data, "room")?).map_err(|e| invalid(format!("room: {e}")))
}

fn set_tag(data: &Entries, bound_user: Option<BoundUser<'_>>, now: i64) -> Result<Vec<Action>, Refusal> {
    user(bound_user)?;
    let tag = required(data, "tag")?;
    bounded("tag", tag)?;
    let done = reply("client_set_tag", Code::OK, String::new(), Entries::new(), now);
    Ok(vec![Action::SetTag(Some(tag.to_owned())), done])
}

fn remove_tag(bound_user: Option<BoundUser<'_>>, now: i64) -> Result<Vec<Action>, Refusal> {
    user(bound_user)?;
    let done = reply("client_remove_tag", Code::OK, String::new(), Entries::new(), now);
    Ok(vec![Action::SetTag(None), done])
}

fn joined(room: &Room, JoinOutcome { changed, resume }: JoinOutcome, now: i64) -> Action {
    let mut data = changed_room(room, changed);
    if let Some(resume) = resume {
        data.insert(resume::RESUME, resume);
    }
    reply("room_join", Code::OK, String::new(), data, now)
}

fn left(room: &Room, changed: bool, now: i64) -> Action {
    reply("room_leave", Code::OK, String::new(), changed_room(room, changed), now)
}

fn changed_room(room: &Room, changed: bool) -> Entries {
    [("room", room.as_str()), ("changed", if changed { "true" } else { "false" })].into_iter().collect()
}

fn reply(key: &str, code: Code, message: String, data: Entries, now: i64) -> Action {
    Action::Reply(Reply { key: key.to_owned(), code: code.to_string(), message, timestamp: now, data })
}

fn deny(key: &str, refusal: Refusal, now: i64) -> Action {
    let mut data = Entries::new();
    if let Some(retry) = refusal.retry {
        data.insert("retry", retry.as_millis().to_string());
    }
    reply(key, refusal.code, refusal.reason, data, now)
}

fn invalid(words: String) -> Refusal {
    Refusal::new(Code::BAD_REQUEST, words)
}

/// Reads a mandatory, non-empty field.
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

/// The first 64 bytes of a text, to recognise it.
fn shortened(text: &str) -> &str {
    &text[..text.floor_char_boundary(64)]
}
