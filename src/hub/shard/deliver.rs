//! Delivery of a shard's part of a batch: queues each run for its receivers, shared without a copy per receiver.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use ahash::RandomState;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::super::FrameRun;
use super::super::connection::{Connection, NO_SLOT};
use super::super::load::{Load, Reservation};
use super::super::rooms::{IdHasher, RoomState};
use super::replays::RunPart;
use super::slots::{ReserveResult, Slots};
use crate::id::Uid;
use crate::protocol::{Form, Frames};

/// Maximum size of a run for many receivers that each shard copies once. Without the copy all shards would update
/// reference counts in the same cache line.
const OWN_COPY: usize = 64 * 1024;

/// Part of a batch for one shard.
pub(in super::super) struct ShardBatch {
    /// Shared by all shards.
    pub(in super::super) batch: Arc<Vec<FrameRun>>,
    /// Items, in the order of the batch.
    pub(in super::super) items: Vec<Item>,
    /// Receives the counts that the caller could not determine, once everything is flushed.
    pub(in super::super) report: Option<oneshot::Sender<Vec<Count>>>,
}

/// Receivers of one delivery on this shard.
pub(in super::super) struct Item {
    /// Index of the delivery in the batch.
    pub(in super::super) delivery: usize,
    /// Receivers of the item.
    pub(in super::super) receivers: Receivers,
}

/// Receivers on one shard.
pub(in super::super) enum Receivers {
    /// A connection found by the caller, which has already counted it if the space is reserved.
    One(Reservation),
    /// Members of a room.
    Room(Arc<RoomState>),
    /// All bound connections.
    Everyone,
    /// All bound connections except those of some users.
    EveryoneBut(Arc<Excluded>),
}

/// Numbers of connections that accepted or refused the frames of a delivery.
#[derive(Debug, Default, Clone, Copy)]
pub(in super::super) struct Count {
    /// Index of the delivery in the batch.
    pub(in super::super) delivery: usize,
    /// Connections that queued the run.
    pub(in super::super) delivered: u32,
    /// Connections closed because their queue was full.
    pub(in super::super) full: u32,
}

/// Users that are left out.
#[derive(Debug)]
pub(in super::super) struct Excluded {
    /// [`Connection::user_hash`] of each user. Usually only the hashes are compared.
    pub(in super::super) hashes: HashSet<u64, BuildHasherDefault<IdHasher>>,
    /// Uids of the users.
    pub(in super::super) uids: HashSet<Uid, RandomState>,
}

impl Excluded {
    fn has(&self, connection: &Connection) -> bool {
        self.hashes.contains(&connection.user_hash())
            && connection.binding().is_some_and(|binding| self.uids.contains(&binding.uid))
    }
}

impl Count {
    fn add(&mut self, result: ReserveResult) {
        self.delivered += u32::from(result == ReserveResult::Reserved);
        self.full += u32::from(result == ReserveResult::Full);
    }
}

impl ShardBatch {
    /// An empty part, used only for its report.
    pub(in super::super) fn empty(report: oneshot::Sender<Vec<Count>>) -> Self {
        Self { batch: Arc::default(), items: Vec::new(), report: Some(report) }
    }
}

impl Slots {
    /// Queues all items and returns the counts that the caller does not have.
    pub(super) fn deliver(&mut self, batch: &[FrameRun], items: Vec<Item>) -> Vec<Count> {
        let mut counts = Vec::new();
        for item in items {
            let delivery = &batch[item.delivery];
            let mut count = Count { delivery: item.delivery, ..Count::default() };
            match item.receivers {
                Receivers::One(reservation) => {
                    let counted = reservation.is_reserved();
                    let result = self.deliver_run(reservation, delivery);
                    if counted {
                        continue;
                    }
                    count.add(result);
                }
                Receivers::Room(room) => {
                    let mut run = SharedRun::new(delivery, self.has_other_shards);
                    let shard = self.shard.index;
                    room.for_each_on_shard(shard, |member| self.queue_shared(member.slot(), &mut run, &mut count));
                }
                Receivers::Everyone => self.queue_for_all(delivery, |_| true, &mut count),
                Receivers::EveryoneBut(excluded) => self.queue_for_all(delivery, |c| !excluded.has(c), &mut count),
            }
            counts.push(count);
        }
        counts
    }

    /// Queues a delivery for one connection that the caller found.
    fn deliver_run(&mut self, reservation: Reservation, delivery: &FrameRun) -> ReserveResult {
        let index = reservation.connection().slot();
        let Some(form) = reservation.connection().form() else { return ReserveResult::Gone };
        let bytes = delivery.frames.bytes(form);
        if self.get(index).is_some_and(|slot| slot.has_replay) {
            match self.part_to_queue(index, delivery, bytes) {
                RunPart::Whole => {}
                RunPart::Part(bytes, frames) => {
                    drop(reservation);
                    return self.queue(index, bytes, frames);
                }
                RunPart::None(result) => return result,
            }
        }
        self.deliver_one(reservation, bytes.clone(), delivery.frames.count())
    }

    /// Queues frames for one connection that the caller found.
    pub(super) fn deliver_one(&mut self, reservation: Reservation, bytes: Bytes, frames: usize) -> ReserveResult {
        let index = reservation.connection().slot();
        if self.get(index).is_none_or(|slot| !slot.is_open()) {
            return ReserveResult::Gone;
        }
        if reservation.is_reserved() {
            self.push(index, bytes, reservation.into_load());
            return ReserveResult::Reserved;
        }
        self.queue(index, bytes, frames)
    }

    /// Queues frames for an open connection if its queue has space.
    pub(super) fn queue(&mut self, index: u32, bytes: Bytes, frames: usize) -> ReserveResult {
        let load = Load::new(bytes.len(), frames);
        let result = self.reserve(index, load);
        if result == ReserveResult::Reserved {
            self.push(index, bytes, load);
        }
        result
    }

    fn queue_for_all(&mut self, delivery: &FrameRun, wanted: impl Fn(&Connection) -> bool, count: &mut Count) {
        let mut run = SharedRun::new(delivery, self.has_other_shards);
        for index in 0..self.highest {
            let Some(slot) = self.get(index) else { continue };
            if slot.connection.is_bound() && wanted(&slot.connection) {
                self.queue_shared(index, &mut run, count);
            }
        }
    }

    /// Queues a run for one of many receivers.
    fn queue_shared(&mut self, index: u32, run: &mut SharedRun<'_>, count: &mut Count) {
        if index == NO_SLOT {
            return;
        }
        let Some(slot) = self.get(index).filter(|slot| slot.is_open()) else { return };
        let delivery = run.delivery;
        if delivery.no_echo == Some(slot.connection.id()) {
            return;
        }
        let Some(form) = slot.connection.form() else { return };
        let has_replay = slot.has_replay;
        let bytes = run.bytes(form);
        if bytes.is_empty() {
            return;
        }
        let part = if has_replay { self.part_to_queue(index, delivery, bytes) } else { RunPart::Whole };
        count.add(match part {
            RunPart::Whole => self.queue(index, bytes.clone(), delivery.frames.count()),
            RunPart::Part(bytes, frames) => self.queue(index, bytes, frames),
            RunPart::None(result) => result,
        });
    }
}

/// Encoded frames of a delivery for many receivers of one shard.
struct SharedRun<'a> {
    delivery: &'a FrameRun,
    copy: bool,
    forms: [Option<Bytes>; Form::COUNT],
}

impl<'a> SharedRun<'a> {
    fn new(delivery: &'a FrameRun, has_other_shards: bool) -> Self {
        Self { delivery, copy: has_other_shards, forms: Default::default() }
    }

    fn bytes(&mut self, form: Form) -> &Bytes {
        let Self { delivery, copy, forms } = self;
        forms[form.index()].get_or_insert_with(|| own_or_shared(&delivery.frames, form, *copy))
    }
}

fn own_or_shared(frames: &Frames, form: Form, copy: bool) -> Bytes {
    let shared = frames.bytes(form);
    if copy && shared.len() <= OWN_COPY { Bytes::copy_from_slice(shared) } else { shared.clone() }
}
