//! Data of one store: the resources of the instance, and the state of its current call.
//!
//! No part of a call takes effect here: effects and writes are staged, and the role that made the call commits them.

use std::sync::{Arc, OnceLock};

use tokio::sync::Semaphore;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::counters::{Counted, Table};
use super::failure::Waiting;
use super::fetch::Fetch;
use super::kv::{self, Commit};
use super::limits::{Budget, Limits, Memory, Meter, Overrun, Rate};
use super::manifest::{Outgoing, Settings};
use super::time::Time;
use super::timers::{Change, Timers};
use super::wasi::{self, LogBudget};
use super::{Effect, Role, Services};
use crate::message::{Envelope, Message, Origin, Publisher, Target};

/// State that all instances of one plugin version share.
pub(super) struct Context {
    pub(super) plugin: Arc<str>,
    pub(super) settings: Settings,
    pub(super) limits: Limits,
    pub(super) kv: Arc<dyn kv::Store>,
    /// Bytes per second that all instances together may log.
    pub(super) log_rate: Arc<Rate>,
    pub(super) counters: Arc<Table>,
    pub(super) timers: Arc<Timers>,
    /// Allow-list and limits of its outgoing requests.
    pub(super) outgoing: Outgoing,
    /// The network; `None` if there is none.
    pub(super) fetch: Option<Arc<dyn Fetch>>,
    /// Permits for its concurrent requests.
    pub(super) requests: Semaphore,
    /// Set once the node runs. Before that no user is online, and effects are lost.
    pub(super) services: Arc<OnceLock<Arc<dyn Services>>>,
    pub(super) time: Time,
    /// Seed that makes WASI's random numbers repeatable; `None` takes the system's.
    pub(super) seed: Option<u64>,
}

/// The publish under judgement, as the guest sees it. Its fields are shared, not copied.
pub(super) struct Publish {
    pub(super) message: Arc<Message>,
    pub(super) target: Target,
    pub(super) origin: Origin,
    pub(super) from: Option<Publisher>,
}

impl Publish {
    pub(super) fn of(envelope: &Envelope) -> Self {
        Self {
            message: Arc::clone(&envelope.message),
            target: envelope.target.clone(),
            origin: envelope.origin,
            from: envelope.from.clone(),
        }
    }
}

/// Staged work of a call, done once the call has returned ok.
#[derive(Default)]
pub(super) struct Staged {
    /// Number of plugin calls, this one included, between its effects and their external cause.
    pub(super) hops: u8,
    pub(super) effects: Vec<Effect>,
    pub(super) kv: Commit,
    pub(super) timers: Vec<Change>,
    /// Bytes of the staged writes.
    pub(super) kv_bytes: usize,
}

/// State of the current call.
pub(super) struct Call {
    /// `None` while the instance starts.
    pub(super) role: Option<Role>,
    pub(super) budget: Budget,
    pub(super) publish: Option<Publish>,
    pub(super) staged: Staged,
    /// Additions to counters. They take effect at once, since an addition also reads the counter.
    pub(super) counted: Counted,
    /// Additions of a failed call that this one repeats.
    pub(super) repeats: Counted,
    /// True once it sent a request, which no failure takes back.
    pub(super) has_asked_network: bool,
    /// The service for which the call waits now. If the wall time ends meanwhile, the guest is not to blame.
    pub(super) waiting: Option<Waiting>,
    handed_over: usize,
    most_bytes: usize,
}

impl Call {
    pub(super) fn new(role: Option<Role>, limits: &Limits) -> Self {
        let (budget, most_bytes) = (limits.budget(role), limits.host_bytes);
        let staged = Staged { hops: 1, ..Staged::default() };
        let (counted, repeats) = (Counted::default(), Counted::default());
        Self {
            role,
            budget,
            publish: None,
            staged,
            counted,
            repeats,
            has_asked_network: false,
            waiting: None,
            handed_over: 0,
            most_bytes,
        }
    }

    /// True if effects and writes of this call would be committed.
    pub(super) fn may_write(&self) -> bool {
        matches!(self.role, Some(Role::Auth | Role::Handler | Role::Events))
    }

    /// True if this call may push, join, leave and kick.
    pub(super) fn may_push(&self) -> bool {
        matches!(self.role, Some(Role::Handler | Role::Events))
    }

    /// Counts the bytes that the guest hands over in a host call.
    pub(super) fn hand_over(&mut self, bytes: usize) -> Result<(), Overrun> {
        self.handed_over = self.handed_over.saturating_add(bytes);
        if self.handed_over > self.most_bytes { Err(Overrun::Bytes(self.most_bytes)) } else { Ok(()) }
    }
}

/// The data of one store.
pub(super) struct Guest {
    pub(super) context: Arc<Context>,
    pub(super) memory: Memory,
    pub(super) meter: Arc<Meter>,
    pub(super) log: Arc<LogBudget>,
    pub(super) call: Call,
    /// Blocks drawn from the seeded randomness.
    pub(super) drawn: u64,
    wasi: WasiCtx,
    table: ResourceTable,
}

impl Guest {
    pub(super) fn new(context: Arc<Context>) -> Self {
        let limits = &context.limits;
        let log =
            Arc::new(LogBudget::new(Arc::clone(&context.plugin), limits.log_bytes, Arc::clone(&context.log_rate)));
        let mut table = ResourceTable::new();
        table.set_max_capacity(limits.handles);
        Self {
            wasi: wasi::context(&log, &context.time, context.seed),
            memory: Memory::new(limits.memory, limits.tables),
            meter: Arc::new(Meter::new()),
            log,
            call: Call::new(None, limits),
            drawn: 0,
            table,
            context,
        }
    }

    /// Begins a call with full budgets and nothing staged.
    pub(super) fn begin(&mut self, role: Option<Role>) {
        self.call = Call::new(role, &self.context.limits);
        self.meter.start();
        self.log.refill();
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}
