//! What the keys and channels of one cluster are called. All that one script touches has the same hash tag, in braces,
//! so that a Redis Cluster keeps it in one place.

use crate::broker::Stream;
use crate::id::{NodeId, Room, Uid};

/// Names with the cluster's prefix.
#[derive(Debug, Clone)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned() }
    }

    /// Where every node listens.
    pub(super) fn everyone(&self) -> String {
        format!("{}:all", self.prefix)
    }

    /// Where the node with this number listens: a connection's id says no more of its node.
    pub(super) fn numbered(&self, number: u16) -> String {
        format!("{}:n:{number}", self.prefix)
    }

    /// Where the node of this name listens.
    pub(super) fn node(&self, node: &NodeId) -> String {
        format!("{}:i:{node}", self.prefix)
    }

    pub(super) fn user(&self, uid: &Uid) -> String {
        format!("{}:u:{uid}", self.prefix)
    }

    pub(super) fn stream(&self, stream: &Stream) -> String {
        match stream {
            Stream::User(uid) => self.user(uid),
            Stream::Room(room) => self.room(room),
        }
    }

    pub(super) fn room(&self, room: &Room) -> String {
        format!("{}:r:{room}", self.prefix)
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
            assert_eq!(names.stream_of(&names.stream(&stream)), Some(stream));
        }
        assert_eq!(names.stream_of(&names.everyone()), None);
        assert_eq!(names.stream_of("skylark:u:a"), None);
        assert_eq!(names.roster("members"), "{sky}:members");
    }
}
