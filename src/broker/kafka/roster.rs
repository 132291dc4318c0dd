//! The roster over Kafka: one compacted topic of one partition, which every node reads whole.
//!
//! Kafka has no leases, so a node's sign of life is a record, and silence is measured between records that came back
//! (`roster::state`). One partition makes one order: who was first is the same for everybody. Every node mirrors the users
//! of all nodes in memory; docs/decisions/0011 says how far that goes. Knows no connection.

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
use crate::broker::record::Origin;
use crate::broker::roster::{Fallen, LeaseError, Member, Roster, lease_changed};
use crate::id::{NodeId, Uid};
use crate::vital::Vitals;

/// Every answer is given within two seconds.
const ANSWER: Duration = Duration::from_millis(1_900);
/// Most users that are given out at once.
const MOST_FALLEN: usize = 1_000;
/// Most users that are told again at once after the topic was away.
const MOST_OWED: usize = 10_000;

/// One node's end of the roster.
pub struct KafkaRoster {
    shared: Arc<Shared>,
    /// Ends with the roster.
    _reader: JoinSet<()>,
}

struct Shared {
    node: NodeId,
    /// This process, among all that ever had the name.
    process: u64,
    topic: String,
    voice: Voice,
    heard: Heard,
    state: Mutex<State>,
    census: Arc<Census>,
    /// Whether all that was there at the start is read, and what is read since.
    loaded: watch::Sender<bool>,
    me: Mutex<Me>,
    /// Those who wait for their own record to come back, by its number.
    waiting: Mutex<HashMap<u64, oneshot::Sender<Seen>>>,
    numbers: AtomicU64,
    fault: Mutex<Option<String>>,
}

/// What this node is in the cluster.
#[derive(Default)]
struct Me {
    life: Option<Life>,
    /// Users that are here.
    users: HashSet<Uid>,
    /// Users of whom Kafka may have it wrong.
    owed: HashSet<Uid>,
    /// When a record of this node came back last.
    came_back: Option<Instant>,
    /// Users of dead lives that were given out and may still stand there.
    given: HashSet<(Life, Uid)>,
}

/// What is known in the moment in which an own record comes back.
enum Seen {
    Beat,
    Entrance(Entrance),
    /// Whether the user is on another living node.
    Elsewhere(bool),
    /// Whether the reservation of ids counts.
    Reserved(bool),
}

impl KafkaRoster {
    /// The roster of the cluster `prefix` for `node`; it keeps `census`. Asks nobody yet: a Kafka that is away is no
    /// error. Within a runtime only.
    ///
    /// # Errors
    /// A property that librdkafka does not know, or cannot do in this build.
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
            process: Origin::new(0).life,
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

    fn number(&self, _: &Uid) -> BoxFuture<'_, Result<u64, Unavailable>> {
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

    fn fallen(&self) -> BoxFuture<'_, Result<Vec<Fallen>, Unavailable>> {
        self.shared.fallen().boxed()
    }
}

impl Shared {
    async fn join(&self, me: Member) -> Result<u64, LeaseError> {
        self.loaded(Instant::now() + ANSWER).await?;
        let before = self.me.lock().life.clone();
        let incarnation = match self.ask(&me).await? {
            Entrance::Open(incarnation) => incarnation,
            Entrance::Taken(why) => {
                // This node reads, for its wish came back: who was silent all the time is dead.
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
            // Whoever was here before is here still, in another life.
            own.owed = own.users.clone();
        }
        self.clear(before);
        self.beat(Member { incarnation, ..me }).await?;
        lease_changed("taken");
        self.pay().await;
        Ok(incarnation)
    }

    /// Takes the users of a life that this process has given up off the list; those of one that was found dead are given
    /// out by its keeper.
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

    /// Says again what Kafka may have wrong. What it does not take now is still owed by the next renewal; the lease, which
    /// it took, is none the worse for it.
    async fn pay(&self) {
        let owed: Vec<Uid> = self.me.lock().owed.iter().take(MOST_OWED).cloned().collect();
        let told = owed.into_iter().map(|uid| self.tell_user(uid));
        if let Err(fault) = futures_util::future::try_join_all(told).await {
            tracing::warn!(%fault, topic = self.topic, "the roster could not be told of every user");
        }
    }

    /// Asks to be let in, and waits for what becomes of it.
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
        // Who found this life dead said so in the topic: before the sign of life, which is void then, or it is read by the
        // next renewal.
        let is_lost = || self.state.lock().is_lost(&life);
        if !is_lost() {
            self.beat(Member { incarnation: life.1, ..me }).await?;
        }
        if is_lost() {
            lease_changed("lost");
            return Err(LeaseError::Lost(self.node.clone()));
        }
        self.pay().await;
        Ok(())
    }

    /// Says that this node lives, and hears itself.
    async fn beat(&self, me: Member) -> Result<(), Unavailable> {
        self.hear(&Entry::Beat(Beat::of(&me, self.process))).await.map(|_| ())
    }

    /// Says something and waits until it comes back.
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
            Ok(_) => lease_changed("given_back"),
            Err(fault) => tracing::warn!(%fault, "the roster could not be told that this node leaves"),
        }
    }

    /// Tells where a user is; whether it is on no other node.
    async fn tell_user(&self, uid: Uid) -> Result<bool, Unavailable> {
        let entry = {
            let mut me = self.me.lock();
            let Some(life) = me.life.clone() else { return Err(unavailable("this node is no member")) };
            // Until Kafka has it. Whoever gives up waiting leaves that to the next renewal.
            me.owed.insert(uid.clone());
            Entry::User { life, is_online: me.users.contains(&uid), uid: uid.clone() }
        };
        let seen = self.hear(&entry).await?;
        let mut me = self.me.lock();
        // Meanwhile it may have come or gone, and who told that may have been overtaken.
        if matches!(entry, Entry::User { is_online, .. } if is_online == me.users.contains(&uid)) {
            me.owed.remove(&uid);
        } else {
            me.owed.insert(uid);
        }
        Ok(!matches!(seen, Seen::Elsewhere(true)))
    }

    async fn fallen(&self) -> Result<Vec<Fallen>, Unavailable> {
        let now = self.own_time()?;
        let to_bury = self.state.lock().to_bury(&self.node, now);
        for life in to_bury {
            tracing::info!(node = %life.0, incarnation = life.1, "a node is silent: it is taken for dead");
            self.say(&Entry::Dead { life, by: self.node.clone() }, None).await?;
        }
        let mut fallen = Vec::new();
        let lives = self.state.lock().answers_for(&self.node);
        for life in lives {
            let left = self.state.lock().users_of(&life, MOST_FALLEN);
            if left.is_empty() {
                self.me.lock().given.retain(|(other, _)| *other != life);
                self.voice.whisper(&Entry::Buried(life));
                lease_changed("fallen");
                continue;
            }
            let users = self.give_out(&life, left);
            if !users.is_empty() {
                fallen.push(Fallen { id: life.0, incarnation: life.1, users });
            }
        }
        Ok(fallen)
    }

    /// Those of a dead life's users who are nowhere else, each once. All of them are taken off the list.
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

    /// When this node heard itself last; an error when that is long ago: who hears not even itself knows nothing.
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
        unavailable(why.unwrap_or_else(|| format!("nothing came back from topic {}", self.topic)))
    }

    fn expect(&self, number: u64) -> Expected<'_> {
        let (sender, seen) = oneshot::channel();
        self.waiting.lock().insert(number, sender);
        Expected { shared: self, number, seen }
    }

    /// Adds a record, with its number where somebody waits for it to come back; its offset.
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
                "a record of the roster was not understood"
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
        // Who waited may have given up.
        waiting.map(|waiting| waiting.send(seen));
    }

    /// The topic was cut off or made anew: what it says is all there is, and what this node knows it says again.
    fn restart(&self) {
        tracing::error!(topic = self.topic, "records of the roster were lost: it is built anew");
        *self.state.lock() = State::default();
        let mut me = self.me.lock();
        me.owed = me.users.clone();
    }

    fn fail(&self, fault: &Unavailable) {
        let mut last = self.fault.lock();
        if last.as_deref() != Some(&fault.why) {
            tracing::warn!(topic = self.topic, %fault, "the roster waits for Kafka");
            *last = Some(fault.why.clone());
        }
    }
}

/// Somebody waits for a record of its own.
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
