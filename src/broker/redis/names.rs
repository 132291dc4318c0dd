//! Names of the keys and channels of one cluster. All keys of one script share a hash tag in braces, so that a Redis
//! Cluster keeps them on one shard.

use std::borrow::Cow;

use crate::broker::Subscription;
use crate::id::{NodeId, Room, Uid};

/// Channel of a record. Redis knows its subscribers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum BusChannel<'a> {
    /// Channel of every node.
    Everyone,
    /// Channel of the node with this number. A connection id contains only the number of its node.
    Numbered(u16),
    /// Channel of the node with this name.
    Node(&'a NodeId),
    /// Channel of the nodes with connections of this user.
    User(&'a Uid),
    /// Channel of the nodes with members of this room.
    Room(&'a Room),
}

impl<'a> BusChannel<'a> {
    /// Parts of the channel name after the prefix: kind and name.
    pub(super) fn parts(self) -> (&'static str, Cow<'a, str>) {
        match self {
            Self::Everyone => (":all", Cow::Borrowed("")),
            Self::Numbered(number) => (":n:", Cow::Owned(number.to_string())),
            Self::Node(node) => (":i:", Cow::Borrowed(node.as_str())),
            Self::User(uid) => (":u:", Cow::Borrowed(uid.as_str())),
            Self::Room(room) => (":r:", Cow::Borrowed(room.as_str())),
        }
    }
}

impl<'a> From<&'a Subscription> for BusChannel<'a> {
    fn from(subscription: &'a Subscription) -> Self {
        match subscription {
            Subscription::User(uid) => Self::User(uid),
            Subscription::Room(room) => Self::Room(room),
        }
    }
}

/// Builds names with the prefix of the cluster.
#[derive(Debug, Clone)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// Full name of a channel.
    pub(super) fn channel(&self, channel: BusChannel<'_>) -> String {
        let (kind, name) = channel.parts();
        [&self.prefix, kind, &name].concat()
    }

    /// Prefix of the channel names.
    pub(super) fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Subscription of a channel, if the channel belongs to a user or a room.
    pub(super) fn subscription_of(&self, channel: &str) -> Option<Subscription> {
        let rest = channel.strip_prefix(&self.prefix)?;
        if let Some(uid) = rest.strip_prefix(":u:") {
            return uid.parse().ok().map(Subscription::User);
        }
        rest.strip_prefix(":r:")?.parse().ok().map(Subscription::Room)
    }

    /// Key of the membership and its leases; `what` selects the key.
    pub(super) fn roster(&self, what: &str) -> String {
        format!("{{{}}}:{what}", self.prefix)
    }

    /// Key of the last number assigned for a user.
    pub(super) fn number(&self, uid: &Uid) -> String {
        format!("{}:number:{uid}", self.prefix)
    }

    /// Key of a plugin space; `what` selects the key.
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
        for subscription in [Subscription::User("a:b".parse().unwrap()), Subscription::Room("云".parse().unwrap())] {
            assert_eq!(names.subscription_of(&names.channel((&subscription).into())), Some(subscription));
        }
        for (channel, name) in [
            (BusChannel::Everyone, "sky:all"),
            (BusChannel::Numbered(70), "sky:n:70"),
            (BusChannel::Node(&"n1".parse().unwrap()), "sky:i:n1"),
        ] {
            assert_eq!(names.channel(channel), name);
            assert_eq!(names.subscription_of(name), None);
        }
        assert_eq!(names.subscription_of("skylark:u:a"), None);
        assert_eq!(names.roster("members"), "{sky}:members");
    }
}
