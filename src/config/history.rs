//! `history`: bounds of the streams of kept messages, and exceptions by action and room.

use std::path::PathBuf;
use std::time::Duration;

use super::bus::BusKind;
use super::read::value::{Kind, Value};
use super::read::{Bounded, Bytes, Optional, Reader, Setting, YesNo};
use crate::id::Room;
use crate::message::StreamName;

/// Maximum number of messages of a stream.
const MAX_SIZE: u64 = 10_000;
/// Bounds of the bytes of a stream.
const STREAM_BYTES: Bytes = Bytes(1 << 10, 16 << 20);

section! {
    /// Messages kept for clients that come back.
    pub struct History {
        /// Store of the streams: `memory` (in this process, requires `bus.kind: memory`), `off`, or `auto` (`memory` if
        /// `bus.kind` is `memory`, otherwise `off`).
        pub kind: HistoryKind = HistoryKind::Auto,
        /// Bounds of the stream of one user: messages to the user, to a device, and to lists of users.
        pub user: StreamBounds = StreamBounds { size: 100, ttl: Duration::from_secs(10 * 60), bytes: 1 << 20 },
        /// Bounds of the stream of one room.
        pub room: StreamBounds = StreamBounds { size: 200, ttl: Duration::from_secs(5 * 60), bytes: 4 << 20 },
        /// Bounds of the stream of messages to everyone.
        pub all: StreamBounds = StreamBounds { size: 100, ttl: Duration::from_secs(5 * 60), bytes: 4 << 20 },
        /// Exceptions. The first rule with the message's action or room decides, unless the publisher did. In a rule,
        /// `yes` is the same as `true`, and `no` as `false`.
        pub rules: Vec<HistoryRule> = Vec::new(),
        /// Maximum time that a publisher may ask for. A stream without messages keeps its position for this time.
        pub ttl_max: Duration = Duration::from_secs(7 * 24 * 3600),
        /// Bytes of all streams of the node. Above it, streams that got no message for the longest time are forgotten.
        /// Default: 256MiB, or an eighth of the memory limit if that is less.
        pub bytes: usize [Bytes(1 << 20, 1 << 40)] = 256 << 20 => "256MiB, or an eighth of the memory limit if that is less",
        /// Effect on a kept message while the journal cannot be written: `refuse` (the publisher gets 503), or `deliver`
        /// (clients get it live, and no client gets it later).
        pub on_failure: OnFailure = OnFailure::Refuse,
        /// Journal of the streams in memory: a restart of the node loses nothing.
        pub journal: Journal,
    }
}

section! {
    /// Journal of the streams in memory.
    pub struct Journal {
        /// Folder of the journal, which must exist and belongs to this node alone; empty = no journal.
        pub dir: PathBuf = PathBuf::new(),
        /// Time from a message to its place on the disk: a duration, `always` (before the publisher is answered) or `os`
        /// (the operating system decides). It counts when the machine fails; a killed process loses nothing.
        pub fsync: Fsync = Fsync::Every(Duration::from_millis(100)),
    }
}

keywords! {
    /// Effects of a failing journal on kept messages.
    pub enum OnFailure {
        /// The publisher gets 503.
        Refuse = "refuse",
        /// Clients get the message live, and no client gets it later.
        Deliver = "deliver",
    }
}

/// Time from a message to its place on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// Before the publisher is answered.
    Always,
    /// At most this long after the write.
    Every(Duration),
    /// The operating system decides.
    Os,
}

keywords! {
    /// Stores of the streams.
    pub enum HistoryKind {
        /// In memory if the bus is; otherwise none.
        Auto = "auto",
        /// In this process.
        Memory = "memory",
        /// None: no message is kept.
        Off = "off",
    }
}

section! {
    /// Bounds of one stream.
    pub struct StreamBounds {
        /// Maximum number of messages; the oldest is removed first.
        pub size: usize [Bounded(1, MAX_SIZE)] = 100 => "100; for a room 200",
        /// Time for which the messages are kept after the last one.
        pub ttl: Duration = Duration::from_secs(5 * 60) => "5m; for a user 10m",
        /// Maximum bytes of the messages; the newest one stays in any case.
        pub bytes: usize [STREAM_BYTES] = 4 << 20 => "4MiB; for a user 1MiB",
    }
}

impl Copy for StreamBounds {}

item! {
    /// Exception for the messages with an action, or for the messages to a room.
    pub struct HistoryRule {
        /// Action of the messages. A rule has either an action or a room.
        pub action: Option<String> = None => "none",
        /// Room of the messages: a name, or a prefix that ends with `*`.
        pub room: Option<String> = None => "none",
        /// `no` (not kept), `yes`, or a map with other bounds.
        pub keep: Keep = Keep::Yes => "yes",
        /// A `room_join` that asks for missed messages gets only the newest one, even if the client missed more.
        pub latest: bool [YesNo] = false => "no",
    }
}

item! {
    /// Bounds set by a rule.
    pub struct RuleBounds {
        /// Maximum number of messages of the room's stream.
        pub size: Option<usize> [Optional(Bounded(1, MAX_SIZE))] = None => "that of `history.room`",
        /// With a room: time for which its stream is kept after the last message. With an action: time for which each
        /// message is kept.
        pub ttl: Option<Duration> = None => "that of the stream",
        /// Maximum bytes of the room's stream.
        pub bytes: Option<usize> [Optional(STREAM_BYTES)] = None => "that of `history.room`",
    }
}

/// Effect of a rule.
#[derive(Debug, Clone, PartialEq)]
pub enum Keep {
    /// The messages are kept.
    Yes,
    /// The messages are not kept.
    No,
    /// The messages are kept with other bounds.
    Within(RuleBounds),
}

impl History {
    /// True if the node keeps messages.
    #[must_use]
    pub fn is_on(&self, bus: &BusKind) -> bool {
        self.kind != HistoryKind::Off && *bus == BusKind::Memory
    }

    /// Bounds of a stream: those of its kind. For a room, those of the first rule with the room come before.
    #[must_use]
    pub fn bounds(&self, name: &StreamName) -> StreamBounds {
        match name {
            StreamName::User(_) => self.user,
            StreamName::Everyone => self.all,
            StreamName::Room(room) => match self.room_rule(room).map(|rule| &rule.keep) {
                Some(Keep::Within(bounds)) => bounds.over(self.room),
                _ => self.room,
            },
        }
    }

    /// The first rule for a message with this action, to this room if it is to one.
    #[must_use]
    pub fn rule(&self, action: &str, room: Option<&Room>) -> Option<&HistoryRule> {
        let matches = |rule: &&HistoryRule| {
            rule.action.as_deref().is_some_and(|own| own == action) || room.is_some_and(|room| rule.names(room))
        };
        self.rules.iter().find(matches)
    }

    /// True if a client that joins the room gets only the newest message.
    #[must_use]
    pub fn is_latest(&self, room: &Room) -> bool {
        self.room_rule(room).is_some_and(|rule| rule.latest)
    }

    fn room_rule(&self, room: &Room) -> Option<&HistoryRule> {
        self.rules.iter().find(|rule| rule.names(room))
    }
}

impl HistoryRule {
    fn names(&self, room: &Room) -> bool {
        self.room.as_deref().is_some_and(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => room.as_str().starts_with(prefix),
            None => room.as_str() == pattern,
        })
    }
}

impl RuleBounds {
    fn over(&self, bounds: StreamBounds) -> StreamBounds {
        StreamBounds {
            size: self.size.unwrap_or(bounds.size),
            ttl: self.ttl.unwrap_or(bounds.ttl),
            bytes: self.bytes.unwrap_or(bounds.bytes),
        }
    }
}

impl Setting for Keep {
    fn expected() -> String {
        "yes, no or a map (size, ttl or bytes)".to_owned()
    }

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        if let Kind::Map(_) = &value.kind {
            return RuleBounds::read(value, reader).map(Self::Within);
        }
        match reader.text(value, &Self::expected())?.as_str() {
            "yes" | "true" => Some(Self::Yes),
            "no" | "false" => Some(Self::No),
            _ => reader.wrong(value, &Self::expected()),
        }
    }

    fn show(&self) -> Value {
        match self {
            Self::Yes => Value::text("yes"),
            Self::No => Value::text("no"),
            Self::Within(bounds) => bounds.show(),
        }
    }

    fn keys(path: &str, keys: &mut Vec<super::Key>) {
        RuleBounds::keys(path, keys);
    }
}
