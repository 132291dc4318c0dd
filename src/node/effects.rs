//! What the node does for plugins: answers their questions and commits what a call decided.

use std::collections::BTreeSet;
use std::sync::Weak;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{Fate, Node};
use crate::disconnect::Disconnect;
use crate::id::{ConnectionId, Room, Uid};
use crate::message::{Publication, Target};
use crate::plugin::{Effect, Presence, Services};

/// The node as plugins see it. Weak, because the node owns the plugin host that holds this.
pub struct NodeServices {
    node: Weak<Node>,
}

impl NodeServices {
    /// Of `node`; once that is gone nobody is online and effects go nowhere.
    #[must_use]
    pub fn new(node: Weak<Node>) -> Self {
        Self { node }
    }
}

impl Services for NodeServices {
    fn is_online<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, bool> {
        let online = self.node.upgrade().is_some_and(|node| !node.user(uid).is_empty());
        std::future::ready(online).boxed()
    }

    fn connections<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Vec<Presence>> {
        let connections = self.node.upgrade().map(|node| node.user(uid)).unwrap_or_default();
        let presence = connections.iter().filter_map(|connection| {
            let binding = connection.binding()?;
            Some(Presence {
                cid: connection.id(),
                device: binding.device.clone(),
                channel: binding.channel.clone(),
                rooms: connection.rooms(),
            })
        });
        std::future::ready(presence.collect()).boxed()
    }

    fn members<'a>(&'a self, room: &'a str, offset: u32, limit: u32) -> BoxFuture<'a, Vec<Uid>> {
        let connections = self.node.upgrade().map(|node| node.room(room)).unwrap_or_default();
        let users: BTreeSet<Uid> = connections.iter().filter_map(|c| Some(c.binding()?.uid.clone())).collect();
        let page = users.into_iter().skip(offset as usize).take(limit as usize).collect();
        std::future::ready(page).boxed()
    }

    fn is_connected(&self, cid: ConnectionId) -> bool {
        self.node.upgrade().is_some_and(|node| !node.connections_of(&Target::Connection(cid)).is_empty())
    }

    fn commit(&self, effects: Vec<Effect>, hops: u8) -> BoxFuture<'_, ()> {
        async move {
            if let Some(node) = self.node.upgrade() {
                node.commit(effects, hops).await;
            }
        }
        .boxed()
    }
}

impl Node {
    /// Does all of it in order; pushes that follow each other are one batch.
    async fn commit(&self, effects: Vec<Effect>, hops: u8) {
        let mut pushes = Vec::new();
        for effect in effects {
            if !matches!(effect, Effect::Push(_)) {
                self.push(std::mem::take(&mut pushes)).await;
            }
            match effect {
                Effect::Push(publication) => pushes.push(*publication),
                Effect::Join(uid, room) => self.join_user(&uid, &room, hops),
                Effect::Leave(uid, room) => {
                    for connection in self.user(uid.as_str()) {
                        self.leave_after(&connection, &room, hops);
                    }
                }
                Effect::Kick(target, words) => {
                    self.kick(&target, Disconnect::KICKED, &words).await;
                }
                Effect::Login(cid, account) => {
                    if let Err(refusal) = self.login(cid, *account, hops).await {
                        tracing::warn!(reason = refusal.reason, "a plugin's login came to nothing");
                    }
                }
            }
        }
        self.push(pushes).await;
    }

    async fn push(&self, pushes: Vec<Publication>) {
        if pushes.is_empty() {
            return;
        }
        let published = self.publish(pushes).await;
        let mut lost = published.iter().filter(|published| !matches!(published.fate, Fate::Accepted { .. }));
        // One line for all: a plugin chooses how many it pushes.
        if let Some(first) = lost.next() {
            let more = lost.count();
            tracing::warn!(id = first.id, fate = ?first.fate, more, "a plugin's push went nowhere");
        }
    }

    fn join_user(&self, uid: &Uid, room: &Room, hops: u8) {
        for connection in self.user(uid.as_str()) {
            if let Err(refusal) = self.join_after(&connection, room.clone(), hops) {
                tracing::debug!(reason = refusal.reason, "a plugin's join was refused");
            }
        }
    }
}
