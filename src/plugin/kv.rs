//! The small state of plugins: the trait [`Store`] and its records.
//!
//! Concurrency is optimistic: a call records the version of every key it read, and its writes are taken only if none
//! has changed. A space is a plugin's name, so state survives a reload and no plugin sees another's. Knows no guest.
//! `tests/it/brokers/store_contract.rs` is the contract of every store.

mod file;
mod memory;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

pub use file::{FileStore, OpenError};
pub use memory::MemoryStore;

/// Longest key, bytes.
pub const MAX_KEY_BYTES: usize = 256;
/// Largest value, bytes.
pub const MAX_VALUE_BYTES: usize = 64 << 10;
/// Most keys that one call may read, and most that it may write.
pub const MAX_KEYS_PER_CALL: usize = 256;
/// Most bytes that one call may write.
pub const MAX_BYTES_PER_CALL: usize = 1 << 20;

/// State of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// Different after each write of the key; 0 = absent.
    pub version: u64,
    /// The value.
    pub value: Option<Arc<[u8]>>,
}

/// A new value, or none to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// The value; `None` deletes.
    pub value: Option<Arc<[u8]>>,
    /// Time to live; `None` = until deleted.
    pub ttl: Option<Duration>,
}

/// All writes of one call, on the condition that its reads are still valid.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commit {
    /// Version of each key that was read.
    pub reads: BTreeMap<String, u64>,
    /// New values, the last one of each key.
    pub writes: BTreeMap<String, Write>,
}

/// Why a store did not carry out an operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KvError {
    /// A key that was read has changed since: the call must be run again.
    #[error("another call changed the same keys")]
    Conflict,
    /// The plugin's share is used up.
    #[error("the plugin's share of the key-value store is used up")]
    Full,
    /// The engine behind the store does not answer.
    #[error("the key-value store is unavailable: {0}")]
    Unavailable(String),
}

/// Keeps the small state of every plugin.
///
/// Guarantee: a commit is taken whole or not at all, and only if every key it read still has the version it read.
pub trait Store: Send + Sync {
    /// The state of `key`.
    fn get<'a>(&'a self, space: &'a str, key: &'a str) -> BoxFuture<'a, Result<Found, KvError>>;
    /// True if these writes would fit into `share` now. Only a hint: [`Store::commit`] decides.
    fn fits<'a>(&'a self, space: &'a str, commit: &'a Commit, share: Share) -> BoxFuture<'a, bool>;
    /// Takes all writes, or none. Afterwards the space fits into `share`, or is not larger than before.
    fn commit<'a>(&'a self, space: &'a str, commit: Commit, share: Share) -> BoxFuture<'a, Result<(), KvError>>;
}

/// Bounds of one plugin's share.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    /// Bytes of keys and values.
    pub bytes: usize,
    /// Number of keys.
    pub keys: usize,
}

impl Default for Share {
    fn default() -> Self {
        Self { bytes: 16 << 20, keys: 65_536 }
    }
}
