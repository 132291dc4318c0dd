//! State built from the records of the roster: members, users of each incarnation, dead incarnations and the nodes
//! responsible for them.
//!
//! Every node applies the same records in the same order. So all nodes agree on joins, on dead incarnations and on the
//! node responsible for each. Silence is local: each node measures it between records that it read itself. A node
//! without connection to Kafka receives no records, not even its own, so it finds no node dead. Independent of engines;
//! time is an argument.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::super::clients::mix_bits;
use super::log::{Entry, Heartbeat, NodeIncarnation};
use crate::broker::roster::Member;
use crate::id::{NodeId, Uid};

/// Silence after which a member is no longer listed. Three heartbeats are missing by then.
pub(super) const LEASE: Duration = Duration::from_secs(9);
/// Silence after which a member is dead. Not shorter: a node closes its connections ten seconds after its last renewal,
/// and users must be gone before others report them offline.
const DEAD_AFTER: Duration = Duration::from_secs(10);
/// Additional delay per rank before a node finds a member dead: 0 for the first rank, one delay for the second.
const RANK_DELAY: Duration = Duration::from_secs(2);

#[derive(Default)]
pub(super) struct State {
    members: HashMap<NodeId, LiveMember>,
    /// Nodes that asked to join lately.
    joining: Vec<LiveMember>,
    /// Dead incarnations with users that are not reported yet, and the node responsible for each.
    dead: HashMap<NodeIncarnation, NodeId>,
    /// Newest dead incarnation of each name.
    last_dead: HashMap<NodeId, u64>,
    users: HashMap<NodeIncarnation, HashSet<Uid>, ahash::RandomState>,
    /// Id reservations of each node number.
    ids: HashMap<u16, Reserved>,
    holders: HashMap<Uid, SmallVec<[NodeIncarnation; 1]>, ahash::RandomState>,
}

struct LiveMember {
    member: Member,
    process: u64,
    last_heartbeat: Instant,
}

/// Id reservations of one node number.
#[derive(Default)]
pub(super) struct Reserved {
    /// All ids below are reserved.
    pub(super) bound: u64,
    /// Reservations in the topic: begin and process.
    pub(super) reservations: Vec<(u64, u64)>,
    /// The last reservation, if it is valid.
    pub(super) granted: Option<(u64, u64)>,
}

/// Result of a join request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum JoinResult {
    /// The node has joined, with this incarnation.
    Joined(u64),
    /// The join was refused, for this reason.
    Refused(String),
}

impl State {
    /// Applies the record at `offset`. Returns the result of a join request with its process. Only the requesting
    /// process uses the result: the other nodes learn of a member by its heartbeats. Join requests of the past
    /// (`is_past`) are ignored.
    pub(super) fn apply(
        &mut self,
        offset: u64,
        entry: Entry,
        now: Instant,
        is_past: bool,
    ) -> Option<(u64, JoinResult)> {
        match entry {
            Entry::JoinRequest(heartbeat) if !is_past => {
                return Some((heartbeat.process, self.join(offset, &heartbeat, now)?));
            }
            Entry::JoinRequest(_) | Entry::Number => {}
            Entry::Ids { number, from, until, process } => self.reserve(number, (from, process), until),
            Entry::Heartbeat(heartbeat) => self.on_heartbeat(&heartbeat, now),
            Entry::Left(node) => {
                self.joining.retain(|other| other.member.id != node);
                if let Some(left) = self.members.remove(&node) {
                    self.remove_all_users(&(node, left.member.incarnation));
                }
            }
            Entry::User { incarnation, uid, is_online: true } => self.add_user(incarnation, uid),
            Entry::User { incarnation, uid, is_online: false } => self.remove_user(&incarnation, &uid),
            Entry::Dead { incarnation, by } => self.declare_dead(incarnation, by),
            Entry::Reported(incarnation) => {
                self.dead.remove(&incarnation);
                self.remove_all_users(&incarnation);
            }
        }
        None
    }

    /// Notes a reservation. It is valid only if it begins at or above the bound. Its end always raises the bound,
    /// because compaction may drop an earlier reservation.
    fn reserve(&mut self, number: u16, reservation: (u64, u64), until: Option<u64>) {
        let reserved = self.ids.entry(number).or_default();
        reserved.reservations.retain(|other| *other != reservation);
        let Some(until) = until else { return };
        reserved.granted = (reservation.0 >= reserved.bound).then_some(reservation);
        reserved.bound = reserved.bound.max(until);
        reserved.reservations.push(reservation);
    }

    /// Returns the id reservations of a node number.
    pub(super) fn reserved(&mut self, number: u16) -> &Reserved {
        self.ids.entry(number).or_default()
    }

    fn join(&mut self, offset: u64, heartbeat: &Heartbeat, now: Instant) -> Option<JoinResult> {
        let mut member = heartbeat.member()?;
        self.joining.retain(|other| {
            now.saturating_duration_since(other.last_heartbeat) < LEASE && other.process != heartbeat.process
        });
        let mut others = self.members.values().chain(&self.joining);
        // A process that asks again gives up its previous incarnation, which then blocks no request.
        let other = others.find(|other| {
            other.process != heartbeat.process && (other.member.id == member.id || other.member.number == member.number)
        });
        if let Some(LiveMember { member: other, last_heartbeat, .. }) = other {
            let since = now.saturating_duration_since(*last_heartbeat).as_secs();
            let (id, number) = (&other.id, other.number);
            let why = format!(
                "node {id} with number {number} sent a heartbeat {since} s ago: expected an unused name and number"
            );
            return Some(JoinResult::Refused(why));
        }
        member.incarnation = offset + 1;
        self.joining.push(LiveMember { member, process: heartbeat.process, last_heartbeat: now });
        Some(JoinResult::Joined(offset + 1))
    }

    fn on_heartbeat(&mut self, heartbeat: &Heartbeat, now: Instant) {
        let Some(member) = heartbeat.member() else { return };
        // From now on the heartbeats of the member are enough.
        self.joining.retain(|other| other.process != heartbeat.process);
        let is_dead = self.last_dead.get(&member.id).is_some_and(|last| *last >= member.incarnation);
        let is_past = self.members.get(&member.id).is_some_and(|l| l.member.incarnation > member.incarnation);
        if is_dead || is_past {
            return;
        }
        let (id, incarnation) = (member.id.clone(), member.incarnation);
        let before =
            self.members.insert(id.clone(), LiveMember { member, process: heartbeat.process, last_heartbeat: now });
        // The node reports its users again under the new incarnation.
        if let Some(before) = before.map(|live| live.member.incarnation).filter(|before| *before < incarnation) {
            self.remove_all_users(&(id, before));
        }
    }

    fn add_user(&mut self, incarnation: NodeIncarnation, uid: Uid) {
        if self.last_dead.get(&incarnation.0).is_some_and(|last| *last >= incarnation.1) {
            return;
        }
        let holders = self.holders.entry(uid.clone()).or_default();
        if !holders.contains(&incarnation) {
            holders.push(incarnation.clone());
        }
        self.users.entry(incarnation).or_default().insert(uid);
    }

    fn remove_user(&mut self, incarnation: &NodeIncarnation, uid: &Uid) {
        if let Some(holders) = self.holders.get_mut(uid) {
            holders.retain(|holder| holder != incarnation);
            if holders.is_empty() {
                self.holders.remove(uid);
            }
        }
        if let Some(users) = self.users.get_mut(incarnation) {
            users.remove(uid);
            if users.is_empty() {
                self.users.remove(incarnation);
            }
        }
    }

    fn remove_all_users(&mut self, incarnation: &NodeIncarnation) {
        for uid in self.users.remove(incarnation).unwrap_or_default() {
            self.remove_user(incarnation, &uid);
        }
    }

    /// Makes the first node that found an incarnation dead responsible for it, as long as that node is alive.
    fn declare_dead(&mut self, incarnation: NodeIncarnation, by: NodeId) {
        if self.members.get(&incarnation.0).is_some_and(|live| live.member.incarnation == incarnation.1) {
            self.members.remove(&incarnation.0);
        }
        let last = self.last_dead.entry(incarnation.0.clone()).or_default();
        *last = incarnation.1.max(*last);
        let has_live_owner = self.dead.get(&incarnation).is_some_and(|owner| self.members.contains_key(owner));
        if !has_live_owner {
            self.dead.insert(incarnation, by);
        }
    }

    /// Returns members that were silent long enough to be dead, as seen by a node that is not a member itself.
    pub(super) fn silent_members(&self, now: Instant) -> Vec<NodeIncarnation> {
        let silent_members =
            self.members.values().filter(|live| now.saturating_duration_since(live.last_heartbeat) >= DEAD_AFTER);
        silent_members.map(|live| (live.member.id.clone(), live.member.incarnation)).collect()
    }

    /// True if a later incarnation has the name, or this one was found dead.
    pub(super) fn is_lost(&self, (node, incarnation): &NodeIncarnation) -> bool {
        self.last_dead.get(node).is_some_and(|last| last >= incarnation)
            || self.members.get(node).is_some_and(|l| l.member.incarnation > *incarnation)
    }

    /// Time of the last heartbeat of that node.
    pub(super) fn last_heartbeat(&self, node: &NodeId) -> Option<Instant> {
        self.members.get(node).map(|live| live.last_heartbeat)
    }

    /// Returns members with a heartbeat within one lease before `now`, by id.
    pub(super) fn members(&self, now: Instant) -> Vec<Member> {
        let mut members: Vec<Member> = self.live_members(now).map(|live| live.member.clone()).collect();
        members.sort_by(|a, b| a.id.cmp(&b.id));
        members
    }

    fn live_members(&self, now: Instant) -> impl Iterator<Item = &LiveMember> {
        self.members.values().filter(move |live| now.saturating_duration_since(live.last_heartbeat) < LEASE)
    }

    /// True if a living node other than `me` has the user online.
    pub(super) fn is_elsewhere(&self, me: &NodeId, uid: &Uid) -> bool {
        let is_other = |(node, incarnation): &NodeIncarnation| {
            node != me && self.members.get(node).is_some_and(|l| l.member.incarnation == *incarnation)
        };
        self.holders.get(uid).is_some_and(|holders| holders.iter().any(is_other))
    }

    /// Returns the incarnations that `me` must declare dead at `now`, the time of its own last heartbeat. These are
    /// members that were silent too long, and dead ones without a living responsible node. The first in line of each
    /// (rendezvous hashing over the living members) acts first.
    pub(super) fn to_declare_dead(&self, me: &NodeId, now: Instant) -> Vec<NodeIncarnation> {
        let silent_members = self.members.values().filter(|live| live.member.id != *me).filter_map(|live| {
            let incarnation = (live.member.id.clone(), live.member.incarnation);
            let limit = DEAD_AFTER + RANK_DELAY * self.rank(me, &incarnation, now);
            (now.saturating_duration_since(live.last_heartbeat) >= limit).then_some(incarnation)
        });
        let orphans = self
            .dead
            .iter()
            .filter(|(incarnation, owner)| !self.members.contains_key(*owner) && self.rank(me, incarnation, now) == 0);
        silent_members.chain(orphans.map(|(incarnation, _)| incarnation.clone())).collect()
    }

    fn rank(&self, me: &NodeId, incarnation: &NodeIncarnation, now: Instant) -> u32 {
        let weight = |node: &NodeId| {
            let bytes = node.as_str().bytes().chain(incarnation.0.as_str().bytes()).chain(incarnation.1.to_le_bytes());
            bytes.fold(0, |hash, byte| mix_bits(hash ^ u64::from(byte)))
        };
        let mine = weight(me);
        let before = self
            .live_members(now)
            .filter(|l| l.member.id != *me && l.member.id != incarnation.0 && weight(&l.member.id) > mine);
        u32::try_from(before.count()).unwrap_or(u32::MAX)
    }

    /// Dead incarnations that `me` is responsible for.
    pub(super) fn owned_by(&self, me: &NodeId) -> Vec<NodeIncarnation> {
        self.dead.iter().filter(|(_, owner)| *owner == me).map(|(incarnation, _)| incarnation.clone()).collect()
    }

    /// Up to `most` users of an incarnation.
    pub(super) fn users_of(&self, incarnation: &NodeIncarnation, most: usize) -> Vec<Uid> {
        self.users.get(incarnation).map(|users| users.iter().take(most).cloned().collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Log {
        state: State,
        now: Instant,
        offset: u64,
    }

    fn node(name: &str) -> NodeId {
        NodeId::parse(name).unwrap()
    }

    fn uid(name: &str) -> Uid {
        Uid::parse(name).unwrap()
    }

    fn heartbeat(name: &str, number: u16, incarnation: u64) -> Heartbeat {
        let member = Member {
            id: node(name),
            number,
            incarnation,
            address: String::new(),
            gateway: true,
            intake: true,
            version: String::new(),
            connections: 0,
            capacity: 0,
            draining: false,
            started_at: 0,
        };
        Heartbeat::of(&member, u64::from(number) + 100)
    }

    impl Log {
        fn new() -> Self {
            Self { state: State::default(), now: Instant::now(), offset: 10 }
        }

        fn add(&mut self, entry: Entry) -> Option<JoinResult> {
            self.offset += 1;
            self.state.apply(self.offset, entry, self.now, false).map(|(_, result)| result)
        }

        fn join(&mut self, name: &str, number: u16) -> NodeIncarnation {
            let Some(JoinResult::Joined(incarnation)) = self.add(Entry::JoinRequest(heartbeat(name, number, 0))) else {
                panic!("taken")
            };
            self.add(Entry::Heartbeat(heartbeat(name, number, incarnation)));
            (node(name), incarnation)
        }

        fn user(&mut self, incarnation: &NodeIncarnation, name: &str, is_online: bool) {
            self.add(Entry::User { incarnation: incarnation.clone(), uid: uid(name), is_online });
        }

        fn pass(&mut self, seconds: u64) {
            self.now += Duration::from_secs(seconds);
        }

        fn names(&self) -> Vec<String> {
            self.state.members(self.now).iter().map(|member| member.id.to_string()).collect()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_name_and_a_number_are_taken_once() {
        let mut log = Log::new();
        assert_eq!(log.add(Entry::JoinRequest(heartbeat("b", 2, 0))), Some(JoinResult::Joined(12)));
        let text = "node b with number 2";
        let same = |result: Option<JoinResult>| matches!(result, Some(JoinResult::Refused(why)) if why.contains(text));
        let mut twin = heartbeat("b", 3, 0);
        twin.process = 1;
        assert!(same(log.add(Entry::JoinRequest(twin))), "it has not even said that it lives");
        log.add(Entry::Heartbeat(heartbeat("b", 2, 12)));
        log.pass(20);
        let mut cousin = heartbeat("c", 2, 0);
        cousin.process = 9;
        assert!(same(log.add(Entry::JoinRequest(cousin))));
        assert_eq!(
            log.state.apply(5, Entry::JoinRequest(heartbeat("d", 4, 0)), log.now, true),
            None,
            "a wish of the past"
        );
        assert!(matches!(log.add(Entry::JoinRequest(heartbeat("a", 1, 0))), Some(JoinResult::Joined(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_gone_leaves_its_name_at_once() {
        let mut log = Log::new();
        log.join("a", 1);
        log.add(Entry::Left(node("a")));
        let mut twin = heartbeat("a", 1, 0);
        twin.process = 5;
        assert!(matches!(log.add(Entry::JoinRequest(twin)), Some(JoinResult::Joined(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_that_asks_again_is_let_in_and_brings_its_users() {
        let mut log = Log::new();
        let (first, other) = (log.join("a", 1), log.join("b", 2));
        log.user(&first, "u", true);
        log.user(&first, "gone", true);
        // The lease was lost or the heartbeat came too late. In both cases the same process joins again at once.
        let second = log.join("a", 1);
        assert!(second.1 > first.1 && log.state.is_lost(&first) && !log.state.is_lost(&second));
        assert_eq!(log.names(), ["a", "b"]);
        log.user(&second, "u", true);
        assert!(log.state.is_elsewhere(&other.0, &uid("u")) && !log.state.is_elsewhere(&other.0, &uid("gone")));
        assert_eq!((log.state.users_of(&first, 9), log.state.users_of(&second, 9)), (vec![], vec![uid("u")]));
        let mut twin = heartbeat("a", 1, 0);
        twin.process = 5;
        assert!(
            matches!(log.add(Entry::JoinRequest(twin)), Some(JoinResult::Refused(_))),
            "another process is another node"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_node_is_found_dead_by_the_first_in_line() {
        let mut log = Log::new();
        let incarnations = [log.join("a", 1), log.join("b", 2), log.join("c", 3)];
        log.pass(8);
        log.add(Entry::Heartbeat(heartbeat("a", 1, incarnations[0].1)));
        log.add(Entry::Heartbeat(heartbeat("b", 2, incarnations[1].1)));
        assert_eq!(log.names(), ["a", "b", "c"]);
        log.pass(1);
        assert_eq!(log.names(), ["a", "b"]);
        assert!(log.state.to_declare_dead(&node("a"), log.now).is_empty(), "its own lease may last a second longer");
        log.pass(1);
        let finds =
            |log: &Log, name: &str| log.state.to_declare_dead(&node(name), log.now) == [incarnations[2].clone()];
        assert!(finds(&log, "a") != finds(&log, "b"), "one of them is first");
        log.pass(2);
        assert!(finds(&log, "a") && finds(&log, "b"), "the other does not wait for ever");
        log.add(Entry::Dead { incarnation: incarnations[2].clone(), by: node("b") });
        log.add(Entry::Dead { incarnation: incarnations[2].clone(), by: node("a") });
        assert_eq!(
            (log.state.owned_by(&node("a")), log.state.owned_by(&node("b"))),
            (vec![], vec![incarnations[2].clone()])
        );
        assert!(log.state.is_lost(&incarnations[2]) && !log.state.is_lost(&incarnations[0]));
        // Late records of a paused node change nothing.
        log.add(Entry::Heartbeat(heartbeat("c", 3, incarnations[2].1)));
        log.user(&incarnations[2], "late", true);
        assert_eq!(
            (log.names(), log.state.users_of(&incarnations[2], 9)),
            (vec!["a".to_owned(), "b".to_owned()], vec![])
        );
    }

    #[tokio::test(start_paused = true)]
    async fn who_answers_for_the_dead_is_followed_by_another() {
        let mut log = Log::new();
        let (a, b, c) = (log.join("a", 1), log.join("b", 2), log.join("c", 3));
        log.user(&c, "u", true);
        log.add(Entry::Dead { incarnation: c.clone(), by: node("b") });
        log.add(Entry::Dead { incarnation: b.clone(), by: node("a") });
        assert!(log.state.to_declare_dead(&node("a"), log.now).contains(&c), "its keeper is dead");
        log.add(Entry::Dead { incarnation: c.clone(), by: node("a") });
        assert!(log.state.owned_by(&node("a")).contains(&c));
        assert_eq!(log.state.users_of(&c, 9), [uid("u")]);
        log.add(Entry::Reported(c.clone()));
        assert!(!log.state.owned_by(&node("a")).contains(&c) && log.state.users_of(&c, 9).is_empty());
        let _ = a;
    }

    #[tokio::test(start_paused = true)]
    async fn a_user_is_elsewhere_while_another_living_node_has_it() {
        let mut log = Log::new();
        let (a, b) = (log.join("a", 1), log.join("b", 2));
        log.user(&a, "u", true);
        log.user(&b, "u", true);
        log.user(&b, "u", true);
        assert!(log.state.is_elsewhere(&node("a"), &uid("u")) && log.state.is_elsewhere(&node("b"), &uid("u")));
        log.user(&b, "u", false);
        assert!(!log.state.is_elsewhere(&node("a"), &uid("u")) && log.state.is_elsewhere(&node("b"), &uid("u")));
        log.add(Entry::Left(node("a")));
        assert!(!log.state.is_elsewhere(&node("b"), &uid("u")));
    }

    #[tokio::test(start_paused = true)]
    async fn a_compacted_topic_tells_the_same() {
        // Compaction keeps the newest record of each key, so users can stand before the heartbeat of their node.
        let mut log = Log::new();
        let incarnation = (node("a"), 5);
        log.user(&incarnation, "u", true);
        assert!(!log.state.is_elsewhere(&node("b"), &uid("u")), "nobody knows its node yet");
        log.add(Entry::Heartbeat(heartbeat("a", 1, 5)));
        assert!(log.state.is_elsewhere(&node("b"), &uid("u")));
        // A later incarnation of the same name replaces this one; an earlier one does not.
        log.add(Entry::Heartbeat(heartbeat("a", 1, 9)));
        log.add(Entry::Heartbeat(heartbeat("a", 1, 5)));
        assert_eq!(log.state.members(log.now)[0].incarnation, 9);
        assert!(log.state.is_lost(&incarnation));
    }

    #[tokio::test(start_paused = true)]
    async fn of_two_reservations_of_the_same_ids_one_counts() {
        let mut log = Log::new();
        let ids = |from, until, process| Entry::Ids { number: 7, from, until, process };
        log.add(ids(100, Some(200), 1));
        assert_eq!(log.state.reserved(7).granted, Some((100, 1)));
        log.add(ids(100, Some(150), 2));
        let reserved = log.state.reserved(7);
        assert_eq!((reserved.granted, reserved.bound), (None, 200));
        log.add(ids(200, Some(300), 2));
        log.add(ids(100, None, 1));
        log.add(ids(100, None, 2));
        let reserved = log.state.reserved(7);
        assert_eq!((reserved.bound, reserved.reservations.as_slice()), (300, &[(200, 2)][..]));
        // The records that compaction keeps lead a new reader to the same bound.
        let mut later = Log::new();
        later.add(ids(200, Some(300), 2));
        assert_eq!(later.state.reserved(7).bound, 300);
        assert_eq!(later.state.reserved(8).bound, 0);
    }
}
