//! The bus over Redis pub/sub. A user's message goes only to nodes that subscribed to the user; Redis is the only
//! directory.
//!
//! Guarantee: if the connection of a receiving node breaks, records that Redis accepted and the node had not read are
//! lost. The node detects this and reports it ([`Deliver::gap`]). No record is dropped without a report.

mod fate;
mod health;
mod inbox;
mod outbox;
mod publisher;
mod receipts;
mod reconnect;
mod subscriber;
mod subscriptions;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use metrics::{Counter, counter};
use parking_lot::Mutex;
use smallvec::{SmallVec, smallvec};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use self::fate::Fates;
use self::health::Health;
use self::inbox::Inbox;
use self::outbox::{CommandBatch, CommandContents, Outbox, put_publish};
use self::publisher::{Answer, Answers, Job, Publisher, Slot};
use self::receipts::Waiters;
use self::reconnect::Reconnect;
use self::subscriber::Subscriber;
use self::subscriptions::Subscriptions;
use super::client::Client;
use super::names::{BusChannel, Names};
use super::roster::RedisRoster;
use crate::broker::record::{self, Numbering};
use crate::broker::{Address, Batch, Broker, Deliver, Fate, Subscription, Unavailable};
use crate::config::Config;
use crate::id::{NodeId, Uid};
use crate::message::{Envelope, Target};
use crate::telemetry;
use crate::vital::Vitals;

/// Time that a publish, a cluster message or a subscribe waits for Redis.
const PATIENCE: Duration = Duration::from_secs(2);
/// Time that a publisher waits for receipts.
const RECEIPTS: Duration = Duration::from_millis(500);

/// Redis bus of one node.
pub struct RedisBus {
    client: Arc<Client>,
    me: NodeId,
    names: Names,
    numbering: Arc<Numbering>,
    max_record_bytes: usize,
    publisher: Publisher,
    subscriptions: Arc<Subscriptions>,
    waiters: Arc<Waiters>,
    roster: Arc<RedisRoster>,
    publishing: Arc<Health>,
    receiving: Arc<Health>,
    closing: watch::Sender<bool>,
    tasks: Mutex<JoinSet<()>>,
    meters: Meters,
}

struct Meters {
    routed: Counter,
    broadcast: Counter,
}

/// Commands in flight.
struct SentJob {
    contents: CommandContents,
    answers: oneshot::Receiver<Answers>,
    received: Option<Answers>,
}

impl RedisBus {
    /// Connects as soon as Redis is reachable, and delivers to `receiver`.
    #[must_use]
    pub(super) fn start(
        config: &Config,
        client: Arc<Client>,
        roster: Arc<RedisRoster>,
        receiver: Arc<dyn Deliver>,
        vitals: &Vitals,
    ) -> Self {
        let me = config.node.id.clone();
        let names = Names::new(&config.bus.prefix);
        let numbering = Arc::new(Numbering::new(config.node.number));
        let subscriptions = Arc::new(Subscriptions::new(config.bus.linger));
        let waiters = Arc::new(Waiters::default());
        let [publishing, receiving] = ["publish", "receive"].map(|what| Arc::new(Health::new(what)));
        let (closing, closed) = watch::channel(false);

        let (publisher, writer) = Publisher::new(Arc::clone(&publishing), closed.clone());
        let sender = (me.clone(), Arc::clone(&numbering));
        let inbox = Inbox::new(sender, names.clone(), receiver, Arc::clone(&waiters), publisher.clone());
        let base = [BusChannel::Everyone, BusChannel::Numbered(config.node.number), BusChannel::Node(&me)];
        let base = base.map(|channel| names.channel(channel)).to_vec();
        let subscriber = Subscriber::new(
            (names.clone(), base),
            Arc::clone(&subscriptions),
            inbox,
            Arc::clone(&receiving),
            closed.clone(),
        );
        let mut tasks = JoinSet::new();
        let writes = Reconnect::new(&client, &publishing, &closed, "publish").run(writer);
        tasks.spawn(vitals.run("bus writer", writes));
        let reads = Reconnect::new(&client, &receiving, &closed, "subscribe").run(subscriber);
        tasks.spawn(vitals.run("bus reader", reads));
        let way = |way| counter!(telemetry::names::BUS_ENVELOPES, "engine" => "redis", "way" => way);
        Self {
            client,
            me,
            names,
            numbering,
            max_record_bytes: config.bus.record_bytes,
            publisher,
            subscriptions,
            waiters,
            roster,
            publishing,
            receiving,
            closing,
            tasks: Mutex::new(tasks),
            meters: Meters { routed: way("routed"), broadcast: way("broadcast") },
        }
    }

    async fn send(&self, batch: Batch) -> Vec<Fate> {
        let deadline = Instant::now() + PATIENCE;
        if self.publishing.failed_for(PATIENCE).is_some() {
            return vec![Fate::Unavailable; batch.len()];
        }
        let mut fates = Fates::of(&batch);
        for envelope in batch.iter().filter(|envelope| envelope.receipts) {
            self.waiters.expect(envelope.id);
        }
        let mut sent = SmallVec::new();
        let answered = async {
            self.enqueue_batch(&batch, &mut fates, &mut sent).await?;
            for SentJob { answers, received, .. } in &mut sent {
                *received = answers.await.ok();
            }
            Some(())
        };
        // Commands without queue space before the deadline were not sent. They count as unanswered.
        let _ = timeout_at(deadline, answered).await;
        for SentJob { contents, mut answers, received } in sent {
            fates.add_answers(&contents, &received.or_else(|| answers.try_recv().ok()).unwrap_or_default());
        }
        if batch.iter().any(|envelope| envelope.receipts) {
            self.add_receipts(&batch, &mut fates).await;
        }
        fates.into_fates()
    }

    /// Waits for the receipts that publishers asked for.
    async fn add_receipts(&self, batch: &[Envelope], fates: &mut Fates) {
        let deadline = Instant::now() + RECEIPTS;
        for (at, envelope) in batch.iter().enumerate().filter(|(_, envelope)| envelope.receipts) {
            // A late receipt is missing from the sum.
            let _ = timeout_at(deadline, self.waiters.wait_for(envelope.id, fates.copies(at))).await;
            let receipt = self.waiters.take(envelope.id, &fates.users(at));
            fates.set_receipt(at, receipt);
        }
    }

    /// Packs the batch and queues its commands as space permits.
    async fn enqueue_batch(
        &self,
        batch: &[Envelope],
        fates: &mut Fates,
        sent: &mut SmallVec<[SentJob; 1]>,
    ) -> Option<()> {
        for (at, envelope) in batch.iter().enumerate().filter(|(_, envelope)| !envelope.nodes.is_empty()) {
            // Without the member list the named nodes cannot be checked, so the envelope stays unanswered.
            let Ok(known) = self.roster.known().await else { continue };
            fates.set_nodes(at, envelope, |node| *node == self.me || known.contains(node));
        }
        let mut outbox = Outbox::new(&self.names, &self.numbering, self.max_record_bytes);
        // Records are numbered only after their queue slot is reserved, so that no numbered record waits while others
        // pass it.
        let mut slot = self.publisher.slot().await?;
        for (at, envelope) in batch.iter().enumerate() {
            let mut left: &[Uid] = match &envelope.target {
                Target::Users(uids) if envelope.nodes.is_empty() => uids,
                _ => &[],
            };
            if left.is_empty() {
                channels(envelope, fates.nodes(at)).into_iter().for_each(|channel| outbox.add(at, envelope, channel));
            }
            loop {
                if !left.is_empty() {
                    left = outbox.add_copies(at, envelope, left);
                }
                if let Some(command_batch) = outbox.take_full() {
                    sent.push(enqueue(slot, command_batch));
                    slot = self.publisher.slot().await?;
                }
                if left.is_empty() {
                    break;
                }
            }
            self.count(envelope);
        }
        if let Some(command_batch) = outbox.take_rest() {
            sent.push(enqueue(slot, command_batch));
        }
        let too_large = std::mem::take(&mut outbox.too_large);
        drop(outbox);
        too_large.into_iter().for_each(|(at, bytes)| fates.set_too_large(at, bytes, self.max_record_bytes));
        Some(())
    }

    fn count(&self, envelope: &Envelope) {
        match envelope.target {
            Target::Everyone | Target::EveryoneBut(_) => self.meters.broadcast.increment(1),
            _ => self.meters.routed.increment(1),
        }
    }

    async fn publish_message(&self, address: Address, message: Bytes) -> Result<Option<u32>, Unavailable> {
        let channel = match &address {
            Address::Node(node) => BusChannel::Node(node),
            Address::User(uid) => BusChannel::User(uid),
            Address::Everyone => BusChannel::Everyone,
        };
        let published = async {
            let slot = self.publisher.slot().await?;
            let record = record::cluster_message(self.numbering.origin, self.numbering.next(), &self.me, &message);
            let mut command = Vec::new();
            put_publish(&mut command, &self.names, channel, &[&record]);
            let (job, answers) = Job::new(command, 1);
            slot.send(job);
            answers.await.ok()
        };
        match timeout(PATIENCE, published).await {
            Ok(Some(answers)) => match answers[..] {
                [Answer::Reached(nodes)] => Ok(Some(nodes)),
                _ => Err(self.unavailable("the server refused PUBLISH")),
            },
            _ => Err(self.unavailable(&format!("no answer in {PATIENCE:?}"))),
        }
    }

    async fn subscribe_confirmed(&self, subscription: Subscription) -> Result<(), Unavailable> {
        let mut confirmed = self.subscriptions.subscribe(subscription);
        match timeout(PATIENCE, confirmed.wait_for(|confirmed| *confirmed)).await {
            Ok(Ok(_)) => Ok(()),
            _ => Err(self.unavailable(&format!("the subscription was not confirmed in {PATIENCE:?}"))),
        }
    }

    async fn close_tasks(&self) {
        self.closing.send_replace(true);
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        let ended = async { while tasks.join_next().await.is_some() {} };
        if timeout(PATIENCE, ended).await.is_err() {
            tracing::warn!(timeout = ?PATIENCE, "bus closed before redis answered all commands");
        }
    }

    fn unavailable(&self, why: &str) -> Unavailable {
        Unavailable { engine: "redis", why: format!("{}: {why}", self.client.address()) }
    }
}

/// Channels of an envelope: those of `nodes` if it names any. An envelope for several users goes to each user's
/// channel.
fn channels<'a>(envelope: &'a Envelope, nodes: &'a [NodeId]) -> SmallVec<[BusChannel<'a>; 1]> {
    if !envelope.nodes.is_empty() {
        return nodes.iter().map(BusChannel::Node).collect();
    }
    smallvec![match &envelope.target {
        Target::User(uid) | Target::Device(uid, _) => BusChannel::User(uid),
        Target::Connection(cid) | Target::ConnectionOf(_, cid) => BusChannel::Numbered(cid.node()),
        Target::Room(room) => BusChannel::Room(room),
        Target::Everyone | Target::EveryoneBut(_) => BusChannel::Everyone,
        Target::Users(_) => return SmallVec::new(),
    }]
}

fn enqueue(slot: Slot<'_>, command_batch: CommandBatch) -> SentJob {
    let (job, answers) = Job::new(command_batch.commands, command_batch.contents.len());
    slot.send(job);
    SentJob { contents: command_batch.contents, answers, received: None }
}

impl Broker for RedisBus {
    fn publish(&self, batch: Batch) -> BoxFuture<'_, Vec<Fate>> {
        self.send(batch).boxed()
    }

    fn send_cluster_message(
        &self,
        address: Address,
        message: Bytes,
    ) -> BoxFuture<'_, Result<Option<u32>, Unavailable>> {
        self.publish_message(address, message).boxed()
    }

    fn subscribe(&self, subscription: Subscription) -> BoxFuture<'_, Result<(), Unavailable>> {
        self.subscribe_confirmed(subscription).boxed()
    }

    fn unsubscribe(&self, subscription: &Subscription) {
        self.subscriptions.unsubscribe(subscription);
    }

    fn faults(&self) -> Vec<String> {
        [&self.publishing, &self.receiving].into_iter().filter_map(|health| health.fault()).collect()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.close_tasks().boxed()
    }
}
