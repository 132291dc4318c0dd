//! The traits that an author implements: [`Plugin`] for every plugin, and one for each role.

use serde::de::DeserializeOwned;

use crate::{AccessAnswer, AuthAnswer, Call, Claim, Entry, Event, Identity, Publish, Reply, Transport, Verdict};

/// A plugin: built once per instance, before its first call.
pub trait Plugin: Sized + 'static {
    /// The `[settings]` table of the manifest. Give unknown keys a name with `#[serde(deny_unknown_fields)]`.
    type Settings: DeserializeOwned;

    /// Builds the plugin. Here belongs what is worth doing once: word lists, keys, tables.
    ///
    /// # Errors
    /// A sentence for the operator: at load it refuses the file, and the version before goes on serving.
    fn start(settings: Self::Settings) -> Result<Self, String>;
}

/// For plugins without settings: refuses any key.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoSettings {}

/// Decides who gets in: at connect, at `client_bind` and at `client_refresh`.
pub trait Auth: Plugin {
    /// The first plugin that does not abstain decides; if all abstain the client is refused. `transport` holds nothing that a client typed
    /// in a frame, `claim` nothing else.
    fn admit(&mut self, transport: &Transport, claim: &Claim) -> AuthAnswer;
}

/// Decides which rooms a bound client may join.
pub trait Access: Plugin {
    /// The first plugin that does not abstain decides; if all abstain, the rooms of `clients.open_rooms` are open.
    fn join(&mut self, join: &Join) -> AccessAnswer;
}

/// A client's wish to join a room.
#[derive(Debug, Clone, PartialEq)]
pub struct Join {
    /// Who asks.
    pub who: Identity,
    /// The claims of the connection's last admission or login. The client typed nothing of them.
    pub claims: Vec<Entry>,
    /// The room.
    pub room: String,
    /// The data that the client sent beside the room. Nothing of it is a fact.
    pub data: Vec<Entry>,
}

/// Judges each publish once, whatever way it came in and however many receive it.
pub trait Filter: Plugin {
    /// Reads only what it asks `publish` for; each text asked for is copied once.
    fn judge(&mut self, publish: &Publish) -> Verdict;
}

/// Answers the SendBody keys that it owns.
pub trait Handler: Plugin {
    /// The keys. Asked once per load; a key that another plugin owns makes the load fail.
    fn keys(&self) -> Vec<String>;

    /// What was done through [`kv`](crate::kv) and [`outbox`](crate::outbox) is committed before the reply goes out.
    ///
    /// # Errors
    /// A sentence for the node's log: nothing is committed and the client is told `"503"`.
    fn handle(&mut self, call: &Call) -> Result<Reply, String>;
}

/// Is told what happened on the node.
pub trait Events: Plugin {
    /// Answers nothing and delays nothing.
    fn on_event(&mut self, event: &Event);
}

/// Is told when a timer that the plugin set ([`timers`](crate::timers)) is due. Beside a handler or events.
pub trait Alarms: Plugin {
    /// Called once for each timer; its effects are committed as a handler's are.
    fn on_timer(&mut self, name: &str, data: &[u8]);
}
