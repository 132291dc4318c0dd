//! Address header of a bus record. It lets a node skip records for other nodes without reading their bodies.
//!
//! ```text
//! header `to`: kind (1 byte) · hashes (8 bytes each, little-endian)
//! ```
//! A record with a missing or damaged header, or one of an unknown kind, is read. So hash collisions and later kinds
//! lose nothing. Independent of engines.

use std::collections::HashMap;

use smallvec::{SmallVec, smallvec};

use crate::broker::{Address, Subscription};
use crate::id::{NodeId, Room, Uid};
use crate::message::Target;

/// Name of the header.
pub(super) const HEADER: &str = "to";
/// Maximum number of users in a header. A longer list is read by every node.
const MAX_HASHES: usize = 64;

/// Header value, and the lane that keeps the order of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AddressHeader {
    pub(super) header: SmallVec<[u8; 16]>,
    /// Records of one stream have the same lane and so the same partition.
    pub(super) lane: u64,
}

impl AddressHeader {
    /// Header for nodes with a receiver for this target. For a list of users: the part of it that shares a lane.
    pub(super) fn target(target: &Target) -> Self {
        match target {
            Target::User(uid) | Target::Device(uid, _) => Self::one(USERS, user(uid)),
            Target::Users(uids) if uids.len() <= MAX_HASHES => {
                let hashes: SmallVec<[u64; 4]> = uids.iter().map(user).collect();
                Self { header: header(USERS, &hashes), lane: hashes.first().copied().unwrap_or_default() }
            }
            Target::Users(uids) => {
                Self { header: header(EVERYONE, &[]), lane: uids.first().map(user).unwrap_or_default() }
            }
            Target::Room(name) => Self::one(ROOM, room(name)),
            Target::Connection(cid) | Target::ConnectionOf(_, cid) => Self::one(NUMBER, u64::from(cid.node())),
            Target::Everyone | Target::EveryoneBut(_) => Self::everyone(),
        }
    }

    /// Header for nodes at the address of a cluster message.
    pub(super) fn address(address: &Address) -> Self {
        match address {
            Address::Node(node) => Self::one(NODE, self::node(node)),
            Address::User(uid) => Self::one(USERS, user(uid)),
            Address::Everyone => Self::everyone(),
        }
    }

    /// Makes every node read the record. The lane stays the same.
    pub(super) fn read_by_all(self) -> Self {
        Self { header: header(EVERYONE, &[]), ..self }
    }

    /// Header for the one node with this number.
    pub(super) fn number(number: u16) -> Self {
        Self::one(NUMBER, u64::from(number))
    }

    /// Header for a heartbeat that one process run of a node sends to itself.
    pub(super) fn heartbeat(run_id: u64) -> Self {
        Self::one(HEARTBEAT, run_id)
    }

    fn everyone() -> Self {
        Self { header: header(EVERYONE, &[]), lane: 0 }
    }

    fn one(kind: u8, hash: u64) -> Self {
        Self { header: header(kind, &[hash]), lane: hash }
    }
}

/// Lane of a user, for its messages and for cluster messages to it.
pub(super) fn user(uid: &Uid) -> u64 {
    hash(b"u", uid.as_str())
}

fn room(room: &Room) -> u64 {
    hash(b"r", room.as_str())
}

fn node(node: &NodeId) -> u64 {
    hash(b"n", node.as_str())
}

/// Addresses that this node reads.
#[derive(Debug)]
pub(super) struct LocalAddresses {
    node: u64,
    number: u64,
    run_id: u64,
    /// Subscriptions by hash. Two subscriptions with the same hash are both kept.
    subscriptions: HashMap<u64, SmallVec<[Subscription; 1]>, ahash::RandomState>,
}

/// Decision for a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeaderDecision {
    Read,
    Skip,
    /// The record is a heartbeat of this node.
    Heartbeat,
}

impl LocalAddresses {
    pub(super) fn of(node: &NodeId, number: u16, run_id: u64) -> Self {
        Self { node: self::node(node), number: u64::from(number), run_id, subscriptions: HashMap::default() }
    }

    pub(super) fn subscribe(&mut self, subscription: Subscription) {
        let same_hash = self.subscriptions.entry(subscription_hash(&subscription)).or_default();
        if !same_hash.contains(&subscription) {
            same_hash.push(subscription);
        }
    }

    pub(super) fn unsubscribe(&mut self, subscription: &Subscription) {
        let hash = subscription_hash(subscription);
        let Some(same_hash) = self.subscriptions.get_mut(&hash) else { return };
        same_hash.retain(|known| known != subscription);
        if same_hash.is_empty() {
            self.subscriptions.remove(&hash);
        }
    }

    /// Decides by the header of a record.
    pub(super) fn decide(&self, header: Option<&[u8]>) -> HeaderDecision {
        let Some((kind, hashes)) = header.and_then(<[u8]>::split_first) else { return HeaderDecision::Read };
        let mut hashes = hashes.chunks_exact(8).filter_map(|hash| Some(u64::from_le_bytes(hash.try_into().ok()?)));
        let is_mine = match *kind {
            USERS | ROOM => hashes.any(|hash| self.subscriptions.contains_key(&hash)),
            NODE => hashes.any(|hash| hash == self.node),
            NUMBER => hashes.any(|hash| hash == self.number),
            HEARTBEAT => {
                return if hashes.any(|run_id| run_id == self.run_id) {
                    HeaderDecision::Heartbeat
                } else {
                    HeaderDecision::Skip
                };
            }
            _ => true,
        };
        if is_mine { HeaderDecision::Read } else { HeaderDecision::Skip }
    }
}

fn subscription_hash(subscription: &Subscription) -> u64 {
    match subscription {
        Subscription::User(uid) => user(uid),
        Subscription::Room(name) => room(name),
    }
}

/// Splits a target into parts of one partition each. A list of users is divided, so that each user's messages keep
/// their order.
pub(super) fn parts(target: &Target, partitions: usize) -> SmallVec<[Target; 1]> {
    let Target::Users(uids) = target else { return smallvec![target.clone()] };
    let mut parts: Vec<Vec<Uid>> = vec![Vec::new(); partitions.max(1)];
    for uid in uids.iter() {
        parts[partition(user(uid), partitions)].push(uid.clone());
    }
    parts.into_iter().filter(|part| !part.is_empty()).map(|part| Target::Users(part.into())).collect()
}

/// Returns the partition of a lane.
pub(super) fn partition(lane: u64, partitions: usize) -> usize {
    let count = u64::try_from(partitions.max(1)).expect("64 bits hold a count");
    usize::try_from(super::clients::mix_bits(lane) % count).expect("smaller than a usize")
}

const USERS: u8 = b'u';
const ROOM: u8 = b'r';
const NODE: u8 = b'n';
const NUMBER: u8 = b'c';
const HEARTBEAT: u8 = b'e';
const EVERYONE: u8 = b'a';

fn header(kind: u8, hashes: &[u64]) -> SmallVec<[u8; 16]> {
    let mut header: SmallVec<[u8; 16]> = smallvec![kind];
    hashes.iter().for_each(|hash| header.extend_from_slice(&hash.to_le_bytes()));
    header
}

/// FNV-1a, because the hash must be the same on every node and in every build.
fn hash(kind: &[u8], name: &str) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    kind.iter().chain(name.as_bytes()).fold(0xcbf2_9ce4_8422_2325, step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ConnectionId, Device};

    fn uid(name: &str) -> Uid {
        Uid::parse(name).unwrap()
    }

    fn me() -> LocalAddresses {
        LocalAddresses::of(&NodeId::parse("n1").unwrap(), 7, 99)
    }

    fn decided(addresses: &LocalAddresses, to: &AddressHeader) -> HeaderDecision {
        addresses.decide(Some(&to.header))
    }

    #[test]
    fn only_what_is_held_is_read() {
        let mut addresses = me();
        let user = AddressHeader::target(&Target::User(uid("u1")));
        let device = AddressHeader::target(&Target::Device(uid("u1"), Device::parse("d").unwrap()));
        let room = AddressHeader::target(&Target::Room(Room::parse("u1").unwrap()));
        assert_eq!(
            [decided(&addresses, &user), decided(&addresses, &device), decided(&addresses, &room)],
            [HeaderDecision::Skip; 3]
        );
        addresses.subscribe(Subscription::User(uid("u1")));
        addresses.subscribe(Subscription::User(uid("u1")));
        assert_eq!(
            [decided(&addresses, &user), decided(&addresses, &device), decided(&addresses, &room)],
            [HeaderDecision::Read, HeaderDecision::Read, HeaderDecision::Skip]
        );
        assert_eq!(decided(&addresses, &AddressHeader::address(&Address::User(uid("u1")))), HeaderDecision::Read);
        addresses.unsubscribe(&Subscription::User(uid("u1")));
        assert_eq!(decided(&addresses, &user), HeaderDecision::Skip, "a second hold counts nothing");
        assert_eq!(decided(&addresses, &user.read_by_all()), HeaderDecision::Read);
    }

    #[test]
    fn lists_are_for_who_holds_one_of_them_and_long_ones_for_everybody() {
        let mut addresses = me();
        let list = |count: usize| Target::Users((0..count).map(|n| uid(&format!("u{n}"))).collect());
        assert_eq!(decided(&addresses, &AddressHeader::target(&list(3))), HeaderDecision::Skip);
        addresses.subscribe(Subscription::User(uid("u2")));
        assert_eq!(
            [
                decided(&addresses, &AddressHeader::target(&list(3))),
                decided(&addresses, &AddressHeader::target(&list(2)))
            ],
            [HeaderDecision::Read, HeaderDecision::Skip]
        );
        assert_eq!(decided(&me(), &AddressHeader::target(&list(MAX_HASHES + 1))), HeaderDecision::Read);
    }

    #[test]
    fn nodes_are_meant_by_name_by_number_and_by_life() {
        let addresses = me();
        let node = |name: &str| AddressHeader::address(&Address::Node(NodeId::parse(name).unwrap()));
        let cid =
            |number: u64| AddressHeader::target(&Target::Connection(ConnectionId::new((number << 41) + 5).unwrap()));
        assert_eq!(
            [decided(&addresses, &node("n1")), decided(&addresses, &node("n2"))],
            [HeaderDecision::Read, HeaderDecision::Skip]
        );
        assert_eq!(
            [decided(&addresses, &cid(7)), decided(&addresses, &cid(8))],
            [HeaderDecision::Read, HeaderDecision::Skip]
        );
        assert_eq!(
            [decided(&addresses, &AddressHeader::number(7)), decided(&addresses, &AddressHeader::number(8))],
            [HeaderDecision::Read, HeaderDecision::Skip]
        );
        assert_eq!(
            [decided(&addresses, &AddressHeader::heartbeat(99)), decided(&addresses, &AddressHeader::heartbeat(98))],
            [HeaderDecision::Heartbeat, HeaderDecision::Skip]
        );
    }

    #[test]
    fn what_is_not_understood_is_read() {
        for header in [None, Some(&b""[..]), Some(b"z12345678"), Some(b"a")] {
            assert_eq!(me().decide(header), HeaderDecision::Read, "{header:?}");
        }
    }

    #[test]
    fn a_user_has_one_lane_in_whatever_list_it_stands() {
        let list = Target::Users((0..1_000).map(|n| uid(&format!("u{n}"))).collect());
        let parts = parts(&list, 8);
        assert_eq!(parts.len(), 8);
        let mut users = 0;
        for part in &parts {
            let Target::Users(uids) = part else { panic!("{part:?}") };
            let partitions: Vec<usize> = uids.iter().map(|uid| partition(user(uid), 8)).collect();
            assert!(partitions.iter().all(|p| *p == partition(AddressHeader::target(part).lane, 8)), "{partitions:?}");
            users += uids.len();
        }
        assert_eq!(users, 1_000);
        assert_eq!(super::parts(&Target::Everyone, 8).as_slice(), [Target::Everyone]);
    }

    #[test]
    fn a_lane_is_the_same_on_every_node_and_version() {
        assert_eq!(user(&uid("1074")), 0x0797_2473_7261_f73a);
        assert_eq!(partition(user(&uid("1074")), 8), 0);
    }
}
