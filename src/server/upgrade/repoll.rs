//! Polls a future again at once when it woke itself meanwhile, and not by way of the scheduler.
//!
//! hyper hands a request's body to the handler, and the wish for it back, by wakes within one task. tokio takes a task that
//! wakes itself for one that yields: it goes behind all others, and another worker is called to help, finds nothing and
//! sleeps again. That was two system calls and two changes of thread a request. Knows no HTTP.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Polls in a row; then others have their turn.
const MOST: usize = 8;

/// Nobody polls: a wake is the task's.
const IDLE: u8 = 0;
/// It is being polled, and nothing woke it.
const POLLING: u8 = 1;
/// It is being polled, and something woke it.
const WOKEN: u8 = 2;

/// Stands between a future and the waker of its task.
pub(super) struct Repoll {
    bell: Arc<Bell>,
    waker: Waker,
}

struct Bell {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Repoll {
    pub(super) fn new() -> Self {
        let bell = Arc::new(Bell { state: AtomicU8::new(IDLE), task: AtomicWaker::new() });
        Self { waker: Waker::from(Arc::clone(&bell)), bell }
    }

    /// Polls until it is ready, or pending and not woken since.
    pub(super) fn poll<T>(&self, cx: &mut Context<'_>, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> Poll<T> {
        let Bell { state, task } = &*self.bell;
        task.register(cx.waker());
        for _ in 0..MOST {
            state.store(POLLING, Ordering::Release);
            let polled = poll(&mut Context::from_waker(&self.waker));
            let slept = state.compare_exchange(POLLING, IDLE, Ordering::AcqRel, Ordering::Acquire).is_ok();
            if polled.is_ready() || slept {
                return polled;
            }
        }
        state.store(IDLE, Ordering::Release);
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl Wake for Bell {
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
    struct Rings(AtomicUsize);

    impl Wake for Rings {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How often the task was woken.
    fn rings(test: impl FnOnce(&Repoll, &mut Context<'_>)) -> usize {
        let rings = Arc::new(Rings::default());
        test(&Repoll::new(), &mut Context::from_waker(&Arc::clone(&rings).into()));
        rings.0.load(Ordering::Relaxed)
    }

    #[test]
    fn a_future_that_wakes_itself_is_polled_again_and_its_task_hears_nothing() {
        let heard = rings(|repoll, cx| {
            let mut left = 3;
            let polled = repoll.poll(cx, |cx| {
                left -= 1;
                cx.waker().wake_by_ref();
                if left == 0 { Poll::Ready(()) } else { Poll::Pending }
            });
            assert_eq!((polled, left), (Poll::Ready(()), 0));
        });
        assert_eq!(heard, 0);
    }

    #[test]
    fn a_wake_between_polls_is_the_tasks() {
        let heard = rings(|repoll, cx| {
            let mut kept = None;
            let polled = repoll.poll(cx, |cx| {
                kept = Some(cx.waker().clone());
                Poll::<()>::Pending
            });
            assert!(polled.is_pending());
            kept.unwrap().wake();
        });
        assert_eq!(heard, 1);
    }

    #[test]
    fn a_future_that_never_stops_lets_others_have_their_turn() {
        let mut polls = 0;
        let heard = rings(|repoll, cx| {
            let polled = repoll.poll(cx, |cx| {
                polls += 1;
                cx.waker().wake_by_ref();
                Poll::<()>::Pending
            });
            assert!(polled.is_pending());
        });
        assert_eq!((polls, heard), (MOST, 1));
    }

    #[test]
    fn a_wake_of_another_thread_is_never_lost() {
        for _ in 0..1_000 {
            let heard = Arc::new(Rings::default());
            let repoll = Repoll::new();
            let task = Waker::from(Arc::clone(&heard));
            let (rung, mut seen) = (AtomicUsize::new(0), false);
            std::thread::scope(|scope| {
                let polled = repoll.poll(&mut Context::from_waker(&task), |cx| {
                    if rung.load(Ordering::Acquire) == 1 {
                        return Poll::Ready(());
                    }
                    let (waker, rung) = (cx.waker().clone(), &rung);
                    scope.spawn(move || {
                        rung.store(1, Ordering::Release);
                        waker.wake();
                    });
                    Poll::Pending
                });
                seen = polled.is_ready();
            });
            assert!(seen || heard.0.load(Ordering::Relaxed) == 1, "neither the poll nor the task heard of it");
        }
    }
}
