//! Dead letters of the intakes over Redis: a stream beside the topic, of records that can never be accepted.

use std::sync::Arc;
use std::time::Duration;

use ::redis::Pipeline;
use metrics::{Counter, counter};
use tokio::time::Instant;

use super::client::Client;
use crate::broker::Unavailable;
use crate::broker::source::Record;
use crate::telemetry::names;

/// About so many are kept; the oldest go first.
const MOST: u32 = 10_000;
/// More of a record is not kept: the stream is bounded in bytes, too.
const MAX_BYTES: usize = 1 << 20;

/// Letters that are removed are told no more often.
const TELL: Duration = Duration::from_secs(60);

/// The dead-letter stream of one topic.
pub(super) struct DeadLetters {
    client: Arc<Client>,
    topic: String,
    stream: String,
    node: String,
    removed: Counter,
    told: Option<Instant>,
}

impl DeadLetters {
    /// `label` is what metrics call the intake.
    pub(super) fn new(client: Arc<Client>, topic: &str, node: &str, label: &str) -> Self {
        let removed = counter!(names::INTAKE_DEAD_REMOVED, "intake" => label.to_owned());
        let (stream, node) = (format!("{topic}:dead"), node.to_owned());
        Self { client, topic: topic.to_owned(), stream, node, removed, told: None }
    }

    /// Adds a record: `data` (as it came), `reason`, `origin` (where it stood: the topic, and the id where there is one),
    /// `topic`, `node` (who buried it), `tries`, `bytes` where it was cut, and each field `beside` its envelope as
    /// `field:NAME`.
    ///
    /// # Errors
    /// [`Unavailable`]: it was not added, or nobody knows whether it was.
    pub(super) async fn add(
        &mut self,
        record: &Record,
        origin: &str,
        reason: &str,
        beside: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<(), Unavailable> {
        let data = &record.payload[..record.payload.len().min(MAX_BYTES)];
        let mut pipeline = Pipeline::new();
        let add = pipeline.cmd("XADD").arg(&self.stream).arg("*");
        add.arg("data").arg(data).arg("reason").arg(reason).arg("origin").arg(origin).arg("topic").arg(&self.topic);
        add.arg("node").arg(&self.node).arg("tries").arg(record.tries + 1);
        if data.len() < record.payload.len() {
            add.arg("bytes").arg(record.payload.len());
        }
        for (name, value) in beside {
            add.arg([b"field:", &name[..]].concat()).arg(&value[..value.len().min(MAX_BYTES)]);
        }
        pipeline.cmd("XTRIM").arg(&self.stream).arg("MAXLEN").arg("~").arg(MOST);
        let (_, removed) = self.client.run::<(String, u64)>(&pipeline).await?;
        self.tell_removed(removed);
        Ok(())
    }

    fn tell_removed(&mut self, removed: u64) {
        if removed == 0 {
            return;
        }
        self.removed.increment(removed);
        if self.told.is_none_or(|told| told.elapsed() >= TELL) {
            self.told = Some(Instant::now());
            let (stream, most) = (&self.stream, MOST);
            tracing::warn!(stream, removed, most, "the dead-letter stream is full: its oldest letters were removed");
        }
    }
}
