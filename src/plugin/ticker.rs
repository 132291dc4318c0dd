//! The engine's clock: an OS thread that advances the epoch, so that a spinning guest cannot stop it.
//!
//! A tokio task would die with the guest that spins on its worker. Ends with the engine, or when dropped.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use wasmtime::EngineWeak;

use crate::telemetry::names;

/// Time between two epochs.
pub(super) const TICK: Duration = Duration::from_millis(1);
/// So many ticks make one sample of the lag.
const SAMPLE: u32 = 1_000;

/// Runs while it lives.
#[derive(Debug)]
pub(super) struct Ticker {
    _stop: SyncSender<()>,
}

impl Ticker {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(engine: EngineWeak) -> std::io::Result<Self> {
        let (stop, stopped) = sync_channel(1);
        std::thread::Builder::new().name("plugin-ticker".into()).spawn(move || run(&engine, &stopped))?;
        Ok(Self { _stop: stop })
    }
}

fn run(engine: &EngineWeak, stopped: &Receiver<()>) {
    let lag = metrics::gauge!(names::PLUGIN_TICKER_LAG);
    let (mut worst, mut ticks) = (Duration::ZERO, 0);
    loop {
        let begun = Instant::now();
        // Waiting for the stop is the sleep; it ends at once when the ticker is dropped.
        if !matches!(stopped.recv_timeout(TICK), Err(RecvTimeoutError::Timeout)) {
            return;
        }
        let Some(engine) = engine.upgrade() else { return };
        engine.increment_epoch();
        worst = worst.max(begun.elapsed().saturating_sub(TICK));
        ticks += 1;
        if ticks == SAMPLE {
            lag.set(worst.as_secs_f64());
            (worst, ticks) = (Duration::ZERO, 0);
        }
    }
}
