//! Handle of a connection, shared by its reader, the routing callers and its shard.
//!
//! Independent of sockets: bytes go through the mailbox of the connection's [`ShardHandle`]. A message touches only the
//! first few words here, all of them atomic. The locks are for binds, rooms and tags.

mod membership;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::Binding;
use super::clock::{Clock, Tick};
use super::load::{Load, Reservation};
use super::meters::TotalsCell;
use super::rooms::RoomState;
use super::shard::Command;
use crate::config::DevicePolicy;
use crate::disconnect::Disconnect;
use crate::id::{ConnectionId, Room};
use crate::protocol::Form;

pub(super) use membership::EndedMemberships;
pub use membership::{JoinTerms, Joined};

use membership::MembershipEnds;

/// A live connection. Cheap to clone.
#[derive(Clone)]
pub struct Connection(Arc<Inner>);

/// State shared by the handles of one shard's connections.
pub(super) struct ShardHandle {
    pub(super) index: usize,
    pub(super) mailbox: mpsc::Sender<Command>,
    /// Number of connections of this shard. The next connection goes to the shard with the fewest.
    pub(super) live: AtomicUsize,
    pub(super) totals: TotalsCell,
    pub(super) limits: ConnectionLimits,
    pub(super) clock: Clock,
    /// Connections that the shard checks by its next tick, each at most once. For changes that must not wait for
    /// mailbox space.
    pub(super) to_check: Mutex<Vec<Connection>>,
    /// Connections of all shards with an ended membership.
    pub(super) ended_memberships: Arc<EndedMemberships>,
}

/// Limits of every connection.
#[derive(Debug, Clone)]
pub(super) struct ConnectionLimits {
    pub(super) queue: Load,
    pub(super) unbound: Duration,
    pub(super) unbound_max: Duration,
}

const OPEN: u16 = 0;
/// Ended by the peer or by an error. Greater numbers are close codes.
const GONE: u16 = 1;

/// Slot index of a connection without a slot in its shard.
pub(super) const NO_SLOT: u32 = u32::MAX;

/// The frequently used words come first, so that they share a cache line.
struct Inner {
    shard: Arc<ShardHandle>,
    id: ConnectionId,
    /// [`Load`] from the reservation of queue space until the last byte of the run is written.
    pending: AtomicU64,
    /// Keyed hash of the user, odd. 0 = not bound.
    user: AtomicU64,
    /// Accessed only by the shard.
    slot: AtomicU32,
    close_code: AtomicU16,
    /// [`Form::index`] + 1. 0 = unknown.
    form: AtomicU8,
    /// PINGs sent since the last frame of the client.
    missed: AtomicU8,

    binding: ArcSwapOption<Binding>,
    attached: Tick,
    unbound_until: AtomicU32,
    /// Tick at which the admission expires. 0 = never.
    expires: AtomicU32,
    /// Tick at which the first membership ends. 0 = never.
    first_end: AtomicU32,
    /// True while the connection is in `to_check`.
    check_requested: AtomicBool,
    /// True while the connection is in [`ShardHandle::ended_memberships`].
    reported: AtomicBool,
    /// [`DevicePolicy`] of its listener.
    has_device_matrix: AtomicBool,
    locked: Mutex<LockedState>,
}

/// State that changes only by requests of the client or of the API.
#[derive(Default)]
struct LockedState {
    detached: bool,
    rooms: Vec<Arc<RoomState>>,
    /// Ends of memberships. `None` for most connections.
    ends: Option<Box<MembershipEnds>>,
    tag: Option<Box<str>>,
}

/// State that a connection has at its detach.
pub(super) struct DetachedState {
    pub(super) binding: Option<Arc<Binding>>,
    pub(super) rooms: Vec<Arc<RoomState>>,
}

impl Connection {
    pub(super) fn new(id: ConnectionId, shard: Arc<ShardHandle>, form: Option<Form>) -> Self {
        let now = shard.clock.now();
        let inner = Inner {
            id,
            pending: AtomicU64::new(0),
            user: AtomicU64::new(0),
            slot: AtomicU32::new(NO_SLOT),
            close_code: AtomicU16::new(OPEN),
            form: AtomicU8::new(form.map_or(0, form_number)),
            missed: AtomicU8::new(0),
            binding: ArcSwapOption::empty(),
            attached: now,
            unbound_until: AtomicU32::new(shard.clock.after(shard.limits.unbound)),
            expires: AtomicU32::new(0),
            first_end: AtomicU32::new(0),
            check_requested: AtomicBool::new(false),
            reported: AtomicBool::new(false),
            has_device_matrix: AtomicBool::new(false),
            locked: Mutex::default(),
            shard,
        };
        Self(Arc::new(inner))
    }

    /// Id of the connection.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.0.id
    }

    /// Returns the binding, or `None` until the connection is bound.
    #[must_use]
    pub fn binding(&self) -> Option<Arc<Binding>> {
        self.0.binding.load_full()
    }

    /// Protocol of the connection, or `None` until it is known. Until then nothing is written, and deliveries skip the
    /// connection.
    #[must_use]
    pub fn form(&self) -> Option<Form> {
        form_of(self.0.form.load(Ordering::Acquire))
    }

    /// Sets the protocol. Only the first call has an effect.
    pub fn set_form(&self, form: Form) {
        let _ = self.0.form.compare_exchange(0, form_number(form), Ordering::AcqRel, Ordering::Relaxed);
    }

    /// Device policy of the listener that accepted the connection.
    #[must_use]
    pub fn devices(&self) -> DevicePolicy {
        match self.0.has_device_matrix.load(Ordering::Relaxed) {
            true => DevicePolicy::Cim,
            false => DevicePolicy::AllowAll,
        }
    }

    /// Sets the device policy. The default allows all devices.
    pub fn set_devices(&self, policy: DevicePolicy) {
        self.0.has_device_matrix.store(policy == DevicePolicy::Cim, Ordering::Relaxed);
    }

    /// Notes a frame of the client and resets the count of unanswered PINGs. Costs one relaxed store.
    pub fn reset_missed_pings(&self) {
        self.0.missed.store(0, Ordering::Relaxed);
    }

    /// Rooms of the connection, in the order of the joins.
    #[must_use]
    pub fn rooms(&self) -> Vec<Room> {
        self.0.locked.lock().rooms.iter().map(|room| room.name().clone()).collect()
    }

    /// Tag of the connection (`client_set_tag`).
    #[must_use]
    pub fn tag(&self) -> Option<String> {
        self.0.locked.lock().tag.as_deref().map(str::to_owned)
    }

    /// Sets or removes the tag.
    pub fn set_tag(&self, tag: Option<String>) {
        self.0.locked.lock().tag = tag.map(String::into_boxed_str);
    }

    /// Moves the time limit for the bind to `time` from now, at most to `limits.unbound_max` after the connect.
    pub fn extend_unbound(&self, time: Duration) {
        let clock = &self.0.shard.clock;
        let last = self.0.attached.saturating_add(clock.ticks(self.0.shard.limits.unbound_max));
        let until = clock.after(time).min(last);
        self.0.unbound_until.store(until, Ordering::Relaxed);
        self.0.shard.request_check(self);
    }

    /// Queues bytes that are complete frames in the connection's protocol (a reply, a WebSocket pong). Returns false if
    /// the connection is closing. Waits while the shard's mailbox is full.
    pub async fn send(&self, frame: Bytes) -> bool {
        if self.is_closed() {
            return false;
        }
        let reservation = Reservation::new(self.clone(), Load::new(frame.len(), 1));
        self.0.shard.mailbox.send(Command::Send(reservation, frame)).await.is_ok()
    }

    /// Closes the connection: flushes queued bytes, sends the reason (a close frame on WebSocket), and shuts down the
    /// writing half. If the client does not close its side within the write time-out, shuts down both halves. Only the
    /// first call has an effect. Waits while the shard's mailbox is full.
    pub async fn close(&self, why: Disconnect) {
        self.close_towards(why, None).await;
    }

    /// Same as [`Connection::close`], with `next`, the address of the next node, in the close frame.
    pub async fn close_towards(&self, why: Disconnect, next: Option<Box<str>>) {
        if self.is_closed() {
            return;
        }
        // Both steps follow the wait, so that a cancelled caller has closed nothing.
        let permit = self.0.shard.mailbox.reserve().await;
        if self.mark_closed(why)
            && let Ok(permit) = permit
        {
            permit.send(Command::Close(self.clone(), next));
        }
    }

    /// Reason for which this node closed the connection. `None` if it did not.
    #[must_use]
    pub fn closed(&self) -> Option<Disconnect> {
        let code = self.0.close_code.load(Ordering::Acquire);
        let listed = || Disconnect::ALL.iter().map(|(why, _)| *why).find(|why| why.code == code);
        (code > GONE).then(|| listed().unwrap_or(Disconnect { code, reason: "closed" }))
    }
}

/// Shows the id.
impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Connection").field(&self.0.id.as_u64()).finish()
    }
}

/// Operations for the rest of the hub.
impl Connection {
    pub(super) fn shard(&self) -> &ShardHandle {
        &self.0.shard
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// True if the connection accepts nothing any more: it is closing, broken or detached.
    pub(super) fn is_closed(&self) -> bool {
        self.0.close_code.load(Ordering::Acquire) != OPEN
    }

    /// Marks the connection as closed for this reason. Returns false if it was closed before.
    pub(super) fn mark_closed(&self, why: Disconnect) -> bool {
        self.0.close_code.compare_exchange(OPEN, why.code, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Marks the connection as ended without a reason of this node.
    pub(super) fn mark_gone(&self) {
        let _ = self.0.close_code.compare_exchange(OPEN, GONE, Ordering::AcqRel, Ordering::Relaxed);
    }

    pub(super) fn is_bound(&self) -> bool {
        self.user_hash() != 0
    }

    pub(super) fn user_hash(&self) -> u64 {
        self.0.user.load(Ordering::Acquire)
    }

    /// Sets the binding and runs `list` with the former one. No other bind or detach runs meanwhile. `None` if the
    /// connection is detached.
    pub(super) fn set_binding<R>(
        &self,
        binding: Binding,
        hash: u64,
        list: impl FnOnce(Option<Arc<Binding>>) -> R,
    ) -> Option<R> {
        let locked = self.0.locked.lock();
        if locked.detached {
            return None;
        }
        let expires = binding.expires.map_or(0, |at| self.0.shard.clock.at_unix_time(at));
        self.0.expires.store(expires, Ordering::Relaxed);
        let before = self.0.binding.swap(Some(Arc::new(binding)));
        self.0.user.store(hash, Ordering::Release);
        let listed = list(before);
        drop(locked);
        if expires != 0 {
            self.0.shard.request_check(self);
        }
        Some(listed)
    }

    /// Tick of the next time limit with its reason: expiry of the admission, or of the time to bind. `None` = no limit.
    pub(super) fn time_limit(&self) -> Option<(Tick, Disconnect)> {
        if self.is_bound() {
            let expires = self.0.expires.load(Ordering::Relaxed);
            return (expires != 0).then_some((expires, Disconnect::TOKEN_EXPIRED));
        }
        Some((self.0.unbound_until.load(Ordering::Relaxed), Disconnect::UNBOUND))
    }

    /// PINGs sent since the last frame of the client.
    pub(super) fn missed(&self) -> u32 {
        self.0.missed.load(Ordering::Relaxed).into()
    }

    /// Counts a PING. If a frame of the client arrives at the same time, an answered PING may stay counted.
    pub(super) fn count_ping(&self) {
        self.0.missed.store(self.0.missed.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
    }

    /// Slot index in the shard. Only the shard reads and sets it.
    pub(super) fn slot(&self) -> u32 {
        self.0.slot.load(Ordering::Relaxed)
    }

    pub(super) fn set_slot(&self, slot: u32) {
        self.0.slot.store(slot, Ordering::Relaxed);
    }

    /// Permits `request_check` to add the connection again.
    pub(super) fn clear_check_request(&self) {
        self.0.check_requested.store(false, Ordering::Release);
    }

    /// Detaches the connection: later messages, joins and binds fail. Returns its binding and rooms, once.
    pub(super) fn mark_detached(&self) -> Option<DetachedState> {
        let mut locked = self.0.locked.lock();
        if std::mem::replace(&mut locked.detached, true) {
            return None;
        }
        self.mark_gone();
        Some(DetachedState { binding: self.binding(), rooms: std::mem::take(&mut locked.rooms) })
    }

    pub(super) fn is_detached(&self) -> bool {
        self.0.locked.lock().detached
    }

    /// Reserves queue space for `load` unless it exceeds the limits. An empty queue accepts any single run.
    pub(super) fn reserve(&self, load: Load) -> bool {
        let limit = self.0.shard.limits.queue;
        let pending = &self.0.pending;
        let mut now = Load(pending.load(Ordering::Relaxed));
        loop {
            if now != Load::default() && !now.plus(load).fits(limit) {
                return false;
            }
            match pending.compare_exchange_weak(now.0, now.plus(load).0, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(other) => now = Load(other),
            }
        }
    }

    /// Releases space after the bytes were written or dropped.
    pub(super) fn release(&self, load: Load) {
        if load != Load::default() {
            self.0.pending.fetch_sub(load.0, Ordering::Relaxed);
        }
    }

    /// Bytes and frames that are reserved or queued and not yet written.
    #[cfg(test)]
    pub(super) fn pending(&self) -> Load {
        Load(self.0.pending.load(Ordering::Relaxed))
    }
}

impl ShardHandle {
    /// Makes the shard check the connection by its next tick.
    pub(super) fn request_check(&self, connection: &Connection) {
        if !connection.0.check_requested.swap(true, Ordering::AcqRel) {
            self.to_check.lock().push(connection.clone());
        }
    }
}

fn form_number(form: Form) -> u8 {
    u8::try_from(form.index()).expect("there are six forms") + 1
}

fn form_of(number: u8) -> Option<Form> {
    Form::ALL.get(usize::from(number.checked_sub(1)?)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connection_handle_is_one_pointer_and_its_state_fits_136_bytes() {
        println!("handle: {} bytes, behind it: {} bytes", size_of::<Connection>(), size_of::<Inner>());
        println!("who it is bound to: {} bytes", size_of::<Binding>());
        assert_eq!(size_of::<Option<Connection>>(), size_of::<usize>());
        assert!(size_of::<Inner>() <= 136, "{} bytes", size_of::<Inner>());
        assert!(size_of::<Binding>() <= 136, "{} bytes", size_of::<Binding>());
    }

    #[test]
    fn form_round_trips_through_its_number() {
        for number in 1..=u8::try_from(Form::COUNT).unwrap() {
            assert_eq!(form_number(form_of(number).unwrap()), number);
        }
        assert_eq!(form_of(0), None);
    }
}
