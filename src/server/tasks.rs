//! How many tasks of the listeners and connections run, so that a drain can wait for the last one.
//!
//! A counter and not a set of handles: with a million connections a handle each would cost what the connections do.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts what runs.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    running: AtomicUsize,
    ended: Notify,
}

impl Tasks {
    pub(super) fn begin(&self) {
        self.running.fetch_add(1, Ordering::Relaxed);
    }

    /// One that began has ended.
    pub(super) fn end(&self) {
        if self.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.ended.notify_waiters();
        }
    }

    pub(super) async fn all_ended(&self) {
        loop {
            // Registered before the look, so that an end between the two is not missed.
            let mut ended = std::pin::pin!(self.ended.notified());
            ended.as_mut().enable();
            if self.running.load(Ordering::Acquire) == 0 {
                return;
            }
            ended.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn the_last_end_is_heard() {
        let tasks = Arc::new(Tasks::default());
        tasks.all_ended().await;
        tasks.begin();
        tasks.begin();
        let waiter = tokio::spawn({
            let tasks = Arc::clone(&tasks);
            async move { tasks.all_ended().await }
        });
        tokio::task::yield_now().await;
        tasks.end();
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        tasks.end();
        waiter.await.unwrap();
    }
}
