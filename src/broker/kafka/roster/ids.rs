//! Reserves blocks of ids in the topic of the roster. A reservation is a record, and the order of the topic decides
//! between two of them.
//!
//! Each reservation has its own key, so that compaction never drops the greatest end. The next reservation of the same
//! node number deletes the earlier ones from the topic.

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::Instant;

use super::log::Entry;
use super::{ANSWER, KafkaRoster, RecordResult, Shared};
use crate::broker::Unavailable;
use crate::broker::ids::{BlockRequest, IdStore};

/// Maximum number of attempts while other processes reserve ids of the same node number.
const ATTEMPTS: usize = 5;

impl IdStore for KafkaRoster {
    fn reserve(&self, request: BlockRequest) -> BoxFuture<'_, Result<u64, Unavailable>> {
        self.shared.reserve(request).boxed()
    }
}

impl Shared {
    async fn reserve(&self, request: BlockRequest) -> Result<u64, Unavailable> {
        let BlockRequest { number, from, floor, count, is_start } = request;
        let count = if is_start { 0 } else { count };
        self.loaded(Instant::now() + ANSWER).await?;
        for _ in 0..ATTEMPTS {
            let (bound, earlier) = {
                let mut state = self.state.lock();
                let reserved = state.reserved(number);
                (reserved.bound, reserved.reservations.clone())
            };
            let begin = if bound == 0 { floor.max(from) } else { bound.max(from) };
            let until = begin.saturating_add(count);
            if until == bound {
                return Ok(begin);
            }
            let (until, process) = (Some(until), self.process);
            match self.append_and_wait(&Entry::Ids { number, from: begin, until, process }).await? {
                RecordResult::Reserved(true) => {
                    for (from, process) in earlier.into_iter().filter(|which| *which != (begin, process)) {
                        self.writer.append_unconfirmed(&Entry::Ids { number, from, until: None, process });
                    }
                    return Ok(begin);
                }
                _ => tracing::info!(number, "another process reserves ids of the same node number; retrying"),
            }
        }
        Err(self.current_fault())
    }
}
