//! What a call of a plugin may cost: CPU time inside the guest, wall time, memory, and what it hands over.
//!
//! Knows no component: it is told when a guest runs and when it grows. Epoch ticks ([`super::ticker`]) are when it looks.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, Sleep};

use super::Role;
use super::ticker::TICK;

/// What one call may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// CPU time of the thread while it is inside the guest: neither host waits nor a starved core count.
    pub cpu: Duration,
    /// From call to answer, whatever the time goes into.
    pub wall: Duration,
}

/// The furthest that a manifest may raise a plugin's limits: the operator's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caps {
    /// Of every call.
    pub budget: Budget,
    /// Bytes of one instance.
    pub memory: usize,
}

impl Default for Caps {
    fn default() -> Self {
        Self { budget: Budget { cpu: Duration::from_secs(1), wall: Duration::from_secs(30) }, memory: 512 << 20 }
    }
}

/// What a manifest asks for; what it leaves out is the role's default.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Asked {
    /// CPU time of each call.
    pub(super) cpu: Option<Duration>,
    /// Wall time of each call.
    pub(super) wall: Option<Duration>,
    /// Bytes of one instance.
    pub(super) memory: Option<usize>,
}

/// What one plugin may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limits {
    asked: Asked,
    /// Bytes of linear memory and tables over one whole store.
    pub(super) memory: usize,
}

impl Limits {
    /// Of a plugin with these roles; memory is the largest that one of them has.
    pub(super) fn new(roles: &[Role], asked: Asked) -> Self {
        let default = roles.iter().map(|role| default_memory(*role)).max().unwrap_or(DEFAULT_START_MEMORY);
        Self { asked, memory: asked.memory.unwrap_or(default) }
    }

    /// What one call in this role may take; `None` is the start of an instance.
    pub(super) fn budget(&self, role: Option<Role>) -> Budget {
        let Some(role) = role else { return START };
        let default = default_budget(role);
        Budget { cpu: self.asked.cpu.unwrap_or(default.cpu), wall: self.asked.wall.unwrap_or(default.wall) }
    }
}

const fn default_budget(role: Role) -> Budget {
    let (cpu, wall) = match role {
        Role::Auth => (50, 2_000),
        Role::Filter => (5, 50),
        Role::Handler | Role::Events => (50, 5_000),
    };
    Budget { cpu: Duration::from_millis(cpu), wall: Duration::from_millis(wall) }
}

const fn default_memory(role: Role) -> usize {
    match role {
        Role::Auth => 32 << 20,
        Role::Filter => 16 << 20,
        Role::Handler | Role::Events => 64 << 20,
    }
}

/// Instantiation and `lifecycle.start` together.
const START: Budget = Budget { cpu: Duration::from_millis(500), wall: Duration::from_secs(5) };
const DEFAULT_START_MEMORY: usize = 16 << 20;

/// Most core instances, tables and memories of one store: a component of a common toolchain has five.
const MAX_INSTANCES: usize = 32;
const MAX_TABLES: usize = 32;
const MAX_MEMORIES: usize = 4;
/// What one table element counts in the memory of a store.
const TABLE_ELEMENT_BYTES: usize = size_of::<usize>();

/// Counts what a store has taken, summed over all its memories and tables.
#[derive(Debug)]
pub(super) struct Memory {
    cap: usize,
    used: usize,
    /// Granted and not yet known to have worked: a failed growth is not told its size.
    pending: usize,
    refused: bool,
}

impl Memory {
    pub(super) const fn new(cap: usize) -> Self {
        Self { cap, used: 0, pending: 0, refused: false }
    }

    /// Whether the instance is better replaced before it runs into its cap.
    pub(super) const fn is_high(&self) -> bool {
        self.used > self.cap / 4 * 3
    }

    /// Whether a growth was refused since the last look.
    pub(super) fn take_refused(&mut self) -> bool {
        std::mem::take(&mut self.refused)
    }

    fn grow(&mut self, more: usize, allowed: bool) -> bool {
        let fits = allowed && self.used.checked_add(more).is_some_and(|sum| sum <= self.cap);
        self.pending = if fits { more } else { 0 };
        self.used += self.pending;
        self.refused |= !fits;
        fits
    }

    fn refund(&mut self) {
        self.used -= std::mem::take(&mut self.pending);
        self.refused = true;
    }
}

impl wasmtime::ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.grow(desired.saturating_sub(current), maximum.is_none_or(|most| desired <= most)))
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.refund();
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let more = desired.saturating_sub(current).saturating_mul(TABLE_ELEMENT_BYTES);
        Ok(self.grow(more, maximum.is_none_or(|most| desired <= most)))
    }

    fn table_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.refund();
        Ok(())
    }

    fn instances(&self) -> usize {
        MAX_INSTANCES
    }

    fn tables(&self) -> usize {
        MAX_TABLES
    }

    fn memories(&self) -> usize {
        MAX_MEMORIES
    }
}

/// Which budget a call used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Overrun {
    #[error("used up its CPU time of {0:?}")]
    Cpu(Duration),
    #[error("used up its wall time of {0:?}")]
    Wall(Duration),
    #[error("handed over more than {0} bytes in one call")]
    Bytes(usize),
}

/// What an epoch tick decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tick {
    /// Go on: nothing is known yet of where the time went.
    Continue,
    /// Let others run, then go on.
    Yield,
}

/// The clocks of one call. Shared between the store, which is asked at each tick, and the future that drives it.
///
/// A call that no tick meets and that waits for nothing, which is nearly every call, looks at no clock at all.
#[derive(Debug)]
pub(super) struct Meter {
    origin: Instant,
    /// Nanoseconds of CPU charged to the call.
    used: AtomicU64,
    /// The thread's CPU time when it last entered the guest or was charged; 0 = nobody looked yet.
    mark: AtomicU64,
    /// Nanoseconds from `origin` to the end of the wall time; 0 = not set yet. It begins with the first tick or wait.
    deadline: AtomicU64,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self { origin: Instant::now(), used: AtomicU64::new(0), mark: AtomicU64::new(0), deadline: AtomicU64::new(0) }
    }

    pub(super) fn start(&self) {
        self.used.store(0, Ordering::Relaxed);
        self.mark.store(0, Ordering::Relaxed);
        self.deadline.store(0, Ordering::Relaxed);
    }

    fn deadline(&self, budget: Budget) -> Instant {
        let set = self.deadline.load(Ordering::Relaxed);
        let nanos = if set == 0 { nanos(self.origin.elapsed() + budget.wall).max(1) } else { set };
        self.deadline.store(nanos, Ordering::Relaxed);
        self.origin + Duration::from_nanos(nanos)
    }

    /// At an epoch tick, on the guest's thread.
    pub(super) fn tick(&self, budget: Budget) -> Result<Tick, Overrun> {
        let deadline = self.deadline(budget);
        if self.mark.load(Ordering::Relaxed) == 0 {
            // Sampling: who is met by a tick is charged for it, however long it really ran. Most of those are short
            // calls whose thread was taken away for a while, so neither clock ends them: the next tick would.
            self.used.fetch_add(nanos(TICK), Ordering::Relaxed);
            self.mark.store(thread_cpu(), Ordering::Relaxed);
            return Ok(Tick::Continue);
        }
        self.charge();
        if self.used.load(Ordering::Relaxed) > nanos(budget.cpu) {
            return Err(Overrun::Cpu(budget.cpu));
        }
        if Instant::now() >= deadline {
            return Err(Overrun::Wall(budget.wall));
        }
        Ok(Tick::Yield)
    }

    fn charge(&self) {
        let now = thread_cpu();
        let since = self.mark.swap(now, Ordering::Relaxed);
        self.used.fetch_add(now.saturating_sub(since), Ordering::Relaxed);
    }

    /// The guest waits: what its thread does from here on is not its own.
    fn leave(&self) {
        if self.mark.load(Ordering::Relaxed) != 0 {
            self.charge();
        }
    }

    fn enter(&self) {
        self.mark.store(thread_cpu(), Ordering::Relaxed);
    }

    /// Drives `call` until it ends or its wall time does. A dropped call leaves its store unusable.
    pub(super) async fn drive<T>(
        &self,
        budget: Budget,
        call: impl Future<Output = wasmtime::Result<T>>,
    ) -> wasmtime::Result<T> {
        let mut call = pin!(call);
        let mut timer: Option<Pin<Box<Sleep>>> = None;
        poll_fn(|cx| {
            if timer.is_some() {
                self.enter();
            }
            if let Poll::Ready(result) = call.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            self.leave();
            let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(self.deadline(budget))));
            timer.as_mut().poll(cx).map(|()| Err(Overrun::Wall(budget.wall).into()))
        })
        .await
    }
}

fn thread_cpu() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // Never 0, which means "nobody looked".
    (u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)).max(1)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use wasmtime::ResourceLimiter;

    use super::*;

    #[test]
    fn memory_is_the_sum_and_a_failed_growth_is_refunded() {
        let mut memory = Memory::new(100);
        assert!(memory.memory_growing(0, 60, None).unwrap());
        assert!(!memory.memory_growing(0, 60, None).unwrap(), "60 + 60 is over the cap");
        assert!(memory.take_refused());
        assert!(memory.memory_growing(0, 40, None).unwrap());
        memory.memory_grow_failed(wasmtime::Error::msg("no room")).unwrap();
        assert!(!memory.is_high());
        assert!(memory.table_growing(0, 5, None).unwrap(), "5 elements are 40 bytes, which the refund left free");
        assert!(memory.is_high());
        assert!(!memory.table_growing(5, 6, None).unwrap());
    }

    #[test]
    fn a_tick_charges_and_the_budget_ends() {
        let meter = Meter::new();
        let budget = Budget { cpu: TICK, wall: Duration::from_secs(60) };
        meter.start();
        assert_eq!(meter.tick(budget), Ok(Tick::Continue));
        let spun = (0..1_000_000_u64).map(std::hint::black_box).sum::<u64>();
        assert!(spun > 0);
        assert_eq!(meter.tick(budget), Err(Overrun::Cpu(budget.cpu)));
        let budget = Budget { cpu: Duration::from_secs(60), wall: Duration::ZERO };
        meter.start();
        assert_eq!(meter.tick(budget), Ok(Tick::Continue), "a starved thread's first tick");
        assert_eq!(meter.tick(budget), Err(Overrun::Wall(budget.wall)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_waits_for_ever_ends_with_its_wall_time() {
        let meter = Meter::new();
        let budget = Budget { cpu: TICK, wall: Duration::from_secs(5) };
        let begun = Instant::now();
        let ended = meter.drive(budget, std::future::pending::<wasmtime::Result<()>>()).await;
        assert_eq!(ended.unwrap_err().downcast_ref(), Some(&Overrun::Wall(budget.wall)));
        assert_eq!(begun.elapsed().as_secs(), 5);
    }

    #[test]
    fn a_manifest_changes_only_what_it_names() {
        let limits = Limits::new(&[Role::Filter, Role::Handler], Asked { cpu: Some(TICK), ..Asked::default() });
        assert_eq!(limits.memory, 64 << 20);
        assert_eq!(limits.budget(Some(Role::Filter)), Budget { cpu: TICK, wall: Duration::from_millis(50) });
    }
}
