//! The engine's clock: an OS thread that advances the epoch, so that a spinning guest cannot stop it.
//!
//! A tokio task would die with the guest that spins on its worker. While no guest runs it dozes, since a thousand
//! wake-ups a second are a per cent of a core. Ends with the engine, or when dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, Thread, park_timeout};
use std::time::{Duration, Instant};

use wasmtime::EngineWeak;

use crate::telemetry::names;
use crate::vital::Vital;

/// Time between two epochs while guests run.
pub(super) const TICK: Duration = Duration::from_millis(1);
/// Time between two epochs while none does. A guest whose thread was away for so long that it seems to be gone
/// overruns its budget by no more than this.
const DOZE: Duration = Duration::from_millis(100);
/// The ticker dozes after so many ticks without a sign of a guest.
const IDLE_TICKS: u32 = 100;
/// So many ticks make one sample of the lag.
const SAMPLE: u32 = 1_000;

/// Runs while it lives.
#[derive(Debug)]
pub(super) struct Ticker {
    pulse: Arc<Pulse>,
    /// So late a tick may come.
    bound: Duration,
    thread: Option<JoinHandle<()>>,
}

/// By which guests show that they run, and the thread that it does.
#[derive(Debug)]
struct Pulse {
    beating: AtomicBool,
    dozing: AtomicBool,
    stopped: AtomicBool,
    /// The thread has ended though nobody stopped it.
    dead: AtomicBool,
    started: Instant,
    /// Nanoseconds from `started` to the last tick.
    ticked: AtomicU64,
    /// Nanoseconds that the worst tick of the last sample came late.
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

    /// How late the ticker is: by its last sample, or by now if it has not come since.
    fn lag(&self, now: Instant) -> Duration {
        let since =
            now.saturating_duration_since(self.started + Duration::from_nanos(self.ticked.load(Ordering::Relaxed)));
        let rest = if self.dozing.load(Ordering::Relaxed) { DOZE } else { TICK };
        since.saturating_sub(rest).max(Duration::from_nanos(self.lag.load(Ordering::Relaxed)))
    }
}

/// Says so when the thread ends by anything but a word.
struct Watchdog<'a>(&'a Pulse);

impl Drop for Watchdog<'_> {
    fn drop(&mut self) {
        if !self.0.stopped.load(Ordering::SeqCst) {
            self.0.dead.store(true, Ordering::SeqCst);
            tracing::error!("the plugin ticker has ended: no call of a plugin would be bounded, so none is made");
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Shows the ticker that a guest runs.
#[derive(Debug, Clone)]
pub(super) struct Beat {
    pulse: Arc<Pulse>,
    ticker: Thread,
}

impl Beat {
    /// At the begin of each call and at each tick that meets one. Costs a load of a shared flag, and more only for the
    /// first call after a tick.
    pub(super) fn beat(&self) {
        if self.pulse.beating.load(Ordering::Relaxed) {
            return;
        }
        self.pulse.beating.store(true, Ordering::SeqCst);
        if self.pulse.dozing.load(Ordering::SeqCst) {
            self.ticker.unpark();
        }
    }

    /// Whether there is a ticker. Without it a guest could run for ever, so none may begin.
    pub(super) fn is_alive(&self) -> bool {
        !self.pulse.dead.load(Ordering::Relaxed)
    }
}

impl Ticker {
    /// Starts the thread, which holds the guard until it is told to end.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(engine: EngineWeak, bound: Duration, vital: Vital) -> std::io::Result<Self> {
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

    /// Why plugins' time is not bounded as it should be.
    pub(super) fn fault(&self, now: Instant) -> Option<String> {
        let bound = self.bound;
        if self.pulse.dead.load(Ordering::SeqCst) {
            return Some("the plugin ticker has ended: no plugin is called".to_owned());
        }
        let lag = self.pulse.lag(now);
        let late =
            |lag: Duration| format!("the plugin ticker is {lag:.0?} late, more than plugins.ticker_lag ({bound:?})");
        (lag > bound).then(|| late(lag))
    }

    pub(super) fn beat(&self) -> Beat {
        let thread = self.thread.as_ref().expect("the thread is joined only when the ticker is dropped");
        Beat { pulse: Arc::clone(&self.pulse), ticker: thread.thread().clone() }
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.pulse.stopped.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            // It panics nowhere, and if it did there would be nothing left to tick for.
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

/// Sleeps until a guest runs, or for a while. The order of the two flags is the other way round in [`Beat::beat`], so
/// that one of the two sees the other.
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
        // A thread that panics prints so, which is no failure of this test.
        let mut ticker = Ticker::spawn(TICK, |_| std::panic::resume_unwind(Box::new("told to end"))).unwrap();
        let beat = ticker.beat();
        assert!(ticker.thread.take().unwrap().join().is_err());
        assert!(!beat.is_alive());
        assert!(ticker.fault(Instant::now()).unwrap().contains("has ended"));
    }
}
