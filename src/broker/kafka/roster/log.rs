//! Records of the roster's topic: keys and values, in one sequence that every node reads in the same order.
//!
//! The topic is compacted: Kafka keeps the newest record of each key. The parts of a key are separated by a control
//! character, which no name contains. Values are JSON, so that operators can read them. Independent of engines.

use serde::{Deserialize, Serialize};

use crate::broker::roster::Member;
use crate::id::{NodeId, Uid};

/// Separator of the parts of a key.
const BETWEEN: char = '\u{1f}';

/// One incarnation of a node: node id and incarnation number.
pub(super) type NodeIncarnation = (NodeId, u64);

/// Content of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Entry {
    /// A node asks to join.
    JoinRequest(Heartbeat),
    /// Heartbeat of a node.
    Heartbeat(Heartbeat),
    /// A node left the cluster.
    Left(NodeId),
    /// A user came online on a node, or went offline there.
    User {
        /// Incarnation of the node.
        incarnation: NodeIncarnation,
        /// Id of the user.
        uid: Uid,
        /// True if the user came online.
        is_online: bool,
    },
    /// An incarnation was found dead; `by` reports its users offline.
    Dead {
        /// Incarnation that is dead.
        incarnation: NodeIncarnation,
        /// Node that found it dead.
        by: NodeId,
    },
    /// All users of a dead incarnation were reported.
    Reported(NodeIncarnation),
    /// Takes a number: only the offset of the record counts.
    Number,
    /// A process reserves the ids of a node number in `from..until`.
    Ids {
        /// Node number that the ids belong to.
        number: u16,
        /// First reserved id.
        from: u64,
        /// End of the block (exclusive). `None` deletes the record because a later reservation replaces it.
        until: Option<u64>,
        /// Process that reserves.
        process: u64,
    },
}

/// Description of a node in its own heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Heartbeat {
    /// Name of the node.
    node: String,
    /// Tells two processes with the same name apart.
    #[serde(rename = "life")]
    pub(super) process: u64,
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

impl Heartbeat {
    pub(super) fn of(member: &Member, process: u64) -> Self {
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
            process,
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

    /// Converts the heartbeat to a member. `None` if the name is invalid.
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
    /// Encodes key and value. A record without a value deletes the key from the topic.
    pub(super) fn write(&self) -> (String, Option<Vec<u8>>) {
        let key = |parts: &[&str]| parts.join(&BETWEEN.to_string());
        match self {
            Self::JoinRequest(heartbeat) => (key(&["j", &heartbeat.node]), serde_json::to_vec(heartbeat).ok()),
            Self::Heartbeat(heartbeat) => (key(&["m", &heartbeat.node]), serde_json::to_vec(heartbeat).ok()),
            Self::Left(node) => (key(&["m", node.as_str()]), None),
            Self::User { incarnation: (node, incarnation), uid, is_online } => {
                let key = key(&["p", node.as_str(), &incarnation.to_string(), uid.as_str()]);
                (key, is_online.then(|| b"1".to_vec()))
            }
            Self::Dead { incarnation: (node, incarnation), by } => {
                (key(&["d", node.as_str(), &incarnation.to_string()]), Some(by.as_str().into()))
            }
            Self::Reported((node, incarnation)) => (key(&["d", node.as_str(), &incarnation.to_string()]), None),
            Self::Number => ("n".to_owned(), Some(b"1".to_vec())),
            Self::Ids { number, from, until, process } => {
                let key = key(&["i", &number.to_string(), &from.to_string(), &process.to_string()]);
                (key, until.map(|until| until.to_string().into_bytes()))
            }
        }
    }

    /// Decodes a record. `None` if it is not understood.
    pub(super) fn read(key: &[u8], value: Option<&[u8]>) -> Option<Self> {
        let mut parts = std::str::from_utf8(key).ok()?.split(BETWEEN);
        let kind = parts.next()?;
        let mut node = || NodeId::parse(parts.next()?).ok();
        match kind {
            "j" | "m" => {
                let node = node()?;
                let Some(value) = value else { return (kind == "m").then_some(Self::Left(node)) };
                let heartbeat: Heartbeat = serde_json::from_slice(value)
                    .ok()
                    .filter(|heartbeat: &Heartbeat| heartbeat.node == node.as_str())?;
                Some(if kind == "j" { Self::JoinRequest(heartbeat) } else { Self::Heartbeat(heartbeat) })
            }
            "p" => {
                let incarnation = (node()?, parts.next()?.parse().ok()?);
                Some(Self::User { incarnation, uid: Uid::parse(parts.next()?).ok()?, is_online: value.is_some() })
            }
            "d" => {
                let incarnation = (node()?, parts.next()?.parse().ok()?);
                let Some(value) = value else { return Some(Self::Reported(incarnation)) };
                Some(Self::Dead { incarnation, by: NodeId::parse(std::str::from_utf8(value).ok()?).ok()? })
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
        let incarnation = (node("n/1"), 42);
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
        let heartbeat = Heartbeat::of(&member, 11);
        assert_eq!(heartbeat.member(), Some(member));
        let uid = Uid::parse("a:b/云").unwrap();
        for entry in [
            Entry::JoinRequest(heartbeat.clone()),
            Entry::Heartbeat(heartbeat),
            Entry::Left(incarnation.0.clone()),
            Entry::User { incarnation: incarnation.clone(), uid: uid.clone(), is_online: true },
            Entry::User { incarnation: incarnation.clone(), uid, is_online: false },
            Entry::Dead { incarnation: incarnation.clone(), by: node("n2") },
            Entry::Reported(incarnation),
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
