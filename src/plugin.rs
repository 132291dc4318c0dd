//! What the rest of Skylark sees of plugins: the trait [`PluginHost`] and the records that pass through it.
//!
//! Knows no hub and no broker: what plugins may do to others goes through [`Services`], which the node implements.
//! `wasmtime` lives in the modules below and shows in no signature here.

mod access;
mod answers;
mod auth;
mod bindings;
mod breaker;
mod cache;
mod chain;
pub mod check;
mod commit;
mod compile;
mod convert;
mod counters;
mod crypto;
mod digest;
mod disk;
mod draft;
mod durations;
mod engine;
mod events;
mod evidence;
mod failure;
pub mod fetch;
mod guest;
mod handler;
pub mod host;
mod http;
mod imports;
mod inspect;
mod instance;
pub mod kv;
mod limits;
mod load;
mod login;
mod manifest;
mod matching;
mod opinions;
mod owners;
mod pool;
mod publication;
mod reload;
mod retry;
mod share;
mod snapshot;
mod source;
mod stats;
mod ticker;
pub mod time;
mod timers;
pub mod trial;
pub mod trust;
mod version;
mod wasi;
mod watch;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;

pub use breaker::Apart;

pub use crate::claim::{Admission, Answer, Claim, Refusal};

use crate::id::{ConnectionId, Device, Room, Uid};
use crate::message::{Entries, Envelope, Publication, Target};

/// What a client is told when a plugin failed and its input is not to blame. The log has the reason.
pub(crate) const UNAVAILABLE: &str = "temporarily unavailable, try again later";

/// What the transport knows of a connection that asks to be let in.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Transport {
    /// `ws`, `cim` or `cim-tcp`.
    pub listener: &'static str,
    /// The client's address, without port.
    pub remote: String,
    /// Path and query of the upgrade, without the credentials.
    pub path: String,
    /// The Origin header.
    pub origin: Option<String>,
    /// The User-Agent header.
    pub user_agent: Option<String>,
    /// The user that the connection is bound to already.
    pub bound: Option<Uid>,
}

/// What the filter chain did to one envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It goes on, as it was or, where plugins are named, with the message they made of it.
    Pass {
        /// Plugins that replaced the message, in order.
        replaced_by: Vec<Arc<str>>,
    },
    /// It goes no further, and the publisher is told why.
    Reject {
        /// Which plugin.
        plugin: Arc<str>,
        /// Its words.
        refusal: Refusal,
    },
    /// It goes no further.
    Drop {
        /// Which plugin.
        plugin: Arc<str>,
    },
    /// A fail-closed filter could not judge it: neither a yes nor a no.
    Unjudged(Unjudged),
}

/// Why a filter could not judge an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unjudged {
    /// Which plugin.
    pub plugin: Arc<str>,
    /// What went wrong. For the log and for dead letters: clients are told a fixed text.
    pub reason: String,
    /// True while the plugin can judge nobody's messages: its circuit is open, its file is gone, or the node cannot do its part.
    /// Who can wait should.
    pub waits: bool,
}

/// A bound connection, as plugins see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its user.
    pub uid: Uid,
    /// The connection.
    pub cid: ConnectionId,
    /// Its device.
    pub device: Option<Device>,
    /// web, android, ios, windows, mac.
    pub channel: Option<String>,
}

/// A client's wish to join a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// Who asks.
    pub who: Identity,
    /// The claims of the connection's last admission or login.
    pub claims: Entries,
    /// The room.
    pub room: Room,
    /// The data that the client sent beside the room.
    pub data: Entries,
}

/// What the access plugins say of a join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// The client may join, until this second since 1970 if there is one.
    Allow(Option<u64>),
    /// The client may not join.
    Refuse(Refusal),
    /// No plugin decided: the rooms of `clients.open_rooms` are open.
    Abstain,
    /// A plugin that would have been asked could not judge.
    Unavailable,
}

/// A SendBody on its way to the plugin that owns its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The key.
    pub key: String,
    /// Its data.
    pub data: Entries,
    /// Who asks; none while the connection is not bound.
    pub caller: Option<Identity>,
    /// The connection that asks.
    pub cid: ConnectionId,
    /// The client's address while nobody is bound, without port; else empty.
    pub remote: String,
}

/// What happened. Who came and went is told once in the whole cluster, by the node on which it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// First connection of a user.
    Online(Identity),
    /// The last connection of a user is gone. Where the node that held it fell, nobody knows which it was
    /// ([`ConnectionId::UNKNOWN`]).
    Offline(Identity),
    /// A connection joined a room.
    RoomJoined(Identity, Room),
    /// A connection left a room.
    RoomLeft(Identity, Room),
}

/// A connection, as the directory shows it to plugins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Presence {
    /// The connection.
    pub cid: ConnectionId,
    /// Its device.
    pub device: Option<Device>,
    /// web, android, ios, windows, mac.
    pub channel: Option<String>,
    /// The rooms that it is in.
    pub rooms: Vec<Room>,
}

/// What a handler or events call does to others, once it has returned ok.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Publish this.
    Push(Box<Publication>),
    /// The user's connections join the room.
    Join(Uid, Room),
    /// The user's connections leave the room.
    Leave(Uid, Room),
    /// Close the target's connections, with these words for them.
    Kick(Target, String),
    /// The connection is this user's from now on.
    Login(ConnectionId, Box<Account>),
}

/// Whose a connection becomes by a plugin's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The user, and what goes with it.
    pub admission: Admission,
    /// web, android, ios, windows, mac.
    pub channel: Option<String>,
}

/// What the node does for plugins.
pub trait Services: Send + Sync {
    /// Whether the user has a connection.
    fn is_online<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, bool>;
    /// The user's connections.
    fn connections<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Vec<Presence>>;
    /// Users in a room, each once, from `offset` on.
    fn members<'a>(&'a self, room: &'a str, offset: u32, limit: u32) -> BoxFuture<'a, Vec<Uid>>;
    /// Whether this connection lives.
    fn is_connected(&self, cid: ConnectionId) -> BoxFuture<'_, bool>;
    /// Does all of it, in order; events that come of it are told with the same number of `hops`.
    fn commit(&self, effects: Vec<Effect>, hops: u8) -> BoxFuture<'_, ()>;
}

/// One file of the plugin directory, as `GET /plugins` shows it.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Status {
    /// File name without `.wasm`.
    pub name: Arc<str>,
    /// `live`, `disabled`, `rejected` (nothing serves) or `missing` (deleted, and its role refuses).
    pub state: &'static str,
    /// `auth`, `filter`, `handler`, `events`, `access`.
    pub roles: Vec<&'static str>,
    /// Grows by one with each version of the file that went live.
    pub version: u64,
    /// SHA-256 of the file that serves, hexadecimal.
    pub hash: String,
    /// Bytes of the file that serves.
    pub size: u64,
    /// Handler keys that it owns.
    pub keys: Vec<String>,
    /// When this version went live, milliseconds since 1970.
    pub since: i64,
    /// Calls served by this version.
    pub calls: u64,
    /// Calls of this version that ended in a trap, a time-out or a refused instance.
    pub failures: u64,
    /// How its calls ended, by the answer (`allow`, `admit`, …) or by why there was none (`trap`, `cpu`, …, `open`).
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Microseconds within which half of the timed calls (one in 16) were answered, at most a quarter too many.
    pub p50: Option<f64>,
    /// Microseconds within which 99 of 100 were.
    pub p99: Option<f64>,
    /// The most bytes that one instance of this version has held.
    pub memory: usize,
    /// `closed`, `open` (the guest is not asked) or `half-open`.
    pub circuit: Option<&'static str>,
    /// How often it opened.
    pub circuits_opened: u64,
    /// Sources whose calls alone fail, and that get the failure answer for a while.
    pub set_apart: SetApart,
    /// Whether it goes back to `previous` by itself if its circuit opens.
    pub probation: bool,
    /// SHA-256 of the file that served before, to which `rollback` goes back.
    pub previous: Option<String>,
    /// A newer version that serves a share of the senders.
    pub canary: Option<OnTrial>,
    /// Why the newest file on disk does not serve, if it does not.
    pub rejected: Option<Rejected>,
    /// The version that a rollback of an earlier run went back to, if it could not be had again: the file that was rolled back was tried
    /// once more then.
    pub lost: Option<Rejected>,
}

/// A version that serves a share of the senders beside the one that serves all others.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct OnTrial {
    /// Which share, e.g. `5%`.
    pub share: String,
    /// Its number.
    pub version: u64,
    /// SHA-256 of its file, hexadecimal.
    pub hash: String,
    /// When it began to serve, milliseconds since 1970.
    pub since: i64,
    /// Calls that it served.
    pub calls: u64,
    /// Calls that ended in a trap, a time-out or a refused instance.
    pub failures: u64,
    /// How its calls ended.
    pub outcomes: BTreeMap<&'static str, u64>,
    /// `closed`, `open` or `half-open`.
    pub circuit: &'static str,
    /// Sources that are set apart.
    pub set_apart: SetApart,
}

/// Sources that a version has set apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct SetApart {
    /// How many there are now.
    pub now: usize,
    /// How often this version has set one apart.
    pub times: u64,
    /// The newest of them, at most 20.
    pub sources: Vec<Apart>,
}

/// What an operator tells one plugin while the node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Serve again, after `Disable`.
    Enable,
    /// Stop serving, as `enabled = false` does, until `Enable` or the end of this process.
    Disable,
    /// Load the files anew, refused ones too.
    Reload,
    /// Go back to the version before.
    RollBack,
    /// Let the sources in again that are set apart.
    Readmit,
}

/// Why a word of the operator's was not done.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WordFault {
    /// There is no such plugin.
    #[error("there is no plugin of this name")]
    Unknown,
    /// It is not in a state for it; the text says why.
    #[error("{0}")]
    Unfit(String),
    /// The node ends.
    #[error("the node is ending")]
    Ending,
}

/// A file that was refused, or one that is lost.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Rejected {
    /// Its SHA-256, hexadecimal; empty if it could not be read.
    pub hash: String,
    /// Why.
    pub reason: String,
}

/// The plugins of this node.
///
/// Every call answers within the limits of its role; a failure of a plugin is the role's declared answer, never an error.
pub trait PluginHost: Send + Sync {
    /// Asks the auth plugins in order. Fails closed: no plugin, or none that decides, refuses.
    fn admit(&self, transport: Transport, claim: Claim) -> BoxFuture<'_, Result<Admission, Refusal>>;

    /// Asks the access plugins in order; the first that does not abstain decides.
    fn join(&self, request: JoinRequest) -> BoxFuture<'_, Access>;

    /// Sends each envelope through the filter chain of one snapshot; a replaced message stands in its envelope afterwards.
    fn judge<'a>(&'a self, batch: &'a mut [Envelope]) -> BoxFuture<'a, Vec<Judgement>>;

    /// Asks the handler that owns the key; `None` if no plugin does.
    fn handle(&self, call: Call) -> BoxFuture<'_, Option<Answer>>;

    /// Tells the events plugins, later and in order; a full queue loses the event and counts it. `hops` calls of plugins
    /// stand between it and something from outside, so that plugins cannot go on without end on their own.
    fn notify(&self, event: Event, hops: u8);

    /// Every plugin, by name.
    fn status(&self) -> Vec<Status>;

    /// Does what the operator tells one plugin; its status afterwards.
    fn obey(&self, name: &str, word: Word) -> BoxFuture<'_, Result<Status, WordFault>>;

    /// Why no plugin can be relied on now, whatever its own state, in short sentences; none = they can.
    fn faults(&self) -> Vec<String>;
}

/// What a plugin is asked to do. One file may carry several roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Decides who gets in.
    Auth,
    /// Judges each publish.
    Filter,
    /// Answers SendBody keys.
    Handler,
    /// Hears what happened.
    Events,
    /// Decides which rooms a client may join.
    Access,
}

impl Role {
    /// Every role, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Auth, Self::Filter, Self::Handler, Self::Events, Self::Access];

    /// The word used in the interface, in manifests, logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Auth => "auth",
            Self::Filter => "filter",
            Self::Handler => "handler",
            Self::Events => "events",
            Self::Access => "access",
        }
    }
}
