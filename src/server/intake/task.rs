//! The loop of one intake: read records, publish them until the bus accepts them, write dead letters, complete; repeat.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::batch::{Batch, OpenMessages};
use super::meters::Meters;
use super::{IntakeSource, Stop};
use crate::backoff::Backoff;
use crate::config::LiveConfig;
use crate::node::{Delay, Node, Record, Source, Unavailable};
use crate::protocol::push::PushLimits;
use crate::server::bounds;
use crate::telemetry::{capped, without_value};

/// First and longest delay before the bus or the engine is tried again.
const RETRY_DELAYS: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// First and longest delay before a record is tried again on which a filter failed, though it judges others.
const RECORD_RETRY_DELAYS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(200));
/// Interval of keep-alives to the engine while records wait.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(3);
/// Maximum retries once the node drains. After that the records are left to the next reader.
const MAX_DRAIN_RETRIES: u32 = 5;

/// One topic and the processing of its records.
pub(super) struct IntakeTask {
    node: Arc<Node>,
    name: Arc<str>,
    /// Its name in the node's readiness.
    component: Arc<str>,
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
struct RetryDelay {
    backoff: Backoff,
    kept_alive: Instant,
    drain_retries: u32,
}

impl IntakeTask {
    pub(super) fn new(
        node: Arc<Node>,
        IntakeSource { name, source }: IntakeSource,
        config: LiveConfig,
        stop: watch::Receiver<Stop>,
    ) -> Self {
        let (component, meters) = (format!("intake {name}").into(), Meters::new(&name));
        Self { node, name: name.into(), component, source, config, stop, meters, is_paused: false, delay: None }
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
                        None => self.mark_up(),
                        Some(unavailable) => self.mark_down(&unavailable),
                    }
                    self.handle(records).await;
                }
                Err(unavailable) => self.mark_down(&unavailable),
            }
        }
        let rest = self.source.stop().await;
        self.handle(rest).await;
        self.source.close().await;
        self.meters.paused(false);
        self.node.set_component_fault(&self.component, None);
    }

    async fn handle(&mut self, records: Vec<Record>) {
        self.meters.taken(records.len());
        self.meters.lag(self.source.lag());
        let limits = bounds(&self.config.load().limits);
        let mut batches = Batch::split(records, &limits, &self.name).into_iter();
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
    async fn accept(&mut self, batch: &mut Batch, mut open: OpenMessages, limits: &PushLimits) -> bool {
        let (mut retry, mut record_retry, mut tried) =
            (RetryDelay::new(RETRY_DELAYS), RetryDelay::new(RECORD_RETRY_DELAYS), false);
        while !open.publications.is_empty() {
            if *self.stop.borrow() == Stop::Abandon {
                return false;
            }
            let still_owns = self.source.still_owns(&batch.positions(), tried).await;
            match still_owns {
                Ok(true) => {}
                // The next reader of these records is further ahead, so publishing them now would break the order.
                Ok(false) => return true,
                Err(unavailable) => {
                    self.mark_down(&unavailable);
                    if self.wait(&mut retry, Delay::Engine, "the owner of the records cannot be checked").await {
                        continue;
                    }
                    return false;
                }
            }
            let publications = std::mem::take(&mut open.publications);
            let published = self.node.publish(publications).await;
            tried = true;
            let result = batch.apply(&open, published);
            self.meters.accepted(result.accepted);
            self.pause(result.paused.as_deref());
            if !batch.is_open() {
                break;
            }
            self.meters.retried();
            let may_retry = if result.unavailable {
                self.meters.failed();
                self.wait(&mut retry, Delay::Bus, "the bus is unavailable").await
            } else if result.paused.is_some() {
                self.wait(&mut retry, Delay::Plugin, "a plugin cannot judge messages").await
            } else {
                // The filter judges other records, so only this record is retried soon, to avoid blocking those behind
                // it.
                self.wait(&mut record_retry, Delay::Plugin, "a plugin failed for a record").await
            };
            if !may_retry {
                return false;
            }
            open = batch.open(limits, &self.name);
        }
        if !self.dead_letter(batch).await {
            return false;
        }
        // Records that are not completed are redelivered with the same identity, so a failure needs no retry.
        if let Err(unavailable) = self.source.complete(&batch.positions()).await {
            self.mark_down(&unavailable);
        }
        true
    }

    /// Writes the dead letters of the batch; `false` if a drain came first.
    async fn dead_letter(&mut self, batch: &Batch) -> bool {
        let mut first = None;
        for entry in &batch.entries {
            let Some(dead_letter) = &entry.dead_letter else { continue };
            let mut retry = RetryDelay::new(RETRY_DELAYS);
            while let Err(unavailable) = self.source.dead_letter(&entry.record, &dead_letter.reason).await {
                self.mark_down(&unavailable);
                if !self.wait(&mut retry, Delay::Engine, "a dead letter cannot be written").await {
                    return false;
                }
            }
            self.meters.dead_lettered(dead_letter.kind);
            first.get_or_insert((&entry.record.position, dead_letter));
        }
        if let Some((position, dead_letter)) = first {
            let count = batch.entries.iter().filter(|entry| entry.dead_letter.is_some()).count();
            let (line, offset, reason) = (&*position.partition, position.offset, without_value(&dead_letter.reason));
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
    async fn wait(&mut self, retry: &mut RetryDelay, delay: Delay, why: &str) -> bool {
        tracing::debug!(intake = &*self.name, why, "records wait for a retry");
        self.set_delay(Some(delay));
        if *self.stop.borrow() != Stop::No {
            retry.drain_retries += 1;
            if retry.drain_retries > MAX_DRAIN_RETRIES {
                return false;
            }
        }
        if retry.kept_alive.elapsed() >= KEEP_ALIVE_INTERVAL {
            retry.kept_alive = Instant::now();
            self.source.keep_alive().await;
        }
        tokio::select! {
            () = stopped(&mut self.stop, Stop::Abandon) => false,
            () = sleep(retry.backoff.wait()) => true,
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
        self.node
            .set_component_fault(&self.component, why.map(|_| "paused: a plugin cannot judge messages".to_owned()));
    }

    fn mark_up(&self) {
        self.meters.up(true);
        self.node.set_component_fault(&self.component, None);
    }

    fn mark_down(&self, unavailable: &Unavailable) {
        self.meters.up(false);
        self.meters.failed();
        let why = capped(&unavailable.to_string());
        tracing::warn!(intake = &*self.name, why, "intake engine is unavailable");
        self.node.set_component_fault(&self.component, Some(why));
    }
}

impl RetryDelay {
    fn new((first, most): (Duration, Duration)) -> Self {
        Self { backoff: Backoff::new(first, most), kept_alive: Instant::now(), drain_retries: 0 }
    }
}

/// Waits for this stage of the stop, or for a later one.
async fn stopped(stop: &mut watch::Receiver<Stop>, stage: Stop) {
    // Drops the guard, which is not `Send`.
    drop(stop.wait_for(|stop| *stop == stage || *stop == Stop::Abandon).await);
}
