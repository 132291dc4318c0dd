//! Message types: [`Message`], [`Target`], [`Publication`], [`Envelope`].
//!
//! Independent of wire layouts (see `protocol`) and of connections.

mod stream;

use std::sync::Arc;

pub use stream::{Epoch, InvalidPosition, InvalidStream, Position, StreamName, same_id};

use crate::id::{ConnectionId, Device, NodeId, Room, Uid};

/// Maximum number of entries in a message's `content` or `extra`.
pub const MAX_ENTRIES: usize = 256;
/// CIM's action for "you were logged off": every CIM SDK stops reconnecting when it receives it. Reserved for the node.
pub const KICK_ACTION: &str = "999";
/// Maximum number of plugin pushes between a message and the external publish that caused it.
pub const MAX_HOPS: u8 = 4;

/// Ordered map of text keys and values. Each key occurs once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries(Vec<(String, String)>);

impl Entries {
    /// Approximate size of the map in a canonical body, in bytes.
    #[must_use]
    pub fn approximate_bytes(&self) -> usize {
        self.iter().map(|(key, value)| key.len() + value.len() + 6).sum()
    }

    /// Creates an empty map.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Sets `key`. An existing key keeps its position.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<String>) {
        let (key, value) = (key.into(), value.into());
        match self.0.iter_mut().find(|(k, _)| *k == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key, value)),
        }
    }

    /// Returns the value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Iterates over keys and values in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// True if there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Entries {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(iter: I) -> Self {
        let mut entries = Self::new();
        for (key, value) in iter {
            entries.insert(key, value);
        }
        entries
    }
}

/// The content of a message: the union of the yunque and the cim layout. An empty text means an absent field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// 0 = not assigned yet; `Node::publish` assigns one.
    pub id: i64,
    /// Kind of the message, e.g. `chat`, `900`.
    pub action: String,
    /// The body. A cim client receives it as JSON text, or as plain text if `text` is its only key.
    pub content: Entries,
    /// Sender, as the publisher named it.
    pub sender: String,
    /// Receiver, as the publisher named it. It routes `/send` and `SENDLIST` only.
    pub receiver: String,
    /// Data beside the body: avatar, nickname.
    pub extra: Entries,
    /// Headline.
    pub title: String,
    /// URL of a picture (yunque).
    pub image: String,
    /// Format of the content (cim).
    pub format: String,
    /// Milliseconds since 1970 (`sendTime` of yunque, `timestamp` of cim); 0 = not set yet.
    pub timestamp: i64,
}

impl Message {
    /// Approximate size of the canonical body in bytes: all texts plus a small overhead per field.
    #[must_use]
    pub fn approximate_bytes(&self) -> usize {
        let maps = self.content.approximate_bytes() + self.extra.approximate_bytes();
        let texts = [&self.action, &self.sender, &self.receiver, &self.title, &self.image, &self.format];
        maps + texts.iter().map(|t| t.len() + 2).sum::<usize>() + 16
    }
}

/// Receivers of an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One live connection.
    Connection(ConnectionId),
    /// One live connection, if it belongs to this user; otherwise no connection.
    ConnectionOf(Uid, ConnectionId),
    /// A user's connections of one device.
    Device(Uid, Device),
    /// All connections of a user.
    User(Uid),
    /// All connections of these users. A user listed twice gets one copy.
    Users(Arc<[Uid]>),
    /// The connections in a room.
    Room(Room),
    /// Every bound connection.
    Everyone,
    /// Every bound connection except those of these users.
    EveryoneBut(Arc<[Uid]>),
}

/// The path by which an envelope entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A client's SENT.
    Client,
    /// The HTTP API.
    Http,
    /// An intake fed by a broker.
    Broker,
    /// The outbox of a plugin.
    Plugin,
}

impl Origin {
    /// The name used in manifests, logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Http => "http",
            Self::Broker => "broker",
            Self::Plugin => "plugin",
        }
    }
}

/// Retention of a message for clients that resume. The publishing node decides it once, after the plugins; engines read
/// only the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Retention {
    /// As configured for the stream. After the decision: kept.
    #[default]
    Configured,
    /// Not kept.
    No,
    /// Kept for at least this many seconds.
    Ttl(u32),
}

/// The client that published the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publisher {
    /// Its user.
    pub uid: Uid,
    /// Its connection.
    pub cid: ConnectionId,
}

/// Identity of the intake record behind an envelope. It is the same on every redelivery of the record.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct RecordIdentity {
    /// The ordered sequence of records: a Kafka partition, a Redis stream or a Redis channel.
    pub partition: Arc<str>,
    /// Position of the record in the partition.
    pub offset: u64,
    /// Index of the message within the record.
    pub index: u32,
}

/// A request by an ingress or a plugin to publish one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// The message. The node fills in an id or timestamp of 0.
    pub message: Arc<Message>,
    /// The receivers.
    pub target: Target,
    /// The one connection that gets no copy (the publisher's own).
    pub no_echo: Option<ConnectionId>,
    /// The client that publishes.
    pub from: Option<Publisher>,
    /// Name of the API key, intake or plugin that publishes; `None` for clients and for an API without keys.
    pub back_end: Option<Arc<str>>,
    /// The path by which it entered.
    pub origin: Origin,
    /// Number of plugin pushes between this message and a publish from outside.
    pub hops: u8,
    /// Only these nodes deliver it; empty = all nodes.
    pub nodes: Arc<[NodeId]>,
    /// Idempotency key. Carried, unused until history exists.
    pub key: Option<Arc<str>>,
    /// Retention in the streams of the target.
    pub history: Retention,
    /// Key for deduplication; `None` = never a duplicate.
    pub identity: Option<RecordIdentity>,
    /// True if the publisher wants delivery counts, even at the cost of waiting for them.
    pub receipts: bool,
}

impl Publication {
    /// Creates a publication with all optional fields unset.
    #[must_use]
    pub fn new(message: impl Into<Arc<Message>>, target: Target, origin: Origin) -> Self {
        Self {
            message: message.into(),
            target,
            no_echo: None,
            from: None,
            back_end: None,
            origin,
            hops: 0,
            nodes: Arc::default(),
            key: None,
            history: Retention::Configured,
            identity: None,
            receipts: false,
        }
    }

    /// Converts it to an envelope that was accepted at `sent_at` (milliseconds since 1970).
    #[must_use]
    pub fn into_envelope(self, id: u64, sent_at: i64) -> Envelope {
        let Self { message, target, no_echo, from, back_end, origin, hops, nodes, key, history, identity, receipts } =
            self;
        Envelope {
            id,
            message,
            target,
            no_echo,
            from,
            back_end,
            origin,
            hops,
            nodes,
            key,
            history,
            identity,
            receipts,
            sent_at,
        }
    }
}

/// An accepted publication on its way to the receivers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Unique in the cluster. Ids of one publishing node grow.
    pub id: u64,
    /// The message. Shared, so a push to many receivers holds one copy.
    pub message: Arc<Message>,
    /// The receivers.
    pub target: Target,
    /// The one connection that gets no copy (the publisher's own).
    pub no_echo: Option<ConnectionId>,
    /// The client that published.
    pub from: Option<Publisher>,
    /// Name of the API key, intake or plugin that published. Known on the accepting node only; it is not transmitted.
    pub back_end: Option<Arc<str>>,
    /// The path by which it entered.
    pub origin: Origin,
    /// Number of plugin pushes between this message and a publish from outside, at most [`MAX_HOPS`].
    pub hops: u8,
    /// Only these nodes deliver it; empty = all nodes.
    pub nodes: Arc<[NodeId]>,
    /// Idempotency key. Carried, unused until history exists.
    pub key: Option<Arc<str>>,
    /// Retention in the streams of the target.
    pub history: Retention,
    /// Key for deduplication; `None` = never a duplicate.
    pub identity: Option<RecordIdentity>,
    /// True if the publisher wants delivery counts, even at the cost of waiting for them.
    pub receipts: bool,
    /// Time of acceptance, milliseconds since 1970.
    pub sent_at: i64,
}

/// Delivery result of one envelope on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Connections whose queue accepted the message.
    pub delivered: u32,
    /// Connections with a full queue. They are closed as slow consumers and do not receive the message.
    pub full: u32,
    /// Users of the target without a matching connection on this node.
    pub offline: Vec<Uid>,
}

impl Receipt {
    /// Adds the counts of another copy.
    pub fn add(&mut self, more: Self) {
        self.delivered += more.delivered;
        self.full += more.full;
        self.offline.extend(more.offline);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeated_key_keeps_its_first_place_and_its_last_value() {
        let entries: Entries = [("a", "1"), ("b", "2"), ("a", "3")].into_iter().collect();
        assert_eq!(entries.iter().collect::<Vec<_>>(), [("a", "3"), ("b", "2")]);
    }
}
