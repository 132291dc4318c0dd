//! Connections of one shard: their queues and states (dirty, blocked, closing).
//!
//! All changes of a connection's socket and queue happen here, on one thread at a time and without a lock.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use slab::Slab;

use super::super::clock::Tick;
use super::super::connection::{Connection, NO_SLOT, ShardHandle};
use super::super::load::Load;
use super::super::meters::{ShardMeters, count_close};
use super::super::send_queue::{SendQueue, flush};
use super::super::wheel::Wheel;
use super::super::{Settings, Socket};
use super::Shared;
use super::replays::Replays;
use crate::disconnect::Disconnect;
use crate::protocol::{Form, Framing, ServerFrame, encode, websocket};

/// Connections of a shard.
pub(super) struct Slots {
    pub(super) shard: Arc<ShardHandle>,
    slots: Slab<Slot>,
    /// One above the highest index used so far.
    pub(super) highest: u32,
    wheel: Wheel,
    /// Slots with queued bytes, in order of arrival. May name a slot that is empty by now.
    dirty: VecDeque<u32>,
    /// Number of slots taken from `dirty` since the start.
    pub(super) flushed: u64,
    /// Number of runs queued since the start.
    pub(super) queued: u64,
    pub(super) blocked: FuturesUnordered<Blocked>,
    meters: ShardMeters,
    pings: [Option<Bytes>; Form::COUNT],
    limits: IdleLimits,
    /// True if other shards write the same runs at the same time.
    pub(super) has_other_shards: bool,
    pub(super) replays: Replays,
}

/// Time limits of idle connections and blocked sockets.
struct IdleLimits {
    /// Time without a write after which a PING is sent.
    heartbeat: Tick,
    /// Maximum number of unanswered PINGs.
    max_missed: u32,
    /// Time after which a blocked or closing connection is cut.
    write_timeout: Tick,
}

/// State of one connection in its shard.
pub(super) struct Slot {
    pub(super) connection: Connection,
    socket: Arc<dyn Socket>,
    queue: SendQueue,
    last_write: Tick,
    /// Tick since which the socket is blocked. 0 = not blocked.
    blocked_since: Tick,
    /// Tick at which a closing connection is cut. 0 = not closing.
    closing_until: Tick,
    /// True while the slot is in `dirty`.
    dirty: bool,
    /// True while a [`Blocked`] waits for the socket.
    awaits_writable: bool,
    /// True while `replays` has an entry for the slot.
    pub(super) has_replay: bool,
    close_state: CloseState,
}

/// Progress of the close of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CloseState {
    /// Not closing.
    Open,
    /// The last frame is written. The client has until `closing_until` to close its side.
    HalfClosed,
    /// Both halves are shut down, and the reader detaches the connection.
    Closed,
}

/// Result of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ReserveResult {
    /// The space is reserved.
    Reserved,
    /// The queue is full, and the connection is closed as a slow consumer.
    Full,
    /// The connection has ended meanwhile.
    Gone,
}

/// Waits for one blocked socket.
pub(super) struct Blocked {
    connection: Connection,
    socket: Arc<dyn Socket>,
}

impl Future for Blocked {
    type Output = Connection;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Connection> {
        self.socket.poll_writable(cx).map(|_| self.connection.clone())
    }
}

impl Slot {
    /// True if the connection accepts messages. The last frame of a closing connection is queued internally.
    pub(super) fn is_open(&self) -> bool {
        self.close_state == CloseState::Open && self.closing_until == 0
    }
}

impl Slots {
    pub(super) fn new(shard: Arc<ShardHandle>, settings: &Settings, shared: &Shared) -> Self {
        Self {
            slots: Slab::new(),
            highest: 0,
            wheel: Wheel::new(shard.clock.now()),
            dirty: VecDeque::new(),
            flushed: 0,
            queued: 0,
            blocked: FuturesUnordered::new(),
            meters: ShardMeters::new(shard.index),
            pings: Default::default(),
            limits: IdleLimits {
                heartbeat: shard.clock.ticks(settings.heartbeat.interval),
                max_missed: settings.heartbeat.max_missed,
                write_timeout: shard.clock.ticks(settings.queue.write_timeout),
            },
            has_other_shards: shared.count > 1,
            replays: Replays::new(settings, &shard.clock, Arc::clone(&shared.withheld)),
            shard,
        }
    }

    pub(super) fn attach(&mut self, connection: &Connection, socket: Arc<dyn Socket>) {
        let now = self.wheel.now();
        let index = self.slots.insert(Slot {
            connection: connection.clone(),
            socket,
            queue: SendQueue::default(),
            last_write: now,
            blocked_since: 0,
            closing_until: 0,
            dirty: false,
            awaits_writable: false,
            has_replay: false,
            close_state: CloseState::Open,
        });
        let index = u32::try_from(index).expect("a node holds far fewer than 2^32 connections");
        self.highest = self.highest.max(index + 1);
        connection.set_slot(index);
        self.arm(index);
        if connection.is_detached() {
            // The connection may have been added before it had a slot to clear.
            self.shard.request_check(connection);
        }
    }

    /// Closes a connection after a close of its handle. `next` is the address of the next node.
    pub(super) fn close(&mut self, connection: &Connection, next: Option<&str>) {
        if let Some(why) = connection.closed().filter(|_| connection.slot() != NO_SLOT) {
            self.begin_close(connection.slot(), why, next);
        }
    }

    /// Writes as much as possible, then shuts down both halves.
    pub(super) fn detach(&mut self, connection: &Connection) {
        let index = connection.slot();
        if index == NO_SLOT {
            return;
        }
        self.drop_replay(index);
        self.flush(index);
        self.shut_down(index, CloseState::Closed);
        self.wheel.disarm(index);
        self.slots.remove(index as usize);
        connection.set_slot(NO_SLOT);
    }

    pub(super) fn get(&self, index: u32) -> Option<&Slot> {
        self.slots.get(index as usize)
    }

    pub(super) fn now(&self) -> Tick {
        self.wheel.now()
    }

    /// Sets the flag of a slot with a replay.
    pub(super) fn set_replay(&mut self, index: u32, has_replay: bool) {
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.has_replay = has_replay;
        }
    }

    /// Queues a run. Its `load` is released once the run is written or dropped.
    pub(super) fn push(&mut self, index: u32, bytes: Bytes, load: Load) {
        self.queued += 1;
        let slot = &mut self.slots[index as usize];
        if slot.close_state != CloseState::Open || bytes.is_empty() {
            slot.connection.release(load);
            return;
        }
        slot.queue.push(bytes, load);
        self.mark_dirty(index);
    }

    /// Reserves space for `load` in the queue of an open connection. If there is none even after a flush, the
    /// connection is too slow and is closed. Without the flush a full queue proves nothing, because callers may be
    /// ahead of this shard.
    pub(super) fn reserve(&mut self, index: u32, load: Load) -> ReserveResult {
        if self.slots[index as usize].connection.reserve(load) {
            return ReserveResult::Reserved;
        }
        // No page: the run comes first.
        self.write(index);
        let slot = &self.slots[index as usize];
        if slot.connection.is_closed() {
            return ReserveResult::Gone;
        }
        if slot.connection.reserve(load) {
            return ReserveResult::Reserved;
        }
        self.begin_close(index, Disconnect::SLOW_CONSUMER, None);
        ReserveResult::Full
    }

    /// Starts the close: queues the reason behind the queued bytes, then shuts down the writing half. A slow consumer
    /// loses its queued bytes. Only the first call has an effect.
    pub(super) fn begin_close(&mut self, index: u32, why: Disconnect, next: Option<&str>) {
        self.drop_replay(index);
        let now = self.wheel.now();
        let slot = &mut self.slots[index as usize];
        if !slot.is_open() {
            return;
        }
        slot.connection.mark_closed(why);
        count_close(why);
        slot.closing_until = now.saturating_add(self.limits.write_timeout);
        if why == Disconnect::SLOW_CONSUMER {
            slot.connection.release(slot.queue.clear_unstarted());
        }
        // Without a known form, only a WebSocket can still wait for its first frame.
        if slot.connection.form().is_none_or(|form| form.framing == Framing::WebSocket) {
            slot.queue.push(websocket::close_towards(why, next), Load::default());
        }
        self.wheel.arm_earlier(index, slot.closing_until);
        self.mark_dirty(index);
    }

    /// Flushes up to `count` connections with queued bytes.
    pub(super) fn flush_up_to(&mut self, count: usize) {
        for _ in 0..count {
            let Some(index) = self.dirty.pop_front() else { break };
            self.flushed += 1;
            if let Some(slot) = self.slots.get_mut(index as usize) {
                slot.dirty = false;
                self.flush(index);
            }
        }
    }

    pub(super) fn is_clean(&self) -> bool {
        self.dirty.is_empty()
    }

    /// Value of `flushed` once all current slots in `dirty` are flushed.
    pub(super) fn clean_at(&self) -> u64 {
        self.flushed + self.dirty.len() as u64
    }

    /// Handles a blocked socket that may accept bytes again.
    pub(super) fn unblock(&mut self, connection: &Connection) {
        let index = connection.slot();
        if let Some(slot) = self.slots.get_mut(index as usize) {
            slot.awaits_writable = false;
            self.mark_dirty(index);
        }
    }

    /// Handles due timers and connections to check (a new time limit, or an end without mailbox space).
    pub(super) fn tick(&mut self, mailbox: usize) {
        self.meters.set_mailbox(mailbox);
        let mut due = Vec::new();
        self.wheel.advance(self.shard.clock.now(), &mut due);
        for index in due {
            self.on_timer(index);
        }
        self.check_replays();
        let to_check = std::mem::take(&mut *self.shard.to_check.lock());
        for connection in to_check {
            connection.clear_check_request();
            self.check(&connection);
        }
    }

    fn check(&mut self, connection: &Connection) {
        if connection.is_detached() {
            self.detach(connection);
        } else if connection.slot() != NO_SLOT {
            self.arm(connection.slot());
        }
    }

    /// Stops the shard: flushes all connections once more and shuts them down.
    pub(super) fn close_all(&mut self) {
        for index in 0..self.highest {
            if let Some(slot) = self.slots.get(index as usize) {
                let connection = slot.connection.clone();
                connection.mark_gone();
                self.detach(&connection);
            }
        }
    }

    /// Shuts down all connections after a panic of the shard. Nothing is written, and each reader ends at once, so that
    /// clients reconnect.
    pub(super) fn abandon(&self) {
        for (_, slot) in &self.slots {
            slot.connection.mark_gone();
            slot.socket.shutdown(true);
        }
    }

    /// Publishes the counters.
    pub(super) fn publish(&mut self) {
        self.meters.publish(&self.shard.totals);
    }

    pub(super) fn mark_dirty(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if !slot.dirty && !slot.awaits_writable {
            slot.dirty = true;
            self.dirty.push_back(index);
        }
    }

    /// Writes queued bytes and the next pages of a replay, as far as the socket accepts them.
    fn flush(&mut self, index: u32) {
        while self.write(index) && self.next_page(index) {}
    }

    /// Writes queued bytes. Returns true if the queue is empty and the connection has a replay.
    fn write(&mut self, index: u32) -> bool {
        let now = self.wheel.now();
        let slot = &mut self.slots[index as usize];
        if slot.awaits_writable || slot.close_state != CloseState::Open {
            return false;
        }
        let flush = flush(&mut slot.queue, &*slot.socket);
        self.meters.count(&flush);
        slot.connection.release(flush.done);
        if flush.bytes > 0 {
            slot.last_write = now;
            slot.blocked_since = 0;
        }
        match flush.error {
            None if slot.closing_until != 0 => self.shut_down(index, CloseState::HalfClosed),
            None => return slot.has_replay,
            Some(error) if error.kind() == io::ErrorKind::WouldBlock => {
                slot.awaits_writable = true;
                let (connection, socket) = (slot.connection.clone(), Arc::clone(&slot.socket));
                self.blocked.push(Blocked { connection, socket });
                if slot.blocked_since == 0 {
                    slot.blocked_since = now;
                    self.wheel.arm_earlier(index, now.saturating_add(self.limits.write_timeout));
                }
            }
            Some(error) => {
                tracing::debug!(cid = %slot.connection.id(), %error, "write failed; connection closed");
                self.shut_down(index, CloseState::Closed);
            }
        }
        false
    }

    /// Ends the writes of a connection.
    fn shut_down(&mut self, index: u32, state: CloseState) {
        self.drop_replay(index);
        let slot = &mut self.slots[index as usize];
        if slot.close_state == state || slot.close_state == CloseState::Closed {
            return;
        }
        slot.connection.mark_gone();
        slot.connection.release(slot.queue.clear());
        slot.close_state = state;
        slot.socket.shutdown(state == CloseState::Closed);
    }

    fn on_timer(&mut self, index: u32) {
        let now = self.wheel.now();
        let Some(slot) = self.slots.get_mut(index as usize) else { return };
        if slot.closing_until != 0 {
            if now >= slot.closing_until {
                self.shut_down(index, CloseState::Closed);
            } else {
                self.arm(index);
            }
            return;
        }
        if slot.close_state != CloseState::Open {
            return;
        }
        let limit = slot.connection.time_limit().filter(|(at, _)| now >= *at);
        let is_stalled = slot.blocked_since != 0 && now >= slot.blocked_since.saturating_add(self.limits.write_timeout);
        if let Some((_, why)) = limit {
            self.begin_close(index, why, None);
        } else if is_stalled {
            self.begin_close(index, Disconnect::SLOW_CONSUMER, None);
        } else {
            if slot.connection.first_end().is_some_and(|end| now >= end) {
                slot.connection.report_end();
            }
            if now >= slot.last_write.saturating_add(self.limits.heartbeat) {
                self.check_heartbeat(index);
            }
            self.arm(index);
        }
    }

    /// Handles an idle connection: sends a PING, or cuts it after too many unanswered ones.
    fn check_heartbeat(&mut self, index: u32) {
        let now = self.wheel.now();
        let slot = &mut self.slots[index as usize];
        if !slot.queue.is_empty() {
            return;
        }
        slot.last_write = now;
        let Some(form) = slot.connection.form() else { return };
        if slot.connection.missed() >= self.limits.max_missed {
            self.begin_close(index, Disconnect::HEARTBEAT_MISSED, None);
            return;
        }
        slot.connection.count_ping();
        self.meters.count_ping();
        let ping = self.pings[form.index()]
            .get_or_insert_with(|| encode(form, ServerFrame::Ping).expect("every form encodes a PING"))
            .clone();
        self.push(index, ping, Load::default());
    }

    /// Sets the timer to the next tick at which something can be due.
    fn arm(&mut self, index: u32) {
        let slot = &self.slots[index as usize];
        let due = if slot.closing_until != 0 {
            slot.closing_until
        } else {
            let mut due = slot.last_write.saturating_add(self.limits.heartbeat);
            if let Some((at, _)) = slot.connection.time_limit() {
                due = due.min(at);
            }
            if let Some(end) = slot.connection.first_end() {
                due = due.min(end);
            }
            if slot.blocked_since != 0 {
                due = due.min(slot.blocked_since.saturating_add(self.limits.write_timeout));
            }
            due
        };
        self.wheel.arm(index, due);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_small() {
        println!("slot: {} bytes", size_of::<Slot>());
        assert!(size_of::<Slot>() <= 112, "{} bytes", size_of::<Slot>());
    }
}
