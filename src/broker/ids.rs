//! Reserves blocks of ids in a store that outlives the process.
//!
//! Independent of engines and of the id format: a block is a range of numbers.

use futures_util::future::BoxFuture;

use super::Unavailable;

/// Request for a block of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRequest {
    /// Node number that the ids belong to.
    pub number: u16,
    /// Lower bound of the block, and end of the numbers that the caller had reserved before.
    pub from: u64,
    /// Lower bound of the block if the store has no entry for the node number.
    pub floor: u64,
    /// Size of the block. 0 reserves nothing and tells the store about `from`, because it may have lost its entry.
    pub count: u64,
    /// True for the first call of a process, which reserves nothing. A store that can lose its last write skips as many
    /// numbers as that write may have reserved. It stores `count` as the size of the next block.
    pub is_start: bool,
}

/// Stores one bound per node number. All numbers below the bound are reserved.
///
/// Guarantee: the blocks of one node number never overlap, even if several processes reserve.
pub trait IdStore: Send + Sync {
    /// Reserves a block and returns its first number.
    ///
    /// # Errors
    /// [`Unavailable`]: nothing was reserved, or the result is unknown. The numbers are skipped then.
    fn reserve(&self, request: BlockRequest) -> BoxFuture<'_, Result<u64, Unavailable>>;
}
