//! History for plugins: adapts the engine's streams to the plugin host's [`HistoryReader`].
//!
//! Broker and plugin do not depend on each other; this module connects them.

use std::sync::Arc;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::living;
use crate::broker::Unavailable;
use crate::broker::history::{HistoryStore, KeptMessage, Missed, Page, Range, Start};
use crate::clock;
use crate::message::StreamName;
use crate::plugin::history::{
    HistoryError, HistoryMessage, HistoryPage, HistoryReader, MAX_MESSAGES, Missing, Reading,
};

/// Kept messages as plugins see them.
pub struct PluginHistory {
    store: Arc<dyn HistoryStore>,
}

impl PluginHistory {
    /// Reads from `store`.
    #[must_use]
    pub fn new(store: Arc<dyn HistoryStore>) -> Self {
        Self { store }
    }
}

impl HistoryReader for PluginHistory {
    fn read<'a>(&'a self, name: &'a StreamName, reading: Reading) -> BoxFuture<'a, Result<HistoryPage, HistoryError>> {
        let (range, is_reverse) = match reading {
            // An engine without a request for messages returns the position only.
            Reading::Latest(limit) => (Range { start: Start::End, limit: most(limit), reverse: limit > 0 }, limit > 0),
            Reading::After(position, limit) => {
                (Range { start: Start::After(position), limit: most(limit), reverse: false }, false)
            }
        };
        async move {
            let mut page = living(&*self.store, name, range, clock::now_millis()).await?;
            if is_reverse {
                page.messages.reverse();
            }
            Ok(convert(page))
        }
        .boxed()
    }
}

fn most(limit: usize) -> usize {
    limit.min(MAX_MESSAGES)
}

impl From<Unavailable> for HistoryError {
    fn from(why: Unavailable) -> Self {
        Self::Unavailable(why.to_string())
    }
}

fn convert(page: Page) -> HistoryPage {
    let Page { messages, top, missed } = page;
    HistoryPage {
        messages: messages.into_iter().map(|(offset, kept)| message(offset, kept)).collect(),
        top,
        missed: missed.map(|missed| match missed {
            Missed::Trimmed => Missing::Trimmed,
            Missed::Epoch => Missing::Epoch,
            Missed::Fork => Missing::Fork,
        }),
    }
}

fn message(offset: u64, kept: KeptMessage) -> HistoryMessage {
    let KeptMessage { message, readers, .. } = kept;
    HistoryMessage {
        offset,
        message,
        device: readers.as_ref().and_then(|readers| readers.device.clone()),
        except: readers.map(|readers| Arc::clone(&readers.excluded)).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;
    use crate::broker::history::Readers;
    use crate::id::{Device, Uid};
    use crate::message::{Epoch, Message, Position};

    /// A stream with five messages. It records the range of the last read.
    #[derive(Default)]
    struct Five(parking_lot::Mutex<Option<Range>>);

    fn kept(offset: u64) -> KeptMessage {
        let readers = Readers {
            device: Device::parse("phone").ok().filter(|_| offset == 4),
            excluded: Uid::parse("u7").ok().filter(|_| offset == 5).into_iter().collect(),
            ttl: None,
        };
        KeptMessage {
            message: Arc::new(Message { id: i64::try_from(offset).unwrap() * 10, ..Message::default() }),
            sent_at: 0,
            no_echo: None,
            readers: (readers != Readers::default()).then(|| Arc::new(readers)),
        }
    }

    impl HistoryStore for Five {
        fn read(&self, _: &StreamName, range: Range) -> BoxFuture<'_, Result<Page, Unavailable>> {
            *self.0.lock() = Some(range);
            let after = match range.start {
                Start::End => 0,
                Start::After(position) => position.offset,
            };
            let mut offsets: Vec<u64> = (after + 1..=5).collect();
            if range.reverse {
                offsets.reverse();
            }
            let messages = offsets.into_iter().take(range.limit).map(|offset| (offset, kept(offset))).collect();
            ready(Ok(Page { messages, top: top(), missed: None })).boxed()
        }

        fn forget(&self, _: &StreamName) -> BoxFuture<'_, Result<bool, Unavailable>> {
            ready(Ok(false)).boxed()
        }
    }

    fn top() -> Position {
        Position { epoch: Epoch::new(1), offset: 5, id: 50 }
    }

    async fn offsets(history: &PluginHistory, reading: Reading) -> Vec<u64> {
        let page = history.read(&StreamName::Everyone, reading).await.unwrap();
        assert_eq!((page.top, page.missed), (top(), None));
        page.messages.iter().map(|message| message.offset).collect()
    }

    #[tokio::test]
    async fn pages_are_in_order_from_the_oldest_on() {
        let store = Arc::new(Five::default());
        let history = PluginHistory::new(Arc::clone(&store) as _);
        assert_eq!(offsets(&history, Reading::Latest(2)).await, [4, 5]);
        assert_eq!(offsets(&history, Reading::Latest(0)).await, [0; 0]);
        let second = Position { offset: 2, id: 20, ..top() };
        assert_eq!(offsets(&history, Reading::After(second, 2)).await, [3, 4]);
        assert_eq!(offsets(&history, Reading::After(second, usize::MAX)).await, [3, 4, 5]);
        assert_eq!(store.0.lock().map(|range| range.limit), Some(MAX_MESSAGES), "the engine is asked for no more");
    }

    #[tokio::test]
    async fn readers_of_a_message_are_told() {
        let history = PluginHistory::new(Arc::new(Five::default()));
        let page = history.read(&StreamName::Everyone, Reading::Latest(3)).await.unwrap();
        let device = |at: usize| page.messages[at].device.as_ref().map(Device::as_str);
        assert_eq!((device(0), device(1), device(2)), (None, Some("phone"), None));
        let except: Vec<usize> = page.messages.iter().map(|message| message.except.len()).collect();
        assert_eq!(except, [0, 0, 1]);
    }
}
