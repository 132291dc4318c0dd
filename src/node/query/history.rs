//! History for back ends: reads a page of a stream, and forgets a stream.
//!
//! Independent of engines. `node/resume.rs` serves clients, and [`plugins`] serves plugins.

pub(super) mod plugins;

use crate::broker::Unavailable;
use crate::broker::history::{HistoryStore, Page, Range, Start};
use crate::clock;
use crate::message::{Position, StreamName};
use crate::node::Node;

/// A request to the history failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HistoryFault {
    /// This node keeps no messages.
    #[error("history: expected a node that keeps messages, got history.kind off")]
    Off,
    /// The engine did not answer in time. The log has its error.
    #[error("history: the engine did not answer in time: try again later")]
    Unavailable,
}

impl From<Unavailable> for HistoryFault {
    fn from(why: Unavailable) -> Self {
        tracing::debug!(%why, "request to the history failed: the engine is unavailable");
        Self::Unavailable
    }
}

impl Node {
    /// Reads a page of a stream. A message whose own time is over is left out. The page is empty only if no message
    /// follows, or if messages after the start of the range are missing.
    ///
    /// # Errors
    /// [`HistoryFault`].
    pub async fn history_page(&self, name: &StreamName, range: Range) -> Result<Page, HistoryFault> {
        let store = self.history.as_ref().ok_or(HistoryFault::Off)?;
        Ok(living(&**store, name, range, clock::now_millis()).await?)
    }

    /// Forgets the messages and the numbering of a stream. Returns false if there was no such stream.
    ///
    /// # Errors
    /// [`HistoryFault`]. After [`HistoryFault::Unavailable`] the stream may be forgotten or not.
    pub async fn forget_stream(&self, name: &StreamName) -> Result<bool, HistoryFault> {
        let store = self.history.as_ref().ok_or(HistoryFault::Off)?;
        Ok(store.forget(name).await?)
    }
}

/// Reads a page without expired messages. Reads on while a page has no others.
async fn living(store: &dyn HistoryStore, name: &StreamName, mut range: Range, now: i64) -> Result<Page, Unavailable> {
    loop {
        let mut page = store.read(name, range).await?;
        let last = page.messages.last().map(|(offset, kept)| (*offset, kept.message.id));
        page.messages.retain(|(_, kept)| !kept.is_expired(now));
        match last {
            Some((offset, id)) if page.messages.is_empty() => {
                range.start = Start::After(Position { epoch: page.top.epoch, offset, id });
            }
            _ => return Ok(page),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;
    use std::sync::Arc;

    use futures_util::FutureExt;
    use futures_util::future::BoxFuture;

    use super::*;
    use crate::broker::history::{KeptMessage, Readers};
    use crate::message::{Epoch, Message};

    /// A stream with these messages, from offset 1 on.
    struct Stream(Vec<KeptMessage>);

    impl HistoryStore for Stream {
        fn read(&self, _: &StreamName, range: Range) -> BoxFuture<'_, Result<Page, Unavailable>> {
            let first = match range.start {
                Start::End => 0,
                Start::After(position) => position.offset,
            };
            let messages = (1..).zip(self.0.iter().cloned()).filter(|(offset, _)| *offset > first).take(range.limit);
            let top = Position { epoch: Epoch::new(1), offset: self.0.len() as u64, id: 0 };
            ready(Ok(Page { messages: messages.collect(), top, missed: None })).boxed()
        }

        fn forget(&self, _: &StreamName) -> BoxFuture<'_, Result<bool, Unavailable>> {
            ready(Ok(true)).boxed()
        }
    }

    #[tokio::test]
    async fn expired_messages_are_skipped_until_one_is_left() {
        let kept = |ttl: Option<u32>| KeptMessage {
            message: Arc::new(Message::default()),
            sent_at: 1_000,
            no_echo: None,
            readers: ttl.map(|ttl| Arc::new(Readers { ttl: Some(ttl), ..Readers::default() })),
        };
        let stream = Stream(vec![kept(Some(1)), kept(Some(1)), kept(Some(9)), kept(None), kept(Some(1))]);
        let offsets = async |limit, now| {
            let range = Range { start: Start::End, limit, reverse: false };
            let page = living(&stream, &StreamName::Everyone, range, now).await.unwrap();
            page.messages.into_iter().map(|(offset, _)| offset).collect::<Vec<_>>()
        };
        assert_eq!(offsets(9, 2_000).await, [1, 2, 3, 4, 5]);
        assert_eq!(offsets(9, 2_001).await, [3, 4]);
        assert_eq!(offsets(1, 2_001).await, [3], "the first page holds expired messages only");
        let over = Stream(vec![kept(Some(1)); 3]);
        let range = Range { start: Start::End, limit: 2, reverse: false };
        assert_eq!(living(&over, &StreamName::Everyone, range, 9_999).await.unwrap().messages, []);
    }
}
