//! The clocks of one call: CPU time inside the guest, and wall time from call to answer.
//!
//! Knows no component. It is notified when a guest runs, and reads its clocks at epoch ticks
//! ([`super::super::ticker`]).
//!
//! A slow machine must not look like a slow guest. Three rules keep the two apart:
//!
//! - A tick charges at most one tick. A guest that spins meets each tick at once, so it is charged in full. Time that
//!   the host, the hypervisor or another program took lies between two ticks that the guest meets. It is charged once,
//!   however long it was.
//! - A page fault is the kernel's time: [`PAGE_FAULT`] of each one is left out. A first touch of memory is a page
//!   fault.
//! - Wall time alone ends no call that computes. The call must also have taken its budget of CPU from the machine, so a
//!   process that was stopped for a while fails no call.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::block_in_place;
use tokio::time::{Instant, Sleep};

use super::super::ticker::TICK;
use super::Budget;
use crate::clock;

/// Time that is left out for one page fault. Longer than a fault takes, even for a huge page or a first touch inside a
/// virtual machine.
const PAGE_FAULT: Duration = Duration::from_micros(250);
/// Size of an input from which its call may be a long one, in bytes. A call with a smaller input nearly always ends
/// before its first tick.
const LARGE: usize = 16 * 1024;
/// A timer that is later than this shows that the node did not run.
const LATE: Duration = Duration::from_millis(20);

/// The budget that a call used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::plugin) enum Overrun {
    #[error("used up its CPU time of {0:?}")]
    Cpu(Duration),
    #[error("used up its wall time of {0:?}")]
    Wall(Duration),
    #[error("handed over more than {0} bytes in one call")]
    Bytes(usize),
}

/// Decision at an epoch tick.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plugin) enum Tick {
    /// Go on: no task waits for this thread.
    Continue,
    /// Let other tasks run, then go on.
    Yield,
}

/// CPU time and page faults of the calling thread, and the time.
#[derive(Debug, Clone, Copy)]
struct Reading {
    now: Instant,
    /// Nanoseconds of CPU. Never 0, which means "not read".
    cpu: u64,
    faults: u64,
}

impl Reading {
    fn take() -> Self {
        Self { now: Instant::now(), cpu: nanos(clock::thread_cpu()).max(1), faults: clock::thread_faults() }
    }
}

/// The clocks of one call. Shared between the store, which is asked at each tick, and the future that drives it.
///
/// A call that meets no tick and waits for nothing, which is nearly every call, reads no clock at all.
#[derive(Debug)]
pub(in crate::plugin) struct Meter {
    origin: Instant,
    /// Nanoseconds of CPU charged to the call.
    used: AtomicU64,
    /// Nanoseconds of CPU that its threads took since the first tick, without deductions.
    taken: AtomicU64,
    /// The thread's CPU time when it last entered the guest or was charged; 0 = not read yet.
    mark: AtomicU64,
    /// The thread's page faults at that moment.
    faults: AtomicU64,
    /// Nanoseconds from `origin` to the end of the wall time; 0 = not set yet. The wall time begins with the first tick
    /// or wait.
    deadline: AtomicU64,
    /// The call may be a long one: its input is large, or a tick has met it.
    may_be_long: AtomicBool,
    /// The guest runs on a thread where it holds up no task.
    off_worker: AtomicBool,
}

impl Meter {
    pub(in crate::plugin) fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            origin: Instant::now(),
            used: zero(),
            taken: zero(),
            mark: zero(),
            faults: zero(),
            deadline: zero(),
            may_be_long: AtomicBool::new(false),
            off_worker: AtomicBool::new(false),
        }
    }

    pub(in crate::plugin) fn start(&self) {
        for clock in [&self.used, &self.taken, &self.mark, &self.faults, &self.deadline] {
            clock.store(0, Ordering::Relaxed);
        }
        self.may_be_long.store(false, Ordering::Relaxed);
    }

    /// Sets the size of the input of the call that starts, in bytes.
    pub(in crate::plugin) fn set_input_bytes(&self, input: usize) {
        if input >= LARGE {
            self.may_be_long.store(true, Ordering::Relaxed);
        }
    }

    fn deadline(&self, budget: Budget, now: Instant) -> Instant {
        let set = self.deadline.load(Ordering::Relaxed);
        let since = now.saturating_duration_since(self.origin);
        let nanos = if set == 0 { nanos(since + budget.wall).max(1) } else { set };
        self.deadline.store(nanos, Ordering::Relaxed);
        self.origin + Duration::from_nanos(nanos)
    }

    /// Handles an epoch tick, on the guest's thread.
    pub(in crate::plugin) fn tick(&self, budget: Budget) -> Result<Tick, Overrun> {
        self.tick_at(budget, Reading::take())
    }

    fn tick_at(&self, budget: Budget, reading: Reading) -> Result<Tick, Overrun> {
        let deadline = self.deadline(budget, reading.now);
        self.may_be_long.store(true, Ordering::Relaxed);
        if self.mark.load(Ordering::Relaxed) == 0 {
            // Sampling: a call that a tick meets is charged one tick, however long it really ran. Most of these calls
            // are short, and their thread was taken away for a while. Neither clock ends them here; a later tick would.
            self.used.fetch_add(nanos(TICK), Ordering::Relaxed);
            self.set_mark(reading);
            return Ok(Tick::Yield);
        }
        self.charge(reading);
        if self.used.load(Ordering::Relaxed) > nanos(budget.cpu) {
            return Err(Overrun::Cpu(budget.cpu));
        }
        let progress = nanos(budget.cpu.min(budget.wall));
        if reading.now >= deadline && self.taken.load(Ordering::Relaxed) > progress {
            return Err(Overrun::Wall(budget.wall));
        }
        Ok(if self.off_worker.load(Ordering::Relaxed) { Tick::Continue } else { Tick::Yield })
    }

    fn set_mark(&self, reading: Reading) {
        self.mark.store(reading.cpu, Ordering::Relaxed);
        self.faults.store(reading.faults, Ordering::Relaxed);
    }

    fn charge(&self, reading: Reading) {
        let cpu = reading.cpu.saturating_sub(self.mark.load(Ordering::Relaxed));
        let faults = reading.faults.saturating_sub(self.faults.load(Ordering::Relaxed));
        let guest = cpu.min(nanos(TICK)).saturating_sub(faults.saturating_mul(nanos(PAGE_FAULT)));
        self.taken.fetch_add(cpu, Ordering::Relaxed);
        self.used.fetch_add(guest, Ordering::Relaxed);
        self.set_mark(reading);
    }

    /// Stops charging: while the guest waits, its thread works for others.
    fn pause(&self) {
        if self.mark.load(Ordering::Relaxed) != 0 {
            self.charge(Reading::take());
        }
    }

    fn resume(&self) {
        self.set_mark(Reading::take());
    }

    /// Polls the call off the worker threads if its input is large, else after its first tick. A busy worker does not
    /// poll its sockets, so each slice of a guest that works for long would be a pause for them.
    fn poll<F: Future>(&self, call: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let permit = self.may_be_long.load(Ordering::Relaxed).then(thread_permit).flatten();
        let Some(_permit) = permit else { return call.poll(cx) };
        self.off_worker.store(true, Ordering::Relaxed);
        let polled = block_in_place(|| call.poll(cx));
        self.off_worker.store(false, Ordering::Relaxed);
        polled
    }

    /// Drives `call` until it ends or its wall time is over. A dropped call leaves its store unusable.
    pub(in crate::plugin) async fn drive<T>(
        &self,
        budget: Budget,
        call: impl Future<Output = wasmtime::Result<T>>,
    ) -> wasmtime::Result<T> {
        let mut call = pin!(call);
        let mut wait: Option<Wait> = None;
        poll_fn(|cx| {
            if wait.is_some() {
                self.resume();
            }
            if let Poll::Ready(result) = self.poll(call.as_mut(), cx) {
                return Poll::Ready(result);
            }
            self.pause();
            let wait = wait.get_or_insert_with(|| Wait::new(self.deadline(budget, Instant::now()), budget.wall));
            wait.poll(cx).map(|()| Err(Overrun::Wall(budget.wall).into()))
        })
        .await
    }
}

/// Ends a call that waits. A late timer shows that the node did not run, and neither did the service that the call
/// waits for. The wait then goes on for as long as the timer was late, in total for at most one more wall time.
struct Wait {
    timer: Pin<Box<Sleep>>,
    /// Time by which the wait may still be extended.
    spare: Duration,
}

impl Wait {
    fn new(deadline: Instant, wall: Duration) -> Self {
        Self { timer: Box::pin(tokio::time::sleep_until(deadline)), spare: wall }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            std::task::ready!(self.timer.as_mut().poll(cx));
            let now = Instant::now();
            let late = now.saturating_duration_since(self.timer.deadline());
            let more = if late > LATE { late.min(self.spare) } else { Duration::ZERO };
            if more.is_zero() {
                return Poll::Ready(());
            }
            self.spare -= more;
            self.timer.as_mut().reset(now + more);
        }
    }
}

/// A permit for a guest to run on a thread of its own. Permits are few, because threads are. A guest without one yields
/// at each tick.
fn thread_permit() -> Option<SemaphorePermit<'static>> {
    static PERMITS: Semaphore = Semaphore::const_new(64);
    // A runtime of one thread has no worker that could go on elsewhere.
    let has_workers = Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
    if has_workers { PERMITS.try_acquire().ok() } else { None }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
