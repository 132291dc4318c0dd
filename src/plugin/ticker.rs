//! The engine's clock: an OS thread that advances the epoch, so that a spinning guest cannot stop it.
//!
//! A tokio task would die with the guest that spins on its worker. While no guest runs it dozes, since a thousand
//! wake-ups a second are a per cent of a core. Ends with the engine, or when dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{JoinHandle, Thread, park_timeout};
use std::time::{Duration, Instant};

use wasmtime::EngineWeak;

use crate::telemetry::names;

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
    thread: Option<JoinHandle<()>>,
}

/// By which guests show that they run.
#[derive(Debug, Default)]
struct Pulse {
    beating: AtomicBool,
    dozing: AtomicBool,
    stopped: AtomicBool,
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
}

impl Ticker {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(engine: EngineWeak) -> std::io::Result<Self> {
        let pulse = Arc::<Pulse>::default();
        let shown = Arc::clone(&pulse);
        let thread = std::thread::Builder::new().name("plugin-ticker".into()).spawn(move || run(&engine, &shown))?;
        Ok(Self { pulse, thread: Some(thread) })
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
        let Some(engine) = engine.upgrade() else { return };
        engine.increment_epoch();
        idle = if pulse.beating.swap(false, Ordering::SeqCst) { 0 } else { idle + 1 };
        if ticks == SAMPLE {
            lag.set(worst.as_secs_f64());
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

    #[test]
    fn a_beat_wakes_the_ticker_and_a_drop_ends_it() {
        let engine = wasmtime::Engine::new(wasmtime::Config::new().epoch_interruption(true)).unwrap();
        let ticker = Ticker::start(engine.weak()).unwrap();
        let (beat, pulse) = (ticker.beat(), Arc::clone(&ticker.pulse));
        while !pulse.dozing.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        beat.beat();
        while pulse.beating.load(Ordering::SeqCst) {
            std::thread::yield_now();
        }
        drop(ticker);
        beat.beat();
        assert_eq!(Arc::strong_count(&pulse), 2, "the thread has let go of it");
    }
}
