//! Warm instances of one plugin version, a slot for each worker thread.
//!
//! A call takes the instance of its own slot, else steals one, else makes one, up to the bound on live instances. It
//! never waits for another call.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use metrics::counter;
use parking_lot::Mutex;

use super::version::Version;
use crate::plugin::guest::failure::{Failure, Kind};
use crate::plugin::guest::instance::Instance;
use crate::telemetry::names;

/// The warm instances.
pub(in crate::plugin) struct Pool {
    slots: Box<[Slot]>,
}

/// One slot per cache line, because neighbouring slots belong to other threads.
#[repr(align(128))]
#[derive(Default)]
struct Slot(Mutex<Option<Box<Instance>>>);

impl Pool {
    /// A pool with this many slots.
    pub(in crate::plugin) fn new(slots: usize) -> Self {
        Self { slots: std::iter::repeat_with(Slot::default).take(slots).collect() }
    }

    fn take(&self) -> Option<Box<Instance>> {
        let own = worker();
        let count = self.slots.len();
        (0..count).find_map(|step| self.slots[(own + step) % count].0.try_lock()?.take())
    }

    /// Puts the instance into a free slot, or drops it if there is none.
    pub(in crate::plugin) fn put(&self, instance: Box<Instance>) {
        let (own, count) = (worker(), self.slots.len());
        let mut instance = Some(instance);
        for step in 0..count {
            let Some(mut slot) = self.slots[(own + step) % count].0.try_lock() else { continue };
            if slot.is_none() {
                *slot = instance.take();
                return;
            }
        }
    }

    /// Drops all warm instances.
    pub(in crate::plugin) fn drain(&self) {
        for slot in &self.slots {
            drop(slot.0.lock().take());
        }
    }

    /// Number of empty slots.
    pub(in crate::plugin) fn gaps(&self) -> usize {
        self.slots.iter().filter(|slot| slot.0.lock().is_none()).count()
    }
}

/// A number for this thread, which never changes.
fn worker() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static OWN: Cell<Option<usize>> = const { Cell::new(None) });
    OWN.with(|own| {
        let number = own.get().unwrap_or_else(|| NEXT.fetch_add(1, Ordering::Relaxed));
        own.set(Some(number));
        number
    })
}

/// An instance for one call, or for several of one batch.
///
/// Only [`Lease::give_back`] returns the instance to the pool. Any other drop (an error, a time-out, a caller that went
/// away) throws its store away and requests a new instance.
pub(in crate::plugin) struct Lease<'a> {
    version: &'a Arc<Version>,
    instance: Option<Box<Instance>>,
}

impl<'a> Lease<'a> {
    /// Takes a warm instance or makes one.
    pub(in crate::plugin) async fn take(version: &'a Arc<Version>) -> Result<Self, Failure> {
        if !version.blueprint.beat.is_alive() {
            return Err(Failure::new(Kind::Ticker, "the plugin ticker has ended: nothing would bound its time"));
        }
        let pool = &version.pool;
        if let Some(instance) = pool.take() {
            return Ok(Self { version, instance: Some(instance) });
        }
        // The caller waits, so its wall time is the bound, even where a start may take longer.
        let wall = version.blueprint.context.limits.longest_wall(&version.roles);
        let instance = Box::new(Instance::within(&version.blueprint, wall).await?);
        version.stats.one_shot();
        Ok(Self { version, instance: Some(instance) })
    }

    pub(in crate::plugin) fn instance(&mut self) -> &mut Instance {
        self.instance.as_mut().expect("a lease holds its instance until it ends")
    }

    /// Returns a healthy instance to the pool.
    pub(in crate::plugin) fn give_back(mut self) {
        let held = self.instance().memory();
        self.version.stats.held(held);
        if let Some(why) = self.instance().wear() {
            self.instance = None;
            self.replace(why);
        } else if let Some(instance) = self.instance.take() {
            self.version.pool.put(instance);
        }
    }
}

impl Lease<'_> {
    fn replace(&self, why: &'static str) {
        counter!(names::PLUGIN_RECYCLED, "plugin" => self.version.name.to_string(), "reason" => why).increment(1);
        self.version.ask_to_warm();
    }
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if self.instance.take().is_some() {
            self.replace("error");
        }
    }
}
