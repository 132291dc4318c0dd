//! Bounds of the node's resumes: concurrent reads, and the memory of the pages that wait for their clients.
//!
//! A permit covers one read, so slow clients hold none. The memory covers a page from its read until the client has it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::backoff;
use crate::broker::history::Page;
use crate::claim::Refusal;
use crate::code::Code;

/// Concurrent resumes, and reads of replays, on this node.
pub(super) const READS: usize = 256;
/// Longest wait of a client for its resume.
const PATIENCE: Duration = Duration::from_secs(2);
/// Maximum of all pages that are read and not yet written, in approximate bytes of their messages. A larger page counts
/// as this many bytes.
pub(super) const PAGES_BYTES: usize = 32 << 20;
/// Range of the time after which a refused client tries again.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(5));

/// Bounds of one node.
pub(super) struct ResumeLimits {
    reads: Arc<Semaphore>,
    pages: Arc<Semaphore>,
}

impl Default for ResumeLimits {
    fn default() -> Self {
        Self { reads: Arc::new(Semaphore::new(READS)), pages: Arc::new(Semaphore::new(PAGES_BYTES)) }
    }
}

impl ResumeLimits {
    /// Waits at most two seconds for one of the node's resumes.
    pub(super) async fn begin_resume(&self) -> Option<OwnedSemaphorePermit> {
        timeout(PATIENCE, self.begin_read()).await.ok()
    }

    /// Waits for a read of a replay.
    pub(super) async fn begin_read(&self) -> OwnedSemaphorePermit {
        Arc::clone(&self.reads).acquire_owned().await.expect("the semaphore is never closed")
    }

    /// Waits for memory of `bytes`.
    pub(super) async fn hold(&self, bytes: usize) -> OwnedSemaphorePermit {
        Arc::clone(&self.pages).acquire_many_owned(count(bytes)).await.expect("the semaphore is never closed")
    }

    /// Takes memory for the page if the node has it now.
    pub(super) fn try_hold(&self, page: &Page) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.pages).try_acquire_many_owned(count(size(page))).ok()
    }
}

/// Refusal of a client that found no free resume.
pub(super) fn busy() -> Refusal {
    let words = "resume: too many clients resume now: try again after `retry` milliseconds";
    let wait = backoff::random_between(RETRY.0, RETRY.1);
    Refusal { retry: Some(wait), ..Refusal::new(Code::UNAVAILABLE, words) }
}

/// Approximate bytes of a page's messages, at most [`PAGES_BYTES`].
pub(super) fn size(page: &Page) -> usize {
    let bytes: usize = page.messages.iter().map(|(_, kept)| kept.approximate_bytes()).sum();
    bytes.min(PAGES_BYTES)
}

fn count(bytes: usize) -> u32 {
    u32::try_from(bytes.min(PAGES_BYTES)).expect("the bound has 32 bits")
}
