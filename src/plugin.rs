//! The interface between plugins and the rest of Skylark: the trait [`PluginHost`] and its records.
//!
//! Does not depend on the hub or the broker: plugins act on others through [`Services`], which the node implements.
//! `wasmtime` stays inside the modules below and appears in no signature here.
//!
//! Four rooms hold the host, and a room imports lower rooms only: `guest` (one instance), `imports` (the host functions
//! that it calls), `calls` (roles, versions, circuits) and `loader` (from files to versions that serve).

mod calls;
pub mod check;
mod digest;
pub mod fetch;
mod guest;
pub mod harness;
pub mod history;
pub mod host;
mod imports;
pub mod kv;
mod loader;
mod options;
pub mod time;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::future::BoxFuture;

pub use loader::trust;
pub use options::{CompileIn, LoadError, Options};

pub use crate::claim::{Admission, Answer, Claim, Refusal};
pub use crate::fate::Unjudged;

use crate::id::{ConnectionId, Device, Room, Uid};
use crate::message::{Entries, Envelope, Publication, StreamName, Target};

/// Fixed text for a client when a plugin failed and the client's input is not to blame. The log has the reason.
pub(crate) const UNAVAILABLE: &str = "temporarily unavailable, try again later";

/// Facts about a connection that asks for admission, as the transport knows them.
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

/// Result of the filter chain for one envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// The envelope goes on. Its message is unchanged unless plugins are listed.
    Pass {
        /// Plugins that replaced the message, in order.
        replaced_by: Vec<Arc<str>>,
    },
    /// The envelope is discarded, and the publisher receives the reason.
    Reject {
        /// The plugin that rejected it.
        plugin: Arc<str>,
        /// Code and reason of the plugin.
        refusal: Refusal,
    },
    /// The envelope is discarded, and the publisher learns that it was dropped.
    Drop {
        /// The plugin that dropped it.
        plugin: Arc<str>,
    },
    /// A fail-closed filter failed to judge the envelope: there is neither a yes nor a no.
    Unjudged(Unjudged),
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

/// A client's request to join a room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRequest {
    /// The user and the connection that ask.
    pub who: Identity,
    /// The claims of the connection's last admission or login.
    pub claims: Entries,
    /// The room.
    pub room: Room,
    /// The data that the client sent with the room.
    pub data: Entries,
}

/// Decision of the access plugins on a join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// The client may join, until this time (seconds since 1970) if there is one.
    Allow(Option<u64>),
    /// The client may not join.
    Refuse(Refusal),
    /// No plugin decided: the rooms of `clients.open_rooms` are open.
    Abstain,
    /// A plugin that had to be asked could not judge.
    Unavailable,
}

/// A SendBody on its way to the plugin that owns its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The key.
    pub key: String,
    /// Its data.
    pub data: Entries,
    /// The identity of the caller; `None` while the connection is not bound.
    pub caller: Option<Identity>,
    /// The connection that sent it.
    pub cid: ConnectionId,
    /// The client's address without port while the connection is not bound; empty otherwise.
    pub remote: String,
}

/// A change of presence or room membership. The node on which it happened reports it once for the whole cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// First connection of a user.
    Online(Identity),
    /// The last connection of a user is gone. If the node that held it failed, the connection is
    /// [`ConnectionId::UNKNOWN`].
    Offline(Identity),
    /// A connection joined a room.
    RoomJoined(Identity, Room),
    /// A connection left a room.
    RoomLeft(Identity, Room),
    /// A client came back with positions of these streams.
    Resumed(Identity, Vec<ResumedStream>),
    /// A kept message reached no device of the user. The number is the id of the message.
    Undelivered(Uid, i64, UndeliveredCause),
}

impl Event {
    /// The user that the event is about.
    #[must_use]
    pub const fn uid(&self) -> &Uid {
        match self {
            Self::Online(who)
            | Self::Offline(who)
            | Self::RoomJoined(who, _)
            | Self::RoomLeft(who, _)
            | Self::Resumed(who, _) => &who.uid,
            Self::Undelivered(uid, ..) => uid,
        }
    }

    /// True if the export `receipts` gets the event, not the role `events`.
    #[must_use]
    pub const fn is_receipt(&self) -> bool {
        matches!(self, Self::Resumed(..) | Self::Undelivered(..))
    }
}

/// One stream of a client that came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResumedStream {
    /// The stream.
    pub name: StreamName,
    /// True if the client gets every message that it missed.
    pub recovered: bool,
    /// Number of messages that are replayed; `None` if they are not counted in advance.
    pub count: Option<u64>,
}

/// Why a message counts as undelivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UndeliveredCause {
    /// No connection of the user accepted it when it was published.
    Offline,
    /// No device of the user acknowledged it in time.
    Unacknowledged,
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

/// Effect of a handler or events call on other connections. It is applied after the call has returned ok.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Publish this.
    Push(Box<Publication>),
    /// The user's connections join the room.
    Join(Uid, Room),
    /// The user's connections leave the room.
    Leave(Uid, Room),
    /// Close the target's connections with this reason.
    Kick(Target, String),
    /// Bind the connection to this user.
    Login(ConnectionId, Box<Account>),
}

/// The user that a plugin binds a connection to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The user with device, rooms, expiry and claims.
    pub admission: Admission,
    /// web, android, ios, windows, mac.
    pub channel: Option<String>,
}

/// Services that the node offers to plugins.
pub trait Services: Send + Sync {
    /// True if the user has a connection.
    fn is_online<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, bool>;
    /// The user's connections.
    fn connections<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Vec<Presence>>;
    /// Users in a room, each once, from `offset` on.
    fn members<'a>(&'a self, room: &'a str, offset: u32, limit: u32) -> BoxFuture<'a, Vec<Uid>>;
    /// True while this connection is open.
    fn is_connected(&self, cid: ConnectionId) -> BoxFuture<'_, bool>;
    /// Applies all effects in order. Events that they cause carry the same number of `hops`.
    fn commit(&self, effects: Vec<Effect>, hops: u8) -> BoxFuture<'_, ()>;
}

/// State of a plugin, as operators see it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PluginState {
    /// A version serves.
    #[default]
    Live,
    /// The manifest or the operator disabled it.
    Disabled,
    /// Its file was refused, and no older version serves.
    Rejected,
    /// Its file was deleted, and its role refuses.
    Missing,
}

impl PluginState {
    /// The name in JSON and in the banner.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Disabled => "disabled",
            Self::Rejected => "rejected",
            Self::Missing => "missing",
        }
    }
}

/// One file of the plugin directory, as `GET /plugins` shows it.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Status {
    /// File name without `.wasm`.
    pub name: Arc<str>,
    /// State of the plugin.
    pub state: PluginState,
    /// `auth`, `filter`, `handler`, `events`, `access`; and `receipts` after `events` if it is exported.
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
    /// How its calls ended: by the answer (`allow`, `admit`, …), or by the reason for a missing one (`trap`, `cpu`, …,
    /// `open`).
    pub outcomes: BTreeMap<&'static str, u64>,
    /// Median duration of the timed calls (one in 16) in microseconds, at most a quarter too high.
    pub p50: Option<f64>,
    /// 99th percentile of the same durations, in microseconds.
    pub p99: Option<f64>,
    /// Peak memory of one instance of this version, bytes.
    pub memory: usize,
    /// `closed`, `open` (the guest is not called) or `half-open`.
    pub circuit: Option<&'static str>,
    /// How often the circuit opened.
    pub circuits_opened: u64,
    /// Sources that are set apart: only their calls fail, and they get the failure answer for a while.
    pub set_apart: SetApart,
    /// True while the plugin goes back to `previous` automatically if its circuit opens.
    pub probation: bool,
    /// SHA-256 of the file that served before; `rollback` restores it.
    pub previous: Option<String>,
    /// A newer version that serves a share of the senders.
    pub canary: Option<CanaryStatus>,
    /// Why the newest file on disk does not serve; `None` if it serves.
    pub rejected: Option<Rejected>,
    /// The version that a rollback in an earlier run restored, if it is no longer available. The node then tried the
    /// rolled-back file once more.
    pub lost: Option<Rejected>,
}

/// A version that serves a share of the senders beside the one that serves all others.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct CanaryStatus {
    /// Share of the senders, e.g. `5%`.
    pub share: String,
    /// Version number.
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

/// A source that is set apart, as shown to an operator.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Apart {
    /// `user 1074`, `address 192.0.2.1, credential #1a2b`, `key shop, sender 1074`: never a credential.
    pub source: String,
    /// Guest failures of its calls.
    pub failures: u32,
    /// Milliseconds until its next call is let through.
    pub left: u64,
}

/// Command of an operator to one plugin while the node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PluginCommand {
    /// Serve again, after `Disable`.
    Enable,
    /// Stop serving, as `enabled = false` does, until `Enable` or the end of this process.
    Disable,
    /// Load the files again, including refused ones.
    Reload,
    /// Go back to the previous version.
    RollBack,
    /// Serve all sources again, including those that are set apart.
    Readmit,
}

/// Why an operator's command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PluginCommandFault {
    /// There is no such plugin.
    #[error("there is no plugin of this name")]
    Unknown,
    /// The plugin's state does not allow the command; the text says why.
    #[error("{0}")]
    NotPossible(String),
    /// The node is shutting down.
    #[error("the node is shutting down")]
    ShuttingDown,
}

/// A file that was refused or is lost.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Rejected {
    /// Its SHA-256, hexadecimal; empty if it could not be read.
    pub hash: String,
    /// Why.
    pub reason: String,
}

/// The plugins of this node.
///
/// Every call answers within the limits of its role. A failing plugin gives the declared failure answer of its role,
/// never an error.
pub trait PluginHost: Send + Sync {
    /// Asks the auth plugins in order. Fails closed: no plugin, or none that decides, refuses.
    fn admit(&self, transport: Transport, claim: Claim) -> BoxFuture<'_, Result<Admission, Refusal>>;

    /// Asks the access plugins in order; the first that does not abstain decides.
    fn join(&self, request: JoinRequest) -> BoxFuture<'_, Access>;

    /// Runs each envelope through the filter chain of one snapshot. A replaced message is stored in its envelope.
    fn judge<'a>(&'a self, batch: &'a mut [Envelope]) -> BoxFuture<'a, Vec<Judgement>>;

    /// Asks the handler that owns the key; `None` if no plugin does.
    fn handle(&self, call: Call) -> BoxFuture<'_, Option<Answer>>;

    /// Queues the event for the events plugins, which receive events in order. A full queue drops the event and counts
    /// it. `hops` is the number of plugin calls between the external cause and this event. It bounds chains in which
    /// plugins trigger each other.
    fn notify(&self, event: Event, hops: u8);

    /// True if an events plugin exports `receipts`. Only then does the node look for such events.
    fn wants_receipts(&self) -> bool;

    /// Every plugin, by name.
    fn status(&self) -> Vec<Status>;

    /// Carries out an operator's command and returns the plugin's status afterwards.
    fn execute(&self, name: &str, command: PluginCommand) -> BoxFuture<'_, Result<Status, PluginCommandFault>>;

    /// Why the plugins as a whole cannot be relied on now, as short sentences; empty while they can.
    fn faults(&self) -> Vec<String>;
}

/// Task of a plugin. One file may carry several roles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// Decides which connections are admitted.
    Auth,
    /// Judges each publish.
    Filter,
    /// Answers SendBody keys.
    Handler,
    /// Receives events.
    Events,
    /// Decides which rooms a client may join.
    Access,
}

impl Role {
    /// Every role, in the order of their numbers.
    pub const ALL: [Self; 5] = [Self::Auth, Self::Filter, Self::Handler, Self::Events, Self::Access];

    /// The name used in the interface, in manifests, logs and metrics.
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
