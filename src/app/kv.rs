//! Storage of the plugins' keys: memory of this node, a file of this node, or the shared engine. The spaces of the
//! engine are adapted to a [`Store`] here.
//!
//! Broker and plugin do not depend on each other; this module connects them.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use crate::broker::Unavailable;
use crate::broker::redis::{RedisSpaces, SpaceStep, SpaceWrite, StepResult};
use crate::config::KvLocation;
use crate::plugin::host::Time;
use crate::plugin::kv::{Commit, FileStore, Found, KvError, MemoryStore, OpenError, Share, Store};
use crate::vital::Vitals;

/// Stores the state of every plugin in Redis, for all nodes.
pub(super) struct RedisStore {
    spaces: Arc<RedisSpaces>,
}

/// Opens the configured storage. `shared` is the store of the bus engine for all nodes; it replaces this node's memory.
pub(super) fn open(
    location: &KvLocation,
    shared: Option<Arc<dyn Store>>,
    vitals: &Vitals,
) -> Result<Arc<dyn Store>, OpenError> {
    Ok(match location {
        KvLocation::Memory => shared.unwrap_or_else(|| Arc::new(MemoryStore::default())),
        KvLocation::File(path) => Arc::new(FileStore::open(path, Time::default(), vitals)?),
    })
}

impl RedisStore {
    pub(super) fn new(spaces: Arc<RedisSpaces>) -> Self {
        Self { spaces }
    }
}

impl Store for RedisStore {
    fn get<'a>(&'a self, space: &'a str, key: &'a str) -> BoxFuture<'a, Result<Found, KvError>> {
        async move {
            let (version, value) = self.spaces.get(space, key).await.map_err(|error| unavailable(&error))?;
            Ok(Found { version, value: value.map(Into::into) })
        }
        .boxed()
    }

    /// An unreachable engine counts as fitting here; the commit reports it.
    fn fits<'a>(&'a self, space: &'a str, commit: &'a Commit, share: Share) -> BoxFuture<'a, bool> {
        async move {
            let writes = writes(commit);
            let step = SpaceStep { reads: &[], writes: &writes, bytes: share.bytes, keys: share.keys };
            self.spaces.probe(space, &step).await != Ok(StepResult::Full)
        }
        .boxed()
    }

    fn commit<'a>(&'a self, space: &'a str, commit: Commit, share: Share) -> BoxFuture<'a, Result<(), KvError>> {
        async move {
            let reads: Vec<(&str, u64)> = commit.reads.iter().map(|(key, version)| (key.as_str(), *version)).collect();
            let writes = writes(&commit);
            let step = SpaceStep { reads: &reads, writes: &writes, bytes: share.bytes, keys: share.keys };
            match self.spaces.commit(space, &step).await.map_err(|error| unavailable(&error))? {
                StepResult::Applied => Ok(()),
                StepResult::Conflict => Err(KvError::Conflict),
                StepResult::Full => Err(KvError::Full),
            }
        }
        .boxed()
    }
}

fn writes(commit: &Commit) -> Vec<SpaceWrite<'_>> {
    let writes = commit.writes.iter();
    writes.map(|(key, write)| SpaceWrite { key, value: write.value.as_deref(), ttl: write.ttl }).collect()
}

/// Hides the address and the errors of the engine from plugins and their clients.
fn unavailable(error: &Unavailable) -> KvError {
    tracing::debug!(%error, "access to the keys of a plugin failed");
    KvError::Unavailable(format!("{} does not answer", error.engine))
}
