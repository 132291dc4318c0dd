//! The clocks of one call: CPU time inside the guest, and wall time from call to answer.
//!
//! Knows no component: it is told when a guest runs. Epoch ticks ([`super::super::ticker`]) are when it looks.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::time::{Instant, Sleep};

use super::Budget;
use crate::clock;
use crate::plugin::ticker::TICK;

/// Which budget a call used up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::plugin) enum Overrun {
    #[error("used up its CPU time of {0:?}")]
    Cpu(Duration),
    #[error("used up its wall time of {0:?}")]
    Wall(Duration),
    #[error("handed over more than {0} bytes in one call")]
    Bytes(usize),
}

/// What an epoch tick decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::plugin) enum Tick {
    /// Go on: nothing is known yet of where the time went.
    Continue,
    /// Let others run, then go on.
    Yield,
}

/// The clocks of one call. Shared between the store, which is asked at each tick, and the future that drives it.
///
/// A call that no tick meets and that waits for nothing, which is nearly every call, looks at no clock at all.
#[derive(Debug)]
pub(in crate::plugin) struct Meter {
    origin: Instant,
    /// Nanoseconds of CPU charged to the call.
    used: AtomicU64,
    /// The thread's CPU time when it last entered the guest or was charged; 0 = nobody looked yet.
    mark: AtomicU64,
    /// Nanoseconds from `origin` to the end of the wall time; 0 = not set yet. It begins with the first tick or wait.
    deadline: AtomicU64,
}

impl Meter {
    pub(in crate::plugin) fn new() -> Self {
        Self { origin: Instant::now(), used: AtomicU64::new(0), mark: AtomicU64::new(0), deadline: AtomicU64::new(0) }
    }

    pub(in crate::plugin) fn start(&self) {
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
    pub(in crate::plugin) fn tick(&self, budget: Budget) -> Result<Tick, Overrun> {
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
    pub(in crate::plugin) async fn drive<T>(
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

/// Never 0, which means "nobody looked".
fn thread_cpu() -> u64 {
    nanos(clock::thread_cpu()).max(1)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
