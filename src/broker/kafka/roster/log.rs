//! What stands in the roster's topic: keys and values, one line of records that every node reads in the same order.
//!
//! The topic is compacted: of each key the newest record stays. Keys are parts with a control character between them,
//! which no name holds. Values are JSON, so that an operator can read them. Knows no engine.

use serde::{Deserialize, Serialize};

use crate::broker::roster::Member;
use crate::id::{NodeId, Uid};

/// Between the parts of a key.
const BETWEEN: char = '\u{1f}';

/// One life of a node: its name and incarnation.
pub(super) type Life = (NodeId, u64);

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// A node asks to be let in.
    Ask(Beat),
    /// A node lives.
    Beat(Beat),
    /// A node has gone, and said so.
    Left(NodeId),
    /// A user came online in a life of a node, or went offline.
    User {
        /// Where.
        life: Life,
        /// Who.
        uid: Uid,
        /// Which of the two.
        is_online: bool,
    },
    /// A life was found dead; `by` gives out its users.
    Dead {
        /// Whose.
        life: Life,
        /// Who found it.
        by: NodeId,
    },
    /// All users of a dead life were given out.
    Buried(Life),
    /// Only its place counts.
    Number,
    /// A process reserves the ids of a node number from `from` up to `until`.
    Ids {
        /// Whose.
        number: u16,
        /// The first.
        from: u64,
        /// Behind the last; `None` = a later reservation stands for this one.
        until: Option<u64>,
        /// Who reserves.
        process: u64,
    },
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Beat {
    /// Its name.
    node: String,
    /// Tells two processes of one name apart.
    pub(super) life: u64,
    pub(super) number: u16,
    pub(super) incarnation: u64,
    address: String,
    gateway: bool,
    intake: bool,
    version: String,
    connections: u64,
    capacity: u64,
    draining: bool,
    started_at: i64,
}

impl Beat {
    pub(super) fn of(member: &Member, life: u64) -> Self {
        let Member {
            id,
            number,
            incarnation,
            address,
            gateway,
            intake,
            version,
            connections,
            capacity,
            draining,
            started_at,
        } = member.clone();
        Self {
            node: id.as_str().to_owned(),
            life,
            number,
            incarnation,
            address,
            gateway,
            intake,
            version,
            connections,
            capacity,
            draining,
            started_at,
        }
    }

    /// As the others see it; `None` where its name is none.
    pub(super) fn member(&self) -> Option<Member> {
        let Self { node, number, incarnation, address, gateway, intake, version, connections, capacity, .. } =
            self.clone();
        let (draining, started_at) = (self.draining, self.started_at);
        let id = NodeId::parse(&node).ok()?;
        Some(Member {
            id,
            number,
            incarnation,
            address,
            gateway,
            intake,
            version,
            connections,
            capacity,
            draining,
            started_at,
        })
    }
}

impl Entry {
    /// Key and value; no value takes the key out of the topic.
    pub(super) fn write(&self) -> (String, Option<Vec<u8>>) {
        let key = |parts: &[&str]| parts.join(&BETWEEN.to_string());
        match self {
            Self::Ask(beat) => (key(&["j", &beat.node]), serde_json::to_vec(beat).ok()),
            Self::Beat(beat) => (key(&["m", &beat.node]), serde_json::to_vec(beat).ok()),
            Self::Left(node) => (key(&["m", node.as_str()]), None),
            Self::User { life: (node, incarnation), uid, is_online } => {
                let key = key(&["p", node.as_str(), &incarnation.to_string(), uid.as_str()]);
                (key, is_online.then(|| b"1".to_vec()))
            }
            Self::Dead { life: (node, incarnation), by } => {
                (key(&["d", node.as_str(), &incarnation.to_string()]), Some(by.as_str().into()))
            }
            Self::Buried((node, incarnation)) => (key(&["d", node.as_str(), &incarnation.to_string()]), None),
            Self::Number => ("n".to_owned(), Some(b"1".to_vec())),
            Self::Ids { number, from, until, process } => {
                let key = key(&["i", &number.to_string(), &from.to_string(), &process.to_string()]);
                (key, until.map(|until| until.to_string().into_bytes()))
            }
        }
    }

    /// `None` where it is not understood.
    pub(super) fn read(key: &[u8], value: Option<&[u8]>) -> Option<Self> {
        let mut parts = std::str::from_utf8(key).ok()?.split(BETWEEN);
        let kind = parts.next()?;
        let mut node = || NodeId::parse(parts.next()?).ok();
        match kind {
            "j" | "m" => {
                let node = node()?;
                let Some(value) = value else { return (kind == "m").then_some(Self::Left(node)) };
                let beat: Beat = serde_json::from_slice(value).ok().filter(|beat: &Beat| beat.node == node.as_str())?;
                Some(if kind == "j" { Self::Ask(beat) } else { Self::Beat(beat) })
            }
            "p" => {
                let life = (node()?, parts.next()?.parse().ok()?);
                Some(Self::User { life, uid: Uid::parse(parts.next()?).ok()?, is_online: value.is_some() })
            }
            "d" => {
                let life = (node()?, parts.next()?.parse().ok()?);
                let Some(value) = value else { return Some(Self::Buried(life)) };
                Some(Self::Dead { life, by: NodeId::parse(std::str::from_utf8(value).ok()?).ok()? })
            }
            "n" => Some(Self::Number),
            "i" => {
                let [number, from, process] = [parts.next()?, parts.next()?, parts.next()?];
                let until = match value {
                    Some(value) => Some(std::str::from_utf8(value).ok()?.parse().ok()?),
                    None => None,
                };
                Some(Self::Ids {
                    number: number.parse().ok()?,
                    from: from.parse().ok()?,
                    until,
                    process: process.parse().ok()?,
                })
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let node = |name: &str| NodeId::parse(name).unwrap();
        let life = (node("n/1"), 42);
        let member = Member {
            id: node("n/1"),
            number: 7,
            incarnation: 42,
            address: "ws://a".into(),
            gateway: true,
            intake: false,
            version: "1".into(),
            connections: 3,
            capacity: 9,
            draining: true,
            started_at: -5,
        };
        let beat = Beat::of(&member, 11);
        assert_eq!(beat.member(), Some(member));
        let uid = Uid::parse("a:b/云").unwrap();
        for entry in [
            Entry::Ask(beat.clone()),
            Entry::Beat(beat),
            Entry::Left(life.0.clone()),
            Entry::User { life: life.clone(), uid: uid.clone(), is_online: true },
            Entry::User { life: life.clone(), uid, is_online: false },
            Entry::Dead { life: life.clone(), by: node("n2") },
            Entry::Buried(life),
            Entry::Number,
            Entry::Ids { number: 7, from: 1 << 40, until: Some((1 << 40) + 5), process: u64::MAX },
            Entry::Ids { number: 7, from: 0, until: None, process: 3 },
        ] {
            let (key, value) = entry.write();
            assert_eq!(Entry::read(key.as_bytes(), value.as_deref()), Some(entry));
        }
        assert_eq!(Entry::read(b"x\x1fn1", None), None);
        assert_eq!(Entry::read(b"m\x1fn1", Some(b"{}")), None);
    }
}
