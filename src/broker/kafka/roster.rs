//! The roster over Kafka: one compacted topic with one partition, which every node reads completely.
//!
//! Kafka has no leases. So a heartbeat is a record, and silence is measured between records that came back
//! (`roster::state`). One partition gives one order, so all nodes agree on the first of two records. Every node mirrors
//! the users of all nodes in memory; docs/decisions/0011 states the limit. Independent of connections.

mod ids;
mod log;
mod state;
mod writer;

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

use self::log::{Entry, Heartbeat, NodeIncarnation};
use self::state::{JoinResult, LEASE, State};
use self::writer::LogWriter;
use super::bus::header;
use super::clients::{ErrorContext, KafkaClients, Topic, unavailable};
use super::live_nodes::LiveNodes;
use super::topic_reader::{StartAt, TopicReader};
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
const MAX_REPORTS: usize = 10_000;

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
    writer: LogWriter,
    errors: ErrorContext,
    state: Mutex<State>,
    live_nodes: Arc<LiveNodes>,
    /// True once the records that existed at the start are read.
    loaded: watch::Sender<bool>,
    local: Mutex<LocalMember>,
    /// Callers that wait for their own record to come back, by record number.
    waiting: Mutex<HashMap<u64, oneshot::Sender<RecordResult>>>,
    numbers: AtomicU64,
    fault: Mutex<Option<String>>,
}

/// State of this node in the cluster.
#[derive(Default)]
struct LocalMember {
    incarnation: Option<NodeIncarnation>,
    /// Users that are online on this node.
    users: HashSet<Uid>,
    /// Users that Kafka may have wrong and that must be reported again.
    unreported: HashSet<Uid>,
    /// Time at which the last record of this node came back.
    last_own_record: Option<Instant>,
    /// Users of dead incarnations that were returned and may still be in the topic.
    returned: HashSet<(NodeIncarnation, Uid)>,
}

/// Result that is determined when an own record comes back.
enum RecordResult {
    Heartbeat,
    Join(JoinResult),
    /// True if the user is online on another living node.
    Elsewhere(bool),
    /// True if the reservation of ids is valid.
    Reserved(bool),
}

impl KafkaRoster {
    /// Starts the roster of the cluster `prefix` for `node`, which updates `live_nodes`. Sends no request yet, so an
    /// unreachable Kafka is no error. Must run within a Tokio runtime.
    ///
    /// # Errors
    /// A property is unknown to librdkafka or not supported by this build.
    pub fn start(
        clients: &KafkaClients,
        prefix: &str,
        node: &NodeId,
        live_nodes: Arc<LiveNodes>,
        vitals: &Vitals,
    ) -> Result<Self, Unavailable> {
        let errors = ErrorContext::of(clients);
        let topic = format!("{prefix}.members");
        let settings = vec![
            ("cleanup.policy", "compact".to_owned()),
            ("min.cleanable.dirty.ratio", "0.1".to_owned()),
            ("segment.ms", "600000".to_owned()),
        ];
        let made = Topic { name: topic.clone(), partitions: 1, settings };
        let topic_reader = TopicReader::new(clients, made, StartAt::First, node.as_str(), errors.clone())?;
        let shared = Arc::new(Shared {
            node: node.clone(),
            process: RecordOrigin::new(0).run_id,
            writer: LogWriter::new(clients, &topic, errors.clone())?,
            topic,
            errors,
            state: Mutex::default(),
            live_nodes,
            loaded: watch::Sender::new(false),
            local: Mutex::default(),
            waiting: Mutex::default(),
            numbers: AtomicU64::new(1),
            fault: Mutex::default(),
        });
        let mut reader = JoinSet::new();
        reader.spawn(vitals.run("roster reader", read(Arc::clone(&shared), topic_reader)));
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
        async { Ok(self.shared.state.lock().members(self.shared.last_own_record_time()?)) }.boxed()
    }

    fn next_number(&self, _: &Uid) -> BoxFuture<'_, Result<u64, Unavailable>> {
        async { Ok(self.shared.append(&Entry::Number, None).await? + 1) }.boxed()
    }

    fn online(&self, uid: &Uid) -> BoxFuture<'_, Result<bool, Unavailable>> {
        self.shared.local.lock().users.insert(uid.clone());
        self.shared.report_user(uid.clone()).boxed()
    }

    fn offline(&self, uid: &Uid) -> BoxFuture<'_, Result<bool, Unavailable>> {
        self.shared.local.lock().users.remove(uid);
        self.shared.report_user(uid.clone()).boxed()
    }

    fn expired(&self) -> BoxFuture<'_, Result<Vec<ExpiredMember>, Unavailable>> {
        self.shared.expired().boxed()
    }
}

impl Shared {
    async fn join(&self, me: Member) -> Result<u64, LeaseError> {
        self.loaded(Instant::now() + ANSWER).await?;
        let before = self.local.lock().incarnation.clone();
        let incarnation = match self.request_join(&me).await? {
            JoinResult::Joined(incarnation) => incarnation,
            JoinResult::Refused(why) => {
                // The join request came back, so this node reads the topic. Members that were silent all the time are
                // dead.
                let silent = self.state.lock().silent_members(Instant::now());
                if silent.is_empty() {
                    return Err(LeaseError::Taken(why));
                }
                for incarnation in silent {
                    self.append(&Entry::Dead { incarnation, by: self.node.clone() }, None).await?;
                }
                match self.request_join(&me).await? {
                    JoinResult::Joined(incarnation) => incarnation,
                    JoinResult::Refused(why) => return Err(LeaseError::Taken(why)),
                }
            }
        };
        {
            let mut own = self.local.lock();
            own.incarnation = Some((me.id.clone(), incarnation));
            own.returned.clear();
            // Users that were online before the join are still online, under the new incarnation.
            own.unreported = own.users.clone();
        }
        self.remove_users(before);
        self.send_heartbeat(Member { incarnation, ..me }).await?;
        count_lease_change("taken");
        self.repeat_reports().await;
        Ok(incarnation)
    }

    /// Removes the users of an incarnation that this process has given up. If the incarnation was found dead, the node
    /// responsible for it removes its users.
    fn remove_users(&self, before: Option<NodeIncarnation>) {
        let Some(incarnation) = before else { return };
        let left = {
            let state = self.state.lock();
            if state.is_lost(&incarnation) { Vec::new() } else { state.users_of(&incarnation, usize::MAX) }
        };
        for uid in left {
            self.writer.append_unconfirmed(&Entry::User { incarnation: incarnation.clone(), uid, is_online: false });
        }
    }

    /// Repeats user reports that Kafka may have missed. A failed report is repeated by the next renewal and does not
    /// affect the lease, which Kafka has already accepted.
    async fn repeat_reports(&self) {
        let unreported: Vec<Uid> = self.local.lock().unreported.iter().take(MAX_REPORTS).cloned().collect();
        let reports = unreported.into_iter().map(|uid| self.report_user(uid));
        if let Err(fault) = futures_util::future::try_join_all(reports).await {
            tracing::warn!(%fault, topic = self.topic, "online users not written; retrying with the next renewal");
        }
    }

    /// Sends a join request and waits for the result.
    async fn request_join(&self, me: &Member) -> Result<JoinResult, Unavailable> {
        let heartbeat = Heartbeat::of(&Member { incarnation: 0, ..me.clone() }, self.process);
        match self.append_and_wait(&Entry::JoinRequest(heartbeat)).await? {
            RecordResult::Join(join_result) => Ok(join_result),
            RecordResult::Heartbeat | RecordResult::Elsewhere(_) | RecordResult::Reserved(_) => {
                Err(self.current_fault())
            }
        }
    }

    async fn renew(&self, me: Member) -> Result<(), LeaseError> {
        let incarnation = self.local.lock().incarnation.clone();
        let Some(incarnation) = incarnation else { return Err(LeaseError::Lost(self.node.clone())) };
        // A node that found this incarnation dead wrote that to the topic. If that record precedes this heartbeat, the
        // heartbeat is void. Otherwise the next renewal reads it.
        let is_lost = || self.state.lock().is_lost(&incarnation);
        if !is_lost() {
            self.send_heartbeat(Member { incarnation: incarnation.1, ..me }).await?;
        }
        if is_lost() {
            count_lease_change("lost");
            return Err(LeaseError::Lost(self.node.clone()));
        }
        self.repeat_reports().await;
        Ok(())
    }

    /// Sends a heartbeat and waits until it comes back.
    async fn send_heartbeat(&self, me: Member) -> Result<(), Unavailable> {
        self.append_and_wait(&Entry::Heartbeat(Heartbeat::of(&me, self.process))).await.map(|_| ())
    }

    /// Sends a record and waits until it comes back.
    async fn append_and_wait(&self, entry: &Entry) -> Result<RecordResult, Unavailable> {
        let deadline = Instant::now() + ANSWER;
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let mut expected = self.expect(number);
        self.append(entry, Some(number)).await?;
        match timeout_at(deadline, &mut expected.result).await {
            Ok(Ok(result)) => Ok(result),
            _ => Err(self.current_fault()),
        }
    }

    async fn leave(&self) {
        let (incarnation, users) = {
            let mut local = self.local.lock();
            (local.incarnation.take(), std::mem::take(&mut local.users))
        };
        let Some(incarnation) = incarnation else { return };
        for uid in users {
            self.writer.append_unconfirmed(&Entry::User { incarnation: incarnation.clone(), uid, is_online: false });
        }
        match self.append_and_wait(&Entry::Left(incarnation.0)).await {
            Ok(_) => count_lease_change("given_back"),
            Err(fault) => tracing::warn!(%fault, "leave was not written to the roster; the lease expires by itself"),
        }
    }

    /// Reports the current state of a user. Returns true if the user is on no other node.
    async fn report_user(&self, uid: Uid) -> Result<bool, Unavailable> {
        let entry = {
            let mut local = self.local.lock();
            let Some(incarnation) = local.incarnation.clone() else {
                return Err(unavailable("this node is not a member of the cluster"));
            };
            // Stays until Kafka has the record. If the caller stops waiting, the next renewal repeats the report.
            local.unreported.insert(uid.clone());
            Entry::User { incarnation, is_online: local.users.contains(&uid), uid: uid.clone() }
        };
        let result = self.append_and_wait(&entry).await?;
        let mut local = self.local.lock();
        // The user may have come or gone meanwhile, and the reports of the two may have been reordered.
        if matches!(entry, Entry::User { is_online, .. } if is_online == local.users.contains(&uid)) {
            local.unreported.remove(&uid);
        } else {
            local.unreported.insert(uid);
        }
        Ok(!matches!(result, RecordResult::Elsewhere(true)))
    }

    async fn expired(&self) -> Result<Vec<ExpiredMember>, Unavailable> {
        let now = self.last_own_record_time()?;
        let to_declare_dead = self.state.lock().to_declare_dead(&self.node, now);
        for incarnation in to_declare_dead {
            tracing::info!(node = %incarnation.0, incarnation = incarnation.1, "node sent no heartbeat; declared dead");
            self.append(&Entry::Dead { incarnation, by: self.node.clone() }, None).await?;
        }
        let mut expired = Vec::new();
        let incarnations = self.state.lock().owned_by(&self.node);
        for incarnation in incarnations {
            let left = self.state.lock().users_of(&incarnation, MAX_EXPIRED_USERS);
            if left.is_empty() {
                self.local.lock().returned.retain(|(other, _)| *other != incarnation);
                self.writer.append_unconfirmed(&Entry::Reported(incarnation));
                count_lease_change("fallen");
                continue;
            }
            let users = self.take_users(&incarnation, left);
            if !users.is_empty() {
                expired.push(ExpiredMember { id: incarnation.0, incarnation: incarnation.1, users });
            }
        }
        Ok(expired)
    }

    /// Returns the users of a dead incarnation that are on no other node, each once. Removes all of them from the
    /// topic.
    fn take_users(&self, incarnation: &NodeIncarnation, left: Vec<Uid>) -> Vec<Uid> {
        let mut users = Vec::new();
        for uid in left {
            let is_new = self.local.lock().returned.insert((incarnation.clone(), uid.clone()));
            let is_here = self.local.lock().users.contains(&uid);
            if is_new && !is_here && !self.state.lock().is_elsewhere(&self.node, &uid) {
                users.push(uid.clone());
            }
            self.writer.append_unconfirmed(&Entry::User { incarnation: incarnation.clone(), uid, is_online: false });
        }
        users
    }

    /// Returns the time at which this node last received its own record. Fails if that is long ago, because the node
    /// then does not receive the topic.
    fn last_own_record_time(&self) -> Result<Instant, Unavailable> {
        let last_own_record = self.local.lock().last_own_record.filter(|time| time.elapsed() < LEASE);
        last_own_record.ok_or_else(|| self.current_fault())
    }

    async fn loaded(&self, deadline: Instant) -> Result<(), Unavailable> {
        let mut loaded = self.loaded.subscribe();
        let done = timeout_at(deadline, loaded.wait_for(|loaded| *loaded)).await.is_ok_and(|done| done.is_ok());
        if done { Ok(()) } else { Err(self.current_fault()) }
    }

    fn current_fault(&self) -> Unavailable {
        let why = self.fault.lock().clone().or_else(|| self.errors.last());
        unavailable(why.unwrap_or_else(|| format!("no own record received from topic {}", self.topic)))
    }

    fn expect(&self, number: u64) -> Expected<'_> {
        let (sender, result) = oneshot::channel();
        self.waiting.lock().insert(number, sender);
        Expected { shared: self, number, result }
    }

    /// Appends a record and returns its offset. A `number` marks a record that a caller waits for.
    async fn append(&self, entry: &Entry, number: Option<u64>) -> Result<u64, Unavailable> {
        let mark = number.map(|number| [self.process.to_le_bytes(), number.to_le_bytes()].concat());
        match timeout(ANSWER, self.writer.append(entry, mark.as_deref())).await {
            Ok(result) => result,
            Err(_) => Err(self.current_fault()),
        }
    }

    fn apply(&self, message: &BorrowedMessage<'_>, is_past: bool) {
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
        let changes_members = matches!(entry, Entry::Heartbeat(_) | Entry::Left(_) | Entry::Dead { .. });
        let mut state = self.state.lock();
        let join_result = state.apply(offset, entry, now, is_past);
        if changes_members && !is_past {
            let living = state
                .last_heartbeat(&self.node)
                .map(|now| state.members(now).into_iter().map(|member| member.id).collect());
            self.live_nodes.set(living.unwrap_or_default());
        }
        let Some(number) = number else { return };
        self.local.lock().last_own_record = Some(now);
        let waiting = self.waiting.lock().remove(&number);
        let result = match (join_result, uid) {
            (Some((_, join_result)), _) => RecordResult::Join(join_result),
            (None, Some(uid)) => RecordResult::Elsewhere(state.is_elsewhere(&self.node, &uid)),
            (None, None) => match ids {
                Some((number, which)) => RecordResult::Reserved(state.reserved(number).granted == Some(which)),
                None => RecordResult::Heartbeat,
            },
        };
        // The caller may have stopped waiting.
        waiting.map(|waiting| waiting.send(result));
    }

    /// Rebuilds the state after the topic was truncated or recreated. Reports the users of this node again.
    fn restart(&self) {
        tracing::error!(topic = self.topic, "roster records were lost; rebuilding the roster");
        *self.state.lock() = State::default();
        let mut local = self.local.lock();
        local.unreported = local.users.clone();
    }

    fn set_fault(&self, fault: &Unavailable) {
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
    result: oneshot::Receiver<RecordResult>,
}

impl Drop for Expected<'_> {
    fn drop(&mut self) {
        self.shared.waiting.lock().remove(&self.number);
    }
}

async fn read(shared: Arc<Shared>, mut topic_reader: TopicReader) {
    loop {
        let has_lost = topic_reader.assign_all(|fault| shared.set_fault(fault)).await;
        if has_lost {
            shared.restart();
        }
        *shared.fault.lock() = None;
        let consumer = Arc::clone(&topic_reader.consumer);
        let mut stream = consumer.stream();
        let mut is_past = !topic_reader.is_at_end();
        loop {
            if !is_past {
                shared.loaded.send_if_modified(|loaded| !std::mem::replace(loaded, true));
            }
            match stream.next().await {
                Some(Ok(message)) => {
                    if topic_reader.note(&message).is_some() {
                        shared.apply(&message, is_past);
                        is_past = is_past && !topic_reader.is_at_end();
                    }
                }
                Some(Err(error)) if topic_reader.keeps_assignment(&error) => {}
                Some(Err(_)) | None => break,
            }
        }
    }
}
