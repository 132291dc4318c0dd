//! Counts the running tasks of listeners and connections, so that a drain can wait for the last one.
//!
//! A counter instead of a set of handles: with a million connections the handles would cost as much as the connections.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counter of running tasks.
#[derive(Debug, Default)]
pub(super) struct Tasks {
    running: AtomicUsize,
    ended: Notify,
}

impl Tasks {
    pub(super) fn begin(&self) {
        self.running.fetch_add(1, Ordering::Relaxed);
    }

    /// Records the end of a task.
    pub(super) fn end(&self) {
        if self.running.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.ended.notify_waiters();
        }
    }

    pub(super) async fn all_ended(&self) {
        loop {
            // Register before checking, so that an end in between is not missed.
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
    async fn waiting_for_tasks_ends_with_the_last_task() {
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
