//! Process signals, received on their own thread so that a busy or blocked runtime does not delay them.

use std::io;
use std::process::exit;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::sleep;

/// Time from the second SIGTERM or SIGINT to the exit of a process that has not ended by itself.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// Signals received so far.
#[derive(Debug, Clone, Copy, Default)]
struct Told {
    /// SIGHUPs.
    hangups: u64,
    /// SIGTERMs and SIGINTs.
    ends: u64,
    /// Number of the last SIGTERM or SIGINT.
    last: i32,
}

/// The receiving side. Each clone handles every signal.
#[derive(Clone)]
pub(super) struct Signals {
    told: watch::Receiver<Told>,
    /// Number of SIGHUPs handled by this clone.
    obeyed: u64,
}

/// Exit code after a second signal, in the convention of shells: 128 + signal.
pub(super) fn cut_by(signal: i32) -> u8 {
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
        let (tells, told) = watch::channel(Told::default());
        let thread = std::thread::Builder::new().name("signals".to_owned());
        thread.spawn(move || runtime.block_on(relay(streams, &tells)))?;
        Ok(Self { told, obeyed: 0 })
    }

    /// Waits for a SIGHUP that was not handled yet; several count as one.
    pub(super) async fn hangup(&mut self) {
        let obeyed = self.obeyed;
        self.obeyed = self.told(|told| told.hangups > obeyed).await.hangups;
    }

    /// Waits for the first SIGTERM or SIGINT.
    pub(super) async fn end(&self) {
        self.told(|told| told.ends > 0).await;
    }

    /// Waits for the second SIGTERM or SIGINT and returns its number.
    pub(super) async fn end_again(&self) -> i32 {
        self.told(|told| told.ends > 1).await.last
    }

    async fn told(&self, enough: impl Fn(&Told) -> bool) -> Told {
        match self.told.clone().wait_for(enough).await.map(|told| *told) {
            Ok(told) => told,
            // The thread has ended: no more signals arrive.
            Err(_) => std::future::pending().await,
        }
    }
}

async fn relay([mut hangup, mut terminate, mut interrupt]: [Signal; 3], tells: &watch::Sender<Told>) {
    let mut ends = 0;
    while ends < 2 {
        let end = tokio::select! {
            _ = hangup.recv() => None,
            _ = terminate.recv() => Some(SignalKind::terminate()),
            _ = interrupt.recv() => Some(SignalKind::interrupt()),
        };
        ends += u64::from(end.is_some());
        tells.send_modify(|told| match end {
            Some(signal) => (told.ends, told.last) = (ends, signal.as_raw_value()),
            None => told.hangups += 1,
        });
    }
    // The app normally exits by itself within this time.
    sleep(LAST_MOMENT).await;
    exit(cut_by(tells.borrow().last).into());
}
