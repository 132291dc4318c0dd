//! Dead letters of the intakes over Redis: a stream beside the topic, of records that can never be accepted.

use std::sync::Arc;

use ::redis::Pipeline;

use super::client::Client;
use crate::broker::Unavailable;
use crate::broker::source::Record;

/// About so many are kept; the oldest go first.
const MOST: u32 = 10_000;
/// More of a record is not kept: the stream is bounded in bytes, too.
const MAX_BYTES: usize = 1 << 20;

/// The dead-letter stream of one topic.
pub(super) struct DeadLetters {
    client: Arc<Client>,
    stream: String,
    node: String,
}

impl DeadLetters {
    pub(super) fn new(client: Arc<Client>, topic: &str, node: &str) -> Self {
        Self { client, stream: format!("{topic}:dead"), node: node.to_owned() }
    }

    /// Adds a record: `data` (as it came), `reason`, `origin` (where it stood), `node` (who buried it), `tries`, and
    /// `bytes` where it was cut.
    ///
    /// # Errors
    /// [`Unavailable`]: it was not added, or nobody knows whether it was.
    pub(super) async fn add(&self, record: &Record, origin: &str, reason: &str) -> Result<(), Unavailable> {
        let data = &record.payload[..record.payload.len().min(MAX_BYTES)];
        let mut pipeline = Pipeline::new();
        let add = pipeline.cmd("XADD").arg(&self.stream).arg("MAXLEN").arg("~").arg(MOST).arg("*");
        add.arg("data").arg(data).arg("reason").arg(reason).arg("origin").arg(origin).arg("node").arg(&self.node);
        add.arg("tries").arg(record.tries + 1);
        if data.len() < record.payload.len() {
            add.arg("bytes").arg(record.payload.len());
        }
        self.client.run::<(String,)>(&pipeline).await.map(drop)
    }
}
