//! The interface `directory`: users online, their connections and rooms, in the whole cluster.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::plugin::guest::bindings::skylark::plugin as wit;
use crate::plugin::guest::convert;
use crate::plugin::guest::failure::Waiting;
use crate::plugin::guest::state::Guest;
use crate::plugin::{Presence, Services};

/// Most users that one directory answer names.
const MAX_PAGE: u32 = 1_000;

impl Guest {
    fn services(&self) -> Option<&Arc<dyn Services>> {
        self.context.services.get()
    }

    /// The user's connections in the cluster.
    async fn connections_of(&mut self, uid: &str) -> Vec<Presence> {
        self.call.waiting = Some(Waiting::Cluster);
        let found = await_node(self.services().map(|services| services.connections(uid))).await;
        self.call.waiting = None;
        found
    }
}

/// Waits for the node's answer; without a node the answer is empty.
async fn await_node<T: Default>(answer: Option<BoxFuture<'_, T>>) -> T {
    match answer {
        Some(answer) => answer.await,
        None => T::default(),
    }
}

impl wit::directory::Host for Guest {
    async fn online(&mut self, uid: String) -> bool {
        self.call.waiting = Some(Waiting::Cluster);
        let online = await_node(self.services().map(|services| services.is_online(&uid))).await;
        self.call.waiting = None;
        online
    }

    async fn connections(&mut self, uid: String) -> Vec<wit::directory::Presence> {
        self.connections_of(&uid).await.into_iter().map(convert::presence).collect()
    }

    async fn members(&mut self, room: String, offset: u32, limit: u32) -> Vec<String> {
        let limit = limit.min(MAX_PAGE);
        self.call.waiting = Some(Waiting::Cluster);
        let found = await_node(self.services().map(|services| services.members(&room, offset, limit))).await;
        self.call.waiting = None;
        found.into_iter().map(|uid| uid.as_str().to_owned()).collect()
    }

    async fn devices(&mut self, uid: String) -> Vec<String> {
        let found = self.connections_of(&uid).await;
        sorted(found.into_iter().filter_map(|presence| Some(presence.device?.as_str().to_owned())))
    }

    async fn rooms(&mut self, uid: String) -> Vec<String> {
        let found = self.connections_of(&uid).await;
        sorted(found.iter().flat_map(|presence| &presence.rooms).map(|room| room.as_str().to_owned()))
    }
}

/// Sorted, each name once.
fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    names.collect::<BTreeSet<_>>().into_iter().collect()
}
