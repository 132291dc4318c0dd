//! Blocks of ids that are reserved where they outlive the process that uses them.
//!
//! Knows no engine and no id: a block is a range of numbers.

use futures_util::future::BoxFuture;

use super::Unavailable;

/// A block to be reserved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockRequest {
    /// The node number whose ids they are.
    pub number: u16,
    /// The block begins here or above. What the caller had reserved before ends here.
    pub from: u64,
    /// The block begins here or above where the store knows nothing of the node number.
    pub floor: u64,
    /// How many numbers. 0 reserves nothing and tells the store of `from`: it may have lost what it knew.
    pub count: u64,
    /// True for the first call of a process, which reserves nothing. A store that can lose its last write leaves out
    /// as many numbers as that write may have reserved, and notes `count` as the size of the block that comes next.
    pub is_start: bool,
}

/// Keeps for each node number the bound below which all numbers are given away.
///
/// Guarantee: no number is in two blocks of one node number, whichever processes reserve.
pub trait IdStore: Send + Sync {
    /// Reserves a block; its first number.
    ///
    /// # Errors
    /// [`Unavailable`]: nothing is reserved, or nobody knows whether it is. The numbers are lost then.
    fn reserve(&self, request: BlockRequest) -> BoxFuture<'_, Result<u64, Unavailable>>;
}
