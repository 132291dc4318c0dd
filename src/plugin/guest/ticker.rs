//! The engine's clock: an OS thread that advances the epoch, so that a spinning guest cannot stop it.
//!
//! A tokio task would stop with the guest that spins on its worker. While no guest runs, the thread sleeps longer,
//! since a thousand wake-ups a second are a per cent of a core. It ends with the engine, or on drop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, Thread, park_timeout};
use std::time::{Duration, Instant};

use wasmtime::EngineWeak;

use crate::telemetry::names;
use crate::vital::Vital;

/// Time between two epochs while guests run.
pub(in crate::plugin) const TICK: Duration = Duration::from_millis(1);
/// Time between two epochs while no guest runs. A guest's thread may be stopped for so long that no guest seems to run.
/// The guest then overruns its budget by at most this time.
const IDLE_SLEEP: Duration = Duration::from_millis(100);
/// Ticks without a running guest after which the ticker sleeps longer between ticks.
const IDLE_TICKS: u32 = 100;
/// Ticks in one sample of the lag.
const SAMPLE: u32 = 1_000;

/// Owner of the ticker thread, which runs until this is dropped.
#[derive(Debug)]
pub(in crate::plugin) struct Ticker {
    state: Arc<TickerState>,
    /// Longest delay of a tick that is no fault.
    bound: Duration,
    thread: Option<JoinHandle<()>>,
}

/// State that guests and the ticker thread share: guests show that they run, and the thread shows that it ticks.
#[derive(Debug)]
struct TickerState {
    guest_ran: AtomicBool,
    idle_sleep: AtomicBool,
    stopped: AtomicBool,
    /// The thread has ended without being stopped.
    ended: AtomicBool,
    started: Instant,
    /// Nanoseconds from `started` to the last tick.
    ticked: AtomicU64,
    /// Delay of the worst tick in the last sample, nanoseconds.
    lag: AtomicU64,
}

impl TickerState {
    fn new() -> Self {
        let flag = || AtomicBool::new(false);
        Self {
            guest_ran: flag(),
            idle_sleep: flag(),
            stopped: flag(),
            ended: flag(),
            started: Instant::now(),
            ticked: AtomicU64::new(0),
            lag: AtomicU64::new(0),
        }
    }

    fn tick(&self) {
        self.ticked.store(nanos(self.started.elapsed()), Ordering::Relaxed);
    }

    /// Delay of the ticker: by its last sample, or by the time since its last tick if that is longer.
    fn lag(&self, now: Instant) -> Duration {
        let since =
            now.saturating_duration_since(self.started + Duration::from_nanos(self.ticked.load(Ordering::Relaxed)));
        let rest = if self.idle_sleep.load(Ordering::Relaxed) { IDLE_SLEEP } else { TICK };
        since.saturating_sub(rest).max(Duration::from_nanos(self.lag.load(Ordering::Relaxed)))
    }
}

/// Reports an end of the thread that was not requested.
struct EndReport<'a>(&'a TickerState);

impl Drop for EndReport<'_> {
    fn drop(&mut self) {
        if !self.0.stopped.load(Ordering::SeqCst) {
            self.0.ended.store(true, Ordering::SeqCst);
            tracing::error!(
                "plugin ticker ended: plugins are not called, because their calls would have no time limit"
            );
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Shows the ticker that a guest runs.
#[derive(Debug, Clone)]
pub(in crate::plugin) struct TickerHandle {
    state: Arc<TickerState>,
    thread: Thread,
}

impl TickerHandle {
    /// Called at the start of each call and at each tick that meets one. Costs a load of a shared flag, and more only
    /// for the first call after a tick.
    pub(in crate::plugin) fn guest_runs(&self) {
        if self.state.guest_ran.load(Ordering::Relaxed) {
            return;
        }
        self.state.guest_ran.store(true, Ordering::SeqCst);
        if self.state.idle_sleep.load(Ordering::SeqCst) {
            self.thread.unpark();
        }
    }

    /// True while there is a ticker. Without it a guest could run forever, so no call may begin.
    pub(in crate::plugin) fn is_alive(&self) -> bool {
        !self.state.ended.load(Ordering::Relaxed)
    }
}

impl Ticker {
    /// Starts the thread, which holds `vital` until it is stopped.
    ///
    /// # Errors
    /// The system cannot create a thread.
    pub(in crate::plugin) fn start(engine: EngineWeak, bound: Duration, vital: Vital) -> std::io::Result<Self> {
        Self::spawn(bound, move |state| {
            run(&engine, state);
            vital.done();
        })
    }

    fn spawn(bound: Duration, work: impl FnOnce(&TickerState) + Send + 'static) -> std::io::Result<Self> {
        let state = Arc::new(TickerState::new());
        let shared = Arc::clone(&state);
        let run = move || {
            let report = EndReport(&shared);
            work(report.0);
        };
        let thread = std::thread::Builder::new().name("plugin-ticker".into()).spawn(run)?;
        Ok(Self { state, bound, thread: Some(thread) })
    }

    /// Why the time limits of plugins do not hold, if so.
    pub(in crate::plugin) fn fault(&self, now: Instant) -> Option<String> {
        let bound = self.bound;
        if self.state.ended.load(Ordering::SeqCst) {
            return Some("the plugin ticker has ended: plugins are not called".to_owned());
        }
        let lag = self.state.lag(now);
        let late =
            |lag: Duration| format!("the plugin ticker is {lag:.0?} late, more than plugins.ticker_lag ({bound:?})");
        (lag > bound).then(|| late(lag))
    }

    /// A handle for the instances.
    pub(in crate::plugin) fn handle(&self) -> TickerHandle {
        let thread = self.thread.as_ref().expect("the thread is joined only when the ticker is dropped");
        TickerHandle { state: Arc::clone(&self.state), thread: thread.thread().clone() }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic of the thread needs no action: there is nothing left to tick for.
            let _ = thread.join();
        }
    }
}

fn run(engine: &EngineWeak, state: &TickerState) {
    let lag = metrics::gauge!(names::PLUGIN_TICKER_LAG);
    let (mut worst, mut ticks, mut idle) = (Duration::ZERO, 0, 0);
    while !state.stopped.load(Ordering::SeqCst) {
        let begun = Instant::now();
        if idle < IDLE_TICKS {
            park_timeout(TICK);
            worst = worst.max(begun.elapsed().saturating_sub(TICK));
            ticks += 1;
        } else {
            sleep_until_guest_runs(state);
            ticks = SAMPLE;
        }
        let Some(engine) = engine.upgrade() else {
            state.stopped.store(true, Ordering::SeqCst);
            return;
        };
        engine.increment_epoch();
        state.tick();
        idle = if state.guest_ran.swap(false, Ordering::SeqCst) { 0 } else { idle + 1 };
        if ticks == SAMPLE {
            lag.set(worst.as_secs_f64());
            state.lag.store(nanos(worst), Ordering::Relaxed);
            (worst, ticks) = (Duration::ZERO, 0);
        }
    }
}

/// Sleeps until a guest runs, or for [`IDLE_SLEEP`]. [`TickerHandle::guest_runs`] accesses the two flags in the
/// opposite order, so that one of the two sees the other.
fn sleep_until_guest_runs(state: &TickerState) {
    state.idle_sleep.store(true, Ordering::SeqCst);
    if !state.guest_ran.load(Ordering::SeqCst) && !state.stopped.load(Ordering::SeqCst) {
        park_timeout(IDLE_SLEEP);
    }
    state.idle_sleep.store(false, Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vital::Vitals;

    #[test]
    fn a_running_guest_wakes_the_ticker_and_a_drop_ends_it() {
        let engine = wasmtime::Engine::new(wasmtime::Config::new().epoch_interruption(true)).unwrap();
        let ticker = Ticker::start(engine.weak(), TICK, Vitals::default().watch("plugin ticker")).unwrap();
        let (handle, state) = (ticker.handle(), Arc::clone(&ticker.state));
        while !state.idle_sleep.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        handle.guest_runs();
        while state.guest_ran.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        assert!(handle.is_alive());
        drop(ticker);
        handle.guest_runs();
        assert!(handle.is_alive(), "it was stopped");
        assert_eq!(Arc::strong_count(&state), 2, "the thread has dropped it");
    }

    #[test]
    fn a_late_ticker_is_a_fault_until_it_is_on_time_again() {
        let ticker = Ticker::spawn(Duration::from_secs(1), |state| {
            while !state.stopped.load(Ordering::SeqCst) {
                std::thread::park();
            }
        })
        .unwrap();
        let (state, bound) = (&ticker.state, ticker.bound);
        let later = |by: Duration| state.started + by;
        assert_eq!(ticker.fault(later(bound)), None);
        let fault = ticker.fault(later(bound * 3)).unwrap();
        assert!(fault.contains("3s late, more than plugins.ticker_lag (1s)"), "{fault}");
        state.ticked.store(nanos(bound * 3), Ordering::Relaxed);
        assert_eq!(ticker.fault(later(bound * 3)), None);
        state.lag.store(nanos(bound * 2), Ordering::Relaxed);
        assert!(ticker.fault(later(bound * 3)).is_some(), "a tick of the last sample came late");
    }

    #[test]
    fn the_end_of_the_thread_is_noticed() {
        // The panic is intended and is no failure of this test.
        let mut ticker = Ticker::spawn(TICK, |_| std::panic::resume_unwind(Box::new("told to end"))).unwrap();
        let handle = ticker.handle();
        assert!(ticker.thread.take().unwrap().join().is_err());
        assert!(!handle.is_alive());
        assert!(ticker.fault(Instant::now()).unwrap().contains("has ended"));
    }
}
