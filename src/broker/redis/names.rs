//! What the keys and channels of one cluster are called. All that one script touches has the same hash tag, in braces,
//! so that a Redis Cluster keeps it in one place.

use std::borrow::Cow;

use crate::broker::Stream;
use crate::id::{NodeId, Room, Uid};

/// What records are published on. Redis knows which nodes hear it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Channel<'a> {
    /// Every node hears it.
    Everyone,
    /// The node with this number does: a connection's id says no more of its node.
    Numbered(u16),
    /// The node of this name does.
    Node(&'a NodeId),
    /// Nodes with connections of this user do.
    User(&'a Uid),
    /// Nodes with members of this room do.
    Room(&'a Room),
}

impl<'a> Channel<'a> {
    /// What stands behind the prefix: the kind, and whose it is.
    pub(super) fn words(self) -> (&'static str, Cow<'a, str>) {
        match self {
            Self::Everyone => (":all", Cow::Borrowed("")),
            Self::Numbered(number) => (":n:", Cow::Owned(number.to_string())),
            Self::Node(node) => (":i:", Cow::Borrowed(node.as_str())),
            Self::User(uid) => (":u:", Cow::Borrowed(uid.as_str())),
            Self::Room(room) => (":r:", Cow::Borrowed(room.as_str())),
        }
    }
}

impl<'a> From<&'a Stream> for Channel<'a> {
    fn from(stream: &'a Stream) -> Self {
        match stream {
            Stream::User(uid) => Self::User(uid),
            Stream::Room(room) => Self::Room(room),
        }
    }
}

/// Names with the cluster's prefix.
#[derive(Debug, Clone)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// The whole name of a channel.
    pub(super) fn channel(&self, channel: Channel<'_>) -> String {
        let (kind, name) = channel.words();
        [&self.prefix, kind, &name].concat()
    }

    /// What the names of channels begin with.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The stream that a channel is for, if it is one's.
    pub(super) fn stream_of(&self, channel: &str) -> Option<Stream> {
        let rest = channel.strip_prefix(&self.prefix)?;
        if let Some(uid) = rest.strip_prefix(":u:") {
            return uid.parse().ok().map(Stream::User);
        }
        rest.strip_prefix(":r:")?.parse().ok().map(Stream::Room)
    }

    /// Members and their leases; `what` = one of their keys.
    pub(super) fn roster(&self, what: &str) -> String {
        format!("{{{}}}:{what}", self.prefix)
    }

    /// The last number that was given for a user.
    pub(super) fn number(&self, uid: &Uid) -> String {
        format!("{}:number:{uid}", self.prefix)
    }

    /// A shared space; `what` = one of its keys.
    pub(super) fn space(&self, space: &str, what: &str) -> String {
        format!("{{{}:kv:{space}}}:{what}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_leads_back_to_its_stream() {
        let names = Names::new("sky");
        for stream in [Stream::User("a:b".parse().unwrap()), Stream::Room("云".parse().unwrap())] {
            assert_eq!(names.stream_of(&names.channel((&stream).into())), Some(stream));
        }
        for (channel, name) in [
            (Channel::Everyone, "sky:all"),
            (Channel::Numbered(70), "sky:n:70"),
            (Channel::Node(&"n1".parse().unwrap()), "sky:i:n1"),
        ] {
            assert_eq!(names.channel(channel), name);
            assert_eq!(names.stream_of(name), None);
        }
        assert_eq!(names.stream_of("skylark:u:a"), None);
        assert_eq!(names.roster("members"), "{sky}:members");
    }
}
