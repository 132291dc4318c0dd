//! The clocks of one call: CPU time inside the guest, and wall time from call to answer.
//!
//! Knows no component: it is told when a guest runs. Epoch ticks ([`super::super::ticker`]) are when it looks.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::block_in_place;
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
    /// Go on: nobody waits for this thread.
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
    /// A tick has met the call: it may be one that takes its time.
    is_met: AtomicBool,
    /// The guest runs where it holds up nobody.
    is_apart: AtomicBool,
}

impl Meter {
    pub(in crate::plugin) fn new() -> Self {
        Self {
            origin: Instant::now(),
            used: AtomicU64::new(0),
            mark: AtomicU64::new(0),
            deadline: AtomicU64::new(0),
            is_met: AtomicBool::new(false),
            is_apart: AtomicBool::new(false),
        }
    }

    pub(in crate::plugin) fn start(&self) {
        self.used.store(0, Ordering::Relaxed);
        self.mark.store(0, Ordering::Relaxed);
        self.deadline.store(0, Ordering::Relaxed);
        self.is_met.store(false, Ordering::Relaxed);
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
        self.is_met.store(true, Ordering::Relaxed);
        if self.mark.load(Ordering::Relaxed) == 0 {
            // Sampling: who is met by a tick is charged for it, however long it really ran. Most of those are short
            // calls whose thread was taken away for a while, so neither clock ends them: the next tick would.
            self.used.fetch_add(nanos(TICK), Ordering::Relaxed);
            self.mark.store(thread_cpu(), Ordering::Relaxed);
            return Ok(Tick::Yield);
        }
        self.charge();
        if self.used.load(Ordering::Relaxed) > nanos(budget.cpu) {
            return Err(Overrun::Cpu(budget.cpu));
        }
        if Instant::now() >= deadline {
            return Err(Overrun::Wall(budget.wall));
        }
        Ok(if self.is_apart.load(Ordering::Relaxed) { Tick::Continue } else { Tick::Yield })
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

    /// Polls the call; once a tick has met it, on a thread that is no worker's any more. A worker that is busy does not look at its
    /// sockets, so each slice of a guest that spins would be a pause for them.
    fn poll<F: Future>(&self, call: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let place = self.is_met.load(Ordering::Relaxed).then(place_apart).flatten();
        let Some(_place) = place else { return call.poll(cx) };
        self.is_apart.store(true, Ordering::Relaxed);
        let polled = block_in_place(|| call.poll(cx));
        self.is_apart.store(false, Ordering::Relaxed);
        polled
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
            if let Poll::Ready(result) = self.poll(call.as_mut(), cx) {
                return Poll::Ready(result);
            }
            self.leave();
            let timer = timer.get_or_insert_with(|| Box::pin(tokio::time::sleep_until(self.deadline(budget))));
            timer.as_mut().poll(cx).map(|()| Err(Overrun::Wall(budget.wall).into()))
        })
        .await
    }
}

/// A place among the guests that have a thread of their own. There are few, because threads are; who has none yields at each tick.
fn place_apart() -> Option<SemaphorePermit<'static>> {
    static PLACES: Semaphore = Semaphore::const_new(64);
    // A runtime of one thread has no worker that could go on elsewhere.
    let has_workers = Handle::current().runtime_flavor() == RuntimeFlavor::MultiThread;
    if has_workers { PLACES.try_acquire().ok() } else { None }
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
        assert_eq!(meter.tick(budget), Ok(Tick::Yield));
        let spun = (0..1_000_000_u64).map(std::hint::black_box).sum::<u64>();
        assert!(spun > 0);
        assert_eq!(meter.tick(budget), Err(Overrun::Cpu(budget.cpu)));
        let budget = Budget { cpu: Duration::from_secs(60), wall: Duration::ZERO };
        meter.start();
        assert_eq!(meter.tick(budget), Ok(Tick::Yield), "a starved thread's first tick");
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

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_guest_that_spins_holds_up_no_worker() {
        let minute = Duration::from_secs(60);
        let (meter, budget) = (Meter::new(), Budget { cpu: minute, wall: minute });
        let spins = async move {
            let mut polls = 0;
            let call = poll_fn(|cx| {
                polls += 1;
                if meter.tick(budget)? == Tick::Yield {
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                // It waits as a guest spins, and its thread does nothing else: the other task needs another one.
                let (done, heard) = std::sync::mpsc::channel();
                tokio::spawn(async move { done.send(()) });
                Poll::Ready(Ok((polls, heard.recv_timeout(minute))))
            });
            meter.drive(budget, call).await.unwrap()
        };
        assert_eq!(tokio::spawn(spins).await.unwrap(), (2, Ok(())), "it yields once, and goes on apart");
    }
}
