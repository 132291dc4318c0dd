//! Reads an intake's records from a Redis stream, shared by a consumer group.
//!
//! At least once: a record stays pending until it is acknowledged (XACK). Other readers claim the records of a dead
//! reader (XAUTOCLAIM). Pending records of this node's previous run come first. Entries that every group has
//! acknowledged are trimmed.
//!
//! One node reads its records in order; a claimed record comes later than its neighbours. Records are handed over only
//! after the stream's [incarnation](life) was checked, because a recreated stream holds other records.

mod entries;
mod life;

use std::sync::Arc;
use std::time::Duration;

use ::redis::{Cmd, FromRedisValue, Pipeline, RedisError, Value, cmd};
use ahash::AHashMap;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep};

use super::super::client::Client;
use super::super::connection::Connection;
use super::dead::DeadLetters;
use crate::backoff::Backoff;
use crate::broker::Unavailable;
use crate::broker::source::{Record, RecordPosition, Source};
use entries::{Entry, Fields, Group, Id, claimed, counts, groups, read};
use life::{Life, Lives};

/// Maximum number of records per take.
const BATCH: u32 = 128;
/// Time that a read blocks in the server if there are no records.
const BLOCK: Duration = Duration::from_secs(1);
/// Time limit of any command beyond [`BLOCK`]. A connection that exceeds it is dropped.
const ANSWER: Duration = Duration::from_secs(2);
/// Idle time after which a reader is dead and others claim its records.
const DEAD: Duration = Duration::from_secs(10);
/// Interval of the search for records of dead readers, and of trimming.
const SWEEP: Duration = Duration::from_secs(5);
/// Idle time after which a consumer without records is removed from the group.
const FORGET: Duration = Duration::from_secs(3600);

/// Settings of a stream reader.
pub struct StreamSettings {
    /// Name of the stream.
    pub topic: String,
    /// Name of the consumer group.
    pub group: String,
    /// Name of this node, used as the consumer name.
    pub node: String,
    /// Prefix of the key with the stream's incarnation.
    pub prefix: String,
    /// Label of the intake in metrics.
    pub label: String,
}

/// Source that reads one stream on this node.
pub struct Stream {
    client: Arc<Client>,
    settings: StreamSettings,
    /// Dedicated to this stream, because reads block it.
    connection: Option<Connection>,
    /// Position in the consumer's own pending records, from its previous run or from before the connection broke.
    own: Option<Id>,
    /// Position of the search for records of dead readers.
    cursor: String,
    sweep: Instant,
    /// Taken records with an id that does not fit an offset, in order.
    odd: Vec<Id>,
    lag: Option<u64>,
    lives: Lives,
    /// Incarnation of the stream that is read. Its number is part of the partition name.
    life: Life,
    partition: Arc<str>,
    /// Fields beside the envelopes of the last records.
    beside: AHashMap<Id, Fields>,
    dead: DeadLetters,
    backoff: Backoff,
    is_away: bool,
}

impl Stream {
    /// Creates a reader that shares the stream with others of the group. Connects with the first take.
    #[must_use]
    pub fn new(client: Arc<Client>, settings: StreamSettings) -> Self {
        let dead = DeadLetters::new(Arc::clone(&client), &settings.topic, &settings.node, &settings.label);
        let lives = Lives::new(&settings.prefix, &settings.topic, &settings.group);
        Self {
            client,
            settings,
            connection: None,
            own: None,
            cursor: "0-0".to_owned(),
            sweep: Instant::now(),
            odd: Vec::new(),
            lag: None,
            lives,
            life: Life::default(),
            partition: Arc::from(""),
            beside: AHashMap::new(),
            dead,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(2)),
            is_away: false,
        }
    }

    async fn next(&mut self) -> Result<Vec<Record>, Unavailable> {
        if self.is_away {
            sleep(self.backoff.wait()).await;
        }
        let taken = self.look().await;
        self.is_away = taken.is_err();
        if self.is_away {
            self.connection = None;
        } else {
            self.backoff.reset();
        }
        taken
    }

    async fn look(&mut self) -> Result<Vec<Record>, Unavailable> {
        if self.connection.is_none() {
            self.join().await?;
            // An empty list reports that the server is reachable.
            return Ok(Vec::new());
        }
        loop {
            if let Some(from) = self.own {
                let mine = self.read_group(&from.to_string()).await?;
                self.own = mine.last().map(|entry| entry.id);
                if !mine.is_empty() {
                    let records = self.again(mine).await?;
                    if self.is_same_life().await? && !records.is_empty() {
                        return Ok(records);
                    }
                    continue;
                }
            }
            if Instant::now() >= self.sweep {
                let claimed = self.claim().await?;
                if !claimed.is_empty() && self.is_same_life().await? {
                    return Ok(claimed);
                }
                self.trim().await?;
            }
            let (new, life) = self.read_new().await?;
            // In a new incarnation these records are pending now and return as this consumer's own.
            if self.is_still(life) && !new.is_empty() {
                return Ok(self.records(new, &AHashMap::new()));
            }
        }
    }

    /// Connects and creates the group if it is missing. A new group starts at the oldest record.
    async fn join(&mut self) -> Result<(), Unavailable> {
        let mut connection = self.client.connection().await?;
        connection.set_response_timeout(BLOCK + ANSWER);
        self.connection = Some(connection);
        for load in self.lives.load() {
            self.must::<Value>(&load).await?;
        }
        self.is_same_life().await?;
        self.own = Some(Id::ZERO);
        self.sweep = Instant::now();
        Ok(())
    }

    /// Checks the incarnation of the stream, and creates the group if it is missing.
    async fn is_same_life(&mut self) -> Result<bool, Unavailable> {
        let life = self.must(&self.lives.look(&self.life)).await?;
        Ok(self.is_still(Life::of(life)))
    }

    /// Switches to this incarnation. Returns false if it differs: records read before the check may be of either one.
    fn is_still(&mut self, life: Life) -> bool {
        let before = std::mem::replace(&mut self.life, life);
        if before.number == self.life.number {
            return true;
        }
        let (server, StreamSettings { topic, group, .. }) = (self.client.address(), &self.settings);
        let number = &self.life.number;
        self.partition = format!("redis-stream {server}/{} {topic} {number}", self.client.database()).into();
        self.own = Some(Id::ZERO);
        if !before.number.is_empty() {
            tracing::warn!(stream = topic, group, life = number, "stream was recreated; its ids restart");
        }
        false
    }

    /// Reads this consumer's own pending records after an id (XREADGROUP).
    async fn read_group(&mut self, from: &str) -> Result<Vec<Entry>, Unavailable> {
        let command = self.read_command(from, None);
        self.must(&command).await.map(read)
    }

    /// Reads new records (XREADGROUP), then checks the incarnation of the stream.
    async fn read_new(&mut self) -> Result<(Vec<Entry>, Life), Unavailable> {
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.add_command(self.read_command(">", Some(BLOCK))).add_command(self.lives.look(&self.life));
        let Some(connection) = &mut self.connection else { return Err(self.client.away("not connected")) };
        let answer = pipeline.query_async::<(Value, (String, String, String))>(connection).await;
        let (new, life) = answer.map_err(|error| self.client.says(&error))?;
        Ok((read(new), Life::of(life)))
    }

    fn read_command(&self, from: &str, block: Option<Duration>) -> Cmd {
        let StreamSettings { topic, group, node, .. } = &self.settings;
        let mut command = cmd("XREADGROUP");
        command.arg("GROUP").arg(group).arg(node).arg("COUNT").arg(BATCH);
        if let Some(block) = block {
            command.arg("BLOCK").arg(block.as_millis().to_string());
        }
        command.arg("STREAMS").arg(topic).arg(from);
        command
    }

    /// Claims records of dead readers.
    async fn claim(&mut self) -> Result<Vec<Record>, Unavailable> {
        let StreamSettings { topic, group, node, .. } = &self.settings;
        let idle = DEAD.as_millis().to_string();
        let mut command = cmd("XAUTOCLAIM");
        command.arg(topic).arg(group).arg(node).arg(idle).arg(&self.cursor).arg("COUNT").arg(BATCH);
        let (cursor, entries) = claimed(self.must(&command).await?);
        self.cursor = cursor;
        if self.cursor == "0-0" {
            self.sweep = Instant::now() + SWEEP;
        }
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        tracing::info!(stream = self.settings.topic, records = entries.len(), "claimed records of a dead reader");
        self.again(entries).await
    }

    /// Returns redelivered records. Acknowledges at once those that the stream has trimmed meanwhile.
    async fn again(&mut self, entries: Vec<Entry>) -> Result<Vec<Record>, Unavailable> {
        let (there, gone): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(|entry| entry.payload.is_some());
        if !gone.is_empty() {
            let mut ack = cmd("XACK");
            ack.arg(&self.settings.topic).arg(&self.settings.group);
            gone.iter().for_each(|entry| {
                ack.arg(entry.id.to_string());
            });
            self.must::<Value>(&ack).await?;
        }
        let (Some(first), Some(last)) = (there.first(), there.last()) else { return Ok(Vec::new()) };
        let StreamSettings { topic, group, node, .. } = &self.settings;
        let mut pending = cmd("XPENDING");
        pending.arg(topic).arg(group).arg(first.id.to_string()).arg(last.id.to_string()).arg(8 * BATCH).arg(node);
        let counts = counts(self.must(&pending).await?);
        Ok(self.records(there, &counts))
    }

    fn records(&mut self, entries: Vec<Entry>, counts: &AHashMap<Id, u32>) -> Vec<Record> {
        self.odd.clear();
        self.beside.clear();
        let mut records = Vec::with_capacity(entries.len());
        for Entry { id, payload, beside } in entries {
            if !beside.is_empty() {
                self.beside.insert(id, beside);
            }
            let offset = id.pack();
            if offset.is_none() {
                self.odd.push(id);
            }
            let tries = counts.get(&id).map_or(0, |count| count.saturating_sub(1));
            let position = RecordPosition { partition: Arc::clone(&self.partition), offset };
            records.push(Record { payload: payload.unwrap_or_default(), position, tries });
        }
        records
    }

    async fn acknowledge(&mut self, positions: &[RecordPosition]) -> Result<(), Unavailable> {
        let mut odd = self.odd.iter().copied();
        let ids: Vec<String> = positions
            .iter()
            .map(|position| (position, position.offset.map(Id::unpack).or_else(|| odd.next()).unwrap_or(Id::ZERO)))
            // Records of an earlier incarnation are skipped, because the same id is another record now.
            .filter(|(position, _)| position.partition == self.partition)
            .map(|(_, id)| id.to_string())
            .collect();
        let left = odd.count();
        if !ids.is_empty() {
            self.must::<Value>(&self.lives.acknowledge(&self.life, ids.into_iter())).await?;
        }
        self.odd.drain(..self.odd.len() - left);
        Ok(())
    }

    /// Trims entries that every group of the stream has acknowledged, and removes consumers that are gone.
    async fn trim(&mut self) -> Result<(), Unavailable> {
        let topic = self.settings.topic.clone();
        let mut settled: Option<Id> = None;
        for Group { name, pending, delivered, lag } in
            groups(self.must(&cmd("XINFO").arg("GROUPS").arg(&topic).to_owned()).await?)
        {
            let mut until = delivered;
            if pending > 0 {
                let summary: Value = self.must(&cmd("XPENDING").arg(&topic).arg(&name).to_owned()).await?;
                until = entries::oldest(&summary).unwrap_or(until);
            }
            if name == self.settings.group {
                self.lag = lag;
            }
            settled = Some(settled.map_or(until, |least| least.min(until)));
        }
        if let Some(settled) = settled.filter(|settled| *settled > Id::ZERO) {
            let command = cmd("XTRIM").arg(&topic).arg("MINID").arg("~").arg(settled.to_string()).to_owned();
            self.must::<Value>(&command).await?;
        }
        let consumers: Value =
            self.must(&cmd("XINFO").arg("CONSUMERS").arg(&topic).arg(&self.settings.group).to_owned()).await?;
        for gone in entries::forgotten(&consumers, FORGET) {
            self.remove(&gone).await?;
        }
        Ok(())
    }

    async fn remove(&mut self, consumer: &str) -> Result<(), Unavailable> {
        let StreamSettings { topic, group, .. } = &self.settings;
        let command = cmd("XGROUP").arg("DELCONSUMER").arg(topic).arg(group).arg(consumer).to_owned();
        self.must::<Value>(&command).await.map(drop)
    }

    /// Ids of this consumer's pending records, as many as one answer holds.
    async fn pending(&mut self) -> Result<Vec<Id>, Unavailable> {
        let StreamSettings { topic, group, node, .. } = &self.settings;
        let mut command = cmd("XPENDING");
        command.arg(topic).arg(group).arg("-").arg("+").arg(8 * BATCH).arg(node);
        Ok(counts(self.must(&command).await?).into_keys().collect())
    }

    /// Resets the idle time and the delivery count of the pending records: a wait for the bus is no failed delivery.
    async fn hold(&mut self) -> Result<(), Unavailable> {
        let ids = self.pending().await?;
        if ids.is_empty() {
            return Ok(());
        }
        let StreamSettings { topic, group, node, .. } = &self.settings;
        let mut command = cmd("XCLAIM");
        command.arg(topic).arg(group).arg(node).arg("0");
        ids.iter().for_each(|id| {
            command.arg(id.to_string());
        });
        command.arg("RETRYCOUNT").arg("0").arg("JUSTID");
        self.must::<Value>(&command).await.map(drop)
    }

    /// Returns records that were delivered to an abandoned read. Other readers would see them only after some time.
    async fn leave(&mut self) -> Result<Vec<Record>, Unavailable> {
        // Ends a read that still blocks in the server.
        self.connection = None;
        self.join().await?;
        let mine = self.read_group("0").await?;
        self.again(mine).await
    }

    async fn part(&mut self) -> Result<(), Unavailable> {
        if self.connection.is_some() && self.pending().await?.is_empty() {
            let node = self.settings.node.clone();
            self.remove(&node).await?;
        }
        Ok(())
    }

    /// Runs one command. A refusal of the server is an error.
    async fn must<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, Unavailable> {
        self.ask(command).await?.map_err(|error| self.client.says(&error))
    }

    /// Runs one command. A refusal of the server is a normal answer.
    async fn ask<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<Result<T, RedisError>, Unavailable> {
        let Some(connection) = &mut self.connection else {
            return Err(Unavailable { engine: "redis", why: format!("{}: not connected", self.client.address()) });
        };
        match command.query_async(connection).await {
            Err(error) if error.code().is_none() => Err(self.client.says(&error)),
            answer => Ok(answer),
        }
    }
}

impl Source for Stream {
    fn take(&mut self) -> BoxFuture<'_, Result<Vec<Record>, Unavailable>> {
        self.next().boxed()
    }

    fn complete<'a>(&'a mut self, positions: &'a [RecordPosition]) -> BoxFuture<'a, Result<(), Unavailable>> {
        async {
            if self.connection.is_some() && self.acknowledge(positions).await.is_ok() {
                return Ok(());
            }
            // The connection may have broken while the intake waited for the bus.
            self.connection = None;
            self.join().await?;
            self.acknowledge(positions).await
        }
        .boxed()
    }

    fn dead_letter<'a>(&'a mut self, record: &'a Record, reason: &'a str) -> BoxFuture<'a, Result<(), Unavailable>> {
        async move {
            let id = record.position.offset.map(Id::unpack).or(self.odd.first().copied()).unwrap_or(Id::ZERO);
            let (origin, beside) = (format!("{} {id}", self.settings.topic), self.beside.get(&id));
            self.dead.add(record, &origin, reason, beside.map_or(&[], Vec::as_slice)).await
        }
        .boxed()
    }

    fn keep_alive(&mut self) -> BoxFuture<'_, ()> {
        async {
            if let Err(error) = self.hold().await {
                tracing::debug!(%error, "idle time of pending records was not reset");
            }
        }
        .boxed()
    }

    fn lag(&self) -> Option<u64> {
        self.lag
    }

    fn stop(&mut self) -> BoxFuture<'_, Vec<Record>> {
        async {
            self.leave().await.unwrap_or_else(|error| {
                tracing::debug!(%error, "pending records are left to other readers of the group");
                Vec::new()
            })
        }
        .boxed()
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        async {
            if let Err(error) = self.part().await {
                tracing::debug!(%error, "consumer was not removed from its group");
            }
            self.connection = None;
        }
        .boxed()
    }
}
