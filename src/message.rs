//! What is said, to whom, and what travels: [`Message`], [`Target`], [`Publication`], [`Envelope`].
//!
//! Knows no wire layout (that is `protocol`) and no connection.

use std::sync::Arc;

use crate::id::{ConnectionId, Device, NodeId, Room, Uid};

/// Most entries of a message's `content` or `extra`.
pub const MAX_ENTRIES: usize = 256;
/// CIM's action for "you were logged off": every SDK of the family stops dialling when it sees it. The node's own.
pub const KICK_ACTION: &str = "999";
/// Most times a message may give rise to another one through a plugin's push.
pub const MAX_HOPS: u8 = 4;

/// Text keys and values in the order in which they came; a key stands once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Entries(Vec<(String, String)>);

impl Entries {
    /// No entry.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Sets `key`, in place if it stands already.
    pub fn insert(&mut self, key: impl Into<String>, value: impl Into<String>) {
        let (key, value) = (key.into(), value.into());
        match self.0.iter_mut().find(|(k, _)| *k == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key, value)),
        }
    }

    /// The value of `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// Keys and values in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(k, v)| (k.as_str(), v.as_str()))
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
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

/// What is said: the union of the yunque and the cim layout. An empty text is an absent one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    /// 0 = none yet: `Node::publish` gives one.
    pub id: i64,
    /// What kind of message it is, e.g. `chat`, `900`.
    pub action: String,
    /// The body. A cim client sees it as JSON text, or as plain text where `text` is its only key.
    pub content: Entries,
    /// Who says it, by the publisher's word.
    pub sender: String,
    /// Who is meant, by the publisher's word; it routes `/send` and `SENDLIST` only.
    pub receiver: String,
    /// What goes with the body: avatar, nickname.
    pub extra: Entries,
    /// Headline.
    pub title: String,
    /// Address of a picture (yunque).
    pub image: String,
    /// Format of the content (cim).
    pub format: String,
    /// Milliseconds since 1970 (`sendTime` of yunque, `timestamp` of cim); 0 = none yet.
    pub timestamp: i64,
}

impl Message {
    /// About the size of its canonical body: the texts and a little for each field.
    #[must_use]
    pub fn approximate_bytes(&self) -> usize {
        let maps = self.content.iter().chain(self.extra.iter()).map(|(k, v)| k.len() + v.len() + 6).sum::<usize>();
        let texts = [&self.action, &self.sender, &self.receiver, &self.title, &self.image, &self.format];
        maps + texts.iter().map(|t| t.len() + 2).sum::<usize>() + 16
    }
}

/// Who is to receive an envelope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// One live connection.
    Connection(ConnectionId),
    /// One live connection, if it is this user's; nobody otherwise.
    ConnectionOf(Uid, ConnectionId),
    /// A user's connections of one device.
    Device(Uid, Device),
    /// All connections of a user.
    User(Uid),
    /// All connections of these users; a user named twice gets one copy.
    Users(Arc<[Uid]>),
    /// The connections in a room.
    Room(Room),
    /// Every bound connection.
    Everyone,
    /// Every bound connection except those of these users.
    EveryoneBut(Arc<[Uid]>),
}

/// By which way an envelope came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A client's SENT.
    Client,
    /// The HTTP API.
    Http,
    /// A broker-fed intake.
    Broker,
    /// A plugin's outbox.
    Plugin,
}

impl Origin {
    /// The word used in manifests, logs and metrics.
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

/// Whether a message is to be kept for those who resume. Carried, unused until history exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum History {
    /// As the stream's configuration says.
    #[default]
    Default,
    /// Not kept.
    No,
    /// Kept for so many seconds.
    Ttl(u32),
}

/// The client that published, if a client did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publisher {
    /// Its user.
    pub uid: Uid,
    /// Its connection.
    pub cid: ConnectionId,
}

/// Which record of an intake an envelope came from: the same each time that record comes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The ordered line of records.
    pub line: Arc<str>,
    /// The record's place in the line.
    pub offset: u64,
    /// Which of the record's messages.
    pub index: u32,
}

/// What an ingress or a plugin asks to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// What is said; the node fills in an id or timestamp of 0.
    pub message: Arc<Message>,
    /// To whom.
    pub target: Target,
    /// The one connection that is left out (the publisher's own).
    pub no_echo: Option<ConnectionId>,
    /// The client that publishes.
    pub from: Option<Publisher>,
    /// Name of the API key, the intake or the plugin that publishes; none for clients and for an API without keys.
    pub back_end: Option<Arc<str>>,
    /// By which way it came.
    pub origin: Origin,
    /// How many plugin pushes stand between this and a publish from outside.
    pub hops: u8,
    /// Only these nodes deliver it; empty = all.
    pub nodes: Arc<[NodeId]>,
    /// Idempotency key. Carried, unused until history exists.
    pub key: Option<Arc<str>>,
    /// What history is to do with it. Carried, unused until history exists.
    pub history: History,
    /// What makes it the same when it is published again; `None` = it never is.
    pub identity: Option<Identity>,
    /// Whether the publisher wants to know what was delivered, even if that means waiting.
    pub receipts: bool,
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
            back_end: None,
            origin,
            hops: 0,
            nodes: Arc::default(),
            key: None,
            history: History::Default,
            identity: None,
            receipts: false,
        }
    }

    /// The same under way: accepted at `sent_at`, milliseconds since 1970.
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

/// What travels: a publication that was accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Unique in the cluster, grows per publishing node.
    pub id: u64,
    /// What is said. Shared: a push to many is one message.
    pub message: Arc<Message>,
    /// To whom.
    pub target: Target,
    /// The one connection that is left out (the publisher's own).
    pub no_echo: Option<ConnectionId>,
    /// The client that published.
    pub from: Option<Publisher>,
    /// Name of the API key, the intake or the plugin that published, on the node that took it in; it does not travel.
    pub back_end: Option<Arc<str>>,
    /// By which way it came.
    pub origin: Origin,
    /// How many plugin pushes stand between this and a publish from outside, at most [`MAX_HOPS`].
    pub hops: u8,
    /// Only these nodes deliver it; empty = all.
    pub nodes: Arc<[NodeId]>,
    /// Idempotency key. Carried, unused until history exists.
    pub key: Option<Arc<str>>,
    /// What history is to do with it. Carried, unused until history exists.
    pub history: History,
    /// What makes it the same when it is published again; `None` = it never is.
    pub identity: Option<Identity>,
    /// Whether the publisher wants to know what was delivered, even if that means waiting.
    pub receipts: bool,
    /// When it was accepted, milliseconds since 1970.
    pub sent_at: i64,
}

/// Where in a stream a message stands. Reserved: no stream exists yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Grows by one a message.
    pub offset: u64,
    /// New when the stream's state was lost.
    pub epoch: Arc<str>,
}

/// What reached which receivers of one envelope on one node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Receipt {
    /// Connections whose queue took the message.
    pub delivered: u32,
    /// Connections whose queue was full: they are closed as slow consumers, the message is lost to them.
    pub full: u32,
    /// Users named by the target who have no such connection here.
    pub offline: Vec<Uid>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_stands_once_and_keeps_its_place() {
        let entries: Entries = [("a", "1"), ("b", "2"), ("a", "3")].into_iter().collect();
        assert_eq!(entries.iter().collect::<Vec<_>>(), [("a", "3"), ("b", "2")]);
    }
}
