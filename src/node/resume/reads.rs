//! Reads that concurrent resumes share: clients that return from one position of one stream cause one read.
//!
//! A caller never gets a read that began before its call: it would miss the messages that were published in between, which
//! the connection did not receive either. So a caller joins the read that waits for the running one. Independent of
//! engines.

use std::collections::HashMap;
use std::sync::Arc;

use ahash::RandomState;
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared, WeakShared};
use parking_lot::Mutex;

use crate::broker::Unavailable;
use crate::broker::history::{HistoryStore, Page, Range};
use crate::message::StreamName;

/// Number of keys above which those without a reader are removed.
const SWEEP: usize = 1_024;

type Key = (StreamName, Range);
type Answer = Result<Arc<Page>, Unavailable>;
type Read = BoxFuture<'static, Answer>;

/// A store whose equal reads are shared.
pub(super) struct SharedReads {
    store: Arc<dyn HistoryStore>,
    table: Arc<Mutex<Table>>,
}

type Table = HashMap<Key, Reads, RandomState>;

/// Reads of one key. Both end with their last caller.
#[derive(Default)]
struct Reads {
    running: Option<WeakShared<Read>>,
    /// Begins after the running one.
    next: Option<WeakShared<Read>>,
}

impl SharedReads {
    pub(super) fn new(store: Arc<dyn HistoryStore>) -> Self {
        Self { store, table: Arc::default() }
    }

    /// Reads a page, together with the callers that ask for the same page before the read begins.
    ///
    /// # Errors
    /// As [`HistoryStore::read`].
    pub(super) async fn read(&self, name: &StreamName, range: Range) -> Answer {
        self.join((name.clone(), range)).await
    }

    /// The read that begins next, which may be a new one.
    fn join(&self, key: Key) -> Shared<Read> {
        let mut table = self.table.lock();
        if table.len() >= SWEEP {
            table.retain(|_, reads| reads.has_reader());
        }
        let reads = table.entry(key.clone()).or_default();
        if let Some(next) = reads.next.as_ref().and_then(WeakShared::upgrade) {
            return next;
        }
        let running = reads.running.as_ref().and_then(WeakShared::upgrade);
        let read = run(Arc::clone(&self.store), Arc::clone(&self.table), key, running).boxed().shared();
        reads.next = read.downgrade();
        read
    }
}

/// Reads after the end of `running`.
async fn run(
    store: Arc<dyn HistoryStore>,
    table: Arc<Mutex<Table>>,
    key: Key,
    running: Option<Shared<Read>>,
) -> Answer {
    if let Some(running) = running {
        drop::<Answer>(running.await);
    }
    if let Some(reads) = table.lock().get_mut(&key) {
        reads.running = reads.next.take();
    }
    let answer = store.read(&key.0, key.1).await.map(Arc::new);
    let mut table = table.lock();
    if let Some(reads) = table.get_mut(&key) {
        reads.running = None;
        if !reads.has_reader() {
            table.remove(&key);
        }
    }
    answer
}

impl Reads {
    fn has_reader(&self) -> bool {
        [&self.running, &self.next].into_iter().flatten().any(|read| read.upgrade().is_some())
    }
}
