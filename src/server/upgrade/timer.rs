//! Timer for hyper's head timeout: short for the first head, long between requests.
//!
//! hyper has one timeout for a head in progress and for an idle keep-alive connection. A new client must send at once;
//! a back end that has pushed before may keep its connection idle. The pipe limits later heads.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use hyper_util::rt::TokioTimer;

/// tokio's timer for one connection.
#[derive(Debug, Clone)]
pub(super) struct HeadTimer {
    head: Duration,
    keep_alive: Duration,
    has_request: Arc<AtomicBool>,
}

impl HeadTimer {
    /// `head` is hyper's timeout, `keep_alive` the one between requests.
    pub(super) fn new(head: Duration, keep_alive: Duration) -> Self {
        Self { head, keep_alive, has_request: Arc::default() }
    }

    /// Records that the connection made a request.
    pub(super) fn request_received(&self) {
        self.has_request.store(true, Ordering::Relaxed);
    }

    fn deadline(&self, wanted: Instant) -> Instant {
        if !self.has_request.load(Ordering::Relaxed) {
            return wanted;
        }
        (wanted + self.keep_alive).checked_sub(self.head).unwrap_or(wanted)
    }
}

impl Timer for HeadTimer {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: Instant) -> Pin<Box<dyn Sleep>> {
        TokioTimer::new().sleep_until(self.deadline(deadline))
    }

    fn now(&self) -> Instant {
        TokioTimer::new().now()
    }

    fn reset(&self, sleep: &mut Pin<Box<dyn Sleep>>, new_deadline: Instant) {
        TokioTimer::new().reset(sleep, self.deadline(new_deadline));
    }
}
