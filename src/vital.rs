//! Tasks and threads that a node cannot run without, and the report of the first one that ends.
//!
//! Each of them holds a [`Vital`] while it runs. A guard that drops before [`Vitals::release`] names a task that returned
//! or panicked. The app waits for that name, turns readiness red, drains and exits.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::watch;

/// The register of a node's vital tasks: a cheap handle.
#[derive(Debug, Clone, Default)]
pub struct Vitals(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    running: Mutex<Vec<Arc<str>>>,
    /// The first task that ended.
    failure: watch::Sender<Option<Failure>>,
    released: AtomicBool,
}

/// Held by one task or thread for as long as it runs.
#[derive(Debug)]
pub struct Vital {
    task: Arc<str>,
    shared: Arc<Shared>,
    is_done: bool,
}

/// The unexpected end of a vital task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The name by which the task was registered.
    pub task: Arc<str>,
    /// True for a panic, false for a return.
    pub panicked: bool,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { task, panicked } = self;
        write!(f, "task {task:?} {}", if *panicked { "panicked" } else { "ended" })
    }
}

impl Vitals {
    /// Registers a task or thread, which holds the guard until it ends.
    #[must_use]
    pub fn watch(&self, task: impl Into<Arc<str>>) -> Vital {
        let task = task.into();
        self.0.running.lock().push(Arc::clone(&task));
        Vital { task, shared: Arc::clone(&self.0), is_done: false }
    }

    /// Registers a task and returns the future to spawn for it. A future that is dropped unfinished counts as ended.
    pub fn run<T, F>(&self, task: T, work: F) -> impl Future<Output = F::Output> + use<T, F>
    where
        T: Into<Arc<str>>,
        F: Future,
    {
        let vital = self.watch(task);
        async move {
            let _vital = vital;
            work.await
        }
    }

    /// Allows every task to end from now on; called when the node drains.
    pub fn release(&self) {
        self.0.released.store(true, Ordering::SeqCst);
    }

    /// Waits for the first task that ends before the release.
    pub async fn failed(&self) -> Failure {
        let mut failure = self.0.failure.subscribe();
        let failed = failure.wait_for(Option::is_some).await.ok().and_then(|failure| failure.clone());
        match failed {
            Some(failure) => failure,
            None => std::future::pending().await,
        }
    }

    /// Names of the running tasks, sorted.
    #[must_use]
    pub fn running(&self) -> Vec<Arc<str>> {
        let mut running = self.0.running.lock().clone();
        running.sort_unstable();
        running
    }
}

impl Vital {
    /// Ends the watch of a task that may end, for example because its owner is gone.
    pub fn done(mut self) {
        self.is_done = true;
    }
}

impl Drop for Vital {
    fn drop(&mut self) {
        let mut running = self.shared.running.lock();
        if let Some(at) = running.iter().position(|task| Arc::ptr_eq(task, &self.task)) {
            running.swap_remove(at);
        }
        drop(running);
        if self.is_done || self.shared.released.load(Ordering::SeqCst) {
            return;
        }
        let failure = Failure { task: Arc::clone(&self.task), panicked: std::thread::panicking() };
        self.shared.failure.send_if_modified(|first| {
            let is_first = first.is_none();
            first.get_or_insert(failure);
            is_first
        });
    }
}

#[cfg(test)]
mod tests {
    use std::panic::resume_unwind;

    use futures_util::FutureExt;

    use super::*;

    fn panics(words: &'static str) {
        // Unlike `panic!` this prints nothing.
        resume_unwind(Box::new(words));
    }

    #[tokio::test]
    async fn first_task_that_panics_is_named() {
        let vitals = Vitals::default();
        let lives = tokio::spawn(vitals.run("lives", std::future::pending::<()>()));
        assert!(vitals.failed().now_or_never().is_none());
        let dies = tokio::spawn(vitals.run("shard 1", async { panics("a bug") }));
        assert_eq!(vitals.failed().await.to_string(), "task \"shard 1\" panicked");
        assert!(dies.await.is_err());
        lives.abort();
        assert!(lives.await.is_err());
        assert_eq!(vitals.failed().await.task.as_ref(), "shard 1", "a later one changes nothing");
        assert!(vitals.running().is_empty());
    }

    #[tokio::test]
    async fn thread_that_returns_is_named() {
        let vitals = Vitals::default();
        let vital = vitals.watch("plugin ticker");
        assert_eq!(vitals.running(), [Arc::<str>::from("plugin ticker")]);
        std::thread::spawn(move || drop(vital)).join().unwrap();
        assert_eq!(vitals.failed().await.to_string(), "task \"plugin ticker\" ended");
    }

    #[tokio::test]
    async fn tasks_may_end_after_release_or_when_done() {
        let vitals = Vitals::default();
        vitals.watch("store").done();
        let guard = vitals.watch("lease");
        vitals.release();
        drop(guard);
        tokio::spawn(vitals.run("shard 0", async {})).await.unwrap();
        assert!(vitals.failed().now_or_never().is_none());
    }

    #[tokio::test]
    async fn future_that_never_ran_counts_as_ended() {
        let vitals = Vitals::default();
        drop(vitals.run("shard 0", async {}));
        assert!(!vitals.failed().await.panicked);
    }
}
