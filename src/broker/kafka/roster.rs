//! The roster over Kafka: one compacted topic with one partition, which every node reads completely.
//!
//! Kafka has no leases. So a heartbeat is a record, and silence is measured between records that came back
//! (`roster::state`). One partition gives one order, so all nodes agree on the first of two records. Every node mirrors
//! the users of all nodes in memory; docs/decisions/0011 states the limit. Independent of connections.

mod ids;
mod log;
mod state;
mod voice;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use parking_lot::Mutex;
use rdkafka::message::{BorrowedMessage, Message};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use self::log::{Beat, Entry, Life};
use self::state::{Entrance, LEASE, State};
use self::voice::Voice;
use super::bus::header;
use super::census::Census;
use super::link::{Heard, Link, Topic, unavailable};
use super::tail::{Begin, Tail};
use crate::broker::Unavailable;
use crate::broker::record::RecordOrigin;
use crate::broker::roster::{ExpiredMember, LeaseError, Member, Roster, count_lease_change};
use crate::id::{NodeId, Uid};
use crate::vital::Vitals;

/// Time limit of an answer. The contract allows two seconds.
const ANSWER: Duration = Duration::from_millis(1_900);
/// Maximum number of users of expired members returned by one call.
const MAX_EXPIRED_USERS: usize = 1_000;
/// Maximum number of users reported again at once after the topic was unavailable.
const MOST_OWED: usize = 10_000;

/// Kafka roster of one node.
pub struct KafkaRoster {
    shared: Arc<Shared>,
    /// Aborts the reader when the roster is dropped.
    _reader: JoinSet<()>,
}

struct Shared {
    node: NodeId,
    /// Random number that tells this process from all others with the same node name.
    process: u64,
    topic: String,
    voice: Voice,
    heard: Heard,
    state: Mutex<State>,
    census: Arc<Census>,
    /// True once the records that existed at the start are read.
    loaded: watch::Sender<bool>,
    me: Mutex<Me>,
    /// Callers that wait for their own record to come back, by record number.
    waiting: Mutex<HashMap<u64, oneshot::Sender<Seen>>>,
    numbers: AtomicU64,
    fault: Mutex<Option<String>>,
}

/// State of this node in the cluster.
#[derive(Default)]
struct Me {
    life: Option<Life>,
    /// Users that are online on this node.
    users: HashSet<Uid>,
    /// Users that Kafka may have wrong and that must be reported again.
    owed: HashSet<Uid>,
    /// Time at which the last record of this node came back.
    came_back: Option<Instant>,
    /// Users of dead incarnations that were returned and may still be in the topic.
    given: HashSet<(Life, Uid)>,
}

/// Result that is determined when an own record comes back.
enum Seen {
    Beat,
    Entrance(Entrance),
    /// True if the user is online on another living node.
    Elsewhere(bool),
    /// True if the reservation of ids is valid.
    Reserved(bool),
}

impl KafkaRoster {
    /// Starts the roster of the cluster `prefix` for `node`, which updates `census`. Sends no request yet, so an
    /// unreachable Kafka is no error. Must run within a Tokio runtime.
    ///
    /// # Errors
    /// A property is unknown to librdkafka or not supported by this build.
    pub fn start(
        link: &Link,
        prefix: &str,
        node: &NodeId,
        census: Arc<Census>,
        vitals: &Vitals,
    ) -> Result<Self, Unavailable> {
        let heard = Heard::of(link);
        let topic = format!("{prefix}.members");
        let settings = vec![
            ("cleanup.policy", "compact".to_owned()),
            ("min.cleanable.dirty.ratio", "0.1".to_owned()),
            ("segment.ms", "600000".to_owned()),
        ];
        let made = Topic { name: topic.clone(), partitions: 1, settings };
        let tail = Tail::new(link, made, Begin::First, node.as_str(), heard.clone())?;
        let shared = Arc::new(Shared {
            node: node.clone(),
            process: RecordOrigin::new(0).run_id,
            voice: Voice::new(link, &topic, heard.clone())?,
            topic,
            heard,
            state: Mutex::default(),
            census,
            loaded: watch::Sender::new(false),
            me: Mutex::default(),
            waiting: Mutex::default(),
            numbers: AtomicU64::new(1),
            fault: Mutex::default(),
        });
        let mut reader = JoinSet::new();
        reader.spawn(vitals.run("roster reader", read(Arc::clone(&shared), tail)));
        Ok(Self { shared, _reader: reader })
    }
}

impl Roster for KafkaRoster {
    fn join(&self, me: &Member) -> BoxFuture<'_, Result<u64, LeaseError>> {
        let me = me.clone();
        async move { self.shared.join(me).await }.boxed()
    }

    fn renew(&self, me: &Member) -> BoxFuture<'_, Result<(), LeaseError>> {
        let me = me.clone();
        async move { self.shared.renew(me).await }.boxed()
    }

    fn leave(&self) -> BoxFuture<'_, ()> {
        self.shared.leave().boxed()
    }

    fn members(&self) -> BoxFuture<'_, Result<Vec<Member>, Unavailable>> {
        async { Ok(self.shared.state.lock().members(self.shared.own_time()?)) }.boxed()
    }

    fn next_number(&self, _: &Uid) -> BoxFuture<'_, Result<u64, Unavailable>> {
        async { Ok(self.shared.say(&Entry::Number, None).await? + 1) }.boxed()
    }

    fn online(&self, uid: &Uid) -> BoxFuture<'_, Result<bool, Unavailable>> {
        self.shared.me.lock().users.insert(uid.clone());
        self.shared.tell_user(uid.clone()).boxed()
    }

    fn offline(&self, uid: &Uid) -> BoxFuture<'_, Result<bool, Unavailable>> {
        self.shared.me.lock().users.remove(uid);
        self.shared.tell_user(uid.clone()).boxed()
    }

    fn expired(&self) -> BoxFuture<'_, Result<Vec<ExpiredMember>, Unavailable>> {
        self.shared.expired().boxed()
    }
}

impl Shared {
    async fn join(&self, me: Member) -> Result<u64, LeaseError> {
        self.loaded(Instant::now() + ANSWER).await?;
        let before = self.me.lock().life.clone();
        let incarnation = match self.ask(&me).await? {
            Entrance::Open(incarnation) => incarnation,
            Entrance::Taken(why) => {
                // The join request came back, so this node reads the topic. Members that were silent all the time are
                // dead.
                let silent = self.state.lock().silent(Instant::now());
                if silent.is_empty() {
                    return Err(LeaseError::Taken(why));
                }
                for life in silent {
                    self.say(&Entry::Dead { life, by: self.node.clone() }, None).await?;
                }
                match self.ask(&me).await? {
                    Entrance::Open(incarnation) => incarnation,
                    Entrance::Taken(why) => return Err(LeaseError::Taken(why)),
                }
            }
        };
        {
            let mut own = self.me.lock();
            own.life = Some((me.id.clone(), incarnation));
            own.given.clear();
            // Users that were online before the join are still online, under the new incarnation.
            own.owed = own.users.clone();
        }
        self.clear(before);
        self.beat(Member { incarnation, ..me }).await?;
        count_lease_change("taken");
        self.pay().await;
        Ok(incarnation)
    }

    /// Removes the users of an incarnation that this process has given up. If the incarnation was found dead, the node
    /// responsible for it removes its users.
    fn clear(&self, before: Option<Life>) {
        let Some(life) = before else { return };
        let left = {
            let state = self.state.lock();
            if state.is_lost(&life) { Vec::new() } else { state.users_of(&life, usize::MAX) }
        };
        for uid in left {
            self.voice.whisper(&Entry::User { life: life.clone(), uid, is_online: false });
        }
    }

    /// Repeats user reports that Kafka may have missed. A failed report is repeated by the next renewal and does not
    /// affect the lease, which Kafka has already accepted.
    async fn pay(&self) {
        let owed: Vec<Uid> = self.me.lock().owed.iter().take(MOST_OWED).cloned().collect();
        let told = owed.into_iter().map(|uid| self.tell_user(uid));
        if let Err(fault) = futures_util::future::try_join_all(told).await {
            tracing::warn!(%fault, topic = self.topic, "online users not written; retrying with the next renewal");
        }
    }

    /// Sends a join request and waits for the result.
    async fn ask(&self, me: &Member) -> Result<Entrance, Unavailable> {
        let beat = Beat::of(&Member { incarnation: 0, ..me.clone() }, self.process);
        match self.hear(&Entry::Ask(beat)).await? {
            Seen::Entrance(entrance) => Ok(entrance),
            Seen::Beat | Seen::Elsewhere(_) | Seen::Reserved(_) => Err(self.away()),
        }
    }

    async fn renew(&self, me: Member) -> Result<(), LeaseError> {
        let life = self.me.lock().life.clone();
        let Some(life) = life else { return Err(LeaseError::Lost(self.node.clone())) };
        // A node that found this incarnation dead wrote that to the topic. If it stands before this heartbeat, the
        // heartbeat is void. Otherwise the next renewal reads it.
        let is_lost = || self.state.lock().is_lost(&life);
        if !is_lost() {
            self.beat(Member { incarnation: life.1, ..me }).await?;
        }
        if is_lost() {
            count_lease_change("lost");
            return Err(LeaseError::Lost(self.node.clone()));
        }
        self.pay().await;
        Ok(())
    }

    /// Sends a heartbeat and waits until it comes back.
    async fn beat(&self, me: Member) -> Result<(), Unavailable> {
        self.hear(&Entry::Beat(Beat::of(&me, self.process))).await.map(|_| ())
    }

    /// Sends a record and waits until it comes back.
    async fn hear(&self, entry: &Entry) -> Result<Seen, Unavailable> {
        let deadline = Instant::now() + ANSWER;
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let mut came_back = self.expect(number);
        self.say(entry, Some(number)).await?;
        match timeout_at(deadline, &mut came_back.seen).await {
            Ok(Ok(seen)) => Ok(seen),
            _ => Err(self.away()),
        }
    }

    async fn leave(&self) {
        let (life, users) = {
            let mut me = self.me.lock();
            (me.life.take(), std::mem::take(&mut me.users))
        };
        let Some(life) = life else { return };
        for uid in users {
            self.voice.whisper(&Entry::User { life: life.clone(), uid, is_online: false });
        }
        match self.hear(&Entry::Left(life.0)).await {
            Ok(_) => count_lease_change("given_back"),
            Err(fault) => tracing::warn!(%fault, "leave was not written to the roster; the lease expires by itself"),
        }
    }

    /// Reports the current state of a user. Returns true if the user is on no other node.
    async fn tell_user(&self, uid: Uid) -> Result<bool, Unavailable> {
        let entry = {
            let mut me = self.me.lock();
            let Some(life) = me.life.clone() else {
                return Err(unavailable("this node is not a member of the cluster"));
            };
            // Stays until Kafka has the record. If the caller stops waiting, the next renewal repeats the report.
            me.owed.insert(uid.clone());
            Entry::User { life, is_online: me.users.contains(&uid), uid: uid.clone() }
        };
        let seen = self.hear(&entry).await?;
        let mut me = self.me.lock();
        // The user may have come or gone meanwhile, and the reports of the two may have been reordered.
        if matches!(entry, Entry::User { is_online, .. } if is_online == me.users.contains(&uid)) {
            me.owed.remove(&uid);
        } else {
            me.owed.insert(uid);
        }
        Ok(!matches!(seen, Seen::Elsewhere(true)))
    }

    async fn expired(&self) -> Result<Vec<ExpiredMember>, Unavailable> {
        let now = self.own_time()?;
        let to_bury = self.state.lock().to_bury(&self.node, now);
        for life in to_bury {
            tracing::info!(node = %life.0, incarnation = life.1, "node sent no heartbeat; declared dead");
            self.say(&Entry::Dead { life, by: self.node.clone() }, None).await?;
        }
        let mut expired = Vec::new();
        let lives = self.state.lock().answers_for(&self.node);
        for life in lives {
            let left = self.state.lock().users_of(&life, MAX_EXPIRED_USERS);
            if left.is_empty() {
                self.me.lock().given.retain(|(other, _)| *other != life);
                self.voice.whisper(&Entry::Buried(life));
                count_lease_change("fallen");
                continue;
            }
            let users = self.give_out(&life, left);
            if !users.is_empty() {
                expired.push(ExpiredMember { id: life.0, incarnation: life.1, users });
            }
        }
        Ok(expired)
    }

    /// Returns the users of a dead incarnation that are on no other node, each once. Removes all of them from the
    /// topic.
    fn give_out(&self, life: &Life, left: Vec<Uid>) -> Vec<Uid> {
        let mut users = Vec::new();
        for uid in left {
            let is_new = self.me.lock().given.insert((life.clone(), uid.clone()));
            let is_here = self.me.lock().users.contains(&uid);
            if is_new && !is_here && !self.state.lock().is_elsewhere(&self.node, &uid) {
                users.push(uid.clone());
            }
            self.voice.whisper(&Entry::User { life: life.clone(), uid, is_online: false });
        }
        users
    }

    /// Returns the time at which this node last received its own record. Fails if that is long ago, because the node
    /// then does not receive the topic.
    fn own_time(&self) -> Result<Instant, Unavailable> {
        let came_back = self.me.lock().came_back.filter(|came_back| came_back.elapsed() < LEASE);
        came_back.ok_or_else(|| self.away())
    }

    async fn loaded(&self, deadline: Instant) -> Result<(), Unavailable> {
        let mut loaded = self.loaded.subscribe();
        let done = timeout_at(deadline, loaded.wait_for(|loaded| *loaded)).await.is_ok_and(|done| done.is_ok());
        if done { Ok(()) } else { Err(self.away()) }
    }

    fn away(&self) -> Unavailable {
        let why = self.fault.lock().clone().or_else(|| self.heard.last());
        unavailable(why.unwrap_or_else(|| format!("no own record received from topic {}", self.topic)))
    }

    fn expect(&self, number: u64) -> Expected<'_> {
        let (sender, seen) = oneshot::channel();
        self.waiting.lock().insert(number, sender);
        Expected { shared: self, number, seen }
    }

    /// Appends a record and returns its offset. A `number` marks a record that a caller waits for.
    async fn say(&self, entry: &Entry, number: Option<u64>) -> Result<u64, Unavailable> {
        let mark = number.map(|number| [self.process.to_le_bytes(), number.to_le_bytes()].concat());
        match timeout(ANSWER, self.voice.say(entry, mark.as_deref())).await {
            Ok(said) => said,
            Err(_) => Err(self.away()),
        }
    }

    fn take(&self, message: &BorrowedMessage<'_>, is_past: bool) {
        let key = message.key().unwrap_or_default();
        let (Some(entry), Ok(offset)) = (Entry::read(key, message.payload()), u64::try_from(message.offset())) else {
            return tracing::warn!(
                topic = self.topic,
                offset = message.offset(),
                "roster record cannot be decoded; skipped"
            );
        };
        let now = Instant::now();
        let uid = if let Entry::User { uid, .. } = &entry { Some(uid.clone()) } else { None };
        let ids =
            if let Entry::Ids { number, from, process, .. } = entry { Some((number, (from, process))) } else { None };
        let own = header(message).and_then(<[u8]>::split_first_chunk::<8>);
        let number = own.filter(|(process, _)| u64::from_le_bytes(**process) == self.process);
        let number = number.and_then(|(_, number)| Some(u64::from_le_bytes(number.try_into().ok()?)));
        let moves_members = matches!(entry, Entry::Beat(_) | Entry::Left(_) | Entry::Dead { .. });
        let mut state = self.state.lock();
        let entrance = state.apply(offset, entry, now, is_past);
        if moves_members && !is_past {
            let living =
                state.heard(&self.node).map(|now| state.members(now).into_iter().map(|member| member.id).collect());
            self.census.set(living.unwrap_or_default());
        }
        let Some(number) = number else { return };
        self.me.lock().came_back = Some(now);
        let waiting = self.waiting.lock().remove(&number);
        let seen = match (entrance, uid) {
            (Some((_, entrance)), _) => Seen::Entrance(entrance),
            (None, Some(uid)) => Seen::Elsewhere(state.is_elsewhere(&self.node, &uid)),
            (None, None) => match ids {
                Some((number, which)) => Seen::Reserved(state.reserved(number).granted == Some(which)),
                None => Seen::Beat,
            },
        };
        // The caller may have stopped waiting.
        waiting.map(|waiting| waiting.send(seen));
    }

    /// Rebuilds the state after the topic was truncated or recreated. Reports the users of this node again.
    fn restart(&self) {
        tracing::error!(topic = self.topic, "roster records were lost; rebuilding the roster");
        *self.state.lock() = State::default();
        let mut me = self.me.lock();
        me.owed = me.users.clone();
    }

    fn fail(&self, fault: &Unavailable) {
        let mut last = self.fault.lock();
        if last.as_deref() != Some(&fault.why) {
            tracing::warn!(topic = self.topic, %fault, "roster unavailable; retrying");
            *last = Some(fault.why.clone());
        }
    }
}

/// Registration of a caller that waits for its own record.
struct Expected<'a> {
    shared: &'a Shared,
    number: u64,
    seen: oneshot::Receiver<Seen>,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.shared.waiting.lock().remove(&self.number);
    }
}

async fn read(shared: Arc<Shared>, mut tail: Tail) {
    loop {
        let has_lost = tail.stand(|fault| shared.fail(fault)).await;
        if has_lost {
            shared.restart();
        }
        *shared.fault.lock() = None;
        let consumer = Arc::clone(&tail.consumer);
        let mut stream = consumer.stream();
        let mut is_past = !tail.is_at_end();
        loop {
            if !is_past {
                shared.loaded.send_if_modified(|loaded| !std::mem::replace(loaded, true));
            }
            match stream.next().await {
                Some(Ok(message)) => {
                    if tail.note(&message).is_some() {
                        shared.take(&message, is_past);
                        is_past = is_past && !tail.is_at_end();
                    }
                }
                Some(Err(error)) if tail.stands_after(&error) => {}
                Some(Err(_)) | None => break,
            }
        }
    }
}
