//! Warm instances of one plugin version, a slot for each worker thread.
//!
//! Knows no version: [`InstanceLease`](super::lease::Lease) takes instances for calls.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use crate::plugin::guest::instance::Instance;

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

    /// Takes the instance of the own slot, else one of another slot.
    pub(super) fn take(&self) -> Option<Box<Instance>> {
        let own = worker_number();
        let count = self.slots.len();
        (0..count).find_map(|step| self.slots[(own + step) % count].0.try_lock()?.take())
    }

    /// Puts the instance into a free slot, or drops it if there is none.
    pub(in crate::plugin) fn put(&self, instance: Box<Instance>) {
        let (own, count) = (worker_number(), self.slots.len());
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
    pub(in crate::plugin) fn empty_slots(&self) -> usize {
        self.slots.iter().filter(|slot| slot.0.lock().is_none()).count()
    }
}

/// A number for this thread, which never changes.
fn worker_number() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local!(static OWN: Cell<Option<usize>> = const { Cell::new(None) });
    OWN.with(|own| {
        let number = own.get().unwrap_or_else(|| NEXT.fetch_add(1, Ordering::Relaxed));
        own.set(Some(number));
        number
    })
}
