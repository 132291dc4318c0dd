//! Reads an intake's records from a Redis stream, shared by a consumer group.
//!
//! At least once: a record stays pending until it is acknowledged (XACK). Other readers claim the records of a dead
//! reader (XAUTOCLAIM). Pending records of this node's previous run come first. Entries that every group has
//! acknowledged are trimmed.
//!
//! One node reads its records in order; a claimed record comes later than its neighbours. Records are handed over only
//! after the stream's [incarnation](incarnation) was checked, because a recreated stream holds other records.

mod entries;
mod incarnation;

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
use incarnation::{Incarnation, IncarnationScripts};

/// Maximum number of records per take.
const BATCH: u32 = 128;
/// Time that a read blocks in the server if there are no records.
const BLOCK: Duration = Duration::from_secs(1);
/// Time limit of any command beyond [`BLOCK`]. A connection that exceeds it is dropped.
const ANSWER: Duration = Duration::from_secs(2);
/// Idle time after which a reader is dead and others claim its records.
const CLAIM_IDLE: Duration = Duration::from_secs(10);
/// Interval of the search for records of dead readers, and of trimming.
const SWEEP: Duration = Duration::from_secs(5);
/// Idle time after which a consumer without records is removed from the group.
const CONSUMER_IDLE: Duration = Duration::from_secs(3600);

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
pub struct StreamSource {
    client: Arc<Client>,
    settings: StreamSettings,
    /// Dedicated to this stream, because reads block it.
    connection: Option<Connection>,
    /// Position in the consumer's own pending records, from its previous run or from before the connection broke.
    own_cursor: Option<Id>,
    /// Position of the search for records of dead readers.
    claim_cursor: String,
    next_sweep: Instant,
    /// Taken records with an id that does not fit an offset, in order.
    oversized_ids: Vec<Id>,
    lag: Option<u64>,
    incarnation_scripts: IncarnationScripts,
    /// Incarnation of the stream that is read. Its number is part of the partition name.
    incarnation: Incarnation,
    partition: Arc<str>,
    /// Fields beside the envelopes of the last records.
    extra_fields: AHashMap<Id, Fields>,
    dead: DeadLetters,
    backoff: Backoff,
    must_wait: bool,
}

impl StreamSource {
    /// Creates a reader that shares the stream with others of the group. Connects with the first take.
    #[must_use]
    pub fn new(client: Arc<Client>, settings: StreamSettings) -> Self {
        let dead = DeadLetters::new(Arc::clone(&client), &settings.topic, &settings.node, &settings.label);
        let incarnation_scripts = IncarnationScripts::new(&settings.prefix, &settings.topic, &settings.group);
        Self {
            client,
            settings,
            connection: None,
            own_cursor: None,
            claim_cursor: "0-0".to_owned(),
            next_sweep: Instant::now(),
            oversized_ids: Vec::new(),
            lag: None,
            incarnation_scripts,
            incarnation: Incarnation::default(),
            partition: Arc::from(""),
            extra_fields: AHashMap::new(),
            dead,
            backoff: Backoff::new(Duration::from_millis(100), Duration::from_secs(2)),
            must_wait: false,
        }
    }

    async fn next(&mut self) -> Result<Vec<Record>, Unavailable> {
        if self.must_wait {
            sleep(self.backoff.wait()).await;
        }
        let polled = self.poll().await;
        self.must_wait = polled.is_err();
        if self.must_wait {
            self.connection = None;
        } else {
            self.backoff.reset();
        }
        polled
    }

    async fn poll(&mut self) -> Result<Vec<Record>, Unavailable> {
        if self.connection.is_none() {
            self.connect().await?;
            // An empty list reports that the server is reachable.
            return Ok(Vec::new());
        }
        loop {
            if let Some(from) = self.own_cursor {
                let own = self.read_group(&from.to_string()).await?;
                self.own_cursor = own.last().map(|entry| entry.id);
                if !own.is_empty() {
                    let records = self.redelivered(own).await?;
                    if self.check_incarnation().await? && !records.is_empty() {
                        return Ok(records);
                    }
                    continue;
                }
            }
            if Instant::now() >= self.next_sweep {
                let claimed = self.claim().await?;
                if !claimed.is_empty() && self.check_incarnation().await? {
                    return Ok(claimed);
                }
                self.trim().await?;
            }
            let (new, incarnation) = self.read_new().await?;
            // In a new incarnation these records are pending now and return as this consumer's own.
            if self.switch_to(incarnation) && !new.is_empty() {
                return Ok(self.records(new, &AHashMap::new()));
            }
        }
    }

    /// Connects and creates the group if it is missing. A new group starts at the oldest record.
    async fn connect(&mut self) -> Result<(), Unavailable> {
        let mut connection = self.client.connection().await?;
        connection.set_response_timeout(BLOCK + ANSWER);
        self.connection = Some(connection);
        for load in self.incarnation_scripts.load() {
            self.run::<Value>(&load).await?;
        }
        self.check_incarnation().await?;
        self.own_cursor = Some(Id::ZERO);
        self.next_sweep = Instant::now();
        Ok(())
    }

    /// Checks the incarnation of the stream, and creates the group if it is missing.
    async fn check_incarnation(&mut self) -> Result<bool, Unavailable> {
        let incarnation = self.run(&self.incarnation_scripts.current(&self.incarnation)).await?;
        Ok(self.switch_to(Incarnation::of(incarnation)))
    }

    /// Switches to this incarnation. Returns false if it differs: records read before the check may be of either one.
    fn switch_to(&mut self, incarnation: Incarnation) -> bool {
        let before = std::mem::replace(&mut self.incarnation, incarnation);
        if before.number == self.incarnation.number {
            return true;
        }
        let (server, StreamSettings { topic, group, .. }) = (self.client.address(), &self.settings);
        let number = &self.incarnation.number;
        self.partition = format!("redis-stream {server}/{} {topic} {number}", self.client.database()).into();
        self.own_cursor = Some(Id::ZERO);
        if !before.number.is_empty() {
            tracing::warn!(stream = topic, group, life = number, "stream was recreated; its ids restart");
        }
        false
    }

    /// Reads this consumer's own pending records after an id (XREADGROUP).
    async fn read_group(&mut self, from: &str) -> Result<Vec<Entry>, Unavailable> {
        let command = self.read_command(from, None);
        self.run(&command).await.map(read)
    }

    /// Reads new records (XREADGROUP), then checks the incarnation of the stream.
    async fn read_new(&mut self) -> Result<(Vec<Entry>, Incarnation), Unavailable> {
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline
            .add_command(self.read_command(">", Some(BLOCK)))
            .add_command(self.incarnation_scripts.current(&self.incarnation));
        let Some(connection) = &mut self.connection else { return Err(self.client.unavailable("not connected")) };
        let answer = pipeline.query_async::<(Value, (String, String, String))>(connection).await;
        let (new, incarnation) = answer.map_err(|error| self.client.unavailable(&error))?;
        Ok((read(new), Incarnation::of(incarnation)))
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
        let idle = CLAIM_IDLE.as_millis().to_string();
        let mut command = cmd("XAUTOCLAIM");
        command.arg(topic).arg(group).arg(node).arg(idle).arg(&self.claim_cursor).arg("COUNT").arg(BATCH);
        let (claim_cursor, entries) = claimed(self.run(&command).await?);
        self.claim_cursor = claim_cursor;
        if self.claim_cursor == "0-0" {
            self.next_sweep = Instant::now() + SWEEP;
        }
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        tracing::info!(stream = self.settings.topic, records = entries.len(), "claimed records of a dead reader");
        self.redelivered(entries).await
    }

    /// Returns redelivered records. Acknowledges at once those that the stream has trimmed meanwhile.
    async fn redelivered(&mut self, entries: Vec<Entry>) -> Result<Vec<Record>, Unavailable> {
        let (present, trimmed): (Vec<Entry>, Vec<Entry>) =
            entries.into_iter().partition(|entry| entry.payload.is_some());
        if !trimmed.is_empty() {
            let mut ack = cmd("XACK");
            ack.arg(&self.settings.topic).arg(&self.settings.group);
            trimmed.iter().for_each(|entry| {
                ack.arg(entry.id.to_string());
            });
            self.run::<Value>(&ack).await?;
        }
        let (Some(first), Some(last)) = (present.first(), present.last()) else { return Ok(Vec::new()) };
        let StreamSettings { topic, group, node, .. } = &self.settings;
        let mut pending = cmd("XPENDING");
        pending.arg(topic).arg(group).arg(first.id.to_string()).arg(last.id.to_string()).arg(8 * BATCH).arg(node);
        let counts = counts(self.run(&pending).await?);
        Ok(self.records(present, &counts))
    }

    fn records(&mut self, entries: Vec<Entry>, counts: &AHashMap<Id, u32>) -> Vec<Record> {
        self.oversized_ids.clear();
        self.extra_fields.clear();
        let mut records = Vec::with_capacity(entries.len());
        for Entry { id, payload, extra_fields } in entries {
            if !extra_fields.is_empty() {
                self.extra_fields.insert(id, extra_fields);
            }
            let offset = id.pack();
            if offset.is_none() {
                self.oversized_ids.push(id);
            }
            let tries = counts.get(&id).map_or(0, |count| count.saturating_sub(1));
            let position = RecordPosition { partition: Arc::clone(&self.partition), offset };
            records.push(Record { payload: payload.unwrap_or_default(), position, tries });
        }
        records
    }

    async fn acknowledge(&mut self, positions: &[RecordPosition]) -> Result<(), Unavailable> {
        let mut oversized_ids = self.oversized_ids.iter().copied();
        let ids: Vec<String> = positions
            .iter()
            .map(|position| {
                (position, position.offset.map(Id::unpack).or_else(|| oversized_ids.next()).unwrap_or(Id::ZERO))
            })
            // Records of an earlier incarnation are skipped, because the same id is another record now.
            .filter(|(position, _)| position.partition == self.partition)
            .map(|(_, id)| id.to_string())
            .collect();
        let left = oversized_ids.count();
        if !ids.is_empty() {
            self.run::<Value>(&self.incarnation_scripts.acknowledge(&self.incarnation, ids.into_iter())).await?;
        }
        self.oversized_ids.drain(..self.oversized_ids.len() - left);
        Ok(())
    }

    /// Trims entries that every group of the stream has acknowledged, and removes consumers that are gone.
    async fn trim(&mut self) -> Result<(), Unavailable> {
        let topic = self.settings.topic.clone();
        let mut acked_until: Option<Id> = None;
        for Group { name, pending, delivered, lag } in
            groups(self.run(&cmd("XINFO").arg("GROUPS").arg(&topic).to_owned()).await?)
        {
            let mut until = delivered;
            if pending > 0 {
                let summary: Value = self.run(&cmd("XPENDING").arg(&topic).arg(&name).to_owned()).await?;
                until = entries::oldest(&summary).unwrap_or(until);
            }
            if name == self.settings.group {
                self.lag = lag;
            }
            acked_until = Some(acked_until.map_or(until, |least| least.min(until)));
        }
        if let Some(acked_until) = acked_until.filter(|acked_until| *acked_until > Id::ZERO) {
            let command = cmd("XTRIM").arg(&topic).arg("MINID").arg("~").arg(acked_until.to_string()).to_owned();
            self.run::<Value>(&command).await?;
        }
        let consumers: Value =
            self.run(&cmd("XINFO").arg("CONSUMERS").arg(&topic).arg(&self.settings.group).to_owned()).await?;
        for consumer in entries::idle_consumers(&consumers, CONSUMER_IDLE) {
            self.remove(&consumer).await?;
        }
        Ok(())
    }

    async fn remove(&mut self, consumer: &str) -> Result<(), Unavailable> {
        let StreamSettings { topic, group, .. } = &self.settings;
        let command = cmd("XGROUP").arg("DELCONSUMER").arg(topic).arg(group).arg(consumer).to_owned();
        self.run::<Value>(&command).await.map(drop)
    }

    /// Ids of this consumer's pending records, as many as one answer holds.
    async fn pending(&mut self) -> Result<Vec<Id>, Unavailable> {
        let StreamSettings { topic, group, node, .. } = &self.settings;
        let mut command = cmd("XPENDING");
        command.arg(topic).arg(group).arg("-").arg("+").arg(8 * BATCH).arg(node);
        Ok(counts(self.run(&command).await?).into_keys().collect())
    }

    /// Resets the idle time and the delivery count of the pending records: a wait for the bus is no failed delivery.
    async fn reset_idle(&mut self) -> Result<(), Unavailable> {
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
        self.run::<Value>(&command).await.map(drop)
    }

    /// Returns records that were delivered to an abandoned read. Other readers would see them only after some time.
    async fn read_abandoned(&mut self) -> Result<Vec<Record>, Unavailable> {
        // Ends a read that still blocks in the server.
        self.connection = None;
        self.connect().await?;
        let own = self.read_group("0").await?;
        self.redelivered(own).await
    }

    async fn leave_group(&mut self) -> Result<(), Unavailable> {
        if self.connection.is_some() && self.pending().await?.is_empty() {
            let node = self.settings.node.clone();
            self.remove(&node).await?;
        }
        Ok(())
    }

    /// Runs one command. A refusal of the server is an error.
    async fn run<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<T, Unavailable> {
        self.try_run(command).await?.map_err(|error| self.client.unavailable(&error))
    }

    /// Runs one command. A refusal of the server is a normal answer.
    async fn try_run<T: FromRedisValue>(&mut self, command: &Cmd) -> Result<Result<T, RedisError>, Unavailable> {
        let Some(connection) = &mut self.connection else {
            return Err(Unavailable { engine: "redis", why: format!("{}: not connected", self.client.address()) });
        };
        match command.query_async(connection).await {
            Err(error) if error.code().is_none() => Err(self.client.unavailable(&error)),
            answer => Ok(answer),
        }
    }
}

impl Source for StreamSource {
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
            self.connect().await?;
            self.acknowledge(positions).await
        }
        .boxed()
    }

    fn dead_letter<'a>(&'a mut self, record: &'a Record, reason: &'a str) -> BoxFuture<'a, Result<(), Unavailable>> {
        async move {
            let id = record.position.offset.map(Id::unpack).or(self.oversized_ids.first().copied()).unwrap_or(Id::ZERO);
            let (origin, extra_fields) = (format!("{} {id}", self.settings.topic), self.extra_fields.get(&id));
            self.dead.add(record, &origin, reason, extra_fields.map_or(&[], Vec::as_slice)).await
        }
        .boxed()
    }

    fn keep_alive(&mut self) -> BoxFuture<'_, ()> {
        async {
            if let Err(error) = self.reset_idle().await {
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
            self.read_abandoned().await.unwrap_or_else(|error| {
                tracing::debug!(%error, "pending records are left to other readers of the group");
                Vec::new()
            })
        }
        .boxed()
    }

    fn close(&mut self) -> BoxFuture<'_, ()> {
        async {
            if let Err(error) = self.leave_group().await {
                tracing::debug!(%error, "consumer was not removed from its group");
            }
            self.connection = None;
        }
        .boxed()
    }
}
