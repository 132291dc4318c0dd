//! Data of one store: the resources of the instance, and the state of its current call.
//!
//! No part of a call takes effect here: effects and writes are staged, and the role that made the call commits them.

use std::sync::{Arc, OnceLock};

use tokio::sync::Semaphore;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::counters::{CounterAdditions, CounterTable};
use super::failure::Waiting;
use super::limits::{Budget, Limits, LogRate, Memory, Meter, Overrun};
use super::manifest::outgoing::Outgoing;
use super::manifest::settings::Settings;
use super::timers::{TimerChange, Timers};
use super::wasi::{self, LogBudget};
use crate::message::{Envelope, Message, Origin, Publisher, Target};
use crate::plugin::fetch::Fetch;
use crate::plugin::history::HistoryReader;
use crate::plugin::kv::{self, Commit};
use crate::plugin::time::Time;
use crate::plugin::{Effect, Role, Services};

/// State that all instances of one plugin version share.
pub(in crate::plugin) struct Context {
    pub(in crate::plugin) plugin: Arc<str>,
    pub(in crate::plugin) settings: Settings,
    pub(in crate::plugin) limits: Limits,
    pub(in crate::plugin) kv: Arc<dyn kv::Store>,
    /// Kept messages; `None` if the node keeps none.
    pub(in crate::plugin) history: Option<Arc<dyn HistoryReader>>,
    /// Bytes per second that all instances together may log.
    pub(in crate::plugin) log_rate: Arc<LogRate>,
    pub(in crate::plugin) counters: Arc<CounterTable>,
    pub(in crate::plugin) timers: Arc<Timers>,
    /// Allow-list and limits of its outgoing requests.
    pub(in crate::plugin) outgoing: Outgoing,
    /// The network; `None` if there is none.
    pub(in crate::plugin) fetch: Option<Arc<dyn Fetch>>,
    /// Permits for its concurrent requests.
    pub(in crate::plugin) requests: Semaphore,
    /// Set once the node runs. Before that no user is online, and effects are lost.
    pub(in crate::plugin) services: Arc<OnceLock<Arc<dyn Services>>>,
    pub(in crate::plugin) time: Time,
    /// Seed that makes WASI's random numbers repeatable; `None` takes the system's.
    pub(in crate::plugin) seed: Option<u64>,
}

/// The publish under judgement, as the guest sees it. Its fields are shared, not copied.
pub(in crate::plugin) struct Publish {
    pub(in crate::plugin) message: Arc<Message>,
    pub(in crate::plugin) target: Target,
    pub(in crate::plugin) origin: Origin,
    pub(in crate::plugin) from: Option<Publisher>,
}

impl Publish {
    pub(in crate::plugin) fn of(envelope: &Envelope) -> Self {
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
pub(in crate::plugin) struct Staged {
    /// Number of plugin calls, this one included, between its effects and their external cause.
    pub(in crate::plugin) hops: u8,
    pub(in crate::plugin) effects: Vec<Effect>,
    pub(in crate::plugin) kv: Commit,
    pub(in crate::plugin) timers: Vec<TimerChange>,
    /// Bytes of the staged writes.
    pub(in crate::plugin) kv_bytes: usize,
}

/// State of the current call.
pub(in crate::plugin) struct Call {
    /// `None` while the instance starts.
    pub(in crate::plugin) role: Option<Role>,
    pub(in crate::plugin) budget: Budget,
    pub(in crate::plugin) publish: Option<Publish>,
    pub(in crate::plugin) staged: Staged,
    /// Additions to counters. They take effect at once, since an addition also reads the counter.
    pub(in crate::plugin) counted: CounterAdditions,
    /// Additions of a failed call that this one repeats.
    pub(in crate::plugin) repeats: CounterAdditions,
    /// True once it sent a request, which no failure takes back.
    pub(in crate::plugin) has_asked_network: bool,
    /// Number of its reads of the history.
    pub(in crate::plugin) history_reads: usize,
    /// The service for which the call waits now. If the wall time ends meanwhile, the guest is not to blame.
    pub(in crate::plugin) waiting: Option<Waiting>,
    handed_over: usize,
    most_bytes: usize,
}

impl Call {
    pub(in crate::plugin) fn new(role: Option<Role>, limits: &Limits) -> Self {
        let (budget, most_bytes) = (limits.budget(role), limits.host_bytes);
        let staged = Staged { hops: 1, ..Staged::default() };
        let (counted, repeats) = (CounterAdditions::default(), CounterAdditions::default());
        Self {
            role,
            budget,
            publish: None,
            staged,
            counted,
            repeats,
            has_asked_network: false,
            history_reads: 0,
            waiting: None,
            handed_over: 0,
            most_bytes,
        }
    }

    /// True if effects and writes of this call would be committed.
    pub(in crate::plugin) fn may_write(&self) -> bool {
        matches!(self.role, Some(Role::Auth | Role::Handler | Role::Events))
    }

    /// True if this call may push, join, leave and kick.
    pub(in crate::plugin) fn may_push(&self) -> bool {
        matches!(self.role, Some(Role::Handler | Role::Events))
    }

    /// Counts the bytes that the guest hands over in a host call.
    pub(in crate::plugin) fn hand_over(&mut self, bytes: usize) -> Result<(), Overrun> {
        self.handed_over = self.handed_over.saturating_add(bytes);
        if self.handed_over > self.most_bytes { Err(Overrun::Bytes(self.most_bytes)) } else { Ok(()) }
    }
}

/// The data of one store.
pub(in crate::plugin) struct Guest {
    pub(in crate::plugin) context: Arc<Context>,
    pub(in crate::plugin) memory: Memory,
    pub(in crate::plugin) meter: Arc<Meter>,
    pub(in crate::plugin) log: Arc<LogBudget>,
    pub(in crate::plugin) call: Call,
    /// Blocks drawn from the seeded randomness.
    pub(in crate::plugin) drawn: u64,
    wasi: WasiCtx,
    table: ResourceTable,
}

impl Guest {
    pub(in crate::plugin) fn new(context: Arc<Context>) -> Self {
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
    pub(in crate::plugin) fn begin(&mut self, role: Option<Role>) {
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
