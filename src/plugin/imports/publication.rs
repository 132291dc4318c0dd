//! The interface `publication`: lazy getters over the envelope under judgement. The guest pays only for the fields that
//! it reads.

use crate::message::Target;
use crate::plugin::guest::bindings::skylark::plugin::publication::{Audience, Host};
use crate::plugin::guest::bindings::skylark::plugin::types;
use crate::plugin::guest::convert;
use crate::plugin::guest::state::{Guest, Publish};

/// Most users that one call of `target_uids` names.
const MAX_PAGE: usize = 1_000;

impl Guest {
    /// The publish of the current call. An instance serves one call at a time, so there is no other.
    fn publish(&self) -> wasmtime::Result<&Publish> {
        self.call.publish.as_ref().ok_or_else(|| wasmtime::Error::msg("publication was called outside of judge"))
    }
}

impl Host for Guest {
    fn id(&mut self) -> wasmtime::Result<i64> {
        Ok(self.publish()?.message.id)
    }

    fn action(&mut self) -> wasmtime::Result<String> {
        Ok(self.publish()?.message.action.clone())
    }

    fn content(&mut self) -> wasmtime::Result<Vec<types::Entry>> {
        Ok(convert::entries_out(&self.publish()?.message.content))
    }

    fn sender(&mut self) -> wasmtime::Result<String> {
        Ok(self.publish()?.message.sender.clone())
    }

    fn receiver(&mut self) -> wasmtime::Result<String> {
        Ok(self.publish()?.message.receiver.clone())
    }

    fn extra(&mut self) -> wasmtime::Result<Vec<types::Entry>> {
        Ok(convert::entries_out(&self.publish()?.message.extra))
    }

    fn title(&mut self) -> wasmtime::Result<String> {
        Ok(self.publish()?.message.title.clone())
    }

    fn image(&mut self) -> wasmtime::Result<String> {
        Ok(self.publish()?.message.image.clone())
    }

    fn format(&mut self) -> wasmtime::Result<String> {
        Ok(self.publish()?.message.format.clone())
    }

    fn timestamp(&mut self) -> wasmtime::Result<i64> {
        Ok(self.publish()?.message.timestamp)
    }

    fn message(&mut self) -> wasmtime::Result<types::Message> {
        Ok(convert::message_out(&self.publish()?.message))
    }

    fn origin(&mut self) -> wasmtime::Result<types::Origin> {
        Ok(convert::origin(self.publish()?.origin))
    }

    fn publisher(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(self.publish()?.from.as_ref().map(|from| from.uid.as_str().to_owned()))
    }

    fn target_kind(&mut self) -> wasmtime::Result<Audience> {
        Ok(match self.publish()?.target {
            Target::Connection(_) | Target::ConnectionOf(..) => Audience::Connection,
            Target::Device(..) => Audience::Device,
            Target::User(_) => Audience::User,
            Target::Users(_) => Audience::Users,
            Target::Room(_) => Audience::Room,
            Target::Everyone => Audience::Everyone,
            Target::EveryoneBut(_) => Audience::EveryoneBut,
        })
    }

    fn target_count(&mut self) -> wasmtime::Result<u32> {
        let count = convert::named_users(&self.publish()?.target).len();
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    fn target_uids(&mut self, offset: u32, limit: u32) -> wasmtime::Result<Vec<String>> {
        let users = convert::named_users(&self.publish()?.target);
        let page = users.iter().skip(offset as usize).take((limit as usize).min(MAX_PAGE));
        Ok(page.map(|uid| uid.as_str().to_owned()).collect())
    }

    fn target_room(&mut self) -> wasmtime::Result<Option<String>> {
        Ok(match &self.publish()?.target {
            Target::Room(room) => Some(room.as_str().to_owned()),
            _ => None,
        })
    }
}
