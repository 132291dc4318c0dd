//! Bus and roster in shared memory for several nodes in one process, with faults on demand.
//!
//! Models a routing bus: a record goes to the nodes that subscribed to one of its streams, and every copy is counted.
//! Leases use tokio's clock, so a test with a paused clock controls their end. Independent of engines.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::broker::roster::{ExpiredMember, LeaseError, Member, Roster};
use crate::broker::{Address, Batch, Broker, Deliver, Fate, Subscription, Unavailable};
use crate::id::{NodeId, Uid};
use crate::message::{Envelope, Receipt, Target};

/// Time to live of a lease.
const TTL: Duration = Duration::from_secs(10);

/// State shared by all nodes.
#[derive(Clone, Default)]
pub(crate) struct Shared(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    nodes: BTreeMap<NodeId, Arc<dyn Deliver>>,
    numbers_of_nodes: HashMap<NodeId, u16>,
    subscribed: HashMap<NodeId, HashSet<Subscription>>,
    /// Number of envelope copies that each node received.
    copies: BTreeMap<NodeId, usize>,
    /// Nodes that cannot reach the engine.
    cut: HashSet<NodeId>,
    /// Nodes that receive no cluster messages.
    deaf: HashSet<NodeId>,
    /// Delay of the answer to an offline report.
    offline_delay: Duration,
    /// True if the engine does not count the recipients of cluster messages and envelopes.
    counts_nothing: bool,
    leases: BTreeMap<NodeId, Lease>,
    incarnations: u64,
    numbers: HashMap<Uid, u64>,
    /// Nodes and incarnations that have each user online.
    online: HashMap<Uid, BTreeSet<(NodeId, u64)>>,
}

struct Lease {
    member: Member,
    until: Instant,
}

impl Shared {
    /// Returns bus and roster for `node`, which delivers to `deliver`.
    pub(crate) fn engine(
        &self,
        node: &NodeId,
        number: u16,
        deliver: Arc<dyn Deliver>,
    ) -> (Arc<dyn Broker>, Arc<dyn Roster>) {
        let mut state = self.0.lock();
        state.nodes.insert(node.clone(), deliver);
        state.numbers_of_nodes.insert(node.clone(), number);
        let endpoint = Arc::new(Endpoint { me: node.clone(), shared: self.clone(), own_users: Mutex::default() });
        (Arc::clone(&endpoint) as _, endpoint)
    }

    /// Kills the node: its lease expires and nothing reaches it.
    pub(crate) fn kill(&self, node: &NodeId) {
        let mut state = self.0.lock();
        state.nodes.remove(node);
        state.subscribed.remove(node);
        state.cut.insert(node.clone());
    }

    /// Delays each answer to an offline report from now on.
    pub(crate) fn delay_offline_reports(&self, wait: Duration) {
        self.0.lock().offline_delay = wait;
    }

    /// Cuts the node off from the engine, or connects it again.
    pub(crate) fn cut(&self, node: &NodeId, cut: bool) {
        let mut state = self.0.lock();
        if cut {
            state.cut.insert(node.clone());
        } else {
            state.cut.remove(node);
        }
    }

    /// Stops the delivery of cluster messages to the node.
    pub(crate) fn deafen(&self, node: &NodeId) {
        self.0.lock().deaf.insert(node.clone());
    }

    /// Stops counting recipients.
    pub(crate) fn count_nothing(&self) {
        self.0.lock().counts_nothing = true;
    }

    /// Makes the engine lose all data about nodes and users.
    pub(crate) fn lose_everything(&self) {
        let mut state = self.0.lock();
        state.leases.clear();
        state.online.clear();
        state.numbers.clear();
    }

    /// Number of envelopes that each node received since the last call.
    pub(crate) fn copies(&self) -> BTreeMap<NodeId, usize> {
        std::mem::take(&mut self.0.lock().copies)
    }

    /// True if the node has this subscription.
    pub(crate) fn is_subscribed(&self, node: &NodeId, subscription: &Subscription) -> bool {
        self.0.lock().subscribed.get(node).is_some_and(|subscribed| subscribed.contains(subscription))
    }

    /// Nodes that have the user online in the roster.
    pub(crate) fn nodes_of(&self, uid: &Uid) -> Vec<NodeId> {
        let state = self.0.lock();
        state.online.get(uid).into_iter().flatten().map(|(node, _)| node.clone()).collect()
    }
}

impl State {
    fn check_reachable(&self, me: &NodeId) -> Result<(), Unavailable> {
        match self.cut.contains(me) {
            true => Err(Unavailable { engine: "shared", why: format!("{me} is cut off") }),
            false => Ok(()),
        }
    }

    /// Incarnation of the node's current lease.
    fn incarnation(&self, me: &NodeId) -> Result<u64, Unavailable> {
        let lease = self.leases.get(me).filter(|lease| lease.until > Instant::now());
        let gone = Unavailable { engine: "shared", why: format!("{me} has no lease") };
        lease.map(|lease| lease.member.incarnation).ok_or(gone)
    }

    fn is_for(&self, node: &NodeId, envelope: &Envelope) -> bool {
        let is_subscribed =
            |subscription| self.subscribed.get(node).is_some_and(|subscribed| subscribed.contains(&subscription));
        let named = envelope.nodes.is_empty() || envelope.nodes.contains(node);
        named
            && match &envelope.target {
                Target::Connection(cid) | Target::ConnectionOf(_, cid) => {
                    self.numbers_of_nodes.get(node) == Some(&cid.node())
                }
                Target::User(uid) | Target::Device(uid, _) => is_subscribed(Subscription::User(uid.clone())),
                Target::Users(uids) => uids.iter().any(|uid| is_subscribed(Subscription::User(uid.clone()))),
                Target::Room(room) => is_subscribed(Subscription::Room(room.clone())),
                Target::Everyone | Target::EveryoneBut(_) => true,
            }
    }

    fn addressed(&self, address: &Address) -> Vec<(NodeId, Arc<dyn Deliver>)> {
        let is_addressed = |node: &NodeId| match address {
            Address::Node(id) => id == node,
            Address::User(uid) => self
                .subscribed
                .get(node)
                .is_some_and(|subscribed| subscribed.contains(&Subscription::User(uid.clone()))),
            Address::Everyone => true,
        };
        let addressed = self.nodes.iter().filter(|(node, _)| is_addressed(node) && !self.cut.contains(*node));
        addressed.map(|(node, deliver)| (node.clone(), Arc::clone(deliver))).collect()
    }

    /// Removes expired leases. The users of each are returned once.
    fn expire(&mut self) -> Vec<ExpiredMember> {
        let now = Instant::now();
        let ended = self.leases.values().filter(|lease| lease.until <= now);
        let ended: Vec<_> = ended.map(|lease| (lease.member.id.clone(), lease.member.incarnation)).collect();
        let mut expired = Vec::new();
        for (id, incarnation) in ended {
            self.leases.remove(&id);
            expired.push(ExpiredMember { users: self.remove_users(&id, incarnation), id, incarnation });
        }
        expired
    }

    /// Removes the users of this incarnation. Returns those that are on no other node.
    fn remove_users(&mut self, node: &NodeId, incarnation: u64) -> Vec<Uid> {
        let own = (node.clone(), incarnation);
        let mut alone = Vec::new();
        self.online.retain(|uid, nodes| {
            if nodes.remove(&own) && nodes.is_empty() {
                alone.push(uid.clone());
            }
            !nodes.is_empty()
        });
        alone.sort_unstable();
        alone
    }
}

/// A node's share of a batch: indexes of its envelopes.
type Part = (Arc<dyn Deliver>, Vec<usize>);

/// One node's view of the shared state.
struct Endpoint {
    me: NodeId,
    shared: Shared,
    /// Users that this node has reported online, independent of the engine's state.
    own_users: Mutex<HashSet<Uid>>,
}

impl Endpoint {
    fn answer<T: Send + 'static, E: From<Unavailable> + Send + 'static>(
        &self,
        apply: impl FnOnce(&mut State) -> Result<T, E>,
    ) -> BoxFuture<'static, Result<T, E>> {
        let mut state = self.shared.0.lock();
        let answer = state.check_reachable(&self.me).map_err(E::from).and_then(|()| apply(&mut state));
        std::future::ready(answer).boxed()
    }

    async fn deliver(&self, batch: Batch) -> Vec<Fate> {
        let Some((counts, parts)) = self.parts(&batch) else {
            return batch.iter().map(|_| Fate::Unavailable).collect();
        };
        let mut nodes = vec![0u32; batch.len()];
        let mut receipts = vec![Receipt::default(); batch.len()];
        for (deliver, part) in parts {
            let part_receipts = deliver.deliver(part.iter().map(|i| batch[*i].clone()).collect(), Vec::new()).await;
            for (i, receipt) in part.into_iter().zip(part_receipts) {
                nodes[i] += 1;
                receipts[i].delivered += receipt.delivered;
                receipts[i].full += receipt.full;
            }
        }
        let known = |id: &NodeId| self.shared.0.lock().numbers_of_nodes.contains_key(id);
        let fate = |(i, envelope): (usize, &Envelope)| Fate::Accepted {
            positions: Vec::new(),
            is_unkept: false,
            receipt: envelope.receipts.then(|| receipts[i].clone()),
            nodes: counts.then_some(nodes[i]),
            unknown_nodes: envelope.nodes.iter().filter(|id| !known(id)).cloned().collect(),
        };
        batch.iter().enumerate().map(fate).collect()
    }

    /// Splits the batch by receiving node and counts the copies.
    fn parts(&self, batch: &Batch) -> Option<(bool, Vec<Part>)> {
        let mut state = self.shared.0.lock();
        state.check_reachable(&self.me).ok()?;
        let mut parts = Vec::new();
        for (node, deliver) in &state.nodes {
            let part: Vec<usize> = (0..batch.len()).filter(|i| state.is_for(node, &batch[*i])).collect();
            if !part.is_empty() && !state.cut.contains(node) {
                parts.push((node.clone(), Arc::clone(deliver), part));
            }
        }
        for (node, _, part) in &parts {
            *state.copies.entry(node.clone()).or_default() += part.len();
        }
        Some((!state.counts_nothing, parts.into_iter().map(|(_, deliver, part)| (deliver, part)).collect()))
    }
}

impl Broker for Endpoint {
    fn publish(&self, batch: Batch) -> BoxFuture<'_, Vec<Fate>> {
        self.deliver(batch).boxed()
    }

    fn send_cluster_message(
        &self,
        address: Address,
        message: Bytes,
    ) -> BoxFuture<'_, Result<Option<u32>, Unavailable>> {
        let addressed = {
            let state = self.shared.0.lock();
            state
                .check_reachable(&self.me)
                .map(|()| (state.addressed(&address), state.deaf.clone(), state.counts_nothing))
        };
        let reached = addressed.map(|(receivers, deaf, counts_nothing)| {
            for (node, deliver) in &receivers {
                if !deaf.contains(node) {
                    deliver.on_cluster_message(&self.me, message.clone());
                }
            }
            (!counts_nothing).then(|| u32::try_from(receivers.len()).expect("a test has few nodes"))
        });
        std::future::ready(reached).boxed()
    }

    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<(), Unavailable>> {
        let me = self.me.clone();
        self.answer(move |state| {
            state.subscribed.entry(me).or_default().insert(subscription);
            Ok(())
        })
    }

    fn unsubscribe(&self, subscription: &Subscription) {
        if let Some(subscribed) = self.shared.0.lock().subscribed.get_mut(&self.me) {
            subscribed.remove(subscription);
        }
    }

    fn faults(&self) -> Vec<String> {
        let reachable = self.shared.0.lock().check_reachable(&self.me);
        reachable.err().map(|why| why.to_string()).into_iter().collect()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.shared.kill(&self.me);
        std::future::ready(()).boxed()
    }
}

impl Roster for Endpoint {
    fn join(&self, me: &Member) -> BoxFuture<'_, Result<u64, LeaseError>> {
        let me = me.clone();
        let own_users = self.own_users.lock().clone();
        self.answer(move |state| {
            let now = Instant::now();
            let living = state.leases.values().filter(|lease| lease.until > now).map(|lease| &lease.member);
            let mut same = living.filter(|other| other.id == me.id || other.number == me.number);
            if let Some(other) = same.next() {
                return Err(LeaseError::Taken(format!("node {} is here already as number {}", other.id, other.number)));
            }
            state.incarnations += 1;
            let member = Member { incarnation: state.incarnations, ..me };
            for uid in own_users {
                state.online.entry(uid).or_default().insert((member.id.clone(), member.incarnation));
            }
            state.leases.insert(member.id.clone(), Lease { member, until: now + TTL });
            Ok(state.incarnations)
        })
    }

    fn renew(&self, me: &Member) -> BoxFuture<'_, Result<(), LeaseError>> {
        let me = me.clone();
        self.answer(move |state| {
            let now = Instant::now();
            let lease = state.leases.get_mut(&me.id).filter(|lease| lease.until > now);
            let lease = lease.filter(|lease| lease.member.incarnation == me.incarnation);
            let lease = lease.ok_or_else(|| LeaseError::Lost(me.id.clone()))?;
            (lease.member, lease.until) = (me, now + TTL);
            Ok(())
        })
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        let mut state = self.shared.0.lock();
        if let Some(lease) = state.leases.remove(&self.me) {
            state.remove_users(&self.me, lease.member.incarnation);
        }
        std::future::ready(()).boxed()
    }

    fn members(&self) -> BoxFuture<'_, Result<Vec<Member>, Unavailable>> {
        self.answer(|state| {
            let now = Instant::now();
            Ok(state.leases.values().filter(|lease| lease.until > now).map(|lease| lease.member.clone()).collect())
        })
    }

    fn next_number(&self, uid: &Uid) -> BoxFuture<'_, Result<u64, Unavailable>> {
        let uid = uid.clone();
        self.answer(move |state| {
            let number = state.numbers.entry(uid).or_default();
            *number += 1;
            Ok(*number)
        })
    }

    fn online(&self, uid: &Uid) -> BoxFuture<'_, Result<bool, Unavailable>> {
        self.own_users.lock().insert(uid.clone());
        let (me, uid) = (self.me.clone(), uid.clone());
        self.answer(move |state| {
            let incarnation = state.incarnation(&me)?;
            let nodes = state.online.entry(uid).or_default();
            nodes.insert((me, incarnation));
            Ok(nodes.len() == 1)
        })
    }

    fn offline(&self, uid: &Uid) -> BoxFuture<'_, Result<bool, Unavailable>> {
        self.own_users.lock().remove(uid);
        let (me, uid) = (self.me.clone(), uid.clone());
        let wait = self.shared.0.lock().offline_delay;
        let answer = self.answer(move |state| {
            let incarnation = state.incarnation(&me)?;
            let Some(nodes) = state.online.get_mut(&uid) else { return Ok(true) };
            nodes.remove(&(me, incarnation));
            let nowhere = nodes.is_empty();
            if nowhere {
                state.online.remove(&uid);
            }
            Ok(nowhere)
        });
        async move {
            tokio::time::sleep(wait).await;
            answer.await
        }
        .boxed()
    }

    fn expired(&self) -> BoxFuture<'_, Result<Vec<ExpiredMember>, Unavailable>> {
        self.answer(|state| Ok(state.expire()))
    }
}
