//! Queries about the connections of this node: lookup, filter, order.
//!
//! Queries over all nodes are in [`super::cluster`], which runs this code on each node.

mod history;

use std::collections::BTreeMap;
use std::sync::Arc;

use ahash::AHashMap;

use crate::hub::{Binding, Connection, Hub};
use crate::id::{ConnectionId, Device, Room, Uid};
use crate::message::Target;
use crate::protocol::Form;

pub use history::HistoryFault;
pub use history::plugins::PluginHistory;

/// Connections per chunk. The walk yields after each chunk.
const CHUNK: usize = 1000;
/// Maximum number of connections listed per user. The count includes the others.
pub(super) const MAX_DEVICES: usize = 100;

/// Selects connections. Every given field must match.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// User of the connection.
    pub uid: Option<Uid>,
    /// Room that the connection is in.
    pub room: Option<Room>,
    /// Device of the connection.
    pub device: Option<Device>,
    /// Channel of the connection.
    pub channel: Option<String>,
}

/// Entry type of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// A user, at the position of its first connection.
    User,
    /// A connection.
    Connection,
}

/// Number of users and connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Users. A user on several nodes counts once per node.
    pub users: usize,
    /// Bound connections.
    pub connections: usize,
}

/// Snapshot of a bound connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenConnection {
    /// Id of the connection.
    pub cid: ConnectionId,
    /// User and facts of the connection.
    pub binding: Arc<Binding>,
    /// Rooms of the connection, by name.
    pub rooms: Vec<Room>,
    /// Tag of the connection.
    pub tag: Option<String>,
    /// Protocol of the connection, if it is known.
    pub form: Option<Form>,
}

/// A user with its connections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenUser {
    /// Id of the user.
    pub uid: Uid,
    /// Number of matching connections.
    pub connections: usize,
    /// The first of them by id, at most a hundred.
    pub devices: Vec<SeenConnection>,
}

/// A part of a list: entries in order. `more` is true if others follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part<T> {
    pub(super) rows: Vec<T>,
    pub(super) more: bool,
}

/// Names that are listed in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Names {
    /// Rooms, each with its number of connections.
    Rooms,
    /// Users of a room, each with its number of connections in it.
    Members(Room),
}

impl Filter {
    /// True if every connection matches.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the binding if the connection matches.
    fn matching_binding(&self, connection: &Connection) -> Option<Arc<Binding>> {
        let binding = connection.binding()?;
        let matches = self.uid.as_ref().is_none_or(|uid| binding.uid == *uid)
            && self.device.as_ref().is_none_or(|device| binding.device.as_ref() == Some(device))
            && self.channel.as_deref().is_none_or(|channel| binding.channel.as_deref() == Some(channel))
            && self.room.as_ref().is_none_or(|room| connection.rooms().contains(room));
        matches.then_some(binding)
    }
}

impl SeenConnection {
    fn new(connection: &Connection, binding: Arc<Binding>) -> Self {
        let mut rooms = connection.rooms();
        rooms.sort_unstable();
        Self { cid: connection.id(), binding, rooms, tag: connection.tag(), form: connection.form() }
    }
}

/// Queries the connections of this node.
#[derive(Clone)]
pub(super) struct Local {
    hub: Arc<Hub>,
}

impl Local {
    pub(super) fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }

    /// Live connection with this id.
    pub(super) fn connection(&self, cid: ConnectionId) -> Option<Connection> {
        self.hub.connection(cid)
    }

    /// True if the user has a connection here.
    pub(super) fn has_user(&self, uid: &Uid) -> bool {
        self.hub.has_user(uid.as_str())
    }

    /// Live connections of this node that a target names. Empty for rooms and everyone.
    pub(super) fn connections_of(&self, target: &Target) -> Vec<Connection> {
        match target {
            Target::Connection(cid) => self.hub.connection(*cid).into_iter().collect(),
            Target::ConnectionOf(uid, cid) => {
                let owned = |c: &Connection| c.binding().is_some_and(|b| b.uid == *uid);
                self.hub.connection(*cid).into_iter().filter(owned).collect()
            }
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

    /// Number of online users and of bound connections on this node.
    pub(super) fn counts(&self) -> Counts {
        let (users, connections) = self.hub.counts();
        Counts { users, connections }
    }

    /// Counts matches. Without a filter the hub has the numbers; otherwise all candidates are checked.
    pub(super) async fn count(&self, filter: &Filter) -> Counts {
        if filter.is_empty() {
            return self.counts();
        }
        let mut walk = Walk::new(&self.hub, filter, 0);
        let (mut firsts, mut counts) = (FirstConnections::default(), Counts::default());
        while let Some(chunk) = walk.next().await {
            for (connection, binding) in chunk {
                counts.connections += 1;
                counts.users += usize::from(firsts.is_first(&self.hub, filter, &connection, &binding));
            }
        }
        counts
    }

    /// Matching entries with ids above `after`, without the first `skip`, at most `limit`, in ascending order.
    pub(super) async fn page(
        &self,
        filter: &Filter,
        unit: Unit,
        after: u64,
        skip: usize,
        limit: usize,
    ) -> Part<SeenConnection> {
        let mut walk = Walk::new(&self.hub, filter, after);
        let (mut firsts, mut skip) = (FirstConnections::default(), skip);
        let mut rows = Vec::new();
        while let Some(chunk) = walk.next().await {
            for (connection, binding) in chunk {
                if unit == Unit::User && !firsts.is_first(&self.hub, filter, &connection, &binding) {
                    continue;
                }
                if skip > 0 {
                    skip -= 1;
                } else if rows.len() < limit {
                    rows.push(SeenConnection::new(&connection, binding));
                } else {
                    return Part { rows, more: true };
                }
            }
        }
        Part { rows, more: false }
    }

    /// Matching connections of the user on this node. `None` if there are none.
    pub(super) fn user(&self, uid: &Uid, filter: &Filter) -> Option<SeenUser> {
        let mut all = self.hub.user(uid.as_str());
        all.sort_unstable_by_key(Connection::id);
        let matching: Vec<_> =
            all.into_iter().filter_map(|c| filter.matching_binding(&c).map(|binding| (c, binding))).collect();
        let uid = matching.first()?.1.uid.clone();
        let connections = matching.len();
        let devices =
            matching.into_iter().take(MAX_DEVICES).map(|(c, binding)| SeenConnection::new(&c, binding)).collect();
        Some(SeenUser { uid, connections, devices })
    }

    /// The first `limit` names after `after`, sorted, each with its number of connections. Also returns the total
    /// number of names.
    pub(super) fn names(&self, names: &Names, after: &str, limit: usize) -> (Part<(String, usize)>, usize) {
        let mut all: BTreeMap<String, usize> = BTreeMap::new();
        match names {
            Names::Rooms => all.extend(self.hub.rooms().into_iter().map(|(room, n)| (room.to_string(), n))),
            Names::Members(room) => {
                for binding in self.hub.room(room.as_str()).iter().filter_map(Connection::binding) {
                    *all.entry(binding.uid.to_string()).or_default() += 1;
                }
            }
        }
        let total = all.len();
        let mut rows: Vec<_> = all.into_iter().skip_while(|(name, _)| name.as_str() <= after).take(limit + 1).collect();
        let more = rows.len() > limit;
        rows.truncate(limit);
        (Part { rows, more }, total)
    }
}

/// Walks over the candidates of a filter in ascending order and returns the matches.
struct Walk<'a> {
    hub: &'a Hub,
    filter: &'a Filter,
    /// Candidates that the filter names directly. `None` = all connections of the node.
    candidates: Option<Vec<Connection>>,
    after: u64,
    ended: bool,
}

impl<'a> Walk<'a> {
    fn new(hub: &'a Hub, filter: &'a Filter, after: u64) -> Self {
        let candidates = match filter {
            Filter { uid: Some(uid), .. } => Some(hub.user(uid.as_str())),
            Filter { room: Some(room), .. } => Some(hub.room(room.as_str())),
            _ => None,
        };
        Self { hub, filter, candidates, after, ended: false }
    }

    async fn next(&mut self) -> Option<Vec<(Connection, Arc<Binding>)>> {
        while !self.ended {
            let chunk = match self.candidates.take() {
                Some(mut all) => {
                    self.ended = true;
                    all.retain(|c| c.id().as_u64() > self.after);
                    all.sort_unstable_by_key(Connection::id);
                    all
                }
                None => self.hub.page(self.after, CHUNK),
            };
            match chunk.last() {
                Some(last) => self.after = last.id().as_u64(),
                None => self.ended = true,
            }
            let matching: Vec<_> = chunk
                .into_iter()
                .filter_map(|c| self.filter.matching_binding(&c).map(|binding| (c, binding)))
                .collect();
            if !matching.is_empty() {
                return Some(matching);
            }
            // A long walk must not keep the worker from its sockets.
            tokio::task::yield_now().await;
        }
        None
    }
}

/// First matching connection of each user, looked up once, because a user may have thousands.
#[derive(Default)]
struct FirstConnections(AHashMap<Uid, Option<ConnectionId>>);

impl FirstConnections {
    fn is_first(&mut self, hub: &Hub, filter: &Filter, connection: &Connection, binding: &Binding) -> bool {
        let first = match self.0.get(&binding.uid) {
            Some(first) => *first,
            None => {
                let all = hub.user(binding.uid.as_str());
                let first = all.iter().filter(|c| filter.matching_binding(c).is_some()).map(Connection::id).min();
                self.0.insert(binding.uid.clone(), first);
                first
            }
        };
        first == Some(connection.id())
    }
}
