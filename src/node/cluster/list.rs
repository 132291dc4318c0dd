//! Lists over all nodes, in pages: connections, users, rooms, and the users of a room.
//!
//! Connection ids start with the node number, so in id order the lists of the nodes follow one another. A page asks
//! every node for its count, then only the nodes that the page covers. A user on several nodes stands at the position
//! of its first connection. Names are merged up to the point that every node has covered.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::codec;
use super::membership::Membership;
use super::requests::{Requests, merge_missing};
use crate::id::{ConnectionId, NodeId, Room, Uid};
use crate::node::query::{Counts, Filter, Local, MAX_DEVICES, Names, Part, SeenConnection, SeenUser, Unit};
use crate::protocol::cluster::{self as wire, cluster_reply::Reply, cluster_request::Request};

/// Maximum number of users per request.
const USERS_AT_ONCE: usize = 200;
/// Maximum number of names per request.
const NAMES_AT_ONCE: usize = 1000;

/// Start of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageStart<C> {
    /// Skips this many entries.
    Skip(usize),
    /// Starts after this entry.
    After(C),
}

/// A page of a list over all nodes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing<T, N, C> {
    /// Entries, in order.
    pub rows: Vec<T>,
    /// Total number of entries.
    pub counts: N,
    /// Last entry of the page, after which the list continues. `None` at the end of the list.
    pub next: Option<C>,
    /// Nodes that did not reply. Their entries are missing.
    pub missing: Vec<NodeId>,
}

/// Section of a list with the entries of one node.
struct NodeRange {
    number: u16,
    /// `None` = this node.
    node: Option<NodeId>,
    entries: usize,
}

/// Lists of connections, users and rooms of all nodes.
pub(in crate::node) struct Lists {
    local: Local,
    requests: Arc<Requests>,
    membership: Arc<Membership>,
}

impl Lists {
    pub(in crate::node) fn new(local: Local, requests: Arc<Requests>, membership: Arc<Membership>) -> Self {
        Self { local, requests, membership }
    }

    /// Lists matching connections in ascending order, at most `size`.
    pub(in crate::node) async fn connections(
        &self,
        filter: &Filter,
        start: PageStart<u64>,
        size: usize,
    ) -> Listing<SeenConnection, Counts, ConnectionId> {
        self.connection_page(filter, Unit::Connection, start, size).await
    }

    /// Lists users with matching connections, in the order of their first connection. A page may have fewer than `size`
    /// entries before the end, because each user is listed once.
    pub(in crate::node) async fn users(
        &self,
        filter: &Filter,
        start: PageStart<u64>,
        size: usize,
    ) -> Listing<SeenUser, Counts, ConnectionId> {
        let Listing { rows: firsts, counts, next, mut missing } =
            self.connection_page(filter, Unit::User, start, size).await;
        let mut rows = Vec::with_capacity(firsts.len());
        for firsts in firsts.chunks(USERS_AT_ONCE) {
            // A user on several nodes may occur more than once.
            let uids: BTreeSet<Uid> = firsts.iter().map(|seen| seen.binding.uid.clone()).collect();
            let (mut users, unanswered) = self.merged_users(filter, &uids).await;
            merge_missing(&mut missing, unanswered);
            for first in firsts {
                // A user that occurs several times is listed only at its first connection.
                let is_first = |user: &SeenUser| user.devices.first().is_some_and(|device| device.cid == first.cid);
                rows.extend(users.remove(&first.binding.uid).filter(is_first));
            }
        }
        Listing { rows, counts, next, missing }
    }

    /// Lists rooms by name with their connections, at most `size`. The count is exact if one reply of each node holds
    /// all its rooms. Otherwise a room counts once per node with members.
    pub(in crate::node) async fn rooms(
        &self,
        start: PageStart<Room>,
        size: usize,
    ) -> Listing<(Room, usize), usize, Room> {
        let (mut skip, mut after) = match start {
            PageStart::Skip(skip) => (skip, String::new()),
            PageStart::After(room) => (0, room.to_string()),
        };
        let (mut rows, mut missing): (Vec<(String, usize)>, _) = (Vec::new(), Vec::new());
        let mut total = None;
        let more = loop {
            let merged = self.names(&Names::Rooms, &after, NAMES_AT_ONCE).await;
            merge_missing(&mut missing, merged.missing);
            let whole = after.is_empty() && !merged.part.more;
            total.get_or_insert(if whole { merged.part.rows.len() } else { merged.total });
            let Some((last, _)) = merged.part.rows.last() else { break false };
            after.clone_from(last);
            let skipped = skip.min(merged.part.rows.len());
            skip -= skipped;
            rows.extend(merged.part.rows.into_iter().skip(skipped));
            if rows.len() > size || !merged.part.more {
                break rows.len() > size;
            }
        };
        rows.truncate(size);
        let rows: Vec<_> = rows.into_iter().filter_map(|(room, n)| Some((Room::parse(&room).ok()?, n))).collect();
        let next = rows.last().filter(|_| more).map(|(room, _)| room.clone());
        Listing { rows, counts: total.unwrap_or_default(), next, missing }
    }

    /// Lists users of the room, sorted, from `offset` on.
    pub(in crate::node) async fn members_of(&self, room: &Room, offset: usize, limit: usize) -> Vec<Uid> {
        let names = Names::Members(room.clone());
        let (mut skip, mut after, mut found) = (offset, String::new(), Vec::new());
        loop {
            let Part { rows, more } = self.names(&names, &after, NAMES_AT_ONCE).await.part;
            let Some((last, _)) = rows.last() else { return found };
            after.clone_from(last);
            let skipped = skip.min(rows.len());
            skip -= skipped;
            found.extend(rows.iter().skip(skipped).filter_map(|(uid, _)| Uid::parse(uid).ok()));
            if found.len() >= limit || !more {
                found.truncate(limit);
                return found;
            }
        }
    }

    /// True if the user has a connection on any node.
    pub(in crate::node) async fn is_online(&self, uid: &Uid) -> bool {
        if self.local.has_user(uid) {
            return true;
        }
        let filter = Filter { uid: Some(uid.clone()), ..Filter::default() };
        let replies = self.requests.ask_nodes_of(uid, Request::Count((&filter).into())).await;
        replies.received.iter().any(|(_, reply)| matches!(reply, Reply::Counts(counts) if counts.users > 0))
    }

    /// Connections of the user on all nodes, in ascending order, at most a hundred per node.
    pub(in crate::node) async fn connections_anywhere(&self, uid: &Uid) -> Vec<SeenConnection> {
        let filter = Filter { uid: Some(uid.clone()), ..Filter::default() };
        let request = Request::Users(wire::Users { filter: None, uids: vec![uid.to_string()] });
        let replies = self.requests.ask_nodes_of(uid, request).await;
        let mut found = self.local.user(uid, &filter).map(|user| user.devices).unwrap_or_default();
        for (_, reply) in replies.received {
            let Reply::Users(rows) = reply else { continue };
            let users = rows.users.into_iter().filter_map(|user| codec::read_user(user).ok());
            found.extend(users.flat_map(|user| user.devices));
        }
        found.sort_unstable_by_key(|seen| seen.cid);
        found
    }

    async fn connection_page(
        &self,
        filter: &Filter,
        unit: Unit,
        start: PageStart<u64>,
        size: usize,
    ) -> Listing<SeenConnection, Counts, ConnectionId> {
        let (counts, mut ranges, mut missing) = self.ranges(filter, unit).await;
        let (mut skip, mut after) = match start {
            PageStart::Skip(skip) => (skip, 0),
            PageStart::After(cid) => (0, cid),
        };
        let begin = ConnectionId::new(after).map_or(0, ConnectionId::node);
        ranges.retain(|range| range.number >= begin);
        let mut rows: Vec<SeenConnection> = Vec::new();
        let mut more = false;
        for (at, range) in ranges.iter().enumerate() {
            if skip >= range.entries {
                skip -= range.entries;
                continue;
            }
            loop {
                let left = size - rows.len();
                let Some(part) = self.page_of(range, filter, unit, after, skip, left).await else {
                    missing.extend(range.node.clone());
                    break;
                };
                skip = 0;
                more = part.more;
                rows.extend(part.rows);
                after = rows.last().map_or(after, |seen| seen.cid.as_u64());
                if !more || rows.len() >= size {
                    break;
                }
            }
            if rows.len() >= size {
                more |= ranges[at + 1..].iter().any(|range| range.entries > 0);
                break;
            }
        }
        let next = rows.last().filter(|_| more).map(|seen| seen.cid);
        Listing { rows, counts, next, missing }
    }

    /// Number of entries of every node, in the order of their ids.
    async fn ranges(&self, filter: &Filter, unit: Unit) -> (Counts, Vec<NodeRange>, Vec<NodeId>) {
        let entries = |counts: Counts| match unit {
            Unit::User => counts.users,
            Unit::Connection => counts.connections,
        };
        let here = self.local.count(filter).await;
        let replies = self.requests.ask_all(Request::Count(filter.into())).await;
        let others = self.membership.others().await;
        let mut sum = here;
        let mut ranges = vec![NodeRange { number: self.membership.me().number, node: None, entries: entries(here) }];
        for (node, reply) in replies.received {
            let Reply::Counts(counts) = reply else { continue };
            let Some(number) = others.iter().find(|other| other.id == node).map(|other| other.number) else { continue };
            let counts = Counts::from(counts);
            sum.users += counts.users;
            sum.connections += counts.connections;
            ranges.push(NodeRange { number, node: Some(node), entries: entries(counts) });
        }
        ranges.sort_unstable_by_key(|range| range.number);
        (sum, ranges, replies.missing)
    }

    /// Asks for entries of one node. `None` if the node does not reply.
    async fn page_of(
        &self,
        range: &NodeRange,
        filter: &Filter,
        unit: Unit,
        after: u64,
        skip: usize,
        limit: usize,
    ) -> Option<Part<SeenConnection>> {
        let Some(node) = &range.node else { return Some(self.local.page(filter, unit, after, skip, limit).await) };
        let page = wire::Page {
            filter: Some(filter.into()),
            users: unit == Unit::User,
            after,
            skip: skip as u64,
            limit: u32::try_from(limit).unwrap_or(u32::MAX),
        };
        let replies = self.requests.ask_one(node, Request::Page(page)).await;
        replies.received.into_iter().find_map(|(_, reply)| {
            let Reply::Rows(wire::Rows { rows, more }) = reply else { return None };
            let rows: Vec<SeenConnection> =
                rows.into_iter().map(codec::read_connection).collect::<Result<_, _>>().ok()?;
            // An empty part with `more` would be requested forever.
            Some(Part { more: more && !rows.is_empty(), rows })
        })
    }

    /// Returns these users with their connections on all nodes, at most a hundred per node.
    async fn merged_users(&self, filter: &Filter, uids: &BTreeSet<Uid>) -> (BTreeMap<Uid, SeenUser>, Vec<NodeId>) {
        let mut found: BTreeMap<Uid, SeenUser> = BTreeMap::new();
        let here = uids.iter().filter_map(|uid| self.local.user(uid, filter));
        found.extend(here.map(|user| (user.uid.clone(), user)));
        let users = wire::Users { filter: Some(filter.into()), uids: uids.iter().map(ToString::to_string).collect() };
        let replies = self.requests.ask_all(Request::Users(users)).await;
        for (_, reply) in replies.received {
            let Reply::Users(rows) = reply else { continue };
            for user in rows.users.into_iter().filter_map(|user| codec::read_user(user).ok()) {
                let Some(known) = found.get_mut(&user.uid) else {
                    found.insert(user.uid.clone(), user);
                    continue;
                };
                known.connections += user.connections;
                known.devices.extend(user.devices);
                known.devices.sort_unstable_by_key(|device| device.cid);
                known.devices.truncate(MAX_DEVICES);
            }
        }
        (found, replies.missing)
    }

    /// Next names after `after` on all nodes, at most `limit` per node.
    async fn names(&self, names: &Names, after: &str, limit: usize) -> Merged {
        let (here, mut total) = self.local.names(names, after, limit);
        let mut parts = vec![here];
        let replies = self.requests.ask_all(Request::Names(codec::names(names, after, limit))).await;
        for (_, reply) in replies.received {
            let Reply::Names(list) = reply else { continue };
            total += usize::try_from(list.total).unwrap_or(usize::MAX);
            let rows = list.names.into_iter().map(|name| (name.name, name.connections as usize)).collect();
            parts.push(Part { rows, more: list.more });
        }
        Merged { part: merge_names(parts), total, missing: replies.missing }
    }
}

/// Merged names of all nodes.
struct Merged {
    part: Part<(String, usize)>,
    total: usize,
    missing: Vec<NodeId>,
}

/// Sums the entries of several parts. Names after the end of an unfinished part wait for the next request, because its
/// node may have returned only some of them.
fn merge_names(parts: Vec<Part<(String, usize)>>) -> Part<(String, usize)> {
    let ends = parts.iter().filter(|part| part.more).filter_map(|part| part.rows.last());
    let end = ends.map(|(name, _)| name.clone()).min();
    let more = end.is_some();
    let mut sums: BTreeMap<String, usize> = BTreeMap::new();
    for (name, connections) in parts.into_iter().flat_map(|part| part.rows) {
        if end.as_ref().is_none_or(|end| name <= *end) {
            *sums.entry(name).or_default() += connections;
        }
    }
    Part { rows: sums.into_iter().collect(), more }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(names: &[&str], more: bool) -> Part<(String, usize)> {
        Part { rows: names.iter().map(|name| ((*name).to_owned(), 1)).collect(), more }
    }

    #[test]
    fn merge_of_names_ends_where_an_incomplete_list_ends() {
        let both = merge_names(vec![part(&["a", "c", "d"], true), part(&["b", "c", "x"], false)]);
        let names: Vec<_> = both.rows.iter().map(|(name, n)| (name.as_str(), *n)).collect();
        assert_eq!((names, both.more), (vec![("a", 1), ("b", 1), ("c", 2), ("d", 1)], true));
        assert!(!merge_names(vec![part(&["a"], false), part(&[], false)]).more);
    }
}
