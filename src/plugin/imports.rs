//! Host functions for guests: log, settings, clock, directory, kv, outbox. All are bounded, and all effects are staged.
//! `publication`, `counters`, `crypto`, `http`, `login` and `timers` have files of their own.
//!
//! The permission to import an interface is checked at load ([`super::loader::inspect`]). Here only the role of the current
//! call counts.

pub(super) mod counters;
mod crypto;
pub(super) mod http;
mod login;
mod publication;
pub(super) mod timers;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::guest::bindings::skylark::plugin as wit;
use super::guest::convert;
use super::guest::failure::Waiting;
use super::guest::state::Guest;
use super::kv::{MAX_BYTES_PER_CALL, MAX_KEY_BYTES, MAX_KEYS_PER_CALL, MAX_VALUE_BYTES, Write};
use super::{Effect, Presence, Services};
use crate::id::{Room, Uid};
use crate::message::{MAX_HOPS, Target};

/// Most users that one directory answer names.
const MAX_PAGE: u32 = 1_000;

impl wit::types::Host for Guest {}

impl wit::log::Host for Guest {
    fn write(&mut self, level: wit::log::Level, message: String) -> wasmtime::Result<()> {
        self.call.hand_over(message.len())?;
        let plugin = &self.context.plugin;
        if let Some(line) = self.log.line(&message) {
            match level {
                wit::log::Level::Debug => tracing::debug!(target: "skylark::plugin::guest", %plugin, line),
                wit::log::Level::Info => tracing::info!(target: "skylark::plugin::guest", %plugin, line),
                wit::log::Level::Warn => tracing::warn!(target: "skylark::plugin::guest", %plugin, line),
                wit::log::Level::Error => tracing::error!(target: "skylark::plugin::guest", %plugin, line),
            }
        }
        Ok(())
    }
}

impl wit::settings::Host for Guest {
    fn get(&mut self, key: String) -> Option<String> {
        self.context.settings.get(&key).map(str::to_owned)
    }

    fn json(&mut self) -> String {
        self.context.settings.json().to_owned()
    }
}

impl wit::clock::Host for Guest {
    fn now(&mut self) -> u64 {
        u64::try_from(self.context.time.since_1970().as_millis()).unwrap_or(u64::MAX)
    }

    fn monotonic(&mut self) -> u64 {
        u64::try_from(self.context.time.monotonic().as_nanos()).unwrap_or(u64::MAX)
    }
}

impl Guest {
    fn services(&self) -> Option<&Arc<dyn Services>> {
        self.context.services.get()
    }

    /// The user's connections in the cluster.
    async fn seen(&mut self, uid: &str) -> Vec<Presence> {
        self.call.waiting = Some(Waiting::Cluster);
        let found = ask(self.services().map(|services| services.connections(uid))).await;
        self.call.waiting = None;
        found
    }
}

/// Waits for the node's answer; without a node the answer is empty.
async fn ask<T: Default>(answer: Option<BoxFuture<'_, T>>) -> T {
    match answer {
        Some(answer) => answer.await,
        None => T::default(),
    }
}

impl wit::directory::Host for Guest {
    async fn online(&mut self, uid: String) -> bool {
        self.call.waiting = Some(Waiting::Cluster);
        let online = ask(self.services().map(|services| services.is_online(&uid))).await;
        self.call.waiting = None;
        online
    }

    async fn connections(&mut self, uid: String) -> Vec<wit::directory::Presence> {
        self.seen(&uid).await.into_iter().map(convert::presence).collect()
    }

    async fn members(&mut self, room: String, offset: u32, limit: u32) -> Vec<String> {
        let limit = limit.min(MAX_PAGE);
        self.call.waiting = Some(Waiting::Cluster);
        let found = ask(self.services().map(|services| services.members(&room, offset, limit))).await;
        self.call.waiting = None;
        found.into_iter().map(|uid| uid.as_str().to_owned()).collect()
    }

    async fn devices(&mut self, uid: String) -> Vec<String> {
        let found = self.seen(&uid).await;
        sorted(found.into_iter().filter_map(|presence| Some(presence.device?.as_str().to_owned())))
    }

    async fn rooms(&mut self, uid: String) -> Vec<String> {
        let found = self.seen(&uid).await;
        sorted(found.iter().flat_map(|presence| &presence.rooms).map(|room| room.as_str().to_owned()))
    }
}

/// Sorted, each name once.
fn sorted(names: impl Iterator<Item = String>) -> Vec<String> {
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

impl Guest {
    /// Reads `key` as this call sees it: the call's own writes first. Each read from the store is recorded for the
    /// commit.
    async fn read(&mut self, key: &str) -> wasmtime::Result<Option<Arc<[u8]>>> {
        self.call.hand_over(key.len())?;
        if let Some(write) = self.call.staged.kv.writes.get(key) {
            return Ok(write.value.clone());
        }
        self.call.waiting = Some(Waiting::Store);
        let found = self.context.kv.get(&self.context.plugin, key).await;
        self.call.waiting = None;
        let found = found?;
        let reads = &mut self.call.staged.kv.reads;
        if !reads.contains_key(key) {
            wasmtime::ensure!(reads.len() < MAX_KEYS_PER_CALL, "read more than {MAX_KEYS_PER_CALL} keys in one call");
            reads.insert(key.to_owned(), found.version);
        }
        Ok(found.value)
    }

    async fn write(&mut self, key: String, write: Write) -> wasmtime::Result<Result<(), wit::kv::Error>> {
        let value = write.value.as_ref().map_or(0, |value| value.len());
        self.call.hand_over(key.len() + value)?;
        if !self.call.may_write() {
            return Ok(Err(wit::kv::Error::ReadOnly));
        }
        if key.len() > MAX_KEY_BYTES || value > MAX_VALUE_BYTES {
            return Ok(Err(wit::kv::Error::TooLarge));
        }
        let staged = &mut self.call.staged;
        let (bytes, keys) = (staged.kv_bytes + key.len() + value, staged.kv.writes.len() + 1);
        if bytes > MAX_BYTES_PER_CALL || keys > MAX_KEYS_PER_CALL {
            return Ok(Err(wit::kv::Error::TooLarge));
        }
        let before = staged.kv.writes.insert(key.clone(), write);
        self.call.waiting = Some(Waiting::Store);
        let fits = self.context.kv.fits(&self.context.plugin, &self.call.staged.kv, self.context.limits.share).await;
        self.call.waiting = None;
        if !fits {
            let writes = &mut self.call.staged.kv.writes;
            match before {
                Some(before) => writes.insert(key, before),
                None => writes.remove(&key),
            };
            return Ok(Err(wit::kv::Error::TooLarge));
        }
        self.call.staged.kv_bytes = bytes;
        Ok(Ok(()))
    }
}

fn new_value(value: Vec<u8>, ttl: Option<u32>) -> Write {
    Write { value: Some(value.into()), ttl: ttl.map(|seconds| Duration::from_secs(seconds.into())) }
}

impl wit::kv::Host for Guest {
    async fn get(&mut self, key: String) -> wasmtime::Result<Option<Vec<u8>>> {
        Ok(self.read(&key).await?.map(|value| value.to_vec()))
    }

    async fn set(
        &mut self,
        key: String,
        value: Vec<u8>,
        ttl: Option<u32>,
    ) -> wasmtime::Result<Result<(), wit::kv::Error>> {
        self.write(key, new_value(value, ttl)).await
    }

    async fn delete(&mut self, key: String) -> wasmtime::Result<Result<(), wit::kv::Error>> {
        self.write(key, Write { value: None, ttl: None }).await
    }

    async fn compare_and_swap(
        &mut self,
        key: String,
        expected: Option<Vec<u8>>,
        value: Vec<u8>,
        ttl: Option<u32>,
    ) -> wasmtime::Result<Result<bool, wit::kv::Error>> {
        if self.read(&key).await?.as_deref() != expected.as_deref() {
            return Ok(Ok(false));
        }
        Ok(self.write(key, new_value(value, ttl)).await?.map(|()| true))
    }

    async fn add(
        &mut self,
        key: String,
        amount: i64,
        ttl: Option<u32>,
    ) -> wasmtime::Result<Result<i64, wit::kv::AddError>> {
        use wit::kv::{AddError, Error};
        let held = self.read(&key).await?;
        let Some(sum) = number(held.as_deref()).and_then(|number| number.checked_add(amount)) else {
            return Ok(Err(AddError::NotANumber));
        };
        let written = self.write(key, new_value(sum.to_string().into_bytes(), ttl)).await?;
        Ok(written.map(|()| sum).map_err(|error| match error {
            Error::TooLarge => AddError::TooLarge,
            Error::ReadOnly => AddError::ReadOnly,
        }))
    }
}

/// The number in a value; 0 if there is no value.
fn number(value: Option<&[u8]>) -> Option<i64> {
    let Some(value) = value else { return Some(0) };
    std::str::from_utf8(value).ok()?.parse().ok()
}

impl Guest {
    /// Stages an effect for the commit.
    pub(super) fn stage(&mut self, effect: Result<Effect, String>) -> wasmtime::Result<Result<(), wit::outbox::Error>> {
        use wit::outbox::Error;
        if !self.call.may_push() {
            return Ok(Err(Error::Invalid("only handlers and events plugins have an outbox".to_owned())));
        }
        // Holds for rooms and kicks too: they cause events, which may lead to the next effect.
        if self.call.staged.hops > MAX_HOPS {
            return Ok(Err(Error::TooManyHops));
        }
        let effect = match effect {
            Ok(effect) => effect,
            Err(why) => return Ok(Err(Error::Invalid(why))),
        };
        if self.call.staged.effects.len() >= self.context.limits.pushes {
            return Ok(Err(Error::TooMany));
        }
        self.call.staged.effects.push(effect);
        Ok(Ok(()))
    }

    fn change_room(
        &mut self,
        uid: &str,
        room: &str,
        effect: fn(Uid, Room) -> Effect,
    ) -> wasmtime::Result<Result<(), wit::outbox::Error>> {
        self.call.hand_over(uid.len() + room.len())?;
        let names = convert::name::<Uid>("uid", uid).and_then(|uid| Ok((uid, convert::name::<Room>("room", room)?)));
        self.stage(names.map(|(uid, room)| effect(uid, room)))
    }
}

impl wit::outbox::Host for Guest {
    fn push(
        &mut self,
        target: wit::types::Target,
        message: wit::types::Message,
        options: Option<wit::outbox::Options>,
    ) -> wasmtime::Result<Result<(), wit::outbox::Error>> {
        use wit::outbox::Error;
        let bytes = convert::text_bytes(&message);
        self.call.hand_over(convert::message_cost(&message) + convert::target_cost(&target))?;
        if bytes > convert::MAX_MESSAGE_BYTES {
            return Ok(Err(Error::TooLarge));
        }
        let by = (self.call.staged.hops, &self.context.plugin);
        self.stage(convert::publication(target, message, options, by).map(|push| Effect::Push(Box::new(push))))
    }

    fn join(&mut self, uid: String, room: String) -> wasmtime::Result<Result<(), wit::outbox::Error>> {
        self.change_room(&uid, &room, Effect::Join)
    }

    fn leave(&mut self, uid: String, room: String) -> wasmtime::Result<Result<(), wit::outbox::Error>> {
        self.change_room(&uid, &room, Effect::Leave)
    }

    fn kick(&mut self, target: wit::types::Target, reason: String) -> wasmtime::Result<Result<(), wit::outbox::Error>> {
        self.call.hand_over(reason.len() + convert::target_cost(&target))?;
        let target = convert::target(target).and_then(|target| match target {
            Target::Room(_) | Target::Everyone | Target::EveryoneBut(_) => {
                Err("target: expected a connection, a device, a user or users".to_owned())
            }
            named => Ok(named),
        });
        self.stage(target.map(|target| Effect::Kick(target, reason)))
    }
}
