//! Dead letters of the Redis intakes: a stream next to the topic with the records that can never be accepted.

use std::sync::Arc;
use std::time::Duration;

use ::redis::Pipeline;
use metrics::{Counter, counter};
use tokio::time::Instant;

use super::super::client::Client;
use crate::broker::Unavailable;
use crate::broker::source::Record;
use crate::telemetry::names;

/// Approximate maximum number of dead letters. The oldest are removed first.
const MOST: u32 = 10_000;
/// Maximum bytes that are kept of one record, so that the stream is bounded in bytes.
const MAX_BYTES: usize = 1 << 20;

/// Minimum interval between log lines about removed dead letters.
const LOG_INTERVAL: Duration = Duration::from_secs(60);

/// Writer of the dead letters of one topic.
pub(super) struct DeadLetters {
    client: Arc<Client>,
    topic: String,
    stream: String,
    node: String,
    removed: Counter,
    logged_at: Option<Instant>,
}

impl DeadLetters {
    /// Creates the writer. `label` is the intake's label in metrics.
    pub(super) fn new(client: Arc<Client>, topic: &str, node: &str, label: &str) -> Self {
        let removed = counter!(names::INTAKE_DEAD_REMOVED, "intake" => label.to_owned());
        let (stream, node) = (format!("{topic}:dead"), node.to_owned());
        Self { client, topic: topic.to_owned(), stream, node, removed, logged_at: None }
    }

    /// Appends a record with the fields `data` (unchanged payload), `reason`, `origin` (topic, and the id if there is
    /// one), `topic`, `node` (this node) and `tries`. Adds `bytes` if the payload was cut, and one `field:NAME` for
    /// each of `extra_fields`, the fields beside the envelope.
    ///
    /// # Errors
    /// [`Unavailable`]: the dead letter was not written, or the result is unknown.
    pub(super) async fn add(
        &mut self,
        record: &Record,
        origin: &str,
        reason: &str,
        extra_fields: &[(Vec<u8>, Vec<u8>)],
    ) -> Result<(), Unavailable> {
        let data = &record.payload[..record.payload.len().min(MAX_BYTES)];
        let mut pipeline = Pipeline::new();
        let add = pipeline.cmd("XADD").arg(&self.stream).arg("*");
        add.arg("data").arg(data).arg("reason").arg(reason).arg("origin").arg(origin).arg("topic").arg(&self.topic);
        add.arg("node").arg(&self.node).arg("tries").arg(record.tries + 1);
        if data.len() < record.payload.len() {
            add.arg("bytes").arg(record.payload.len());
        }
        for (name, value) in extra_fields {
            add.arg([b"field:", &name[..]].concat()).arg(&value[..value.len().min(MAX_BYTES)]);
        }
        pipeline.cmd("XTRIM").arg(&self.stream).arg("MAXLEN").arg("~").arg(MOST);
        let (_, removed) = self.client.run::<(String, u64)>(&pipeline).await?;
        self.report_removed(removed);
        Ok(())
    }

    fn report_removed(&mut self, removed: u64) {
        if removed == 0 {
            return;
        }
        self.removed.increment(removed);
        if self.logged_at.is_none_or(|logged_at| logged_at.elapsed() >= LOG_INTERVAL) {
            self.logged_at = Some(Instant::now());
            let (stream, most) = (&self.stream, MOST);
            tracing::warn!(stream, removed, most, "dead-letter stream is full; oldest dead letters removed");
        }
    }
}
