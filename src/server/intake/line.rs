//! The loop of one intake: read records, publish them until the bus accepts them, write dead letters, complete; repeat.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::batch::{Batch, Open};
use super::meters::Meters;
use super::{Feed, Stop};
use crate::backoff::Backoff;
use crate::config::LiveConfig;
use crate::node::{Delay, Node, Record, Source, Unavailable};
use crate::protocol::push::PushLimits;
use crate::server::bounds;
use crate::telemetry::{capped, without_value};

/// First and longest delay before the bus or the engine is tried again.
const WAITS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// First and longest delay before a record is tried again on which a filter failed, though it judges others.
const WAITS_ALONE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));
/// Interval of keep-alives to the engine while records wait.
const KEEP: Duration = Duration::from_secs(3);
/// Maximum retries once the node drains. After that the records are left to the next reader.
const LAST_TRIES: u32 = 5;

/// One topic and the processing of its records.
pub(super) struct Line {
    node: Arc<Node>,
    name: Arc<str>,
    /// Its name in the node's readiness.
    way: Arc<str>,
    source: Box<dyn Source>,
    config: LiveConfig,
    stop: watch::Receiver<Stop>,
    meters: Meters,
    /// True while records wait for a plugin.
    is_paused: bool,
    /// Reason why the current records wait.
    delay: Option<Delay>,
}

/// Delays between the tries of one operation.
struct Patience {
    backoff: Backoff,
    kept: Instant,
    last_tries: u32,
}

impl Line {
    pub(super) fn new(
        node: Arc<Node>,
        Feed { name, source }: Feed,
        config: LiveConfig,
        stop: watch::Receiver<Stop>,
    ) -> Self {
        let (way, meters) = (format!("intake {name}").into(), Meters::new(&name));
        Self { node, name: name.into(), way, source, config, stop, meters, is_paused: false, delay: None }
    }

    /// Runs until the node drains.
    pub(super) async fn run(mut self) {
        loop {
            let taken = tokio::select! {
                biased;
                () = stopped(&mut self.stop, Stop::Finish) => break,
                taken = self.source.take() => taken,
            };
            match taken {
                Ok(records) => {
                    match self.source.fault() {
                        None => self.is_well(),
                        Some(unavailable) => self.ails(&unavailable),
                    }
                    self.handle(records).await;
                }
                Err(unavailable) => self.ails(&unavailable),
            }
        }
        let rest = self.source.stop().await;
        self.handle(rest).await;
        self.source.close().await;
        self.meters.paused(false);
        self.node.set_ailing(&self.way, None);
    }

    async fn handle(&mut self, records: Vec<Record>) {
        self.meters.taken(records.len());
        self.meters.lag(self.source.lag());
        let limits = bounds(&self.config.load().limits);
        let mut batches = Batch::cut(records, &limits, &self.name).into_iter();
        while let Some((mut batch, open)) = batches.next() {
            if !self.accept(&mut batch, open, &limits).await {
                let left = batch.unfinished() + batches.map(|(batch, _)| batch.entries.len()).sum::<usize>();
                tracing::warn!(
                    intake = &*self.name,
                    left,
                    "drain ended before all records were processed: the rest stays unacknowledged"
                );
                self.source.abandon(left, self.delay.unwrap_or(Delay::Engine));
                return;
            }
            self.set_delay(None);
        }
    }

    /// Publishes until no message of the batch is open, then completes the batch; `false` if a drain came first.
    async fn accept(&mut self, batch: &mut Batch, mut open: Open, limits: &PushLimits) -> bool {
        let (mut patience, mut alone, mut tried) = (Patience::new(WAITS), Patience::new(WAITS_ALONE), false);
        while !open.publications.is_empty() {
            if *self.stop.borrow() == Stop::Leave {
                return false;
            }
            let are_ours = self.source.still_owns(&batch.positions(), tried).await;
            match are_ours {
                Ok(true) => {}
                // The next reader of these records is further ahead, so publishing them now would break the order.
                Ok(false) => return true,
                Err(unavailable) => {
                    self.ails(&unavailable);
                    if self.wait(&mut patience, Delay::Engine, "the owner of the records cannot be checked").await {
                        continue;
                    }
                    return false;
                }
            }
            let publications = std::mem::take(&mut open.publications);
            let published = self.node.publish(publications).await;
            tried = true;
            let answered = batch.answer(&open, published);
            self.meters.accepted(answered.accepted);
            self.pause(answered.paused.as_deref());
            if !batch.is_open() {
                break;
            }
            self.meters.retried();
            let goes_on = if answered.unavailable {
                self.meters.failed();
                self.wait(&mut patience, Delay::Bus, "the bus is unavailable").await
            } else if answered.paused.is_some() {
                self.wait(&mut patience, Delay::Plugin, "a plugin cannot judge messages").await
            } else {
                // The filter judges other records, so only this record is retried soon, to avoid blocking those behind
                // it.
                self.wait(&mut alone, Delay::Plugin, "a plugin failed for a record").await
            };
            if !goes_on {
                return false;
            }
            open = batch.open(limits, &self.name);
        }
        if !self.dead_letter(batch).await {
            return false;
        }
        // Records that are not completed are redelivered with the same identity, so a failure needs no retry.
        if let Err(unavailable) = self.source.complete(&batch.positions()).await {
            self.ails(&unavailable);
        }
        true
    }

    /// Writes the dead letters of the batch; `false` if a drain came first.
    async fn dead_letter(&mut self, batch: &Batch) -> bool {
        let mut first = None;
        for entry in &batch.entries {
            let Some(poison) = &entry.poison else { continue };
            let mut patience = Patience::new(WAITS);
            while let Err(unavailable) = self.source.dead_letter(&entry.record, &poison.reason).await {
                self.ails(&unavailable);
                if !self.wait(&mut patience, Delay::Engine, "a dead letter cannot be written").await {
                    return false;
                }
            }
            self.meters.buried(poison.why);
            first.get_or_insert((&entry.record.position, poison));
        }
        if let Some((position, poison)) = first {
            let count = batch.entries.iter().filter(|entry| entry.poison.is_some()).count();
            let (line, offset, reason) = (&*position.partition, position.offset, without_value(&poison.reason));
            tracing::warn!(
                intake = &*self.name,
                count,
                line,
                offset,
                reason,
                "records dead-lettered; the fields name the first"
            );
        }
        true
    }

    /// Waits before a retry; `false` if the node drains and the retries are used up.
    async fn wait(&mut self, patience: &mut Patience, delay: Delay, why: &str) -> bool {
        tracing::debug!(intake = &*self.name, why, "records wait for a retry");
        self.set_delay(Some(delay));
        if *self.stop.borrow() != Stop::No {
            patience.last_tries += 1;
            if patience.last_tries > LAST_TRIES {
                return false;
            }
        }
        if patience.kept.elapsed() >= KEEP {
            patience.kept = Instant::now();
            self.source.keep_alive().await;
        }
        tokio::select! {
            () = stopped(&mut self.stop, Stop::Leave) => false,
            () = sleep(patience.backoff.wait()) => true,
        }
    }

    fn set_delay(&mut self, by: Option<Delay>) {
        if self.delay != by {
            self.delay = by;
            self.source.set_delay(by);
        }
    }

    /// Reports that the intake is paused because of a plugin, or that it has resumed.
    fn pause(&mut self, why: Option<&str>) {
        if why.is_some() == self.is_paused {
            return;
        }
        self.is_paused = why.is_some();
        self.meters.paused(self.is_paused);
        match why {
            Some(why) => tracing::warn!(intake = &*self.name, why, "intake paused: a plugin cannot judge messages"),
            None => tracing::info!(intake = &*self.name, "intake resumed"),
        }
        self.node.set_ailing(&self.way, why.map(|_| "paused: a plugin cannot judge messages".to_owned()));
    }

    fn is_well(&self) {
        self.meters.up(true);
        self.node.set_ailing(&self.way, None);
    }

    fn ails(&self, unavailable: &Unavailable) {
        self.meters.up(false);
        self.meters.failed();
        let why = capped(&unavailable.to_string());
        tracing::warn!(intake = &*self.name, why, "intake engine is unavailable");
        self.node.set_ailing(&self.way, Some(why));
    }
}

impl Patience {
    fn new((first, most): (Duration, Duration)) -> Self {
        Self { backoff: Backoff::new(first, most), kept: Instant::now(), last_tries: 0 }
    }
}

/// Waits for this stage of the stop, or for a later one.
async fn stopped(stop: &mut watch::Receiver<Stop>, stage: Stop) {
    // Drops the guard, which is not `Send`.
    drop(stop.wait_for(|stop| *stop == stage || *stop == Stop::Leave).await);
}
