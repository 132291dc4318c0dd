//! A shard owns the queues of a part of the connections, and runs the loop that serves them.
//!
//! Each turn empties the mailbox into the queues, then flushes connections with queued bytes, each once. A turn flushes
//! a bounded number before it checks the mailbox again. So under load one write carries more. Independent of room lists
//! and users. A shard waits for its mailbox, its tick and blocked sockets, never for a single socket.

mod deliver;
mod replays;
mod slots;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use tokio::task::yield_now;
use tokio::time::{Interval, MissedTickBehavior, interval_at};

pub(super) use deliver::{Count, Excluded, Item, Receivers, ShardBatch};
pub(super) use replays::{ReplayPage, ReplayStep, WithheldBytes};

use super::clock::Clock;
use super::connection::{Connection, ConnectionLimits, EndedMemberships, ShardHandle};
use super::load::{Load, Reservation};
use super::meters::TotalsCell;
use super::{Settings, ShardTask, Socket};
use slots::Slots;

/// Flushes per turn, between two checks of the mailbox and yields to other tasks: some hundred microseconds.
const FLUSHES_PER_TURN: usize = 64;
/// Runs queued per turn, unless a single command has more.
const RUNS_PER_TURN: u64 = 4096;

/// Command in the mailbox of a shard.
pub(super) enum Command {
    /// A new connection.
    Attach(Connection, Arc<dyn Socket>),
    /// The reader of the connection has ended.
    Detach(Connection),
    /// This shard's part of a batch.
    Deliver(ShardBatch),
    /// Complete frames for one connection.
    Send(Reservation, Bytes),
    /// A close of the connection, with the address of the next node if there is one.
    Close(Connection, Option<Box<str>>),
    /// A step of a replay. Boxed, because steps are rare and large.
    Replay(Connection, Box<ReplayStep>),
    /// Last command.
    Stop,
}

/// State shared by all shards.
pub(super) struct Shared {
    /// Number of shards.
    pub(super) count: usize,
    pub(super) clock: Clock,
    pub(super) ended_memberships: Arc<EndedMemberships>,
    pub(super) withheld: Arc<WithheldBytes>,
}

/// Creates shard `index`: its shared state and its task.
pub(super) fn new(index: usize, settings: &Settings, shared: &Shared) -> (Arc<ShardHandle>, ShardTask) {
    let (mailbox, commands) = mpsc::channel(settings.queue.mailbox.max(1));
    let handle = Arc::new(ShardHandle {
        index,
        mailbox,
        live: AtomicUsize::new(0),
        totals: TotalsCell::default(),
        limits: ConnectionLimits {
            queue: Load::new(settings.queue.bytes, settings.queue.frames),
            unbound: settings.unbound,
            unbound_max: settings.unbound_max,
        },
        clock: shared.clock.clone(),
        to_check: Mutex::default(),
        ended_memberships: Arc::clone(&shared.ended_memberships),
    });
    let slots = Slots::new(Arc::clone(&handle), settings, shared);
    (handle, async move { Shard::new(slots, commands).run().await }.boxed())
}

struct Shard {
    slots: Slots,
    mailbox: mpsc::Receiver<Command>,
    /// True once the mailbox is closed and empty.
    mailbox_closed: bool,
    tick: Interval,
    ticked: bool,
    received: Vec<Command>,
    unblocked: Vec<Connection>,
    /// Commands taken from the mailbox and not yet executed.
    commands: VecDeque<Command>,
    /// Callers to answer once `Slots::flushed` reaches the number.
    reports: VecDeque<(u64, oneshot::Sender<Vec<Count>>, Vec<Count>)>,
}

impl Shard {
    fn new(slots: Slots, mailbox: mpsc::Receiver<Command>) -> Self {
        let clock = &slots.shard.clock;
        let mut tick = interval_at(clock.start + clock.tick, clock.tick);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        Self {
            slots,
            mailbox,
            mailbox_closed: false,
            tick,
            ticked: false,
            received: Vec::new(),
            unblocked: Vec::new(),
            commands: VecDeque::new(),
            reports: VecDeque::new(),
        }
    }

    async fn run(mut self) {
        loop {
            let idle = self.commands.is_empty() && self.slots.is_clean();
            if self.mailbox_closed && idle {
                break;
            }
            poll_fn(|cx| self.poll_events(cx, idle)).await;
            self.run_turn();
            if !self.slots.is_clean() || !self.commands.is_empty() {
                yield_now().await;
            }
        }
        self.slots.close_all();
        self.slots.publish();
    }

    /// Sockets of connections that were never attached.
    fn unattached_sockets(&mut self) -> impl Iterator<Item = Arc<dyn Socket>> {
        self.mailbox.close();
        let waiting = std::iter::from_fn(|| self.mailbox.try_recv().ok());
        let commands = self.received.drain(..).chain(self.commands.drain(..)).chain(waiting);
        commands.filter_map(|command| match command {
            Command::Attach(connection, socket) => {
                connection.mark_gone();
                Some(socket)
            }
            _ => None,
        })
    }

    /// Receives events. Ready if there are any, or if work is left.
    fn poll_events(&mut self, cx: &mut Context<'_>, idle: bool) -> Poll<()> {
        self.ticked = self.tick.poll_tick(cx).is_ready();
        while !self.slots.blocked.is_empty() {
            let Poll::Ready(Some(unblocked)) = self.slots.blocked.poll_next_unpin(cx) else { break };
            self.unblocked.push(unblocked);
        }
        if !self.mailbox_closed && self.commands.is_empty() {
            let limit = self.mailbox.max_capacity();
            if let Poll::Ready(received) = self.mailbox.poll_recv_many(cx, &mut self.received, limit) {
                self.mailbox_closed = received == 0;
            }
        }
        let nothing = !self.ticked && self.unblocked.is_empty() && self.received.is_empty() && !self.mailbox_closed;
        if nothing && idle { Poll::Pending } else { Poll::Ready(()) }
    }

    fn run_turn(&mut self) {
        if std::mem::take(&mut self.ticked) {
            self.slots.tick(self.mailbox.len());
        }
        for connection in self.unblocked.drain(..) {
            self.slots.unblock(&connection);
        }
        self.commands.extend(self.received.drain(..));
        let queued = self.slots.queued;
        while self.slots.queued - queued < RUNS_PER_TURN {
            let Some(command) = self.commands.pop_front() else { break };
            self.execute(command);
        }
        // Only after the whole mailbox, so that one write carries everything for a connection.
        if self.commands.is_empty() {
            self.slots.flush_up_to(FLUSHES_PER_TURN);
        }
        self.report();
        self.slots.publish();
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Attach(connection, socket) => self.slots.attach(&connection, socket),
            Command::Detach(connection) => self.slots.detach(&connection),
            Command::Deliver(ShardBatch { batch, items, report }) => {
                let counts = self.slots.deliver(&batch, items);
                if let Some(report) = report {
                    self.reports.push_back((self.slots.clean_at(), report, counts));
                }
            }
            Command::Send(reservation, frame) => {
                self.slots.deliver_one(reservation, frame, 1);
            }
            Command::Close(connection, next) => self.slots.close(&connection, next.as_deref()),
            Command::Replay(connection, step) => self.slots.replay(&connection, *step),
            Command::Stop => self.mailbox.close(),
        }
    }

    /// Answers callers after the flush of their part. The wait for the flush, not only for the queues, keeps callers
    /// from running ahead of the sockets.
    fn report(&mut self) {
        while self.reports.front().is_some_and(|(at, ..)| *at <= self.slots.flushed) {
            let Some((_, report, counts)) = self.reports.pop_front() else { break };
            // The caller may have stopped waiting.
            let _ = report.send(counts);
        }
    }
}

/// After a panic of the shard, no client must stay connected to a node that never writes to it again.
impl Drop for Shard {
    fn drop(&mut self) {
        self.slots.abandon();
        self.unattached_sockets().for_each(|socket| socket.shutdown(true));
    }
}
