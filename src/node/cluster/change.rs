//! Closes connections, changes their rooms or rebinds them anywhere in the cluster.
//!
//! This node handles its own connections, asks the other nodes for theirs, and sums the results.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::codec;
use super::membership::Membership;
use super::requests::{Replies, Requests, merge_missing};
use crate::claim::Refusal;
use crate::id::{ConnectionId, NodeId, Room, Uid};
use crate::message::Target;
use crate::node::connect::Binder;
use crate::node::kick;
use crate::node::query::Local;
use crate::node::rooms::Rooms;
use crate::plugin::Account;
use crate::protocol::cluster::{self as wire, cluster_reply::Reply, cluster_request::Request};

/// Change of a room's members.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::node) struct Change {
    pub(super) leave: bool,
    pub(super) room: Room,
    pub(super) target: Target,
}

/// Result of a room change, in connections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// Connections that joined or left.
    pub changed: usize,
    /// Connections that already were in the desired state.
    pub unchanged: usize,
    /// Connections that were refused, for example because they are in too many rooms.
    pub refused: Vec<RefusedJoin>,
    /// Users of the target with a connection.
    pub here: BTreeSet<Uid>,
    /// Nodes that did not reply. Their part may or may not be done.
    pub missing: Vec<NodeId>,
}

/// A connection that was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedJoin {
    /// Id of the connection.
    pub cid: ConnectionId,
    /// Reason of the refusal.
    pub refusal: Refusal,
}

/// Result of a kick.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kicked {
    /// Number of closed connections.
    pub closed: usize,
    /// Nodes that did not reply.
    pub missing: Vec<NodeId>,
}

impl From<&Changed> for wire::Changed {
    fn from(changed: &Changed) -> Self {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            changed: number(changed.changed),
            unchanged: number(changed.unchanged),
            refused: changed.refused.iter().map(codec::refused).collect(),
            here: changed.here.iter().map(ToString::to_string).collect(),
        }
    }
}

impl Changed {
    fn add(&mut self, part: wire::Changed) {
        self.changed += part.changed as usize;
        self.unchanged += part.unchanged as usize;
        self.refused.extend(part.refused.into_iter().filter_map(|refused| codec::read_refused(refused).ok()));
        self.here.extend(part.here.iter().filter_map(|uid| Uid::parse(uid).ok()));
    }
}

/// Changes connections on any node.
pub(in crate::node) struct Changes {
    pub(in crate::node) local: Local,
    pub(in crate::node) rooms: Arc<Rooms>,
    pub(in crate::node) binder: Arc<Binder>,
    pub(in crate::node) requests: Arc<Requests>,
    pub(in crate::node) membership: Arc<Membership>,
}

impl Changes {
    /// Adds the target's connections (connection, device, user, users) on all nodes to the room.
    pub(in crate::node) async fn join_room(&self, target: &Target, room: &Room) -> Changed {
        self.change_anywhere(Change { leave: false, room: room.clone(), target: target.clone() }, 0).await
    }

    /// Removes the target's connections on all nodes from the room.
    pub(in crate::node) async fn leave_room(&self, target: &Target, room: &Room) -> Changed {
        self.change_anywhere(Change { leave: true, room: room.clone(), target: target.clone() }, 0).await
    }

    /// Closes the target's connections (connection, device, user, users) on all nodes, after a message with the text
    /// `text`.
    pub(in crate::node) async fn kick(&self, target: &Target, text: &str) -> Kicked {
        let closed = self.kick_here(target, text).await;
        let kick = wire::Kick { target: Some(codec::target(target)), text: text.to_owned() };
        let replies = self.ask_nodes_with(target, Request::Kick(kick)).await;
        let elsewhere = replies.received.iter().map(|(_, reply)| match reply {
            Reply::Closed(closed) => *closed as usize,
            _ => 0,
        });
        Kicked { closed: closed + elsewhere.sum::<usize>(), missing: replies.missing }
    }

    /// Changes the rooms of a user by a plugin effect.
    pub(in crate::node) async fn change_user(&self, uid: Uid, room: Room, leave: bool, hops: u8) {
        let changed = self.change_anywhere(Change { leave, room, target: Target::User(uid) }, hops).await;
        if let Some(RefusedJoin { cid, refusal }) = changed.refused.first() {
            tracing::debug!(%cid, reason = refusal.reason, "plugin join refused");
        }
    }

    /// Rebinds a connection on any node to the user that a plugin chose. Returns false if the connection is gone or its
    /// node does not reply.
    pub(in crate::node) async fn login_anywhere(&self, cid: ConnectionId, account: Account, hops: u8) -> bool {
        if cid.node() == self.membership.me().number {
            return self.login_here(cid, account, hops).await;
        }
        let request = Request::Login(codec::login(cid, &account, hops));
        is_done(&self.ask_nodes_with(&Target::Connection(cid), request).await)
    }

    /// True if the connection is alive on any node.
    pub(in crate::node) async fn is_connected(&self, cid: ConnectionId) -> bool {
        if cid.node() == self.membership.me().number {
            return self.local.connection(cid).is_some();
        }
        is_done(&self.ask_nodes_with(&Target::Connection(cid), Request::Connected(cid.as_u64())).await)
    }

    pub(super) async fn login_here(&self, cid: ConnectionId, account: Account, hops: u8) -> bool {
        let done = self.binder.login(cid, account, hops).await;
        if let Err(refusal) = &done {
            tracing::warn!(reason = refusal.reason, "plugin login failed");
        }
        done.is_ok()
    }

    pub(super) async fn change_here(&self, change: &Change, hops: u8) -> Changed {
        let mut result = Changed::default();
        for connection in self.local.connections_of(&change.target) {
            let Some(binding) = connection.binding() else { continue };
            result.here.insert(binding.uid.clone());
            let done = if change.leave {
                Ok(self.rooms.leave(&connection, &change.room, hops).await)
            } else {
                self.rooms.join(&connection, change.room.clone(), hops).await
            };
            match done {
                Ok(true) => result.changed += 1,
                Ok(false) => result.unchanged += 1,
                Err(refusal) => result.refused.push(RefusedJoin { cid: connection.id(), refusal }),
            }
        }
        result
    }

    /// Closes the target's connections on this node and returns their number.
    pub(super) async fn kick_here(&self, target: &Target, text: &str) -> usize {
        kick::close_all(self.local.connections_of(target), text).await
    }

    async fn change_anywhere(&self, change: Change, hops: u8) -> Changed {
        let mut result = self.change_here(&change, hops).await;
        let replies = self.ask_nodes_with(&change.target, Request::Change(codec::change(&change, hops))).await;
        merge_missing(&mut result.missing, replies.missing);
        for (_, reply) in replies.received {
            if let Reply::Changed(part) = reply {
                result.add(part);
            }
        }
        result
    }

    /// Asks the other nodes that may have the target: one node for a connection, all nodes for users. Asking all makes
    /// it possible to name those that do not reply.
    async fn ask_nodes_with(&self, target: &Target, request: Request) -> Replies {
        match target {
            Target::Connection(cid) | Target::ConnectionOf(_, cid) if cid.node() == self.membership.me().number => {
                Replies::default()
            }
            Target::Connection(cid) | Target::ConnectionOf(_, cid) => match self.membership.member_of(cid.node()).await
            {
                Some(node) => self.requests.ask_one(&node, request).await,
                None => Replies::default(),
            },
            _ => self.requests.ask_all(request).await,
        }
    }
}

fn is_done(replies: &Replies) -> bool {
    replies.received.iter().any(|(_, reply)| matches!(reply, Reply::Done(true)))
}
