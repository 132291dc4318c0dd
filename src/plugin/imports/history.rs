//! The interface `history`: kept messages, read only.

use crate::id::MAX_SAFE_INTEGER;
use crate::message::{Epoch, Position, StreamName};
use crate::plugin::Role;
use crate::plugin::guest::bindings::skylark::plugin::{history as wit, types};
use crate::plugin::guest::convert;
use crate::plugin::guest::failure::Waiting;
use crate::plugin::guest::state::Guest;
use crate::plugin::history::{HistoryPage, MAX_MESSAGES, MAX_READS_PER_CALL, Reading};

/// Result of a read: the inner error is the guest's to handle. The outer one ends the call.
type Read<T> = wasmtime::Result<Result<T, wit::Error>>;

impl Guest {
    /// Reads a page of the stream.
    async fn read_history(&mut self, name: types::StreamName, reading: Result<Reading, String>) -> Read<HistoryPage> {
        self.call.hand_over(bytes(&name))?;
        if !matches!(self.call.role, Some(Role::Access | Role::Handler | Role::Events)) {
            let why = "only access, handler and events calls may read the history";
            return Ok(Err(wit::Error::Invalid(why.to_owned())));
        }
        let (name, reading) = match (stream(&name), reading) {
            (Ok(name), Ok(reading)) => (name, reading),
            (Err(why), _) | (_, Err(why)) => return Ok(Err(wit::Error::Invalid(why))),
        };
        let Some(history) = self.context.history.clone() else { return Ok(Err(wit::Error::Off)) };
        let reads = &mut self.call.history_reads;
        wasmtime::ensure!(
            *reads < MAX_READS_PER_CALL,
            "read the history more than {MAX_READS_PER_CALL} times in one call"
        );
        *reads += 1;
        self.call.waiting = Some(Waiting::History);
        let page = history.read(&name, reading).await;
        self.call.waiting = None;
        Ok(Ok(page?))
    }
}

impl wit::Host for Guest {
    async fn latest(&mut self, name: types::StreamName, limit: u32) -> Read<wit::Page> {
        let page = self.read_history(name, Ok(Reading::Latest(bounded(limit)))).await?;
        Ok(page.map(convert::history_page))
    }

    async fn after(&mut self, name: types::StreamName, from: wit::StreamPosition, limit: u32) -> Read<wit::Page> {
        self.call.hand_over(from.epoch.len())?;
        let reading = position(&from).map(|position| Reading::After(position, bounded(limit)));
        let page = self.read_history(name, reading).await?;
        Ok(page.map(convert::history_page))
    }

    async fn position(&mut self, name: types::StreamName) -> Read<wit::StreamPosition> {
        let page = self.read_history(name, Ok(Reading::Latest(0))).await?;
        Ok(page.map(|page| convert::stream_position(&page.top)))
    }
}

fn bounded(limit: u32) -> usize {
    usize::try_from(limit).map_or(MAX_MESSAGES, |limit| limit.min(MAX_MESSAGES))
}

fn bytes(name: &types::StreamName) -> usize {
    match name {
        types::StreamName::User(text) | types::StreamName::Room(text) => text.len(),
        types::StreamName::Everyone => 0,
    }
}

fn stream(name: &types::StreamName) -> Result<StreamName, String> {
    Ok(match name {
        types::StreamName::User(uid) => StreamName::User(convert::name("name: uid", uid)?),
        types::StreamName::Room(room) => StreamName::Room(convert::name("name: room", room)?),
        types::StreamName::Everyone => StreamName::Everyone,
    })
}

fn position(from: &wit::StreamPosition) -> Result<Position, String> {
    let epoch = Epoch::parse(&from.epoch).ok_or_else(|| {
        let shown: String = from.epoch.chars().take(64).collect();
        format!("position: epoch: expected eight characters of 0-9 and a-z, got {shown:?}")
    })?;
    if from.offset > MAX_SAFE_INTEGER {
        return Err(format!("position: offset: expected at most 2^53 - 1, got {}", from.offset));
    }
    Ok(Position { epoch, offset: from.offset, id: from.id })
}
