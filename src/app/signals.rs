//! Process signals, received on their own thread so that a busy or blocked runtime does not delay them.

use std::io;
use std::process::exit;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::sleep;

/// Time from the second SIGTERM or SIGINT to the exit of a process that has not ended by itself.
const EXIT_TIMEOUT: Duration = Duration::from_secs(1);

/// Signals received so far.
#[derive(Debug, Clone, Copy, Default)]
struct SignalCounts {
    /// SIGHUPs.
    hangups: u64,
    /// SIGTERMs and SIGINTs.
    stops: u64,
    /// Number of the last SIGTERM or SIGINT.
    last_stop: i32,
}

/// The receiving side. Each clone handles every signal.
#[derive(Clone)]
pub(super) struct Signals {
    counts: watch::Receiver<SignalCounts>,
    /// Number of SIGHUPs handled by this clone.
    handled_hangups: u64,
}

/// Exit code after a second signal, in the convention of shells: 128 + signal.
pub(super) fn exit_code_of(signal: i32) -> u8 {
    128 + u8::try_from(signal).unwrap_or(0)
}

impl Signals {
    /// Replaces the default actions of the signals and starts the thread.
    ///
    /// # Errors
    /// The signal handlers or the thread cannot be created.
    pub(super) fn listen() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let streams = {
            let _entered = runtime.enter();
            [SignalKind::hangup(), SignalKind::terminate(), SignalKind::interrupt()].map(signal)
        };
        let [hangup, terminate, interrupt] = streams;
        let streams = [hangup?, terminate?, interrupt?];
        let (sender, counts) = watch::channel(SignalCounts::default());
        let thread = std::thread::Builder::new().name("signals".to_owned());
        thread.spawn(move || runtime.block_on(relay(streams, &sender)))?;
        Ok(Self { counts, handled_hangups: 0 })
    }

    /// Waits for a SIGHUP that was not handled yet; several count as one.
    pub(super) async fn hangup(&mut self) {
        let handled_hangups = self.handled_hangups;
        self.handled_hangups = self.wait_for(|counts| counts.hangups > handled_hangups).await.hangups;
    }

    /// Waits for the first SIGTERM or SIGINT.
    pub(super) async fn stop(&self) {
        self.wait_for(|counts| counts.stops > 0).await;
    }

    /// Waits for the second SIGTERM or SIGINT and returns its number.
    pub(super) async fn second_stop(&self) -> i32 {
        self.wait_for(|counts| counts.stops > 1).await.last_stop
    }

    async fn wait_for(&self, enough: impl Fn(&SignalCounts) -> bool) -> SignalCounts {
        match self.counts.clone().wait_for(enough).await.map(|counts| *counts) {
            Ok(counts) => counts,
            // The thread has ended: no more signals arrive.
            Err(_) => std::future::pending().await,
        }
    }
}

async fn relay([mut hangup, mut terminate, mut interrupt]: [Signal; 3], sender: &watch::Sender<SignalCounts>) {
    let mut stops = 0;
    while stops < 2 {
        let end = tokio::select! {
            _ = hangup.recv() => None,
            _ = terminate.recv() => Some(SignalKind::terminate()),
            _ = interrupt.recv() => Some(SignalKind::interrupt()),
        };
        stops += u64::from(end.is_some());
        sender.send_modify(|counts| match end {
            Some(signal) => (counts.stops, counts.last_stop) = (stops, signal.as_raw_value()),
            None => counts.hangups += 1,
        });
    }
    // The app normally exits by itself within this time.
    sleep(EXIT_TIMEOUT).await;
    exit(exit_code_of(sender.borrow().last_stop).into());
}
