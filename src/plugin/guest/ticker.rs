//! The engine's clock: an OS thread that advances the epoch, so that a spinning guest cannot stop it.
//!
//! A tokio task would die with the guest that spins on its worker. While no guest runs, the thread dozes, since a
//! thousand wake-ups a second are a per cent of a core. It ends with the engine, or on drop.

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
const DOZE: Duration = Duration::from_millis(100);
/// Ticks without a sign of a guest after which the ticker dozes.
const IDLE_TICKS: u32 = 100;
/// Ticks in one sample of the lag.
const SAMPLE: u32 = 1_000;

/// Owner of the ticker thread, which runs until this is dropped.
#[derive(Debug)]
pub(in crate::plugin) struct Ticker {
    pulse: Arc<Pulse>,
    /// Longest delay of a tick that is no fault.
    bound: Duration,
    thread: Option<JoinHandle<()>>,
}

/// State that guests and the ticker thread share: guests show that they run, and the thread shows that it ticks.
#[derive(Debug)]
struct Pulse {
    beating: AtomicBool,
    dozing: AtomicBool,
    stopped: AtomicBool,
    /// The thread has ended without being stopped.
    dead: AtomicBool,
    started: Instant,
    /// Nanoseconds from `started` to the last tick.
    ticked: AtomicU64,
    /// Delay of the worst tick in the last sample, nanoseconds.
    lag: AtomicU64,
}

impl Pulse {
    fn new() -> Self {
        let flag = || AtomicBool::new(false);
        Self {
            beating: flag(),
            dozing: flag(),
            stopped: flag(),
            dead: flag(),
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
        let rest = if self.dozing.load(Ordering::Relaxed) { DOZE } else { TICK };
        since.saturating_sub(rest).max(Duration::from_nanos(self.lag.load(Ordering::Relaxed)))
    }
}

/// Reports an end of the thread that was not requested.
struct Watchdog<'a>(&'a Pulse);

impl Drop for Watchdog<'_> {
    fn drop(&mut self) {
        if !self.0.stopped.load(Ordering::SeqCst) {
            self.0.dead.store(true, Ordering::SeqCst);
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
pub(in crate::plugin) struct Beat {
    pulse: Arc<Pulse>,
    ticker: Thread,
}

impl Beat {
    /// Called at the start of each call and at each tick that meets one. Costs a load of a shared flag, and more only
    /// for the first call after a tick.
    pub(in crate::plugin) fn beat(&self) {
        if self.pulse.beating.load(Ordering::Relaxed) {
            return;
        }
        self.pulse.beating.store(true, Ordering::SeqCst);
        if self.pulse.dozing.load(Ordering::SeqCst) {
            self.ticker.unpark();
        }
    }

    /// True while there is a ticker. Without it a guest could run forever, so no call may begin.
    pub(in crate::plugin) fn is_alive(&self) -> bool {
        !self.pulse.dead.load(Ordering::Relaxed)
    }
}

impl Ticker {
    /// Starts the thread, which holds `vital` until it is stopped.
    ///
    /// # Errors
    /// The system cannot create a thread.
    pub(in crate::plugin) fn start(engine: EngineWeak, bound: Duration, vital: Vital) -> std::io::Result<Self> {
        Self::spawn(bound, move |pulse| {
            run(&engine, pulse);
            vital.done();
        })
    }

    fn spawn(bound: Duration, work: impl FnOnce(&Pulse) + Send + 'static) -> std::io::Result<Self> {
        let pulse = Arc::new(Pulse::new());
        let shown = Arc::clone(&pulse);
        let watched = move || {
            let watchdog = Watchdog(&shown);
            work(watchdog.0);
        };
        let thread = std::thread::Builder::new().name("plugin-ticker".into()).spawn(watched)?;
        Ok(Self { pulse, bound, thread: Some(thread) })
    }

    /// Why the time limits of plugins do not hold, if so.
    pub(in crate::plugin) fn fault(&self, now: Instant) -> Option<String> {
        let bound = self.bound;
        if self.pulse.dead.load(Ordering::SeqCst) {
            return Some("the plugin ticker has ended: plugins are not called".to_owned());
        }
        let lag = self.pulse.lag(now);
        let late =
            |lag: Duration| format!("the plugin ticker is {lag:.0?} late, more than plugins.ticker_lag ({bound:?})");
        (lag > bound).then(|| late(lag))
    }

    pub(in crate::plugin) fn beat(&self) -> Beat {
        let thread = self.thread.as_ref().expect("the thread is joined only when the ticker is dropped");
        Beat { pulse: Arc::clone(&self.pulse), ticker: thread.thread().clone() }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.pulse.stopped.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // A panic of the thread needs no action: there is nothing left to tick for.
            let _ = thread.join();
        }
    }
}

fn run(engine: &EngineWeak, pulse: &Pulse) {
    let lag = metrics::gauge!(names::PLUGIN_TICKER_LAG);
    let (mut worst, mut ticks, mut idle) = (Duration::ZERO, 0, 0);
    while !pulse.stopped.load(Ordering::SeqCst) {
        let begun = Instant::now();
        if idle < IDLE_TICKS {
            park_timeout(TICK);
            worst = worst.max(begun.elapsed().saturating_sub(TICK));
            ticks += 1;
        } else {
            doze(pulse);
            ticks = SAMPLE;
        }
        let Some(engine) = engine.upgrade() else {
            pulse.stopped.store(true, Ordering::SeqCst);
            return;
        };
        engine.increment_epoch();
        pulse.tick();
        idle = if pulse.beating.swap(false, Ordering::SeqCst) { 0 } else { idle + 1 };
        if ticks == SAMPLE {
            lag.set(worst.as_secs_f64());
            pulse.lag.store(nanos(worst), Ordering::Relaxed);
            (worst, ticks) = (Duration::ZERO, 0);
        }
    }
}

/// Sleeps until a guest runs, or for [`DOZE`]. [`Beat::beat`] accesses the two flags in the opposite order, so that one
/// of the two sees the other.
fn doze(pulse: &Pulse) {
    pulse.dozing.store(true, Ordering::SeqCst);
    if !pulse.beating.load(Ordering::SeqCst) && !pulse.stopped.load(Ordering::SeqCst) {
        park_timeout(DOZE);
    }
    pulse.dozing.store(false, Ordering::SeqCst);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vital::Vitals;

    #[test]
    fn a_beat_wakes_the_ticker_and_a_drop_ends_it() {
        let engine = wasmtime::Engine::new(wasmtime::Config::new().epoch_interruption(true)).unwrap();
        let ticker = Ticker::start(engine.weak(), TICK, Vitals::default().watch("plugin ticker")).unwrap();
        let (beat, pulse) = (ticker.beat(), Arc::clone(&ticker.pulse));
        while !pulse.dozing.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        beat.beat();
        while pulse.beating.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        assert!(beat.is_alive());
        drop(ticker);
        beat.beat();
        assert!(beat.is_alive(), "it was told to end");
        assert_eq!(Arc::strong_count(&pulse), 2, "the thread has let go of it");
    }

    #[test]
    fn a_late_ticker_is_a_fault_until_it_is_on_time_again() {
        let ticker = Ticker::spawn(Duration::from_secs(1), |pulse| {
            while !pulse.stopped.load(Ordering::SeqCst) {
                std::thread::park();
            }
        })
        .unwrap();
        let (pulse, bound) = (&ticker.pulse, ticker.bound);
        let later = |by: Duration| pulse.started + by;
        assert_eq!(ticker.fault(later(bound)), None);
        let fault = ticker.fault(later(bound * 3)).unwrap();
        assert!(fault.contains("3s late, more than plugins.ticker_lag (1s)"), "{fault}");
        pulse.ticked.store(nanos(bound * 3), Ordering::Relaxed);
        assert_eq!(ticker.fault(later(bound * 3)), None);
        pulse.lag.store(nanos(bound * 2), Ordering::Relaxed);
        assert!(ticker.fault(later(bound * 3)).is_some(), "a tick of the last sample came late");
    }

    #[test]
    fn the_end_of_the_thread_is_noticed() {
        // The panic is intended and is no failure of this test.
        let mut ticker = Ticker::spawn(TICK, |_| std::panic::resume_unwind(Box::new("told to end"))).unwrap();
        let beat = ticker.beat();
        assert!(ticker.thread.take().unwrap().join().is_err());
        assert!(!beat.is_alive());
        assert!(ticker.fault(Instant::now()).unwrap().contains("has ended"));
    }
}
