//! The data of one store: what the instance may use, and what its present call has done so far.
//!
//! Nothing of a call takes effect here: effects and writes are staged, and the role that called commits them.

use std::sync::{Arc, OnceLock};

use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::kv::{self, Commit};
use super::limits::{Budget, Memory, Meter, Overrun};
use super::manifest::Settings;
use super::time::Time;
use super::wasi::{self, LogBudget};
use super::{Effect, Role, Services};
use crate::message::{Envelope, Message, Origin, Publisher, Target};

/// Bytes that a guest may hand over in one call, over all its host calls.
const CALL_BYTES: usize = 8 << 20;

/// What all instances of one plugin version share.
pub(super) struct Context {
    pub(super) plugin: Arc<str>,
    pub(super) settings: Settings,
    pub(super) kv: Arc<dyn kv::Store>,
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
    pub(super) effects: Vec<Effect>,
    pub(super) kv: Commit,
    /// Bytes of the staged writes.
    pub(super) kv_bytes: usize,
}

/// The present call.
pub(super) struct Call {
    /// `None` while the instance starts.
    pub(super) role: Option<Role>,
    pub(super) budget: Budget,
    /// Hops of the envelopes that it pushes.
    pub(super) hops: u8,
    pub(super) publish: Option<Publish>,
    pub(super) staged: Staged,
    handed_over: usize,
}

impl Call {
    pub(super) fn new(role: Option<Role>, budget: Budget) -> Self {
        Self { role, budget, hops: 1, publish: None, staged: Staged::default(), handed_over: 0 }
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
        if self.handed_over > CALL_BYTES { Err(Overrun::Bytes(CALL_BYTES)) } else { Ok(()) }
    }
}

/// The data of one store.
pub(super) struct Guest {
    pub(super) context: Arc<Context>,
    pub(super) memory: Memory,
    pub(super) meter: Arc<Meter>,
    pub(super) log: Arc<LogBudget>,
    pub(super) call: Call,
    wasi: WasiCtx,
    table: ResourceTable,
}

impl Guest {
    pub(super) fn new(context: Arc<Context>, memory: usize, budget: Budget) -> Self {
        let log = Arc::new(LogBudget::new(Arc::clone(&context.plugin)));
        let mut table = ResourceTable::new();
        table.set_max_capacity(MAX_HANDLES);
        Self {
            wasi: wasi::context(&log, &context.time, context.seed),
            context,
            memory: Memory::new(memory),
            meter: Arc::new(Meter::new()),
            log,
            call: Call::new(None, budget),
            table,
        }
    }

    /// Begins a call: budgets are full, nothing is staged.
    pub(super) fn begin(&mut self, role: Option<Role>, budget: Budget) {
        self.call = Call::new(role, budget);
        self.meter.start();
        self.log.refill();
    }
}

/// Host resources (streams, pollables) that one instance may hold.
const MAX_HANDLES: usize = 1_024;

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}
