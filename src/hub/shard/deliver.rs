//! A shard's share of a batch: each run is queued for each receiver here, shared and never copied per receiver.

use std::collections::HashSet;
use std::hash::BuildHasherDefault;
use std::sync::Arc;

use ahash::RandomState;
use bytes::Bytes;
use tokio::sync::oneshot;

use super::super::Delivery;
use super::super::connection::{Connection, NO_SLOT};
use super::super::load::{Load, Seat};
use super::super::rooms::{IdHasher, RoomState};
use super::slots::{Grant, Slots};
use crate::id::Uid;
use crate::protocol::{Form, Frames};

/// A run that goes to many is copied once a shard up to this size: else all shards would count references in the same
/// cache line.
const OWN_COPY: usize = 64 * 1024;

/// What one shard has to do for a batch.
pub(in super::super) struct Part {
    /// Shared by all shards.
    pub(in super::super) batch: Arc<Vec<Delivery>>,
    /// In the order of the batch.
    pub(in super::super) items: Vec<Item>,
    /// Told, once everything is flushed, what the caller could not count by itself.
    pub(in super::super) report: Option<oneshot::Sender<Vec<Count>>>,
}

/// One delivery's receivers.
pub(in super::super) struct Item {
    /// Which delivery of the batch.
    pub(in super::super) delivery: usize,
    /// To whom on this shard.
    pub(in super::super) to: To,
}

/// Receivers on one shard.
pub(in super::super) enum To {
    /// One that the caller found, and has counted already if the seat is held.
    One(Seat),
    /// The members of a room.
    Room(Arc<RoomState>),
    /// All that are bound.
    Everyone,
    /// All that are bound to others.
    EveryoneBut(Arc<Excluded>),
}

/// Connections that took, and that could not take, the frames of a delivery.
#[derive(Debug, Default, Clone, Copy)]
pub(in super::super) struct Count {
    /// Which delivery of the batch.
    pub(in super::super) delivery: usize,
    /// Connections whose queue took the run.
    pub(in super::super) delivered: u32,
    /// Connections that are closed because it did not.
    pub(in super::super) full: u32,
}

/// Users that are left out.
#[derive(Debug)]
pub(in super::super) struct Excluded {
    /// [`Connection::user_hash`] of each: nearly always the only thing that is looked at.
    pub(in super::super) hashes: HashSet<u64, BuildHasherDefault<IdHasher>>,
    /// The users themselves.
    pub(in super::super) uids: HashSet<Uid, RandomState>,
}

impl Excluded {
    fn has(&self, connection: &Connection) -> bool {
        self.hashes.contains(&connection.user_hash())
            && connection.binding().is_some_and(|binding| self.uids.contains(&binding.uid))
    }
}

impl Count {
    fn add(&mut self, grant: Grant) {
        self.delivered += u32::from(grant == Grant::Given);
        self.full += u32::from(grant == Grant::Full);
    }
}

impl Part {
    /// Nothing to do but to report.
    pub(in super::super) fn empty(report: oneshot::Sender<Vec<Count>>) -> Self {
        Self { batch: Arc::default(), items: Vec::new(), report: Some(report) }
    }
}

impl Slots {
    /// Queues everything; tells what the caller has not counted.
    pub(super) fn deliver(&mut self, batch: &[Delivery], items: Vec<Item>) -> Vec<Count> {
        let mut counts = Vec::new();
        for item in items {
            let delivery = &batch[item.delivery];
            let mut count = Count { delivery: item.delivery, ..Count::default() };
            match item.to {
                To::One(seat) => {
                    let counted = seat.is_held();
                    let Some(form) = seat.connection().form() else { continue };
                    self.seat(seat, delivery.frames.bytes(form).clone(), delivery.frames.count(), &mut count);
                    if counted {
                        continue;
                    }
                }
                To::Room(room) => {
                    let mut run = RunForMany::new(delivery, self.has_siblings);
                    let shard = self.home.index;
                    room.on_shard(shard, |member| self.offer(member.slot(), &mut run, &mut count));
                }
                To::Everyone => self.offer_all(delivery, |_| true, &mut count),
                To::EveryoneBut(excluded) => self.offer_all(delivery, |c| !excluded.has(c), &mut count),
            }
            counts.push(count);
        }
        counts
    }

    /// Queues a run for one connection that the caller chose.
    pub(super) fn seat(&mut self, seat: Seat, bytes: Bytes, frames: usize, count: &mut Count) {
        let index = seat.connection().slot();
        let Some(slot) = self.get(index) else { return };
        if !slot.is_open() {
            return;
        }
        if seat.is_held() {
            self.push(index, bytes, seat.into_load());
            return;
        }
        let load = Load::new(bytes.len(), frames);
        let grant = self.reserve(index, load);
        count.add(grant);
        if grant == Grant::Given {
            self.push(index, bytes, load);
        }
    }

    fn offer_all(&mut self, delivery: &Delivery, wanted: impl Fn(&Connection) -> bool, count: &mut Count) {
        let mut run = RunForMany::new(delivery, self.has_siblings);
        for index in 0..self.highest {
            let Some(slot) = self.get(index) else { continue };
            if slot.connection.is_bound() && wanted(&slot.connection) {
                self.offer(index, &mut run, count);
            }
        }
    }

    /// Queues a run for one of many.
    fn offer(&mut self, index: u32, run: &mut RunForMany<'_>, count: &mut Count) {
        if index == NO_SLOT {
            return;
        }
        let Some(slot) = self.get(index).filter(|slot| slot.is_open()) else { return };
        let delivery = run.delivery;
        if delivery.no_echo == Some(slot.connection.id()) {
            return;
        }
        let Some(form) = slot.connection.form() else { return };
        let bytes = run.bytes(form);
        if bytes.is_empty() {
            return;
        }
        let load = Load::new(bytes.len(), delivery.frames.count());
        let grant = self.reserve(index, load);
        count.add(grant);
        if grant == Grant::Given {
            let bytes = bytes.clone();
            self.push(index, bytes, load);
        }
    }
}

/// A delivery's bytes for many receivers of one shard.
struct RunForMany<'a> {
    delivery: &'a Delivery,
    copy: bool,
    forms: [Option<Bytes>; Form::COUNT],
}

impl<'a> RunForMany<'a> {
    fn new(delivery: &'a Delivery, has_siblings: bool) -> Self {
        Self { delivery, copy: has_siblings, forms: Default::default() }
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
