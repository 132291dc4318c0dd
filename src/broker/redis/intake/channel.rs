//! Reads an intake's records from a plain pub/sub channel. One node of the cluster at a time has the subscription.
//!
//! At most once: messages published without a subscriber are not stored, and PUBLISH reports 0 receivers to the
//! publisher. A node that is no longer sure of its lease checks it before it returns records, and drops those of an
//! earlier term. A node that falls behind unsubscribes until it has space again, so that the receiver count stays
//! correct.

mod keeper;
mod probe;

use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use metrics::{Counter, counter};
use parking_lot::Mutex;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use super::super::client::Client;
use super::dead::DeadLetters;
use crate::backoff::Backoff;
use crate::broker::Unavailable;
use crate::broker::source::{Delay, Record, RecordPosition, Source};
use crate::telemetry::names;
use crate::vital::Vitals;
use keeper::Keeper;

/// Maximum number and bytes of waiting messages. At either limit the node unsubscribes.
const MAX_MESSAGES: usize = 4_096;
const MAX_BYTES: usize = 32 << 20;
/// Maximum number of records per take.
const BATCH: usize = 256;

/// Settings of a channel reader.
pub struct ChannelSettings {
    /// Name of the channel.
    pub topic: String,
    /// Prefix of the lease's keys.
    pub prefix: String,
    /// Name of this node, which shows in the lease.
    pub node: String,
    /// Label of the intake in metrics.
    pub label: String,
}

/// Source that reads one channel on this node.
pub struct ChannelSource {
    events: mpsc::Receiver<KeeperEvent>,
    /// Messages that arrived and were not returned yet.
    pending: VecDeque<KeeperEvent>,
    requests: mpsc::Sender<KeeperRequest>,
    shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
    topic: Arc<str>,
    /// Unique per process run. A record that is published again because the bus did not answer keeps its identity.
    partition: Arc<str>,
    last_offset: u64,
    /// Lease term in which the last returned records arrived.
    term: u64,
    dead: DeadLetters,
    backoff: Backoff,
    /// True if the next request to the keeper must wait first.
    must_wait: bool,
    /// Name of the intake in metrics.
    label: String,
    lost: Counter,
    doubtful: Counter,
}

/// Message from the keeper.
#[derive(Debug)]
enum KeeperEvent {
    Message { payload: Bytes, term: u64 },
    Unavailable(Unavailable),
    Available,
}

/// Request to the keeper.
enum KeeperRequest {
    /// Confirm the lease.
    ConfirmLease(oneshot::Sender<Result<(), Unavailable>>),
    /// Unsubscribe, and return the messages that arrived and were not forwarded.
    Unsubscribe(oneshot::Sender<Vec<KeeperEvent>>),
    /// Release the lease and end.
    Stop,
}

/// State shared by the source and the keeper.
#[derive(Default)]
struct Shared {
    channel_lease: Mutex<ChannelLease>,
    bytes: AtomicUsize,
    /// Notified when there is space again.
    space: Notify,
    /// Reason why the current records wait.
    delay: Mutex<Option<Delay>>,
}

/// Lease of this node.
#[derive(Debug, Clone, Copy, Default)]
struct ChannelLease {
    /// This node holds the lease at least until then.
    held_until: Option<Instant>,
    /// Number of times that another node may have held the lease. Another node may also have read messages of earlier
    /// terms.
    term: u64,
}

impl ChannelLease {
    fn is_held(self) -> bool {
        self.held_until.is_some_and(|until| Instant::now() < until)
    }
}

impl ChannelSource {
    /// Reads a channel of the server. Nodes with the same prefix take turns.
    #[must_use]
    pub fn start(client: Arc<Client>, settings: &ChannelSettings, vitals: &Vitals) -> Self {
        let ChannelSettings { topic, prefix, node, label } = settings;
        let (event_sender, events) = mpsc::channel(MAX_MESSAGES);
        let (requests, incoming_requests) = mpsc::channel(1);
        let shared = Arc::<Shared>::default();
        let dead = DeadLetters::new(Arc::clone(&client), topic, node, label);
        let run_id = RandomState::new().hash_one(std::process::id());
        let name = format!("{prefix}:intake:{topic}");
        let lost = counter!(names::INTAKE_LOST, "intake" => label.clone(), "reason" => "lease");
        let keeper = Keeper::new(
            client,
            topic,
            (&name, node),
            event_sender,
            incoming_requests,
            (Arc::clone(&shared), label, lost.clone()),
        );
        Self {
            events,
            pending: VecDeque::new(),
            requests,
            shared,
            keeper: Some(tokio::spawn(vitals.run(format!("intake lease {topic}"), keeper.run()))),
            topic: topic.as_str().into(),
            partition: format!("{topic} {run_id:016x}").into(),
            last_offset: 0,
            term: 0,
            dead,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(2)),
            must_wait: false,
            label: label.clone(),
            lost,
            doubtful: counter!(names::INTAKE_DOUBTFUL, "intake" => label.clone()),
        }
    }

    async fn next(&mut self) -> Result<Vec<Record>, Unavailable> {
        loop {
            if self.pending.is_empty() {
                let mut received = Vec::new();
                if self.events.recv_many(&mut received, BATCH).await == 0 {
                    return std::future::pending().await;
                }
                self.pending.extend(received);
            }
            match self.pending.front() {
                Some(KeeperEvent::Message { .. }) => {
                    self.confirm_lease().await?;
                    let records = self.messages();
                    if !records.is_empty() {
                        return Ok(records);
                    }
                }
                Some(KeeperEvent::Available) => {
                    self.pending.pop_front();
                    return Ok(Vec::new());
                }
                Some(KeeperEvent::Unavailable(why)) => {
                    let why = why.clone();
                    self.pending.pop_front();
                    return Err(why);
                }
                None => {}
            }
        }
    }

    /// Confirms with the keeper which node holds the lease. Returns at once while this node is sure of it.
    async fn confirm_lease(&mut self) -> Result<(), Unavailable> {
        if self.shared.channel_lease.lock().is_held() {
            return Ok(());
        }
        if self.must_wait {
            sleep(self.backoff.wait()).await;
        }
        self.must_wait = true;
        let (answer, answered) = oneshot::channel();
        let _ = self.requests.send(KeeperRequest::ConfirmLease(answer)).await;
        // The keeper has ended, and its lease with it.
        answered.await.unwrap_or(Ok(()))?;
        self.must_wait = false;
        self.backoff.reset();
        Ok(())
    }

    /// Returns the first messages as records. Messages of an earlier term are lost, because another node may have read
    /// them.
    fn messages(&mut self) -> Vec<Record> {
        let current = self.shared.channel_lease.lock().term;
        self.term = current;
        let (mut records, mut lost, mut bytes) = (Vec::new(), 0, 0);
        while let Some(KeeperEvent::Message { payload, term }) = self.pending.front() {
            bytes += payload.len();
            if *term == current {
                self.last_offset += 1;
                let position =
                    RecordPosition { partition: Arc::clone(&self.partition), offset: Some(self.last_offset) };
                records.push(Record { payload: payload.clone(), position, tries: 0 });
            } else {
                lost += 1;
            }
            self.pending.pop_front();
        }
        self.shared.bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.shared.space.notify_one();
        self.count_lost(lost);
        records
    }

    /// True if no other node can have held the lease since the current records were returned.
    async fn still_holds(&mut self, records: u64, tried: bool) -> Result<bool, Unavailable> {
        self.confirm_lease().await?;
        let still_holds = self.shared.channel_lease.lock().term == self.term;
        if !still_holds {
            self.count_lost(records);
            self.doubtful.increment(if tried { records } else { 0 });
        }
        Ok(still_holds)
    }

    fn count_lost(&self, lost: u64) {
        if lost > 0 {
            self.lost.increment(lost);
            tracing::warn!(channel = &*self.topic, lost, "lease lost; messages received before are dropped");
        }
    }

    async fn unsubscribe(&mut self) -> Vec<Record> {
        let (answer, answered) = oneshot::channel();
        let _ = self.requests.send(KeeperRequest::Unsubscribe(answer)).await;
        let rest = answered.await.unwrap_or_default();
        while let Ok(event) = self.events.try_recv() {
            self.pending.push_back(event);
        }
        self.pending.extend(rest);
        self.pending.retain(|event| matches!(event, KeeperEvent::Message { .. }));
        if let (false, Err(error)) = (self.pending.is_empty(), self.confirm_lease().await) {
            tracing::warn!(%error, "drain cannot confirm the lease");
        }
        self.messages()
    }
}

impl Source for ChannelSource {
    fn take(&mut self) -> BoxFuture<'_, Result<Vec<Record>, Unavailable>> {
        self.next().boxed()
    }

    fn still_owns<'a>(
        &'a mut self,
        positions: &'a [RecordPosition],
        tried: bool,
    ) -> BoxFuture<'a, Result<bool, Unavailable>> {
        self.still_holds(positions.len() as u64, tried).boxed()
    }

    fn complete<'a>(&'a mut self, positions: &'a [RecordPosition]) -> BoxFuture<'a, Result<(), Unavailable>> {
        if !self.shared.channel_lease.lock().is_held() {
            self.doubtful.increment(positions.len() as u64);
        }
        std::future::ready(Ok(())).boxed()
    }

    fn dead_letter<'a>(&'a mut self, record: &'a Record, reason: &'a str) -> BoxFuture<'a, Result<(), Unavailable>> {
        self.dead.add(record, &self.topic, reason, &[]).boxed()
    }

    fn set_delay(&mut self, by: Option<Delay>) {
        *self.shared.delay.lock() = by;
    }

    fn abandon(&mut self, records: usize, by: Delay) {
        let reason = by.as_str();
        counter!(names::INTAKE_LOST, "intake" => self.label.clone(), "reason" => reason).increment(records as u64);
        // The bus may still deliver a message that it did not acknowledge.
        self.doubtful.increment(if by == Delay::Bus { records as u64 } else { 0 });
        tracing::warn!(
            channel = &*self.topic,
            lost = records,
            reason,
            "drain ended before all messages were accepted; the rest is lost"
        );
    }

    fn stop(&mut self) -> BoxFuture<'_, Vec<Record>> {
        self.unsubscribe().boxed()
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        async {
            let _ = self.requests.send(KeeperRequest::Stop).await;
            if let Some(keeper) = self.keeper.take() {
                let _ = keeper.await;
            }
        }
        .boxed()
    }
}
