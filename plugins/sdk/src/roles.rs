//! The traits that authors implement: [`Plugin`] for every plugin, and one trait for each role.

use serde::de::DeserializeOwned;

use crate::{
    AccessAnswer, AuthAnswer, Call, Claim, Entry, Event, Identity, Publish, Reply, ResumedStream, Transport,
    UndeliveredCause, Verdict,
};

/// A plugin, built once per instance before its first call.
pub trait Plugin: Sized + 'static {
    /// The `[settings]` table of the manifest. `#[serde(deny_unknown_fields)]` turns an unknown key into an error that
    /// names the key.
    type Settings: DeserializeOwned;

    /// Builds the plugin. Work that is done once belongs here: word lists, keys, tables.
    ///
    /// # Errors
    /// A sentence for the operator. At load the error rejects the file, and the previous version stays in service.
    fn start(settings: Self::Settings) -> Result<Self, String>;
}

/// Settings of a plugin that has none: rejects every key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

/// Authenticates clients at connect, at `client_bind` and at `client_refresh`.
pub trait Auth: Plugin {
    /// The first plugin that does not abstain decides. If all abstain, the client is refused. A client cannot set
    /// anything in `transport` with a frame; everything in `claim` comes from the client.
    fn admit(&mut self, transport: &Transport, claim: &Claim) -> AuthAnswer;
}

/// Decides which rooms a bound client may join.
pub trait Access: Plugin {
    /// The first plugin that does not abstain decides. If all abstain, only the rooms of `clients.open_rooms` are open.
    fn join(&mut self, join: &Join) -> AccessAnswer;
}

/// A client's request to join a room.
#[derive(Debug, Clone, PartialEq)]
pub struct Join {
    /// The client that asks.
    pub who: Identity,
    /// The claims of the connection's last admission or login. None of them comes from the client.
    pub claims: Vec<Entry>,
    /// The room.
    pub room: String,
    /// The data that the client sent with the room. None of it is verified.
    pub data: Vec<Entry>,
}

/// Judges each publish once, for every origin and any number of receivers.
pub trait Filter: Plugin {
    /// Judges the publish. Each text that the filter asks `publish` for is copied once; the others are not copied.
    fn judge(&mut self, publish: &Publish) -> Verdict;
}

/// Answers the SendBody keys that it owns.
pub trait Handler: Plugin {
    /// The keys. The host asks once per load; a key that another plugin owns makes the load fail.
    fn keys(&self) -> Vec<String>;

    /// Answers one call. Effects through [`kv`](crate::kv) and [`outbox`](crate::outbox) are committed before the reply
    /// is sent.
    ///
    /// # Errors
    /// A sentence for the node's log. Nothing is committed, and the client gets `"503"`.
    fn handle(&mut self, call: &Call) -> Result<Reply, String>;
}

/// Receives the events of the node.
pub trait Events: Plugin {
    /// Handles one event. It has no result and delays nothing.
    fn on_event(&mut self, event: &Event);
}

/// Receives the timers that the plugin set ([`timers`](crate::timers)) when they are due. Used with a handler or
/// events.
pub trait Alarms: Plugin {
    /// Called once for each timer. Its effects are committed like those of a handler.
    fn on_timer(&mut self, name: &str, data: &[u8]);
}

/// Receives the outcome of kept messages. Used with events.
pub trait Receipts: Events {
    /// A client came back with its positions. `streams` are those that it had a position of.
    fn resumed(&mut self, who: &Identity, streams: &[ResumedStream]) {
        let _ = (who, streams);
    }

    /// A kept message reached no device of this user. The same message may be reported more than once: compare ids.
    fn undelivered(&mut self, uid: &str, id: i64, cause: UndeliveredCause) {
        let _ = (uid, id, cause);
    }
}
