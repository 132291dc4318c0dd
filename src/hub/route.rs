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
use super::connection::{Connection, Home};
use super::load::{Load, Seat};
use super::meters::RouteMeters;
use super::registry::{Links, Registry};
use super::rooms::Rooms;
use super::shard::{Command, Excluded, Item, Part, To};
use crate::id::Uid;
use crate::message::{Receipt, Target};

/// Number of users up to which a linear search is cheaper than a set.
const FEW_USERS: usize = 16;

/// Parts of the hub that routing needs.
pub(super) struct Router {
    pub(super) registry: Registry,
    pub(super) rooms: Rooms,
    pub(super) homes: Box<[Arc<Home>]>,
    pub(super) meters: RouteMeters,
}

impl Router {
    /// See [`super::Hub::route`].
    pub(super) async fn route(&self, batch: Vec<FrameRun>) -> Vec<Receipt> {
        let (mut receipts, drafts) = Plan::make(self, &batch);
        let batch = Arc::new(batch);
        let mut reports = Vec::new();
        for (home, Draft { items, asks }) in self.homes.iter().zip(drafts) {
            if items.is_empty() {
                continue;
            }
            let (report, counts) = if asks { Some(oneshot::channel()).unzip() } else { (None, None) };
            let part = Part { batch: Arc::clone(&batch), items, report };
            // A stopped shard counts nothing.
            let _ = home.mailbox.send(Command::Part(part)).await;
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
    asks: bool,
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
            drafts: router.homes.iter().map(|_| Draft::default()).collect(),
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
                    self.one(at, delivery, connection);
                }
            }
            // Ids come from outside, and a connection may have another user now, so the current binding decides.
            Target::ConnectionOf(uid, id) => {
                let mut links = Links::new();
                links.extend(self.router.registry.connection(*id));
                links.retain(|link| link.binding().is_some_and(|b| b.uid == *uid));
                self.links(at, delivery, uid, links);
            }
            Target::Device(uid, device) => {
                let mut links = self.router.registry.user(uid.as_str());
                links.retain(|link| link.binding().is_some_and(|b| b.device.as_ref() == Some(device)));
                self.links(at, delivery, uid, links);
            }
            Target::User(uid) => self.user(at, delivery, uid),
            Target::Users(uids) => each_once(uids, |uid| self.user(at, delivery, uid)),
            Target::Room(room) => {
                let Some(state) = self.router.rooms.find(room.as_str()) else { return };
                for shard in state.shards() {
                    self.fan_out(at, shard, To::Room(Arc::clone(&state)));
                }
            }
            Target::Everyone => self.everywhere(at, || To::Everyone),
            Target::EveryoneBut(uids) => {
                let registry = &self.router.registry;
                let excluded = Arc::new(Excluded {
                    hashes: uids.iter().map(|uid| registry.hash(uid.as_str())).collect(),
                    uids: uids.iter().cloned().collect(),
                });
                self.everywhere(at, || To::EveryoneBut(Arc::clone(&excluded)));
            }
        }
    }

    fn user(&mut self, at: usize, delivery: &FrameRun, uid: &Uid) {
        let links = self.router.registry.user(uid.as_str());
        self.links(at, delivery, uid, links);
    }

    /// Routes to these connections of the user. Without a live one the user counts as offline.
    fn links(&mut self, at: usize, delivery: &FrameRun, uid: &Uid, links: Links) {
        let mut there = false;
        for link in links {
            there |= self.one(at, delivery, link);
        }
        if !there {
            self.receipts[at].offline.push(uid.clone());
        }
    }

    /// Routes to one connection. Returns true if the connection is live, even if it is left out.
    fn one(&mut self, at: usize, delivery: &FrameRun, connection: Connection) -> bool {
        let Some(form) = connection.form().filter(|_| !connection.has_ended()) else { return false };
        let bytes = delivery.frames.bytes(form);
        if delivery.no_echo == Some(connection.id()) || bytes.is_empty() {
            return true;
        }
        let draft = &mut self.drafts[connection.home().index];
        let seat = Seat::take(connection, Load::new(bytes.len(), delivery.frames.count()));
        if seat.is_held() {
            self.receipts[at].delivered += 1;
        } else {
            draft.asks = true;
        }
        draft.items.push(Item { delivery: at, to: To::One(seat) });
        true
    }

    fn everywhere(&mut self, at: usize, to: impl Fn() -> To) {
        for (shard, home) in self.router.homes.iter().enumerate() {
            if home.live.load(Ordering::Relaxed) > 0 {
                self.fan_out(at, shard, to());
            }
        }
    }

    fn fan_out(&mut self, at: usize, shard: usize, to: To) {
        self.drafts[shard].asks = true;
        self.drafts[shard].items.push(Item { delivery: at, to });
    }
}

fn each_once<'u>(uids: &'u [Uid], mut each: impl FnMut(&'u Uid)) {
    if uids.len() <= FEW_USERS {
        uids.iter().enumerate().filter(|(i, uid)| !uids[..*i].contains(uid)).for_each(|(_, uid)| each(uid));
        return;
    }
    let mut seen = HashSet::with_capacity_and_hasher(uids.len(), RandomState::new());
    uids.iter().filter(|uid| seen.insert(uid.as_str())).for_each(each);
}
