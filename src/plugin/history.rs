//! The kept messages that plugins read: the trait [`HistoryReader`] and its records.
//!
//! The node implements it over the engine that keeps the streams. Knows neither the engine nor a guest.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::id::{Device, Uid};
use crate::message::{Message, Position, StreamName};

/// Most messages of one page.
pub const MAX_MESSAGES: usize = 100;
/// Most reads of one call.
pub const MAX_READS_PER_CALL: usize = 64;

/// Part of a stream that a plugin asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// The newest messages, at most this many. 0 asks for the position only.
    Latest(usize),
    /// The messages after the position, at most this many.
    After(Position, usize),
}

/// Messages of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryPage {
    /// The messages, the oldest first.
    pub messages: Vec<HistoryMessage>,
    /// Position of the stream's last message.
    pub top: Position,
    /// Why messages after the given position are missing. The page is then empty.
    pub missed: Option<Missing>,
}

/// A kept message with its place in the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryMessage {
    /// Its number in the stream, from 1.
    pub offset: u64,
    /// The message.
    pub message: Arc<Message>,
    /// The only device that receives it.
    pub device: Option<Device>,
    /// Users that do not receive it.
    pub except: Arc<[Uid]>,
}

/// Why messages after a position are missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// They are no longer kept.
    Trimmed,
    /// The stream began again.
    Epoch,
    /// The message at the position is another one, or the position was never reached.
    Fork,
}

/// Why a stream was not read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryError {
    /// The engine behind the history does not answer.
    #[error("the history is unavailable: {0}")]
    Unavailable(String),
}

/// Reads the kept messages of every stream.
pub trait HistoryReader: Send + Sync {
    /// Reads a page of at most [`MAX_MESSAGES`] messages and about 256 KiB. Messages whose own time is over are left out.
    ///
    /// # Errors
    /// [`HistoryError`].
    fn read<'a>(&'a self, name: &'a StreamName, reading: Reading) -> BoxFuture<'a, Result<HistoryPage, HistoryError>>;
}
