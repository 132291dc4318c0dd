//! The history of a harness: given messages, numbered from 1, in place of an engine.

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, ready};

use crate::id::{Device, Uid};
use crate::message::{Epoch, Message, Position, StreamName, same_id};
use crate::plugin::history::{
    HistoryError, HistoryMessage, HistoryPage, HistoryReader, MAX_MESSAGES, Missing, Reading,
};

/// Epoch of every given stream.
const EPOCH: &str = "00000001";

/// Kept messages that a plugin finds.
#[derive(Debug, Clone, PartialEq)]
pub enum GivenHistory {
    /// The node keeps no messages.
    Off,
    /// The history does not answer.
    Away,
    /// The messages of each stream, the oldest first. All other streams are empty.
    Kept(Vec<(StreamName, Vec<GivenMessage>)>),
}

impl Default for GivenHistory {
    fn default() -> Self {
        Self::Kept(Vec::new())
    }
}

/// A kept message of a [`GivenHistory`].
#[derive(Debug, Clone, PartialEq)]
pub struct GivenMessage {
    /// The message.
    pub message: Message,
    /// The only device that receives it.
    pub device: Option<Device>,
    /// Users that do not receive it.
    pub except: Vec<Uid>,
}

impl HistoryReader for GivenHistory {
    fn read<'a>(&'a self, name: &'a StreamName, reading: Reading) -> BoxFuture<'a, Result<HistoryPage, HistoryError>> {
        ready(match self {
            Self::Kept(streams) => {
                let named = streams.iter().find(|(other, _)| other == name);
                Ok(page(named.map_or(&[][..], |(_, messages)| messages), reading))
            }
            Self::Off | Self::Away => Err(HistoryError::Unavailable("away by the case".to_owned())),
        })
        .boxed()
    }
}

fn page(messages: &[GivenMessage], reading: Reading) -> HistoryPage {
    let epoch = Epoch::parse(EPOCH).expect("eight characters");
    let top = Position { epoch, offset: messages.len() as u64, id: messages.last().map_or(0, |last| last.message.id) };
    let (from, limit, missed) = match reading {
        Reading::Latest(limit) => (messages.len() - limit.min(MAX_MESSAGES).min(messages.len()), limit, None),
        Reading::After(position, limit) => match missing(messages, &position, epoch) {
            None => (usize::try_from(position.offset).unwrap_or(usize::MAX), limit, None),
            missed => (messages.len(), limit, missed),
        },
    };
    let numbered = (1..).zip(messages).skip(from).take(limit.min(MAX_MESSAGES));
    HistoryPage { messages: numbered.map(|(offset, given)| kept(offset, given)).collect(), top, missed }
}

fn missing(messages: &[GivenMessage], position: &Position, epoch: Epoch) -> Option<Missing> {
    if position.epoch != epoch {
        return Some(Missing::Epoch);
    }
    let at = usize::try_from(position.offset).unwrap_or(usize::MAX);
    let id = match at.checked_sub(1) {
        None => return None,
        Some(index) => messages.get(index).map(|given| given.message.id),
    };
    id.is_none_or(|id| !same_id(id, position.id)).then_some(Missing::Fork)
}

fn kept(offset: u64, given: &GivenMessage) -> HistoryMessage {
    HistoryMessage {
        offset,
        message: given.message.clone().into(),
        device: given.device.clone(),
        except: given.except.clone().into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(ids: &[i64]) -> Vec<GivenMessage> {
        let message = |id: &i64| GivenMessage {
            message: Message { id: *id, ..Message::default() },
            device: None,
            except: Vec::new(),
        };
        ids.iter().map(message).collect()
    }

    fn offsets(page: &HistoryPage) -> Vec<u64> {
        page.messages.iter().map(|message| message.offset).collect()
    }

    #[test]
    fn a_given_stream_is_read_like_an_engines() {
        let messages = given(&[10, 20, 30]);
        let at = |epoch: &str, offset, id| Position { epoch: Epoch::parse(epoch).unwrap(), offset, id };
        let latest = page(&messages, Reading::Latest(2));
        assert_eq!((offsets(&latest), latest.top), (vec![2, 3], at(EPOCH, 3, 30)));
        assert_eq!(offsets(&page(&messages, Reading::Latest(usize::MAX))), [1, 2, 3]);
        for (position, limit, expected, missed) in [
            (at(EPOCH, 0, 0), 9, vec![1, 2, 3], None),
            (at(EPOCH, 1, 10), 1, vec![2], None),
            (at(EPOCH, 3, 30), 9, vec![], None),
            (at(EPOCH, 3, 31), 9, vec![], Some(Missing::Fork)),
            (at(EPOCH, 4, 40), 9, vec![], Some(Missing::Fork)),
            (at("00000002", 1, 10), 9, vec![], Some(Missing::Epoch)),
        ] {
            let read = page(&messages, Reading::After(position, limit));
            assert_eq!((offsets(&read), read.missed), (expected, missed), "{position}");
        }
        assert_eq!(page(&[], Reading::Latest(9)).top, at(EPOCH, 0, 0));
    }
}
