//! Routing: resolves the targets of a batch to receivers, then sends each shard its part as one command.
//!
//! Runs on the caller's task. Single connections are resolved here, and counted here while their queue has space.
//! Shards resolve rooms and everyone, so that these targets cost one item per shard.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ahash::RandomState;
use tokio::sync::oneshot;

use super::FrameRun;
use super::connection::{Connection, ShardHandle};
use super::load::{Load, Reservation};
use super::meters::RouteMeters;
use super::registry::{Registry, UserConnections};
use super::rooms::Rooms;
use super::shard::{Command, Excluded, Item, Receivers, ShardBatch};
use crate::id::Uid;
use crate::message::{Receipt, Target};

/// Number of users up to which a linear search is cheaper than a set.
const FEW_USERS: usize = 16;

/// Parts of the hub that routing needs.
pub(super) struct Router {
    pub(super) registry: Registry,
    pub(super) rooms: Rooms,
    pub(super) shards: Box<[Arc<ShardHandle>]>,
    pub(super) meters: RouteMeters,
}

impl Router {
    /// See [`super::Hub::route`].
    pub(super) async fn route(&self, batch: Vec<FrameRun>) -> Vec<Receipt> {
        let (mut receipts, drafts) = Plan::make(self, &batch);
        let batch = Arc::new(batch);
        let mut reports = Vec::new();
        for (shard, Draft { items, needs_counts }) in self.shards.iter().zip(drafts) {
            if items.is_empty() {
                continue;
            }
            let (report, counts) = if needs_counts { Some(oneshot::channel()).unzip() } else { (None, None) };
            let part = ShardBatch { batch: Arc::clone(&batch), items, report };
            // A stopped shard counts nothing.
            let _ = shard.mailbox.send(Command::Deliver(part)).await;
            reports.extend(counts);
        }
        for counts in reports {
            for count in counts.await.unwrap_or_default() {
                receipts[count.delivery].delivered += count.delivered;
                receipts[count.delivery].full += count.full;
            }
        }
        self.meters.count(&batch, &receipts);
        receipts
    }
}

/// Part of one shard while it is built.
#[derive(Default)]
struct Draft {
    items: Vec<Item>,
    /// True if the part contains an item that only the shard can count.
    needs_counts: bool,
}

struct Plan<'a> {
    router: &'a Router,
    receipts: Vec<Receipt>,
    drafts: Vec<Draft>,
}

impl<'a> Plan<'a> {
    fn make(router: &'a Router, batch: &[FrameRun]) -> (Vec<Receipt>, Vec<Draft>) {
        let mut plan = Plan {
            router,
            receipts: vec![Receipt::default(); batch.len()],
            drafts: router.shards.iter().map(|_| Draft::default()).collect(),
        };
        for (at, delivery) in batch.iter().enumerate() {
            plan.add(at, delivery);
        }
        (plan.receipts, plan.drafts)
    }

    fn add(&mut self, at: usize, delivery: &FrameRun) {
        match &delivery.target {
            Target::Connection(id) => {
                if let Some(connection) = self.router.registry.connection(*id) {
                    self.route_to_one(at, delivery, connection);
                }
            }
            // Ids come from outside, and a connection may have another user now, so the current binding decides.
            Target::ConnectionOf(uid, id) => {
                let mut connections = UserConnections::new();
                connections.extend(self.router.registry.connection(*id));
                connections.retain(|connection| connection.binding().is_some_and(|b| b.uid == *uid));
                self.route_to_user(at, delivery, uid, connections);
            }
            Target::Device(uid, device) => {
                let mut connections = self.router.registry.user(uid.as_str());
                connections
                    .retain(|connection| connection.binding().is_some_and(|b| b.device.as_ref() == Some(device)));
                self.route_to_user(at, delivery, uid, connections);
            }
            Target::User(uid) => self.route_to_all_of(at, delivery, uid),
            Target::Users(uids) => for_each_unique(uids, |uid| self.route_to_all_of(at, delivery, uid)),
            Target::Room(room) => {
                let Some(state) = self.router.rooms.find(room.as_str()) else { return };
                for shard in state.shards() {
                    self.add_item(at, shard, Receivers::Room(Arc::clone(&state)));
                }
            }
            Target::Everyone => self.add_to_all(at, || Receivers::Everyone),
            Target::EveryoneBut(uids) => {
                let registry = &self.router.registry;
                let excluded = Arc::new(Excluded {
                    hashes: uids.iter().map(|uid| registry.hash(uid.as_str())).collect(),
                    uids: uids.iter().cloned().collect(),
                });
                self.add_to_all(at, || Receivers::EveryoneBut(Arc::clone(&excluded)));
            }
        }
    }

    fn route_to_all_of(&mut self, at: usize, delivery: &FrameRun, uid: &Uid) {
        let connections = self.router.registry.user(uid.as_str());
        self.route_to_user(at, delivery, uid, connections);
    }

    /// Routes to these connections of the user. Without a live one the user counts as offline.
    fn route_to_user(&mut self, at: usize, delivery: &FrameRun, uid: &Uid, connections: UserConnections) {
        let mut is_online = false;
        for connection in connections {
            is_online |= self.route_to_one(at, delivery, connection);
        }
        if !is_online {
            self.receipts[at].offline.push(uid.clone());
        }
    }

    /// Routes to one connection. Returns true if the connection is live, even if it is left out.
    fn route_to_one(&mut self, at: usize, delivery: &FrameRun, connection: Connection) -> bool {
        let Some(form) = connection.form().filter(|_| !connection.is_closed()) else { return false };
        let bytes = delivery.frames.bytes(form);
        if delivery.no_echo == Some(connection.id()) || bytes.is_empty() {
            return true;
        }
        let draft = &mut self.drafts[connection.shard().index];
        let reservation = Reservation::new(connection, Load::new(bytes.len(), delivery.frames.count()));
        if reservation.is_reserved() {
            self.receipts[at].delivered += 1;
        } else {
            draft.needs_counts = true;
        }
        draft.items.push(Item { delivery: at, receivers: Receivers::One(reservation) });
        true
    }

    fn add_to_all(&mut self, at: usize, receivers: impl Fn() -> Receivers) {
        for (index, shard) in self.router.shards.iter().enumerate() {
            if shard.live.load(Ordering::Relaxed) > 0 {
                self.add_item(at, index, receivers());
            }
        }
    }

    fn add_item(&mut self, at: usize, shard: usize, receivers: Receivers) {
        self.drafts[shard].needs_counts = true;
        self.drafts[shard].items.push(Item { delivery: at, receivers });
    }
}

fn for_each_unique<'u>(uids: &'u [Uid], mut each: impl FnMut(&'u Uid)) {
    if uids.len() <= FEW_USERS {
        uids.iter().enumerate().filter(|(i, uid)| !uids[..*i].contains(uid)).for_each(|(_, uid)| each(uid));
        return;
    }
    let mut seen = HashSet::with_capacity_and_hasher(uids.len(), RandomState::new());
    uids.iter().filter(|uid| seen.insert(uid.as_str())).for_each(each);
}
