//! Streams of kept messages: their names, and positions in them.
//!
//! A stream holds the messages to one user, to one room, or to everyone. Independent of the engine that keeps it.

use std::fmt;
use std::str::FromStr;

use super::Target;
use crate::id::{MAX_SAFE_INTEGER, Room, Uid};

/// Name of a stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum StreamName {
    /// Messages to one user or to one of the user's devices.
    User(Uid),
    /// Messages to one room.
    Room(Room),
    /// Messages to everyone, or to everyone except some users.
    Everyone,
}

impl StreamName {
    /// The stream of a target. `None` for a connection, which has no stream, and for a list of users, which has one for
    /// each user.
    #[must_use]
    pub fn of(target: &Target) -> Option<Self> {
        match target {
            Target::User(uid) | Target::Device(uid, _) => Some(Self::User(uid.clone())),
            Target::Room(room) => Some(Self::Room(room.clone())),
            Target::Everyone | Target::EveryoneBut(_) => Some(Self::Everyone),
            Target::Users(_) | Target::Connection(_) | Target::ConnectionOf(..) => None,
        }
    }
}

/// `u:UID`, `r:ROOM` or `all`, as in the API and on the command line.
impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(uid) => write!(f, "u:{uid}"),
            Self::Room(room) => write!(f, "r:{room}"),
            Self::Everyone => f.write_str("all"),
        }
    }
}

/// A text is not a stream name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected u:UID, r:ROOM or all, got {0:?}")]
pub struct InvalidStream(pub String);

impl FromStr for StreamName {
    type Err = InvalidStream;

    fn from_str(text: &str) -> Result<Self, InvalidStream> {
        let invalid = || InvalidStream(text.chars().take(160).collect());
        match text.split_once(':') {
            _ if text == "all" => Ok(Self::Everyone),
            Some(("u", uid)) => Uid::parse(uid).map(Self::User).map_err(|_| invalid()),
            Some(("r", room)) => Room::parse(room).map(Self::Room).map_err(|_| invalid()),
            _ => Err(invalid()),
        }
    }
}

/// Number of characters of an [`Epoch`].
const EPOCH_CHARS: usize = 8;

/// Name of one life of a stream. A stream whose state was lost, evicted or forgotten begins again with another epoch.
/// Eight characters of `[0-9a-z]`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch([u8; EPOCH_CHARS]);

impl Epoch {
    /// Creates the epoch that these random bits choose.
    #[must_use]
    pub fn new(random: u64) -> Self {
        const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
        let mut rest = random;
        Self(std::array::from_fn(|_| {
            let digit = DIGITS[usize::try_from(rest % 36).expect("below 36")];
            rest /= 36;
            digit
        }))
    }

    /// Reads an epoch. `None` unless the text has eight characters of `[0-9a-z]`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let bytes = <[u8; EPOCH_CHARS]>::try_from(text.as_bytes()).ok()?;
        bytes.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z')).then_some(Self(bytes))
    }

    /// The epoch as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("an epoch is ASCII")
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Position of a message in a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// Life of the stream.
    pub epoch: Epoch,
    /// Grows by one with each message, from 1 to 2^53 − 1. 0 = before the first message.
    pub offset: u64,
    /// Id of the message. It reveals a fork: an offset that an engine gave out twice after the loss of its last
    /// messages.
    pub id: i64,
}

/// True if the ids are equal for a client that keeps them as 64-bit floating point numbers.
#[must_use]
pub fn same_id(a: i64, b: i64) -> bool {
    a == b || (a as f64).to_bits() == (b as f64).to_bits()
}

/// `epoch:offset:id`, as clients send it in `since`.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.epoch, self.offset, self.id)
    }
}

/// A text is not a position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected epoch:offset:id, got {0:?}")]
pub struct InvalidPosition(pub String);

impl FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let read = || {
            let mut parts = text.splitn(3, ':');
            let epoch = Epoch::parse(parts.next()?)?;
            let offset = parts.next()?.parse().ok().filter(|offset| *offset <= MAX_SAFE_INTEGER)?;
            let id = parts.next()?.parse().ok()?;
            Some(Self { epoch, offset, id })
        };
        read().ok_or_else(|| InvalidPosition(text.chars().take(64).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_name_round_trips_as_text() {
        for text in ["all", "u:alice", "r:lobby", "r:a:b"] {
            assert_eq!(text.parse::<StreamName>().unwrap().to_string(), text);
        }
        for text in ["", "u:", "r:", "x:a", "alice", "u:a,b", "ALL"] {
            assert_eq!(text.parse::<StreamName>(), Err(InvalidStream(text.to_owned())));
        }
    }

    #[test]
    fn position_round_trips_as_text() {
        let position = Position { epoch: Epoch::parse("k3v9x0ab").unwrap(), offset: 41, id: -9 };
        assert_eq!(position.to_string(), "k3v9x0ab:41:-9");
        assert_eq!("k3v9x0ab:41:-9".parse(), Ok(position));
        for text in ["", "k3v9x0ab", "k3v9x0ab:1", "K3v9x0ab:1:1", "k3v9x0a:1:1", "k3v9x0ab:-1:1", "k3v9x0ab:1:x"] {
            assert_eq!(text.parse::<Position>(), Err(InvalidPosition(text.to_owned())));
        }
        assert!("k3v9x0ab:9007199254740992:1".parse::<Position>().is_err(), "above 2^53 - 1");
    }

    #[test]
    fn epoch_has_eight_characters() {
        for random in [0, 1, u64::MAX] {
            let epoch = Epoch::new(random);
            assert_eq!(Epoch::parse(epoch.as_str()), Some(epoch));
        }
        assert_ne!(Epoch::new(1), Epoch::new(2));
    }

    #[test]
    fn ids_are_compared_as_javascript_rounds_them() {
        assert!(same_id(i64::MAX, i64::MAX - 1));
        assert!(!same_id(9_007_199_254_740_991, 9_007_199_254_740_990));
    }
}
