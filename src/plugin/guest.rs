//! The data of one store: what the instance may use, and what its present call has done so far.
//!
//! Nothing of a call takes effect here: effects and writes are staged, and the role that called commits them.

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

/// What all instances of one plugin version share.
pub(super) struct Context {
    pub(super) plugin: Arc<str>,
    pub(super) settings: Settings,
    pub(super) limits: Limits,
    pub(super) kv: Arc<dyn kv::Store>,
    /// What all instances together may log in a second.
    pub(super) log_rate: Arc<Rate>,
    pub(super) counters: Arc<Table>,
    pub(super) timers: Arc<Timers>,
    /// Whom it may ask over the network, and by what; none = there is no network.
    pub(super) outgoing: Outgoing,
    pub(super) fetch: Option<Arc<dyn Fetch>>,
    /// Its requests under way.
    pub(super) requests: Semaphore,
    /// Set once the node stands; before that nobody is online and effects go nowhere.
    pub(super) services: Arc<OnceLock<Arc<dyn Services>>>,
    pub(super) time: Time,
    /// What makes WASI's random numbers the same ones each time; none = they are the system's.
    pub(super) seed: Option<u64>,
}

/// The publish under judgement, as the guest sees it: shares, not copies.
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

/// What a call wants done once it has returned ok.
#[derive(Default)]
pub(super) struct Staged {
    /// How many calls of plugins, this one included, stand between its effects and something from outside.
    pub(super) hops: u8,
    pub(super) effects: Vec<Effect>,
    pub(super) kv: Commit,
    pub(super) timers: Vec<Change>,
    /// Bytes of the staged writes.
    pub(super) kv_bytes: usize,
}

/// The present call.
pub(super) struct Call {
    /// `None` while the instance starts.
    pub(super) role: Option<Role>,
    pub(super) budget: Budget,
    pub(super) publish: Option<Publish>,
    pub(super) staged: Staged,
    /// What it added to counters: at once, since a counter is read as it is added to.
    pub(super) counted: Counted,
    /// What a call that failed has added already, and this one repeats.
    pub(super) repeats: Counted,
    /// It sent a request, which no failure takes back.
    pub(super) has_asked_network: bool,
    /// What it waits for now: if its wall time ends meanwhile, that is not the guest's fault.
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

    /// Whether effects and writes of this call would be committed.
    pub(super) fn may_write(&self) -> bool {
        matches!(self.role, Some(Role::Auth | Role::Handler | Role::Events))
    }

    /// Whether this call may push, join, leave and kick.
    pub(super) fn may_push(&self) -> bool {
        matches!(self.role, Some(Role::Handler | Role::Events))
    }

    /// Counts what the guest hands over in a host call.
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
    /// Turns of the seeded randomness.
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

    /// Begins a call: budgets are full, nothing is staged.
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
