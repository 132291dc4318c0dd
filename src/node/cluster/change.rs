//! Connections anywhere in the cluster that are closed, join or leave rooms, or get their user by a plugin's word.
//!
//! This node does its part and asks the others for theirs; what they did comes back in one sum.

use std::collections::BTreeSet;

use super::Node;
use super::ask::{Answers, merge_missing};
use super::word;
use crate::claim::Refusal;
use crate::id::{ConnectionId, NodeId, Room, Uid};
use crate::message::Target;
use crate::plugin::Account;
use crate::protocol::cluster::{self as wire, answer::Says, question::Asks};

/// Who joins or leaves which room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::node) struct Change {
    pub(super) leave: bool,
    pub(super) room: Room,
    pub(super) target: Target,
}

/// What a room change did, in connections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Changed {
    /// Joined, or left.
    pub changed: usize,
    /// Were where they were to be already.
    pub unchanged: usize,
    /// May not join: in as many rooms as they may be, say.
    pub refused: Vec<RefusedJoin>,
    /// Users of the target with a connection.
    pub here: BTreeSet<Uid>,
    /// Nodes that did not answer: their part may be done or not.
    pub missing: Vec<NodeId>,
}

/// A connection that does not join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedJoin {
    /// Which.
    pub cid: ConnectionId,
    /// Why.
    pub refusal: Refusal,
}

/// What a kick did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kicked {
    /// Connections that were closed.
    pub closed: usize,
    /// Nodes that did not answer.
    pub missing: Vec<NodeId>,
}

impl From<&Changed> for wire::Changed {
    fn from(changed: &Changed) -> Self {
        let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Self {
            changed: number(changed.changed),
            unchanged: number(changed.unchanged),
            refused: changed.refused.iter().map(word::refused).collect(),
            here: changed.here.iter().map(ToString::to_string).collect(),
        }
    }
}

impl Changed {
    fn add(&mut self, part: wire::Changed) {
        self.changed += part.changed as usize;
        self.unchanged += part.unchanged as usize;
        self.refused.extend(part.refused.into_iter().filter_map(|refused| word::read_refused(refused).ok()));
        self.here.extend(part.here.iter().filter_map(|uid| Uid::parse(uid).ok()));
    }
}

impl Node {
    /// The target's connections (connection, device, user, users) join the room, wherever they are.
    pub async fn join_room(&self, target: &Target, room: &Room) -> Changed {
        self.change_anywhere(Change { leave: false, room: room.clone(), target: target.clone() }, 0).await
    }

    /// The target's connections leave the room, wherever they are.
    pub async fn leave_room(&self, target: &Target, room: &Room) -> Changed {
        self.change_anywhere(Change { leave: true, room: room.clone(), target: target.clone() }, 0).await
    }

    /// Closes the target's connections (connection, device, user, users), wherever they are, after a message with these
    /// words.
    pub async fn kick(&self, target: &Target, words: &str) -> Kicked {
        let closed = self.kick_here(target, words).await;
        let kick = wire::Kick { target: Some(word::target(target)), words: words.to_owned() };
        let answers = self.ask_where(target, Asks::Kick(kick)).await;
        let elsewhere = answers.said.iter().map(|(_, says)| match says {
            Says::Closed(closed) => *closed as usize,
            _ => 0,
        });
        Kicked { closed: closed + elsewhere.sum::<usize>(), missing: answers.missing }
    }

    /// A plugin's outbox changes rooms of a user.
    pub(in crate::node) async fn change_user(&self, uid: Uid, room: Room, leave: bool, hops: u8) {
        let changed = self.change_anywhere(Change { leave, room, target: Target::User(uid) }, hops).await;
        if let Some(RefusedJoin { cid, refusal }) = changed.refused.first() {
            tracing::debug!(%cid, reason = refusal.reason, "a plugin's join was refused");
        }
    }

    /// A plugin gives a connection to a user, wherever it is; `false` if it is gone or its node does not answer.
    pub(in crate::node) async fn login_anywhere(&self, cid: ConnectionId, account: Account, hops: u8) -> bool {
        if cid.node() == self.number() {
            return self.login_here(cid, account, hops).await;
        }
        let asks = Asks::Login(word::login(cid, &account, hops));
        is_done(&self.ask_where(&Target::Connection(cid), asks).await)
    }

    /// Whether the connection lives, wherever it is.
    pub(in crate::node) async fn is_connected(&self, cid: ConnectionId) -> bool {
        if cid.node() == self.number() {
            return self.hub.connection(cid).is_some();
        }
        is_done(&self.ask_where(&Target::Connection(cid), Asks::Connected(cid.as_u64())).await)
    }

    pub(super) async fn login_here(&self, cid: ConnectionId, account: Account, hops: u8) -> bool {
        let done = self.login(cid, account, hops).await;
        if let Err(refusal) = &done {
            tracing::warn!(reason = refusal.reason, "a plugin's login came to nothing");
        }
        done.is_ok()
    }

    pub(super) async fn change_here(&self, change: &Change, hops: u8) -> Changed {
        let mut told = Changed::default();
        for connection in self.connections_of(&change.target) {
            let Some(binding) = connection.binding() else { continue };
            told.here.insert(binding.uid.clone());
            let done = if change.leave {
                Ok(self.leave_after(&connection, &change.room, hops).await)
            } else {
                self.join_after(&connection, change.room.clone(), hops).await
            };
            match done {
                Ok(true) => told.changed += 1,
                Ok(false) => told.unchanged += 1,
                Err(refusal) => told.refused.push(RefusedJoin { cid: connection.id(), refusal }),
            }
        }
        told
    }

    async fn change_anywhere(&self, change: Change, hops: u8) -> Changed {
        let mut told = self.change_here(&change, hops).await;
        let answers = self.ask_where(&change.target, Asks::Change(word::change(&change, hops))).await;
        merge_missing(&mut told.missing, answers.missing);
        for (_, says) in answers.said {
            if let Says::Changed(part) = says {
                told.add(part);
            }
        }
        told
    }

    /// Asks the other nodes that may hold the target: one for a connection, all where users are meant, so that those
    /// which do not answer can be named.
    async fn ask_where(&self, target: &Target, asks: Asks) -> Answers {
        match target {
            Target::Connection(cid) | Target::ConnectionOf(_, cid) if cid.node() == self.number() => Answers::default(),
            Target::Connection(cid) | Target::ConnectionOf(_, cid) => match self.member_of(cid.node()).await {
                Some(node) => self.ask_one(&node, asks).await,
                None => Answers::default(),
            },
            _ => self.ask_all(asks).await,
        }
    }
}

fn is_done(answers: &Answers) -> bool {
    answers.said.iter().any(|(_, says)| matches!(says, Says::Done(true)))
}
