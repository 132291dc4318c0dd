//! Chooses the node for a client: rendezvous hashing over the healthy gateway nodes, weighted by their free capacity.
//!
//! Every node computes the same result from the same list, and nothing is stored. A node that joins or leaves moves
//! only its own clients. Independent of HTTP.

use std::net::IpAddr;
use std::sync::Arc;

use smallvec::SmallVec;

use super::membership::{AGE, Membership};
use crate::broker::roster::Member;
use crate::config::ChooseBy;
use crate::id::Uid;

/// Number of steps of free capacity. Coarse steps keep single connects from shifting the choice.
const STEPS: u64 = 16;

/// Chooses nodes for clients.
pub(in crate::node) struct NodeChooser {
    by: ChooseBy,
    membership: Arc<Membership>,
}

impl NodeChooser {
    pub(in crate::node) fn new(by: ChooseBy, membership: Arc<Membership>) -> Self {
        Self { by, membership }
    }

    /// Node for this user at this address, or `None` if no node accepts clients. At least one argument is given. If
    /// both are, the configuration decides which one counts.
    pub(in crate::node) async fn choose(&self, uid: Option<&Uid>, ip: Option<IpAddr>) -> Option<Member> {
        let members = self.membership.members_within(AGE).await;
        let me = self.membership.own_member();
        let mine = self.membership.is_held().then_some(&me);
        let others = members.iter().filter(|member| member.id != me.id);
        choose(others.chain(mine), &self.key(uid, ip)).cloned()
    }

    /// Address that the client should use next time, if it belongs to another node.
    pub(in crate::node) fn next_address(&self, uid: Option<&Uid>, ip: Option<IpAddr>) -> Option<String> {
        let members = self.membership.known();
        if members.len() < 2 {
            return None;
        }
        let me = self.membership.own_member();
        let others = members.iter().filter(|member| member.id != me.id);
        let chosen = choose(others.chain([&me]), &self.key(uid, ip))?;
        (chosen.id != me.id && !chosen.address.is_empty()).then(|| chosen.address.clone())
    }

    /// Address of another node that accepts clients, as far as this node knows.
    pub(super) fn other_address(&self, key: &str) -> Option<String> {
        let members = self.membership.known();
        let me = &self.membership.me().id;
        let others = members.iter().filter(|member| member.id != *me && !member.address.is_empty());
        choose(others, key).map(|chosen| chosen.address.clone())
    }

    /// Hash key of a client: user or address.
    pub(super) fn key(&self, uid: Option<&Uid>, ip: Option<IpAddr>) -> String {
        let ip = ip.map(|ip| ip.to_canonical().to_string());
        let uid = uid.map(ToString::to_string);
        let key = match self.by {
            ChooseBy::Uid => uid.or(ip),
            ChooseBy::Ip => ip.or(uid),
        };
        key.unwrap_or_default()
    }
}

/// The member with the highest score for `key`.
fn choose<'a>(members: impl Iterator<Item = &'a Member>, key: &str) -> Option<&'a Member> {
    let fit: SmallVec<[_; 8]> = members.filter(|m| m.gateway && !m.draining && m.connections < m.capacity).collect();
    let largest = fit.iter().map(|member| member.capacity).max()?.max(STEPS);
    fit.into_iter().max_by(|a, b| score(a, key, largest).total_cmp(&score(b, key, largest)))
}

/// Weighted rendezvous hashing: -weight / ln(h), with h between 0 and 1, gives each member its share of the keys.
fn score(member: &Member, key: &str, largest: u64) -> f64 {
    let free = member.capacity.saturating_sub(member.connections);
    // At least one step, so that every node that accepts connections is chosen for some keys.
    let weight = (u128::from(free) * u128::from(STEPS)).div_ceil(u128::from(largest)).max(1) as f64;
    // The upper 53 bits, and never 0 or 1.
    let h = ((hash(key, member.id.as_str()) >> 11) as f64 + 0.5) / (1u64 << 53) as f64;
    -weight / h.ln()
}

/// FNV-1a over both names, then the finalizer of splitmix64. Must be the same on every node and in every version.
fn hash(key: &str, node: &str) -> u64 {
    let bytes = key.bytes().chain([0]).chain(node.bytes());
    let mut hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;

    fn member(id: &str, connections: u64, capacity: u64) -> Member {
        Member {
            id: NodeId::parse(id).unwrap(),
            number: 1,
            incarnation: 1,
            address: format!("{id}:8080"),
            gateway: true,
            intake: false,
            version: String::new(),
            connections,
            capacity,
            draining: false,
            started_at: 0,
        }
    }

    fn shares(members: &[Member]) -> Vec<usize> {
        let mut shares = vec![0; members.len()];
        for user in 0..10_000 {
            let chosen = choose(members.iter(), &format!("u{user}")).unwrap();
            shares[members.iter().position(|m| m.id == chosen.id).unwrap()] += 1;
        }
        shares
    }

    #[test]
    fn nodes_get_users_in_proportion_to_free_capacity() {
        let even = shares(&[member("a", 0, 1000), member("b", 0, 1000), member("c", 0, 1000), member("d", 0, 1000)]);
        assert!(even.iter().all(|share| (2300..2700).contains(share)), "{even:?}");
        let filled = shares(&[member("a", 0, 1000), member("b", 750, 1000)]);
        assert!((7800..8200).contains(&filled[0]), "four to one: {filled:?}");
    }

    #[test]
    fn removed_node_moves_only_its_own_users() {
        let all = [member("a", 0, 1000), member("b", 0, 1000), member("c", 0, 1000)];
        for user in 0..1000 {
            let key = format!("u{user}");
            let (before, after) = (choose(all.iter(), &key).unwrap(), choose(all[..2].iter(), &key).unwrap());
            assert!(before.id == after.id || before.id.as_str() == "c", "{key}");
        }
    }

    #[test]
    fn full_draining_or_intake_only_node_is_not_chosen() {
        let mut draining = member("a", 0, 1000);
        draining.draining = true;
        let mut intake = member("b", 0, 1000);
        intake.gateway = false;
        let all = [draining, intake, member("c", 1000, 1000), member("d", 999, 1000)];
        assert!((0..100).all(|user| choose(all.iter(), &user.to_string()).unwrap().id.as_str() == "d"));
        assert_eq!(choose(all[..3].iter(), "u"), None);
        assert_eq!(choose([].iter(), "u"), None);
    }

    /// Nodes of different versions must choose alike, so these values never change.
    #[test]
    fn hash_of_user_and_node_is_fixed() {
        assert_eq!(hash("1074", "n1"), 0x9629_81af_cd9c_9677);
        assert_eq!(hash("小", "n2"), 0xdbf1_5d9c_cbee_f71f);
        assert_ne!(hash("1074", "n1"), hash("1074n", "1"));
    }
}
