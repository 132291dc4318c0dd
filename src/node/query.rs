//! What the node can be asked: who is connected, who is in which room.
//!
//! One node answers from its hub; a cluster will ask the others here, which is why most of it is async already.

use super::Node;
use crate::hub::Connection;
use crate::id::Room;
use crate::message::Target;

impl Node {
    /// The live connections that a target names; none for rooms and everyone.
    #[must_use]
    pub fn connections_of(&self, target: &Target) -> Vec<Connection> {
        match target {
            Target::Connection(cid) => self.hub.connection(*cid).into_iter().collect(),
            Target::User(uid) => self.hub.user(uid.as_str()),
            Target::Users(uids) => uids.iter().flat_map(|uid| self.hub.user(uid.as_str())).collect(),
            Target::Device(uid, device) => {
                let mut connections = self.hub.user(uid.as_str());
                connections.retain(|c| c.binding().is_some_and(|b| b.device.as_ref() == Some(device)));
                connections
            }
            Target::Room(_) | Target::Everyone | Target::EveryoneBut(_) => Vec::new(),
        }
    }

    /// Bound connections, cids growing, from the first above `after` on.
    #[must_use]
    pub fn page(&self, after: u64, limit: usize) -> Vec<Connection> {
        self.hub.page(after, limit)
    }

    /// Users online, and bound connections.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        self.hub.counts()
    }

    /// Rooms, with how many connections each has.
    #[must_use]
    pub fn rooms(&self) -> Vec<(Room, usize)> {
        self.hub.rooms()
    }

    /// A room's connections.
    #[must_use]
    pub fn room(&self, room: &str) -> Vec<Connection> {
        self.hub.room(room)
    }

    /// A user's connections.
    #[must_use]
    pub fn user(&self, uid: &str) -> Vec<Connection> {
        self.hub.user(uid)
    }
}
