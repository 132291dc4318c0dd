//! The types that host and plugin share, with constructors, builders and look-ups.

use crate::Join;
use crate::bindings::host::skylark::plugin::{publication, types};
use crate::bindings::{access, auth, events, filter, handler, receipts};

pub use access::exports::skylark::plugin::access::Answer as AccessAnswer;
pub use auth::exports::skylark::plugin::auth::{Admission, Answer as AuthAnswer, Claim, Transport};
pub use events::exports::skylark::plugin::events::{Event, RoomChange};
pub use filter::exports::skylark::plugin::filter::Verdict;
pub use handler::exports::skylark::plugin::handler::{Call, Reply};
pub use publication::Audience as TargetKind;
pub use receipts::exports::skylark::plugin::receipts::{Cause as UndeliveredCause, ResumedStream};
pub use types::{DeviceOf, Entry, Identity, Message, Origin, Refusal, Target};

impl Message {
    /// A message of this action whose content is one text. Every dialect can show the text.
    pub fn text(action: impl Into<String>, text: impl Into<String>) -> Self {
        Self::new(action).with("text", text)
    }

    /// An empty message of this action. The host gives it an id and a timestamp.
    pub fn new(action: impl Into<String>) -> Self {
        Self {
            id: 0,
            action: action.into(),
            content: Vec::new(),
            sender: String::new(),
            receiver: String::new(),
            extra: Vec::new(),
            title: String::new(),
            image: String::new(),
            format: String::new(),
            timestamp: 0,
        }
    }

    /// Sets a key of the content.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        set(&mut self.content, key.into(), value.into());
        self
    }

    /// Sets a key of `extra`.
    #[must_use]
    pub fn with_extra(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.set_extra(key, value);
        self
    }

    /// Sets the headline.
    #[must_use]
    pub fn with_title(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    /// Sets the sender and the receiver.
    #[must_use]
    pub fn between(mut self, sender: impl Into<String>, receiver: impl Into<String>) -> Self {
        self.sender = sender.into();
        self.receiver = receiver.into();
        self
    }

    /// Sets a key of `extra`.
    pub fn set_extra(&mut self, key: impl Into<String>, value: impl Into<String>) {
        set(&mut self.extra, key.into(), value.into());
    }
}

impl Refusal {
    /// A code of three digits as text, and a reason in plain words.
    pub fn new(code: impl Into<String>, reason: impl Into<String>) -> Self {
        Self { code: code.into(), reason: reason.into() }
    }
}

impl Verdict {
    /// Rejects the publish with this code and reason for the publisher.
    pub fn reject(code: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Reject(Refusal::new(code, reason))
    }
}

impl AuthAnswer {
    /// Refuses the client with this code and reason.
    pub fn refuse(code: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Refuse(Refusal::new(code, reason))
    }
}

impl AccessAnswer {
    /// Lets the client join until it leaves.
    pub fn allow() -> Self {
        Self::Allow(None)
    }

    /// Lets the client join until this time, in seconds since 1970.
    pub fn allow_until(seconds: u64) -> Self {
        Self::Allow(Some(seconds))
    }

    /// Refuses the join with this code and reason for the client.
    pub fn refuse(code: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Refuse(Refusal::new(code, reason))
    }
}

impl Join {
    /// The value of a claim.
    pub fn claim(&self, key: &str) -> Option<&str> {
        self.claims.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// The value of a key of the data.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.data.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

impl Admission {
    /// Admits the client as this user, without an end.
    pub fn of(uid: impl Into<String>) -> Self {
        Self { uid: uid.into(), device: None, rooms: Vec::new(), expires: None, claims: Vec::new() }
    }
}

impl Call {
    /// The value of a key of the SendBody's data.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.data.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

impl Reply {
    /// Success.
    pub fn ok() -> Self {
        Self::new("200", "ok")
    }

    /// A code of three digits as text, and a message in plain words.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { code: code.into(), message: message.into(), data: Vec::new() }
    }

    /// Sets a key of the reply's data.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        set(&mut self.data, key.into(), value.into());
        self
    }

    /// The value of a key of the reply's data.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.data.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

impl Target {
    /// All connections of a user.
    pub fn user(uid: impl Into<String>) -> Self {
        Self::User(uid.into())
    }

    /// A user's connections of one device.
    pub fn device(uid: impl Into<String>, device: impl Into<String>) -> Self {
        Self::Device(DeviceOf { uid: uid.into(), device: device.into() })
    }

    /// The connections in a room.
    pub fn room(room: impl Into<String>) -> Self {
        Self::Room(room.into())
    }
}

/// Replaces the value of a key in its place, or appends the key.
fn set(entries: &mut Vec<Entry>, key: String, value: String) {
    match entries.iter_mut().find(|(k, _)| *k == key) {
        Some((_, old)) => *old = value,
        None => entries.push((key, value)),
    }
}
