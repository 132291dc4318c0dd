//! An intake's records from a plain pub/sub channel, of which one node of the cluster at a time has the subscription.
//!
//! At most once: nobody keeps what is published while nobody listens, and PUBLISH says so to whoever published (0
//! receivers). A node that is not sure of its lease any more hands out nothing that it had read before it asked. Where
//! the node falls behind it leaves the channel until there is room again, so that the count stays true.

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

use super::client::Client;
use super::dead::DeadLetters;
use crate::backoff::Backoff;
use crate::broker::Unavailable;
use crate::broker::source::{Place, Record, Source};
use crate::telemetry::names;
use crate::vital::Vitals;
use keeper::Keeper;

/// Messages and bytes that wait for the intake; at either bound the node leaves the channel.
const MOST_MESSAGES: usize = 4_096;
const MOST_BYTES: usize = 32 << 20;
/// Records of one take.
const BATCH: usize = 256;

/// What a channel is read by.
pub struct ChannelSettings {
    /// The channel.
    pub topic: String,
    /// What the lease's keys begin with.
    pub prefix: String,
    /// This node's name, for whoever looks who has the lease.
    pub node: String,
    /// What metrics call the intake.
    pub label: String,
}

/// One node's hand in a channel.
pub struct Channel {
    heard: mpsc::Receiver<Heard>,
    /// Came, and was not given out yet.
    pending: VecDeque<Heard>,
    asks: mpsc::Sender<Ask>,
    shared: Arc<Shared>,
    keeper: Option<JoinHandle<()>>,
    topic: Arc<str>,
    /// This life's own: what the intake publishes again, because the bus did not answer, is the same again.
    line: Arc<str>,
    given: u64,
    /// The term in which the records came that were given last.
    term: u64,
    dead: DeadLetters,
    backoff: Backoff,
    /// Waits before the keeper is asked again.
    is_away: bool,
    lost: Counter,
    doubtful: Counter,
}

/// What the keeper tells.
#[derive(Debug)]
enum Heard {
    Message { payload: Bytes, term: u64 },
    Away(Unavailable),
    There,
}

/// What the keeper is asked.
enum Ask {
    /// Make sure of the lease.
    Sure(oneshot::Sender<Result<(), Unavailable>>),
    /// Leave the channel; what has arrived and was not told yet.
    Leave(oneshot::Sender<Vec<Heard>>),
    /// Give the lease back and end.
    End,
}

/// What both sides know.
struct Shared {
    tenure: Mutex<Tenure>,
    bytes: AtomicUsize,
    /// There is room again.
    room: Notify,
}

/// This node's hold of the lease.
#[derive(Debug, Clone, Copy, Default)]
struct Tenure {
    /// The lease is this node's at least until then.
    sure_until: Option<Instant>,
    /// Counts the times that another may have had the lease; what came in an earlier term may be another's, too.
    term: u64,
}

impl Tenure {
    fn is_sure(self) -> bool {
        self.sure_until.is_some_and(|until| Instant::now() < until)
    }
}

impl Channel {
    /// Reads a channel of the server from now on, in turn with other nodes of the same prefix.
    #[must_use]
    pub fn start(client: Arc<Client>, settings: &ChannelSettings, vitals: &Vitals) -> Self {
        let ChannelSettings { topic, prefix, node, label } = settings;
        let (tells, heard) = mpsc::channel(MOST_MESSAGES);
        let (asks, asked) = mpsc::channel(1);
        let shared = Arc::new(Shared { tenure: Mutex::default(), bytes: AtomicUsize::new(0), room: Notify::new() });
        let dead = DeadLetters::new(Arc::clone(&client), topic, node, label);
        let life = RandomState::new().hash_one(std::process::id());
        let name = format!("{prefix}:intake:{topic}");
        let leases = counter!(names::INTAKE_LEASES, "intake" => label.clone());
        let lost = counter!(names::INTAKE_LOST, "intake" => label.clone());
        let keeper =
            Keeper::new(client, topic, (&name, node), tells, asked, (Arc::clone(&shared), leases, lost.clone()));
        Self {
            heard,
            pending: VecDeque::new(),
            asks,
            shared,
            keeper: Some(tokio::spawn(vitals.run(format!("intake lease {topic}"), keeper.run()))),
            topic: topic.as_str().into(),
            line: format!("{topic} {life:016x}").into(),
            given: 0,
            term: 0,
            dead,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(2)),
            is_away: false,
            lost,
            doubtful: counter!(names::INTAKE_DOUBTFUL, "intake" => label.clone()),
        }
    }

    async fn next(&mut self) -> Result<Vec<Record>, Unavailable> {
        loop {
            if self.pending.is_empty() {
                let mut news = Vec::new();
                if self.heard.recv_many(&mut news, BATCH).await == 0 {
                    return std::future::pending().await;
                }
                self.pending.extend(news);
            }
            match self.pending.front() {
                Some(Heard::Message { .. }) => {
                    self.make_sure().await?;
                    let records = self.messages();
                    if !records.is_empty() {
                        return Ok(records);
                    }
                }
                Some(Heard::There) => {
                    self.pending.pop_front();
                    return Ok(Vec::new());
                }
                Some(Heard::Away(why)) => {
                    let why = why.clone();
                    self.pending.pop_front();
                    return Err(why);
                }
                None => {}
            }
        }
    }

    /// Returns once it is known whether the lease is still this node's.
    async fn make_sure(&mut self) -> Result<(), Unavailable> {
        if self.shared.tenure.lock().is_sure() {
            return Ok(());
        }
        if self.is_away {
            sleep(self.backoff.wait()).await;
        }
        self.is_away = true;
        let (answer, answered) = oneshot::channel();
        let _ = self.asks.send(Ask::Sure(answer)).await;
        // Nobody there to answer: the keeper ended, and with it the lease.
        answered.await.unwrap_or(Ok(()))?;
        self.is_away = false;
        self.backoff.reset();
        Ok(())
    }

    /// The messages at the front as records. What came in a term that is over is lost: another may have had it.
    fn messages(&mut self) -> Vec<Record> {
        let current = self.shared.tenure.lock().term;
        self.term = current;
        let (mut records, mut lost, mut bytes) = (Vec::new(), 0, 0);
        while let Some(Heard::Message { payload, term }) = self.pending.front() {
            bytes += payload.len();
            if *term == current {
                self.given += 1;
                let place = Place { line: Arc::clone(&self.line), offset: Some(self.given) };
                records.push(Record { payload: payload.clone(), place, tries: 0 });
            } else {
                lost += 1;
            }
            self.pending.pop_front();
        }
        self.shared.bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.shared.room.notify_one();
        self.lose(lost);
        records
    }

    /// Whether nobody else can have had the lease since the records were given that this node has in hand.
    async fn is_mine(&mut self, records: u64, tried: bool) -> Result<bool, Unavailable> {
        self.make_sure().await?;
        let is_mine = self.shared.tenure.lock().term == self.term;
        if !is_mine {
            self.lose(records);
            self.doubtful.increment(if tried { records } else { 0 });
        }
        Ok(is_mine)
    }

    fn lose(&self, lost: u64) {
        if lost > 0 {
            self.lost.increment(lost);
            tracing::warn!(channel = &*self.topic, lost, "read before the lease was lost, and dropped");
        }
    }

    async fn leave(&mut self) -> Vec<Record> {
        let (answer, answered) = oneshot::channel();
        let _ = self.asks.send(Ask::Leave(answer)).await;
        let last = answered.await.unwrap_or_default();
        while let Ok(heard) = self.heard.try_recv() {
            self.pending.push_back(heard);
        }
        self.pending.extend(last);
        self.pending.retain(|heard| matches!(heard, Heard::Message { .. }));
        if let (false, Err(error)) = (self.pending.is_empty(), self.make_sure().await) {
            tracing::warn!(%error, "drained while nobody could say whose the lease is");
        }
        self.messages()
    }
}

impl Source for Channel {
    fn take(&mut self) -> BoxFuture<'_, Result<Vec<Record>, Unavailable>> {
        self.next().boxed()
    }

    fn still<'a>(&'a mut self, places: &'a [Place], tried: bool) -> BoxFuture<'a, Result<bool, Unavailable>> {
        self.is_mine(places.len() as u64, tried).boxed()
    }

    fn settle<'a>(&'a mut self, places: &'a [Place]) -> BoxFuture<'a, Result<(), Unavailable>> {
        if !self.shared.tenure.lock().is_sure() {
            self.doubtful.increment(places.len() as u64);
        }
        std::future::ready(Ok(())).boxed()
    }

    fn bury<'a>(&'a mut self, record: &'a Record, reason: &'a str) -> BoxFuture<'a, Result<(), Unavailable>> {
        self.dead.add(record, &self.topic, reason, &[]).boxed()
    }

    fn stop(&mut self) -> BoxFuture<'_, Vec<Record>> {
        self.leave().boxed()
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        async {
            let _ = self.asks.send(Ask::End).await;
            if let Some(keeper) = self.keeper.take() {
                let _ = keeper.await;
            }
        }
        .boxed()
    }
}
