//! The only place that sees hub, broker and plugins together: publish, deliver, presence.
//!
//! Every way in calls [`Node::publish`]; nothing else reaches a broker, and nothing but the broker reaches the hub.

use std::sync::Arc;

use crate::config::DevicePolicy;
use crate::disconnect::Disconnect;
use crate::hub::{Connection, Socket};
use crate::id::{ConnectionId, NodeId, Room, Uid};
use crate::message::{Entries, History, Message, Origin, Publisher, Receipt, Target};
use crate::plugin::{Admission, Answer, Call, Claim, Refusal, Status, Transport};
use crate::protocol::{Dialect, Form};

/// What an ingress asks to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// What is said; id and timestamp 0 are filled in.
    pub message: Arc<Message>,
    /// To whom.
    pub target: Target,
    /// The connection that is left out.
    pub no_echo: Option<ConnectionId>,
    /// The client that publishes.
    pub from: Option<Publisher>,
    /// By which way it came.
    pub origin: Origin,
    /// Only these nodes; empty = all.
    pub nodes: Arc<[NodeId]>,
    /// Idempotency key.
    pub key: Option<Arc<str>>,
    /// What history is to do with it.
    pub history: History,
}

impl Publication {
    /// With nothing set that may be left out.
    #[must_use]
    pub fn new(message: impl Into<Arc<Message>>, target: Target, origin: Origin) -> Self {
        Self {
            message: message.into(),
            target,
            no_echo: None,
            from: None,
            origin,
            nodes: Arc::default(),
            key: None,
            history: History::Default,
        }
    }
}

/// What became of one publication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Published {
    /// The message's id.
    pub id: i64,
    /// Plugins that replaced the message, in order.
    pub replaced_by: Vec<Arc<str>>,
    /// How it ended.
    pub fate: Fate,
}

/// How a publication ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The broker took it.
    Accepted {
        /// What was delivered, where it is known at once.
        receipt: Option<Receipt>,
        /// Nodes that it names and nobody knows.
        unknown_nodes: Vec<NodeId>,
    },
    /// A plugin said no.
    Rejected {
        /// Which one.
        plugin: Arc<str>,
        /// Its words.
        refusal: Refusal,
    },
    /// A plugin made it disappear.
    Dropped {
        /// Which one.
        plugin: Arc<str>,
    },
    /// Some dialect could not carry it.
    TooLarge {
        /// Which one.
        dialect: Dialect,
        /// Bytes it would take.
        bytes: usize,
        /// Bytes it may take.
        limit: usize,
    },
    /// A plugin's push gave rise to a push … too often.
    TooManyHops,
    /// The broker cannot keep its word now.
    Unavailable,
}

/// What a client said of itself when it bound, besides its credentials.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BindFacts {
    /// `deviceId`, as claimed.
    pub device: Option<String>,
    /// web, android, ios, windows, mac.
    pub channel: Option<String>,
    /// deviceName, appVersion, osVersion, packageName, language…
    pub facts: Entries,
}

/// One running node.
pub struct Node {}

impl Node {
    /// Sends each publication through the plugins once and hands what passes to the broker as one batch.
    /// One result each, in order; nothing of a batch is delivered before all of it has been judged.
    pub async fn publish(&self, _batch: Vec<Publication>) -> Vec<Published> {
        todo!()
    }

    /// This node's name.
    pub fn id(&self) -> &NodeId {
        todo!()
    }

    /// Takes a new connection, unbound.
    ///
    /// # Errors
    /// Why it is refused: too many connections, or the node drains.
    pub async fn attach(&self, _socket: Arc<dyn Socket>, _form: Option<Form>) -> Result<Connection, Disconnect> {
        todo!()
    }

    /// Asks the auth plugins; bounded in number of calls under way.
    ///
    /// # Errors
    /// The plugin's refusal, or the host's in its place.
    pub async fn admit(&self, _transport: Transport, _claim: Claim) -> Result<Admission, Refusal> {
        todo!()
    }

    /// Binds the connection as admitted: device matrix (others may be kicked), rooms, presence events.
    /// A second bind of the same user adds what it says.
    ///
    /// # Errors
    /// A refusal if the connection is bound to another user already or the admission's names are not valid.
    pub async fn bind(
        &self,
        _connection: &Connection,
        _devices: DevicePolicy,
        _admission: Admission,
        _facts: BindFacts,
    ) -> Result<(), Refusal> {
        todo!()
    }

    /// The connection's socket is gone.
    pub async fn detach(&self, _connection: &Connection) {
        todo!()
    }

    /// Asks the plugin that owns the key; `None` if none does.
    pub async fn handle(&self, _call: Call) -> Option<Answer> {
        todo!()
    }

    /// A bound connection joins a room; `false` if it was in it.
    ///
    /// # Errors
    /// A refusal when it is in as many rooms as it may.
    pub async fn join(&self, _connection: &Connection, _room: Room) -> Result<bool, Refusal> {
        todo!()
    }

    /// A connection leaves a room; `false` if it was not in it.
    pub async fn leave(&self, _connection: &Connection, _room: &Room) -> bool {
        todo!()
    }

    /// The live connections that a target names (not rooms or everyone), for room changes by the API.
    pub async fn connections_of(&self, _target: &Target) -> Vec<Connection> {
        todo!()
    }

    /// Closes the target's connections (connection, device, user, users); says how many.
    pub async fn kick(&self, _target: &Target, _why: Disconnect, _words: &str) -> usize {
        todo!()
    }

    /// Bound connections, cids growing, from the first above `after` on.
    pub async fn page(&self, _after: u64, _limit: usize) -> Vec<Connection> {
        todo!()
    }

    /// Users online and bound connections.
    pub fn counts(&self) -> (usize, usize) {
        todo!()
    }

    /// Rooms with how many connections each has.
    pub fn rooms(&self) -> Vec<(Room, usize)> {
        todo!()
    }

    /// A room's connections.
    pub fn room(&self, _room: &str) -> Vec<Connection> {
        todo!()
    }

    /// A user's connections.
    pub fn user(&self, _uid: &Uid) -> Vec<Connection> {
        todo!()
    }

    /// Every plugin, by name.
    pub fn plugins(&self) -> Vec<Status> {
        todo!()
    }

    /// `Err` with the reasons while the node should get no traffic.
    ///
    /// # Errors
    /// One short sentence per reason.
    pub fn readiness(&self) -> Result<(), Vec<String>> {
        todo!()
    }
}
