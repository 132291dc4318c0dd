//! The publish that a filter judges, read from the host or, in tests, built from a message.

use crate::bindings::host::skylark::plugin::publication as host;
use crate::{Entry, Message, Origin, TargetKind};

/// The publish that is being judged. Each function asks the host and copies the result. [`message`](Self::message) is
/// the cheapest way to read more than a few texts.
#[derive(Debug, Clone)]
pub struct Publish(Source);

#[derive(Debug, Clone)]
enum Source {
    Host,
    Made(Box<Made>),
}

#[derive(Debug, Clone)]
struct Made {
    message: Message,
    origin: Origin,
    publisher: Option<String>,
    kind: TargetKind,
    uids: Vec<String>,
    room: Option<String>,
}

macro_rules! field {
    ($(#[$doc:meta])* $name:ident: $type:ty) => {
        $(#[$doc])*
        pub fn $name(&self) -> $type {
            match &self.0 {
                Source::Host => host::$name(),
                Source::Made(made) => made.message.$name.clone(),
            }
        }
    };
}

impl Publish {
    field! {
        /// The message's id.
        id: i64
    }
    field! {
        /// The kind of message.
        action: String
    }
    field! {
        /// The body.
        content: Vec<Entry>
    }
    field! {
        /// The sender, as set by the publisher.
        sender: String
    }
    field! {
        /// The receiver, as set by the publisher.
        receiver: String
    }
    field! {
        /// The entries next to the body.
        extra: Vec<Entry>
    }
    field! {
        /// Headline.
        title: String
    }
    field! {
        /// Address of a picture.
        image: String
    }
    field! {
        /// Format of the content.
        format: String
    }
    field! {
        /// Milliseconds since 1970.
        timestamp: i64
    }

    /// The whole message at once.
    pub fn message(&self) -> Message {
        match &self.0 {
            Source::Host => host::message(),
            Source::Made(made) => made.message.clone(),
        }
    }

    /// The way in which the publish arrived.
    pub fn origin(&self) -> Origin {
        match &self.0 {
            Source::Host => host::origin(),
            Source::Made(made) => made.origin,
        }
    }

    /// The user whose connection published; none for back ends.
    pub fn publisher(&self) -> Option<String> {
        match &self.0 {
            Source::Host => host::publisher(),
            Source::Made(made) => made.publisher.clone(),
        }
    }

    /// The kind of target.
    pub fn target_kind(&self) -> TargetKind {
        match &self.0 {
            Source::Host => host::target_kind(),
            Source::Made(made) => made.kind,
        }
    }

    /// Number of users that the target names; 0 for rooms, connections and everyone.
    pub fn target_count(&self) -> u32 {
        match &self.0 {
            Source::Host => host::target_count(),
            Source::Made(made) => u32::try_from(made.uids.len()).unwrap_or(u32::MAX),
        }
    }

    /// The users that the target names, starting at `offset`, at most 1 000 a call.
    pub fn target_uids(&self, offset: u32, limit: u32) -> Vec<String> {
        match &self.0 {
            Source::Host => host::target_uids(offset, limit),
            Source::Made(made) => {
                made.uids.iter().skip(offset as usize).take(limit.min(1_000) as usize).cloned().collect()
            }
        }
    }

    /// The room that the target names.
    pub fn target_room(&self) -> Option<String> {
        match &self.0 {
            Source::Host => host::target_room(),
            Source::Made(made) => made.room.clone(),
        }
    }

    /// The publish whose `judge` is running.
    #[doc(hidden)]
    pub fn current() -> Self {
        Self(Source::Host)
    }

    /// For tests: a push by a back end to the message's receiver, or to everyone if the message names no receiver.
    pub fn of(message: Message) -> Self {
        let uids: Vec<String> = (!message.receiver.is_empty()).then(|| message.receiver.clone()).into_iter().collect();
        let kind = if uids.is_empty() { TargetKind::Everyone } else { TargetKind::User };
        Self(Source::Made(Box::new(Made { message, origin: Origin::Http, publisher: None, kind, uids, room: None })))
    }

    /// For tests: makes this user's connection the publisher.
    #[must_use]
    pub fn by(mut self, uid: impl Into<String>) -> Self {
        if let Source::Made(made) = &mut self.0 {
            (made.origin, made.publisher) = (Origin::Client, Some(uid.into()));
        }
        self
    }

    /// For tests: addresses the connections in a room.
    #[must_use]
    pub fn to_room(mut self, room: impl Into<String>) -> Self {
        if let Source::Made(made) = &mut self.0 {
            (made.kind, made.room) = (TargetKind::Room, Some(room.into()));
            made.uids.clear();
        }
        self
    }

    /// For tests: addresses these users.
    #[must_use]
    pub fn to_users(mut self, uids: impl IntoIterator<Item = impl Into<String>>) -> Self {
        if let Source::Made(made) = &mut self.0 {
            made.kind = TargetKind::Users;
            made.uids = uids.into_iter().map(Into::into).collect();
        }
        self
    }
}
