//! Last fields of a MESSAGE body: the stream of the message and its position there.
//!
//! Clients that do not know the fields skip them. Both dialects have the same fields:
//!
//! | coding | position, if the message is kept | stream, unless it is the receiver's own |
//! |---|---|---|
//! | protobuf | 15 offset, 16 epoch | 17 stream |
//! | JSON | `offset`, `epoch` | `stream` |

use crate::message::{Epoch, StreamName};

/// Stream and position at the end of a MESSAGE body. The default writes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FrameTail<'a> {
    /// The stream.
    pub stream: Option<&'a StreamName>,
    /// Epoch and offset of a kept message. Offsets are from 1 to 2^53 − 1.
    pub position: Option<(Epoch, u64)>,
}

impl<'a> FrameTail<'a> {
    /// True if the tail has no field.
    pub(super) fn is_empty(&self) -> bool {
        self.position.is_none() && self.stream_text().is_none()
    }

    /// The text of the stream field in two parts; `None` for a user's own stream.
    pub(super) fn stream_text(&self) -> Option<(&'static str, &'a str)> {
        match self.stream? {
            StreamName::User(_) => None,
            StreamName::Room(room) => Some(("r:", room.as_str())),
            StreamName::Everyone => Some(("all", "")),
        }
    }
}
