//! Services of the node for plugins: answers their queries and commits the effects of a call.

use std::sync::Weak;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{Fate, Node};
use crate::id::{ConnectionId, Room, Uid};
use crate::message::Publication;
use crate::plugin::{Effect, Presence, Services};

/// The node as plugins see it. Weak, because the node owns the plugin host, which owns this value.
pub struct NodeServices {
    node: Weak<Node>,
}

impl NodeServices {
    /// Creates the services of `node`. Once the node is dropped, every user is offline and effects are discarded.
    #[must_use]
    pub fn new(node: Weak<Node>) -> Self {
        Self { node }
    }
}

impl Services for NodeServices {
    fn is_online<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, bool> {
        async move {
            let (Some(node), Ok(uid)) = (self.node.upgrade(), Uid::parse(uid)) else { return false };
            node.cluster.lists.is_online(&uid).await
        }
        .boxed()
    }

    fn connections<'a>(&'a self, uid: &'a str) -> BoxFuture<'a, Vec<Presence>> {
        async move {
            let (Some(node), Ok(uid)) = (self.node.upgrade(), Uid::parse(uid)) else { return Vec::new() };
            let seen = node.cluster.lists.connections_anywhere(&uid).await;
            let presence = seen.into_iter().map(|seen| Presence {
                cid: seen.cid,
                device: seen.binding.device.clone(),
                channel: seen.binding.channel.as_deref().map(str::to_owned),
                rooms: seen.rooms,
            });
            presence.collect()
        }
        .boxed()
    }

    fn members<'a>(&'a self, room: &'a str, offset: u32, limit: u32) -> BoxFuture<'a, Vec<Uid>> {
        async move {
            let (Some(node), Ok(room)) = (self.node.upgrade(), Room::parse(room)) else { return Vec::new() };
            node.cluster.lists.members_of(&room, offset as usize, limit as usize).await
        }
        .boxed()
    }

    fn is_connected(&self, cid: ConnectionId) -> BoxFuture<'_, bool> {
        async move {
            let Some(node) = self.node.upgrade() else { return false };
            node.cluster.changes.is_connected(cid).await
        }
        .boxed()
    }

    fn commit(&self, effects: Vec<Effect>, hops: u8) -> BoxFuture<'_, ()> {
        async move {
            if let Some(node) = self.node.upgrade() {
                commit(&node, effects, hops).await;
            }
        }
        .boxed()
    }
}

/// Applies the effects in order. Consecutive pushes form one batch.
async fn commit(node: &Node, effects: Vec<Effect>, hops: u8) {
    let changes = &node.cluster.changes;
    let mut pushes = Vec::new();
    for effect in effects {
        if !matches!(effect, Effect::Push(_)) {
            push(node, std::mem::take(&mut pushes)).await;
        }
        match effect {
            Effect::Push(publication) => pushes.push(*publication),
            Effect::Join(uid, room) => changes.change_user(uid, room, false, hops).await,
            Effect::Leave(uid, room) => changes.change_user(uid, room, true, hops).await,
            Effect::Kick(target, text) => {
                changes.kick(&target, &text).await;
            }
            Effect::Login(cid, account) => {
                changes.login_anywhere(cid, *account, hops).await;
            }
        }
    }
    push(node, pushes).await;
}

async fn push(node: &Node, pushes: Vec<Publication>) {
    if pushes.is_empty() {
        return;
    }
    let published = node.publish(pushes).await;
    let mut lost = published.iter().filter(|published| !matches!(published.fate, Fate::Accepted { .. }));
    // One log line for all, because the plugin controls the number of pushes.
    if let Some(first) = lost.next() {
        let more = lost.count();
        tracing::warn!(id = first.id, fate = ?first.fate, more, "plugin push was not accepted");
    }
}
