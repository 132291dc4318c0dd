//! History: the last messages of each stream, kept so that clients can resume.
//!
//! An engine keeps streams together with its messages: [`Broker::publish`](super::Broker::publish) appends each kept
//! envelope as one step with the publish. This trait reads what was appended. Independent of connections and frames.

pub mod journal;
pub mod memory;

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::Unavailable;
use crate::id::{ConnectionId, Device, Uid};
use crate::message::{Envelope, Message, Position, Retention, StreamName, Target};

/// Maximum size of a page, in approximate bytes of its messages. A page has at least one message if there is any.
pub const MAX_PAGE_BYTES: usize = 256 << 10;

/// Reads the streams of an engine.
pub trait HistoryStore: Send + Sync {
    /// Reads kept messages in order, or in reverse order. A stream without state begins with this call, so that the
    /// caller gets a position to resume from.
    ///
    /// # Errors
    /// [`Unavailable`]: the engine did not answer in time.
    fn read(&self, name: &StreamName, range: Range) -> BoxFuture<'_, Result<Page, Unavailable>>;

    /// Forgets the messages and the numbering of a stream. Its next message begins a new epoch. Returns false if there
    /// was no such stream.
    ///
    /// # Errors
    /// [`Unavailable`]: the engine did not answer in time.
    fn forget(&self, name: &StreamName) -> BoxFuture<'_, Result<bool, Unavailable>>;
}

/// Messages that a reader asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Range {
    /// Start of the range.
    pub start: Start,
    /// Most messages of the page.
    pub limit: usize,
    /// True to read from the newest message backwards.
    pub reverse: bool,
}

/// Start of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Start {
    /// The oldest kept message, or with `reverse` the newest.
    End,
    /// The message after this position, or with `reverse` the one before it.
    After(Position),
}

/// Messages of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// Messages in the order of the request, with their offsets.
    pub messages: Vec<(u64, KeptMessage)>,
    /// Position of the stream's last message. Offset 0 and id 0 = the stream has no message yet.
    pub top: Position,
    /// Reason why messages after the given position are missing. The page is then empty.
    pub missed: Option<Missed>,
}

/// Reason why a reader cannot continue after its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missed {
    /// The next message is no longer kept.
    Trimmed,
    /// The stream began again.
    Epoch,
    /// The message at the position is another one, or the position was never reached.
    Fork,
}

impl Missed {
    /// The reason in answers and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::Epoch => "epoch",
            Self::Fork => "fork",
        }
    }
}

/// A kept message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptMessage {
    /// The message.
    pub message: Arc<Message>,
    /// Time of acceptance, milliseconds since 1970.
    pub sent_at: i64,
    /// The one connection that gets no copy.
    pub no_echo: Option<ConnectionId>,
    /// Further conditions on its readers; `None` for most messages.
    pub readers: Option<Arc<Readers>>,
}

/// Readers of a kept message, besides those of its stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Readers {
    /// Only connections of this device.
    pub device: Option<Device>,
    /// Connections of these users are left out.
    pub excluded: Arc<[Uid]>,
    /// Seconds after [`KeptMessage::sent_at`] for which the message is delivered.
    pub ttl: Option<u32>,
}

impl KeptMessage {
    /// The part of an envelope that a stream keeps.
    #[must_use]
    pub fn of(envelope: &Envelope) -> Self {
        let readers = Readers {
            device: match &envelope.target {
                Target::Device(_, device) => Some(device.clone()),
                _ => None,
            },
            excluded: match &envelope.target {
                Target::EveryoneBut(uids) => Arc::clone(uids),
                _ => Arc::default(),
            },
            ttl: match envelope.history {
                Retention::Ttl(seconds) => Some(seconds),
                Retention::Configured | Retention::No => None,
            },
        };
        Self {
            message: Arc::clone(&envelope.message),
            sent_at: envelope.sent_at,
            no_echo: envelope.no_echo,
            readers: (readers != Readers::default()).then(|| Arc::new(readers)),
        }
    }

    /// True if a connection of this user and device receives the message in a replay at `now` (milliseconds since
    /// 1970). `former` is the connection that the client had before.
    #[must_use]
    pub fn is_for(&self, uid: &Uid, device: Option<&Device>, former: Option<ConnectionId>, now: i64) -> bool {
        if self.no_echo.is_some() && self.no_echo == former {
            return false;
        }
        let Some(readers) = self.readers.as_deref() else { return true };
        let other_device = readers.device.is_some() && readers.device.as_ref() != device;
        !self.is_expired(now) && !other_device && !readers.excluded.contains(uid)
    }

    /// True if the message has a time of its own, and it is over at `now` (milliseconds since 1970).
    #[must_use]
    pub fn is_expired(&self, now: i64) -> bool {
        let ttl = self.readers.as_deref().and_then(|readers| readers.ttl);
        ttl.is_some_and(|ttl| now > self.sent_at.saturating_add(i64::from(ttl) * 1_000))
    }

    /// Approximate size in memory, in bytes.
    #[must_use]
    pub fn approximate_bytes(&self) -> usize {
        size_of::<(u64, Self)>() + size_of::<Message>() + self.message.approximate_bytes()
    }
}
