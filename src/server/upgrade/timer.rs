//! The clock behind hyper's time-out for heads: short for the first, patient between requests.
//!
//! hyper has one time-out for both a head under way and an idle keep-alive connection. A client must speak at once; a
//! back end that has pushed before may think for a while and keep its connection.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper::rt::{Sleep, Timer};
use hyper_util::rt::TokioTimer;

/// How much longer an idle connection may live that has made a request.
const IDLE: Duration = Duration::from_secs(70);

/// tokio's timer for one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct HeadTimer {
    is_known: Arc<AtomicBool>,
}

impl HeadTimer {
    /// The connection made a request.
    pub(super) fn saw_request(&self) {
        self.is_known.store(true, Ordering::Relaxed);
    }

    fn deadline(&self, wanted: Instant) -> Instant {
        if self.is_known.load(Ordering::Relaxed) { wanted + IDLE } else { wanted }
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
