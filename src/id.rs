//! Identifiers of users, devices, rooms, nodes, connections and messages.
//!
//! Each is a newtype, validated on construction at the point where it enters. Independent of protocols and state.

mod sequence;

use std::fmt;
use std::sync::Arc;

pub use sequence::{IdSequence, Ids, SEQUENCE_END, seed};

use sequence::SEQUENCE_BITS;

/// Maximum length of the name of a user, device, room or node, in bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// Largest integer that a JavaScript client represents exactly (2^53 − 1): the bound of every id Skylark generates.
pub const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// True if JavaScript represents the number exactly.
#[must_use]
pub const fn is_safe_integer(number: i64) -> bool {
    number.unsigned_abs() <= MAX_SAFE_INTEGER
}

/// A text is not a valid name. The message tells the expected form and the input.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// The text is empty.
    #[error("expected a non-empty string, got \"\"")]
    Empty,
    /// The text is longer than [`MAX_NAME_BYTES`].
    #[error("expected at most {MAX_NAME_BYTES} bytes, got {0}")]
    TooLong(usize),
    /// The text holds a comma (the separator of user lists) or a control character.
    #[error("expected no comma or control character, got {0:?}")]
    Forbidden(String),
}

fn check_name(text: &str) -> Result<(), InvalidName> {
    if text.is_empty() {
        return Err(InvalidName::Empty);
    }
    if text.len() > MAX_NAME_BYTES {
        return Err(InvalidName::TooLong(text.len()));
    }
    if text.chars().any(|c| c == ',' || c.is_control()) {
        return Err(InvalidName::Forbidden(text.to_owned()));
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        /// Cheap to clone: the text is shared. At most [`MAX_NAME_BYTES`] bytes, no comma, no control character.
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Validates and copies `text`.
            ///
            /// # Errors
            /// [`InvalidName`] when the text is empty, too long, or holds a comma or control character.
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                check_name(text)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = InvalidName;

            fn from_str(text: &str) -> Result<Self, InvalidName> {
                Self::parse(text)
            }
        }

        /// Allows `&str` lookups in maps keyed by the name.
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }
    };
}

name! {
    /// An authenticated user.
    Uid
}
name! {
    /// The `deviceId` that a client gave at connect or bind.
    Device
}
name! {
    /// A named set of users' connections.
    Room
}
name! {
    /// The name of one running process among those that share a broker (`Sid` on the wire).
    NodeId
}

/// Identifier of one live socket: the node's number and a counter, at most [`MAX_SAFE_INTEGER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// Placeholder in events about a user whose node was lost: the node's connections are no longer known.
    pub const UNKNOWN: Self = Self(0);

    /// Validates a number that came from outside.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        (1..=MAX_SAFE_INTEGER).contains(&number).then_some(Self(number))
    }

    /// The id as a number.
    #[must_use]
    pub fn as_u64(self) -> u64 {
        self.0
    }

    /// The number of the node that holds the connection.
    #[must_use]
    pub fn node(self) -> u16 {
        u16::try_from(self.0 >> SEQUENCE_BITS).expect("12 bits are left of 53")
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Largest node number.
pub const MAX_NODE_NUMBER: u16 = (1 << 12) - 1;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invalid_names_are_refused_when_parsed() {
        assert_eq!(Uid::parse("1074").unwrap().as_str(), "1074");
        assert_eq!(Uid::parse(""), Err(InvalidName::Empty));
        assert_eq!(Room::parse(&"x".repeat(129)), Err(InvalidName::TooLong(129)));
        assert_eq!(
            Device::parse("a,b").unwrap_err().to_string(),
            "expected no comma or control character, got \"a,b\""
        );
        assert!(NodeId::parse("a\nb").is_err());
    }
}
