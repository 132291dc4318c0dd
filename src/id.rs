//! The names of things: users, devices, rooms, nodes, connections, messages.
//!
//! Each is a newtype that is valid once it exists; it is parsed where it enters. Knows no protocol and no state.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Longest name of a user, device, room or node, in bytes.
pub const MAX_NAME_BYTES: usize = 128;

/// Largest number a JavaScript client can hold exactly (2^53 − 1): the bound of every id Skylark makes.
pub const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// Why a text is no name: says what was expected and what came.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidName {
    /// The text has no character.
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
            /// Checks `text` and keeps it.
            ///
            /// # Errors
            /// [`InvalidName`] when the text is empty, too long, or holds a comma or control character.
            pub fn parse(text: &str) -> Result<Self, InvalidName> {
                check_name(text)?;
                Ok(Self(text.into()))
            }

            /// The text itself.
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

        /// Lets maps keyed by the name be asked with a plain `&str`.
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

/// One live socket: the node's number and a counter, at most [`MAX_SAFE_INTEGER`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// Stands where a user is meant whose connections nobody knows any more, because the node that held them fell.
    pub const UNKNOWN: Self = Self(0);

    /// Takes a number that came from outside.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        (1..=MAX_SAFE_INTEGER).contains(&number).then_some(Self(number))
    }

    /// The number itself.
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

/// Bits of a sequence number; the 12 above them hold the node's number.
const SEQUENCE_BITS: u32 = 41;
/// Largest node number.
pub const MAX_NODE_NUMBER: u16 = (1 << 12) - 1;
/// 2025-01-01T00:00:00Z, the zero of the sequence's seed.
const SEED_EPOCH: Duration = Duration::from_secs(1_735_689_600);

/// Numbers that are unique in the cluster and grow on one node, at most [`MAX_SAFE_INTEGER`].
///
/// Layout: 12 bits node number, 41 bits counter. The counter starts at (seconds since 2025) × 1024, so a node
/// that starts again goes on above what it gave before as long as it gave fewer than 1 024 numbers a second on average.
#[derive(Debug)]
pub struct IdSequence {
    node: u64,
    next: AtomicU64,
}

impl IdSequence {
    /// A sequence of node `number` (at most [`MAX_NODE_NUMBER`]; higher bits are cut), seeded by `now`.
    #[must_use]
    pub fn new(number: u16, now: SystemTime) -> Self {
        let since = now.duration_since(UNIX_EPOCH + SEED_EPOCH).unwrap_or_default();
        Self {
            node: u64::from(number & MAX_NODE_NUMBER) << SEQUENCE_BITS,
            next: AtomicU64::new((since.as_secs() << 10) | 1),
        }
    }

    /// The next number.
    pub fn next(&self) -> u64 {
        let counter = self.next.fetch_add(1, Ordering::Relaxed) & ((1 << SEQUENCE_BITS) - 1);
        self.node | counter
    }

    /// The next number as the id of a connection.
    pub fn next_connection(&self) -> ConnectionId {
        ConnectionId(self.next())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_where_they_enter() {
        assert_eq!(Uid::parse("1074").unwrap().as_str(), "1074");
        assert_eq!(Uid::parse(""), Err(InvalidName::Empty));
        assert_eq!(Room::parse(&"x".repeat(129)), Err(InvalidName::TooLong(129)));
        assert_eq!(
            Device::parse("a,b").unwrap_err().to_string(),
            "expected no comma or control character, got \"a,b\""
        );
        assert!(NodeId::parse("a\nb").is_err());
    }

    #[test]
    fn ids_grow_carry_the_node_and_stay_safe_in_javascript() {
        let ids = IdSequence::new(7, SystemTime::now());
        let (a, b) = (ids.next_connection(), ids.next_connection());
        assert!(a < b && b.as_u64() <= MAX_SAFE_INTEGER);
        assert_eq!(a.node(), 7);
    }

    #[test]
    fn a_later_incarnation_goes_on_above_the_former() {
        let now = SystemTime::now();
        let before = IdSequence::new(1, now).next();
        let after = IdSequence::new(1, now + Duration::from_secs(1)).next();
        assert!(after > before);
    }
}
