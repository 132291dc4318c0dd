//! Reserves the ids of this node in blocks, in the bus engine or in a file, before the current block is used up.
//!
//! If neither is writable, ids start from the clock. Independent of the engine.

mod file;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::{Instant, sleep};

pub use self::file::FileError;

use self::file::FileIds;
use crate::backoff::Backoff;
use crate::broker::Unavailable;
use crate::broker::ids::{BlockRequest, IdStore};
use crate::config::NodeConfig;
use crate::id::{IdSequence, SEQUENCE_END, seed};
use crate::node::Node;

/// Smallest block. A node over Redis that restarts once a minute uses its numbers up in 28 years, because each start
/// takes one block and skips eight.
const MIN_BLOCK: u64 = 1 << 14;
/// Largest block: 16 seconds of a million ids a second.
const MAX_BLOCK: u64 = 1 << 24;
/// A block grows by this factor (also used in `ids.lua`) if half of it lasted less than [`SHORT_LIVED`], and shrinks if
/// it lasted [`LONG_LIVED`].
const GROWTH: u64 = 8;
const SHORT_LIVED: Duration = Duration::from_secs(10);
const LONG_LIVED: Duration = Duration::from_secs(600);
/// Interval of sending the bound to the store again, in case the store was emptied.
const RESEND_INTERVAL: Duration = Duration::from_secs(10);
/// Delays after an attempt to reach the store fails.
const FIRST_RETRY_DELAY: Duration = Duration::from_millis(100);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(2);
/// Remaining numbers below which a warning is logged: half a year at 1 024 a second.
const LOW_IDS: u64 = 1 << 34;

/// Supplies an [`IdSequence`] with blocks.
pub(super) struct Reserver {
    ids: Arc<IdSequence>,
    store: Arc<dyn IdStore>,
    number: u16,
    floor: u64,
    /// End of the last block; 0 = none yet.
    bound: u64,
    size: u64,
    /// Time of the last reservation.
    since: Instant,
}

/// Selects the store of `ids`: the engine's, else a file below `node.state`. `None` = neither is writable; ids then
/// start from the clock, which is logged.
///
/// # Errors
/// [`FileError::InvalidContents`] if the file has other contents, so the issued ids are unknown.
pub(super) fn reserver(
    node: &NodeConfig,
    ids: &Arc<IdSequence>,
    engine: Option<Arc<dyn IdStore>>,
) -> Result<Option<Reserver>, FileError> {
    let now = SystemTime::now();
    let supplied = |store| Some(Reserver::new(Arc::clone(ids), store, node.number, now));
    if let Some(store) = engine {
        return Ok(supplied(store));
    }
    let files = FileIds::new(&node.state);
    let (floor, why) = match node.state.as_os_str().is_empty() {
        true => (seed(now), "node.state is empty".to_owned()),
        false => match files.open(node.number, seed(now)) {
            Ok(()) => return Ok(supplied(Arc::new(files))),
            Err(error @ FileError::InvalidContents { .. }) => return Err(error),
            Err(error) => (files.bound(node.number).unwrap_or_default().max(seed(now)), error.to_string()),
        },
    };
    tracing::warn!(
        why,
        "ids are not reserved and start from the clock: they may repeat after a restart if the clock was set back, or if \
         the node gave out more than 1024 a second on average"
    );
    ids.grant(floor..SEQUENCE_END);
    Ok(None)
}

impl Reserver {
    pub(super) fn new(ids: Arc<IdSequence>, store: Arc<dyn IdStore>, number: u16, now: SystemTime) -> Self {
        let (floor, since) = (seed(now), Instant::now());
        Self { ids, store, number, floor, bound: 0, size: MIN_BLOCK, since }
    }

    /// Reserves one block.
    ///
    /// # Errors
    /// [`Unavailable`] if the store does not answer or the numbers of the node are used up.
    pub(super) async fn reserve(&mut self) -> Result<(), Unavailable> {
        if self.bound == 0 {
            self.bound = self.request_block(self.size, true).await?;
        }
        let begin = self.request_block(self.size, false).await?;
        let end = begin.saturating_add(self.size);
        if begin >= SEQUENCE_END {
            let why = format!("the numbers of node {} are used up: set another node.number", self.number);
            return Err(Unavailable { engine: "ids", why });
        }
        if SEQUENCE_END - begin < LOW_IDS {
            let left = SEQUENCE_END - begin;
            tracing::warn!(number = self.number, left, "few ids are left: set another node.number soon");
        }
        self.bound = end;
        self.since = Instant::now();
        self.ids.grant(begin..end);
        Ok(())
    }

    async fn request_block(&self, count: u64, is_start: bool) -> Result<u64, Unavailable> {
        let Self { number, bound, floor, .. } = *self;
        self.store.reserve(BlockRequest { number, from: bound, floor, count, is_start }).await
    }

    /// Sets the size of the next block by the time that half of this one lasted.
    fn resize(&mut self) {
        let lasted = self.since.elapsed();
        if lasted < SHORT_LIVED {
            self.size = (self.size * GROWTH).min(MAX_BLOCK);
        } else if lasted >= LONG_LIVED {
            self.size = (self.size / GROWTH).max(MIN_BLOCK);
        }
    }

    /// Reserves blocks on demand; never ends. `node` is not ready while no number is left.
    pub(super) async fn run(mut self, node: Arc<Node>) {
        let component: Arc<str> = "ids".into();
        let mut backoff = Backoff::new(FIRST_RETRY_DELAY, MAX_RETRY_DELAY);
        let mut is_due = self.bound == 0;
        loop {
            if is_due {
                match self.reserve().await {
                    Ok(()) => {
                        backoff.reset();
                        node.set_component_fault(&component, None);
                    }
                    Err(why) => {
                        let left = self.ids.left();
                        tracing::warn!(%why, left, "reserving a block of ids failed; retrying");
                        node.set_component_fault(&component, (left == 0).then(|| format!("no id is left: {why}")));
                        sleep(backoff.wait()).await;
                        continue;
                    }
                }
            }
            tokio::select! {
                () = self.ids.wanted() => {
                    self.resize();
                    is_due = true;
                }
                () = sleep(RESEND_INTERVAL) => {
                    is_due = false;
                    if let Err(why) = self.request_block(0, false).await {
                        tracing::debug!(%why, "sending the bound of the ids to the store failed");
                    }
                }
            }
        }
    }
}
