//! Kept messages, read only. For access, handlers and events. The operator grants `history`: `grants = ["history"]`.
//!
//! ```
//! use skylark_plugin::history::{self, StreamName};
//! # use skylark_plugin::{Message, testing};
//! # testing::keep(StreamName::room("lobby"), Message::text("chat", "hi"));
//! let newest = history::latest(&StreamName::room("lobby"), 20)?;
//! let position = newest.top;
//! # testing::keep(StreamName::room("lobby"), Message::text("chat", "again"));
//! let later = history::after(&StreamName::room("lobby"), &position, 20)?;
//! assert_eq!((newest.messages.len(), later.messages[0].offset), (1, 2));
//! # Ok::<(), history::Error>(())
//! ```

use std::fmt;

pub use crate::bindings::host::skylark::plugin::history::{Error, KeptMessage, Missed, Page, StreamPosition};
pub use crate::bindings::host::skylark::plugin::types::StreamName;

impl StreamName {
    /// Messages to this user or to one of the user's devices.
    pub fn user(uid: impl Into<String>) -> Self {
        Self::User(uid.into())
    }

    /// Messages to this room.
    pub fn room(room: impl Into<String>) -> Self {
        Self::Room(room.into())
    }
}

/// `u:UID`, `r:ROOM` or `all`, as in the push API.
impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(uid) => write!(f, "u:{uid}"),
            Self::Room(room) => write!(f, "r:{room}"),
            Self::Everyone => f.write_str("all"),
        }
    }
}

impl Error {
    /// The error's name in the interface.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Invalid(_) => "invalid",
        }
    }
}

/// The newest messages of the stream, the oldest first, at most `limit` and at most 100.
///
/// # Errors
/// The node keeps no messages, the name is not valid, or the role may not read.
#[cfg(target_family = "wasm")]
pub fn latest(name: &StreamName, limit: u32) -> Result<Page, Error> {
    crate::bindings::host::skylark::plugin::history::latest(name, limit)
}

/// The newest messages of the stream in the test's memory.
///
/// # Errors
/// The test has no history.
#[cfg(not(target_family = "wasm"))]
pub fn latest(name: &StreamName, limit: u32) -> Result<Page, Error> {
    let kept = crate::testing::kept(name)?;
    Ok(page(&kept, kept.len() - kept.len().min(limit.min(100) as usize), limit))
}

/// The messages after the position, the oldest first, at most `limit` and at most 100.
///
/// # Errors
/// The node keeps no messages, the name or the position is not valid, or the role may not read.
#[cfg(target_family = "wasm")]
pub fn after(name: &StreamName, position: &StreamPosition, limit: u32) -> Result<Page, Error> {
    crate::bindings::host::skylark::plugin::history::after(name, position, limit)
}

/// The messages after the position in the test's memory. It does not check the position's id.
///
/// # Errors
/// The test has no history.
#[cfg(not(target_family = "wasm"))]
pub fn after(name: &StreamName, position: &StreamPosition, limit: u32) -> Result<Page, Error> {
    let kept = crate::testing::kept(name)?;
    let missed = match position {
        StreamPosition { epoch, .. } if epoch != EPOCH => Some(Missed::Epoch),
        StreamPosition { offset, .. } if *offset > kept.len() as u64 => Some(Missed::Fork),
        _ => None,
    };
    let from = if missed.is_some() { kept.len() } else { usize::try_from(position.offset).unwrap_or(kept.len()) };
    Ok(Page { missed, ..page(&kept, from, limit) })
}

/// The position of the stream's last message.
///
/// # Errors
/// The node keeps no messages, the name is not valid, or the role may not read.
#[cfg(target_family = "wasm")]
pub fn position(name: &StreamName) -> Result<StreamPosition, Error> {
    crate::bindings::host::skylark::plugin::history::position(name)
}

/// The position of the stream's last message in the test's memory.
///
/// # Errors
/// The test has no history.
#[cfg(not(target_family = "wasm"))]
pub fn position(name: &StreamName) -> Result<StreamPosition, Error> {
    Ok(page(&crate::testing::kept(name)?, 0, 0).top)
}

/// Epoch of every stream in the test's memory.
#[cfg(not(target_family = "wasm"))]
const EPOCH: &str = "00000001";

#[cfg(not(target_family = "wasm"))]
fn page(kept: &[crate::Message], from: usize, limit: u32) -> Page {
    let id = kept.last().map_or(0, |last| last.id);
    let top = StreamPosition { epoch: EPOCH.to_owned(), offset: kept.len() as u64, id };
    let messages = (1..).zip(kept).skip(from).take(limit.min(100) as usize).map(|(offset, message)| KeptMessage {
        offset,
        message: message.clone(),
        device: None,
        except: Vec::new(),
    });
    Page { messages: messages.collect(), top, missed: None }
}
