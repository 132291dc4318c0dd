//! One warm guest: its store, its exports, and its calls within their budgets.
//!
//! After any error the store is poisoned: the caller drops the instance and never calls it again.

use std::sync::Arc;
use std::time::Duration;

use metrics::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::InstancePre;
use wasmtime::{Store, UpdateDeadline};

use super::bindings::exports::skylark::plugin as wit;
use super::convert;
use super::counters::CounterAdditions;
use super::failure::{Failure, Kind};
use super::interface::ComponentInterface;
use super::limits::{Budget, Meter, Tick};
use super::state::{Context, Guest, Publish, Staged};
use super::ticker::TickerHandle;
use crate::plugin::{Call, Claim, Event, JoinRequest, Role, Transport};

/// Everything that is needed to make instances of one plugin version.
pub(in crate::plugin) struct Blueprint {
    pub(in crate::plugin) pre: InstancePre<Guest>,
    pub(in crate::plugin) exports: Indices,
    pub(in crate::plugin) context: Arc<Context>,
    /// Permits for live instances of this version.
    pub(in crate::plugin) own_permits: Arc<Semaphore>,
    /// Permits for live instances of all plugins.
    pub(in crate::plugin) permits: Arc<Semaphore>,
    /// Tells the ticker that a guest runs.
    pub(in crate::plugin) ticker: TickerHandle,
    /// Number of live instances of this plugin.
    pub(in crate::plugin) instance_gauge: Gauge,
}

/// Positions of a component's exports, looked up once.
#[derive(Clone)]
pub(in crate::plugin) struct Indices {
    auth: Option<wit::auth::GuestIndices>,
    filter: Option<wit::filter::GuestIndices>,
    handler: Option<wit::handler::GuestIndices>,
    events: Option<wit::events::GuestIndices>,
    access: Option<wit::access::GuestIndices>,
    lifecycle: Option<wit::lifecycle::GuestIndices>,
    alarms: Option<wit::alarms::GuestIndices>,
    receipts: Option<wit::receipts::GuestIndices>,
}

impl Indices {
    /// Looks up the functions of the interfaces that a component exports.
    ///
    /// # Errors
    /// A function of an exported interface is missing.
    pub(in crate::plugin) fn find(pre: &InstancePre<Guest>, interface: &ComponentInterface) -> wasmtime::Result<Self> {
        let has = |role| interface.roles.contains(&role);
        Ok(Self {
            auth: has(Role::Auth).then(|| wit::auth::GuestIndices::new(pre)).transpose()?,
            filter: has(Role::Filter).then(|| wit::filter::GuestIndices::new(pre)).transpose()?,
            handler: has(Role::Handler).then(|| wit::handler::GuestIndices::new(pre)).transpose()?,
            events: has(Role::Events).then(|| wit::events::GuestIndices::new(pre)).transpose()?,
            access: has(Role::Access).then(|| wit::access::GuestIndices::new(pre)).transpose()?,
            lifecycle: interface.lifecycle.then(|| wit::lifecycle::GuestIndices::new(pre)).transpose()?,
            alarms: interface.alarms.then(|| wit::alarms::GuestIndices::new(pre)).transpose()?,
            receipts: interface.receipts.then(|| wit::receipts::GuestIndices::new(pre)).transpose()?,
        })
    }

    /// True if the plugin can receive timers.
    pub(in crate::plugin) fn has_alarms(&self) -> bool {
        self.alarms.is_some()
    }

    /// True if the plugin can receive receipts.
    pub(in crate::plugin) fn has_receipts(&self) -> bool {
        self.receipts.is_some()
    }
}

/// The exports of one instance.
struct Exports {
    auth: Option<wit::auth::Guest>,
    filter: Option<wit::filter::Guest>,
    handler: Option<wit::handler::Guest>,
    events: Option<wit::events::Guest>,
    access: Option<wit::access::Guest>,
    lifecycle: Option<wit::lifecycle::Guest>,
    alarms: Option<wit::alarms::Guest>,
    receipts: Option<wit::receipts::Guest>,
}

/// One warm guest.
pub(in crate::plugin) struct Instance {
    store: Store<Guest>,
    exports: Exports,
    meter: Arc<Meter>,
    ticker: TickerHandle,
    calls: usize,
    /// Additions to counters that the next call must not count again.
    repeats: CounterAdditions,
    _count: InstanceCount,
    _permits: [OwnedSemaphorePermit; 2],
}

/// Counts an instance until it is dropped.
struct InstanceCount(Gauge);

impl InstanceCount {
    fn new(instance_gauge: &Gauge) -> Self {
        instance_gauge.increment(1);
        Self(instance_gauge.clone())
    }
}

impl Drop for InstanceCount {
    fn drop(&mut self) {
        self.0.decrement(1);
    }
}

impl Instance {
    /// Creates and starts an instance within the budget of a start.
    pub(in crate::plugin) async fn new(blueprint: &Blueprint) -> Result<Self, Failure> {
        Self::within(blueprint, Duration::MAX).await
    }

    /// Creates and starts an instance for a caller that waits at most `wall`.
    pub(in crate::plugin) async fn within(blueprint: &Blueprint, wall: Duration) -> Result<Self, Failure> {
        let acquire = |permits: &Arc<Semaphore>, text: &str| {
            Arc::clone(permits).try_acquire_owned().map_err(|_| Failure::new(Kind::Full, text))
        };
        let permits = [
            acquire(&blueprint.own_permits, "all instances of the plugin are busy (limits.instances)")?,
            acquire(&blueprint.permits, "the node has its maximum of plugin instances (plugins.instances)")?,
        ];
        let mut budget = blueprint.context.limits.budget(None);
        budget.wall = budget.wall.min(wall);
        let mut guest = Guest::new(Arc::clone(&blueprint.context));
        guest.call.budget = budget;
        let meter = Arc::clone(&guest.meter);
        let mut store = Store::new(blueprint.pre.engine(), guest);
        configure(&mut store, blueprint.ticker.clone());
        blueprint.ticker.guest_runs();
        let instantiated = async {
            let instance = blueprint.pre.instantiate_async(&mut store).await?;
            load_exports(&blueprint.exports, &mut store, &instance)
        };
        let exports = match meter.drive(budget, instantiated).await {
            Ok(exports) => exports,
            Err(error) => return Err(Failure::of(&error, store.data_mut().memory.take_refused())),
        };
        let count = InstanceCount::new(&blueprint.instance_gauge);
        let ticker = blueprint.ticker.clone();
        let mut instance = Self {
            store,
            exports,
            meter,
            ticker,
            calls: 0,
            _count: count,
            repeats: CounterAdditions::default(),
            _permits: permits,
        };
        instance.start(budget).await?;
        Ok(instance)
    }

    async fn start(&mut self, budget: Budget) -> Result<(), Failure> {
        self.begin(None);
        self.store.data_mut().call.budget = budget;
        let Some(lifecycle) = &self.exports.lifecycle else { return Ok(()) };
        let result = self.meter.drive(budget, lifecycle.call_start(&mut self.store)).await;
        self.end(result)?.map_err(|why| Failure::new(Kind::Start, format!("start: {}", convert::cut(why))))
    }

    /// Bytes that it holds in memories and tables.
    pub(in crate::plugin) fn memory(&self) -> usize {
        self.store.data().memory.used()
    }

    /// Why the instance should be replaced instead of called again, if it should.
    pub(in crate::plugin) fn replacement_reason(&self) -> Option<&'static str> {
        let guest = self.store.data();
        match () {
            () if self.calls >= guest.context.limits.recycle => Some("calls"),
            () if guest.memory.is_high() => Some("memory"),
            () => None,
        }
    }

    /// Asks a filter.
    pub(in crate::plugin) async fn judge(&mut self, publish: Publish) -> Result<wit::filter::Verdict, Failure> {
        let budget = self.begin(Some(Role::Filter));
        self.meter.set_input_bytes(publish.message.approximate_bytes());
        self.store.data_mut().call.publish = Some(publish);
        let filter = self.exports.filter.as_ref().expect("only filters are in the chain");
        let result = self.meter.drive(budget, filter.call_judge(&mut self.store)).await;
        self.store.data_mut().call.publish = None;
        self.end(result)
    }

    /// Asks an auth plugin.
    pub(in crate::plugin) async fn admit(
        &mut self,
        transport: &Transport,
        claim: &Claim,
    ) -> Result<wit::auth::Answer, Failure> {
        let budget = self.begin(Some(Role::Auth));
        let (transport, claim) = (convert::transport(transport), convert::claim(claim));
        let auth = self.exports.auth.as_ref().expect("only auth plugins are asked to admit");
        let result = self.meter.drive(budget, auth.call_admit(&mut self.store, &transport, &claim)).await;
        self.end(result)
    }

    /// Asks an access plugin.
    pub(in crate::plugin) async fn join(&mut self, request: &JoinRequest) -> Result<wit::access::Answer, Failure> {
        let budget = self.begin(Some(Role::Access));
        let (who, room) = (convert::identity(&request.who), request.room.as_str());
        let (claims, data) = (convert::entries_out(&request.claims), convert::entries_out(&request.data));
        let access = self.exports.access.as_ref().expect("only access plugins are asked about joins");
        let result = self.meter.drive(budget, access.call_join(&mut self.store, &who, &claims, room, &data)).await;
        self.end(result)
    }

    /// Asks a handler; the inner error is the handler's own.
    pub(in crate::plugin) async fn handle(
        &mut self,
        call: &Call,
    ) -> Result<Result<wit::handler::Reply, String>, Failure> {
        let budget = self.begin(Some(Role::Handler));
        self.meter.set_input_bytes(call.data.approximate_bytes());
        let call = convert::call(call);
        let handler = self.exports.handler.as_ref().expect("only handlers own keys");
        let result = self.meter.drive(budget, handler.call_handle(&mut self.store, &call)).await;
        self.end(result)
    }

    /// The keys that a handler owns.
    pub(in crate::plugin) async fn keys(&mut self) -> Result<Vec<String>, Failure> {
        let budget = self.begin(None);
        let handler = self.exports.handler.as_ref().expect("only handlers own keys");
        let result = self.meter.drive(budget, handler.call_keys(&mut self.store)).await;
        self.end(result)
    }

    /// Delivers an event to an events plugin; `hops` is the number of plugin calls that led to the event.
    pub(in crate::plugin) async fn on_event(&mut self, event: &Event, hops: u8) -> Result<(), Failure> {
        let budget = self.begin(Some(Role::Events));
        self.store.data_mut().call.staged.hops = hops.saturating_add(1);
        let result = match convert::event(event) {
            Some(event) => {
                let events = self.exports.events.as_ref().expect("only events plugins get events");
                self.meter.drive(budget, events.call_on_event(&mut self.store, &event)).await
            }
            None => self.receipt(budget, event).await,
        };
        self.end(result)
    }

    /// Delivers an event of the export `receipts`.
    async fn receipt(&mut self, budget: Budget, event: &Event) -> wasmtime::Result<()> {
        let receipts = self.exports.receipts.as_ref().expect("only plugins that export receipts get them");
        match event {
            Event::Resumed(who, streams) => {
                let (who, streams) = (convert::identity(who), convert::resumed_streams(streams));
                self.meter.drive(budget, receipts.call_resumed(&mut self.store, &who, &streams)).await
            }
            Event::Undelivered(uid, id, cause) => {
                let cause = convert::cause(*cause);
                let call = receipts.call_undelivered(&mut self.store, uid.as_str(), *id, cause);
                self.meter.drive(budget, call).await
            }
            Event::Online(_) | Event::Offline(_) | Event::RoomJoined(..) | Event::RoomLeft(..) => Ok(()),
        }
    }

    /// Delivers a timer that is due.
    pub(in crate::plugin) async fn on_timer(&mut self, name: &str, data: &[u8]) -> Result<(), Failure> {
        let budget = self.begin(Some(Role::Events));
        let alarms = self.exports.alarms.as_ref().expect("only plugins that export alarms get timers");
        let result = self.meter.drive(budget, alarms.call_on_timer(&mut self.store, name, data)).await;
        self.end(result)
    }

    /// Additions of the last call to counters, for the call that repeats it.
    pub(in crate::plugin) fn take_counted(&mut self) -> CounterAdditions {
        std::mem::take(&mut self.store.data_mut().call.counted)
    }

    /// Makes the next call a repeat of a failed one: these additions are not counted again.
    pub(in crate::plugin) fn repeat(&mut self, counted: CounterAdditions) {
        self.repeats = counted;
    }

    /// True if the last call sent a request or wrote keys. Such a call is not repeated.
    pub(in crate::plugin) fn had_effects(&self) -> bool {
        let call = &self.store.data().call;
        call.has_asked_network || !call.staged.kv.writes.is_empty()
    }

    /// Takes the staged work of the last call.
    pub(in crate::plugin) fn take_staged(&mut self) -> Staged {
        std::mem::take(&mut self.store.data_mut().call.staged)
    }

    /// Fuel that the guest has used, on an engine that counts it.
    #[cfg(test)]
    pub(in crate::plugin) fn burnt(&self) -> u64 {
        u64::MAX - self.store.get_fuel().expect("the engine counts fuel")
    }

    fn begin(&mut self, role: Option<Role>) -> Budget {
        let guest = self.store.data_mut();
        guest.begin(role);
        guest.call.repeats = std::mem::take(&mut self.repeats);
        let budget = guest.call.budget;
        self.store.set_epoch_deadline(1);
        self.ticker.guest_runs();
        budget
    }

    fn end<T>(&mut self, result: wasmtime::Result<T>) -> Result<T, Failure> {
        self.calls += 1;
        let short_of_memory = self.store.data_mut().memory.take_refused();
        let waiting = self.store.data().call.waiting;
        result.map_err(|error| Failure::of(&error, short_of_memory).with_waiting(waiting))
    }
}

fn configure(store: &mut Store<Guest>, ticker: TickerHandle) {
    // Only the engine of some tests counts fuel.
    #[cfg(test)]
    let _ = store.set_fuel(u64::MAX);
    store.limiter(|guest| &mut guest.memory);
    let limits = &store.data().context.limits;
    let (bytes, handles) = (limits.host_bytes, limits.handles);
    store.set_hostcall_fuel(bytes);
    store.set_max_component_handles(handles);
    store.epoch_deadline_callback(move |mut store| {
        ticker.guest_runs();
        let guest = store.data_mut();
        Ok(match guest.meter.tick(guest.call.budget)? {
            Tick::Continue => UpdateDeadline::Continue(1),
            Tick::Yield => UpdateDeadline::YieldCustom(1, Box::pin(tokio::task::yield_now())),
        })
    });
    // An unset deadline has always passed, and instantiation would trap.
    store.set_epoch_deadline(1);
}

fn load_exports(
    indices: &Indices,
    store: &mut Store<Guest>,
    instance: &wasmtime::component::Instance,
) -> wasmtime::Result<Exports> {
    Ok(Exports {
        auth: indices.auth.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?,
        filter: indices.filter.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?,
        handler: indices.handler.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?,
        events: indices.events.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?,
        access: indices.access.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?,
        lifecycle: indices.lifecycle.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?,
        alarms: indices.alarms.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?,
        receipts: indices.receipts.as_ref().map(|found| found.load(&mut *store, instance)).transpose()?,
    })
}
