//! Polls a future again immediately if it woke itself, without going through the scheduler.
//!
//! hyper's body transfer between the handler and the connection wakes the task from within itself. tokio treats a task
//! that wakes itself as yielding: the task is queued behind all others, and another worker is woken for nothing. That
//! cost two system calls and two context switches per request. Independent of HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Maximum polls in a row; then other tasks get their turn.
const MAX_POLLS: usize = 8;

/// Not being polled: a wake goes to the task.
const IDLE: u8 = 0;
/// Being polled, not woken so far.
const POLLING: u8 = 1;
/// Being polled and woken.
const WOKEN: u8 = 2;

/// Intercepts wakes between a future and the waker of its task.
pub(super) struct Repoll {
    wake_state: Arc<WakeState>,
    waker: Waker,
}

struct WakeState {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Repoll {
    pub(super) fn new() -> Self {
        let wake_state = Arc::new(WakeState { state: AtomicU8::new(IDLE), task: AtomicWaker::new() });
        Self { waker: Waker::from(Arc::clone(&wake_state)), wake_state }
    }

    /// Polls until the future is ready, or pending without having been woken.
    pub(super) fn poll<T>(&self, cx: &mut Context<'_>, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        let WakeState { state, task } = &*self.wake_state;
        task.register(cx.waker());
        for _ in 0..MAX_POLLS {
            state.store(POLLING, Ordering::Release);
            let polled = poll(&mut Context::from_waker(&self.waker));
            let was_not_woken = state.compare_exchange(POLLING, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok();
            if polled.is_ready() || was_not_woken {
                return polled;
            }
        }
        state.store(IDLE, Ordering::Release);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Wake for WakeState {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let seen = self.state.compare_exchange(POLLING, WOKEN, Ordering::AcqRel, Ordering::Acquire);
        if seen == Err(IDLE) {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct WakeCount(AtomicUsize);

    impl Wake for WakeCount {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Number of times that the task was woken.
    fn count_wakes(test: impl FnOnce(&Repoll, &mut Context<'_>)) -> usize {
        let wakes = Arc::new(WakeCount::default());
        test(&Repoll::new(), &mut Context::from_waker(&Arc::clone(&wakes).into()));
        wakes.0.load(Ordering::Relaxed)
    }

    #[test]
    fn self_waking_future_is_polled_again_without_waking_its_task() {
        let wakes = count_wakes(|repoll, cx| {
            let mut left = 3;
            let polled = repoll.poll(cx, |cx| {
                left -= 1;
                cx.waker().wake_by_ref();
                if left == 0 { Poll::Ready(()) } else { Poll::Pending }
            });
            assert_eq!((polled, left), (Poll::Ready(()), 0));
        });
        assert_eq!(wakes, 0);
    }

    #[test]
    fn wake_between_polls_reaches_the_task() {
        let wakes = count_wakes(|repoll, cx| {
            let mut kept = None;
            let polled = repoll.poll(cx, |cx| {
                kept = Some(cx.waker().clone());
                Poll::<()>::Pending
            });
            assert!(polled.is_pending());
            kept.unwrap().wake();
        });
        assert_eq!(wakes, 1);
    }

    #[test]
    fn endless_future_yields_after_the_limit_of_polls() {
        let mut polls = 0;
        let wakes = count_wakes(|repoll, cx| {
            let polled = repoll.poll(cx, |cx| {
                polls += 1;
                cx.waker().wake_by_ref();
                Poll::<()>::Pending
            });
            assert!(polled.is_pending());
        });
        assert_eq!((polls, wakes), (MAX_POLLS, 1));
    }

    #[test]
    fn a_wake_of_another_thread_is_never_lost() {
        for _ in 0..1_000 {
            let wakes = Arc::new(WakeCount::default());
            let repoll = Repoll::new();
            let task = Waker::from(Arc::clone(&wakes));
            let (woken, mut seen) = (AtomicUsize::new(0), false);
            std::thread::scope(|scope| {
                let polled = repoll.poll(&mut Context::from_waker(&task), |cx| {
                    if woken.load(Ordering::Acquire) == 1 {
                        return Poll::Ready(());
                    }
                    let (waker, woken) = (cx.waker().clone(), &woken);
                    scope.spawn(move || {
                        woken.store(1, Ordering::Release);
                        waker.wake();
                    });
                    Poll::Pending
                });
                seen = polled.is_ready();
            });
            assert!(seen || wakes.0.load(Ordering::Relaxed) == 1, "neither the poll nor the task was woken");
        }
    }
}
