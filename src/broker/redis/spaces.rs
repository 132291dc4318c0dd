//! Spaces of keys and values that all nodes share: read with a version, written whole or not at all, within a share.
//!
//! One script each, so that a space lies under one hash tag and time is the server's. Knows no plugin: a space is a name.

use std::sync::Arc;
use std::time::Duration;

use ::redis::Script;

use super::client::Client;
use super::names::Names;
use crate::broker::Unavailable;

/// All spaces of a cluster.
pub struct RedisSpaces {
    client: Arc<Client>,
    names: Names,
    get: Script,
    commit: Script,
}

/// What a key is to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceWrite<'a> {
    /// Which one.
    pub key: &'a str,
    /// The value; `None` deletes.
    pub value: Option<&'a [u8]>,
    /// It is gone after so long, a millisecond at least; `None` = until deleted.
    pub ttl: Option<Duration>,
}

/// What one step reads and writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceStep<'a> {
    /// Version of each key that was read.
    pub reads: &'a [(&'a str, u64)],
    /// What is written, each key once.
    pub writes: &'a [SpaceWrite<'a>],
    /// Most bytes of keys and values that the space holds afterwards, unless it held more before.
    pub bytes: usize,
    /// Most keys, likewise.
    pub keys: usize,
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// All of it is written.
    Taken,
    /// A key that was read has another version by now: nothing is written.
    Conflict,
    /// The share does not hold it: nothing is written.
    Full,
}

impl RedisSpaces {
    pub(super) fn new(client: Arc<Client>, names: Names) -> Self {
        let get = Script::new(include_str!("scripts/kv_get.lua"));
        let commit = Script::new(include_str!("scripts/kv_commit.lua"));
        Self { client, names, get, commit }
    }

    /// Version and value of a key; version 0 = absent.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn get(&self, space: &str, key: &str) -> Result<(u64, Option<Vec<u8>>), Unavailable> {
        let mut script = self.get.prepare_invoke();
        script.key(self.names.space(space, "values")).key(self.names.space(space, "marks")).arg(key);
        let answer: Vec<::redis::Value> = self.client.invoke(&script).await?;
        let mut parts = answer.into_iter();
        let version = match parts.next() {
            Some(::redis::Value::Int(version)) => u64::try_from(version).unwrap_or_default(),
            _ => 0,
        };
        let value = parts
            .next()
            .and_then(|value| if let ::redis::Value::BulkString(bytes) = value { Some(bytes) } else { None });
        Ok((version, value))
    }

    /// Does the step.
    ///
    /// # Errors
    /// [`Unavailable`]: it may be done nevertheless, where only the answer was lost.
    pub async fn commit(&self, space: &str, step: &SpaceStep<'_>) -> Result<Step, Unavailable> {
        self.run(space, step, true).await
    }

    /// What would become of the step now.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn probe(&self, space: &str, step: &SpaceStep<'_>) -> Result<Step, Unavailable> {
        self.run(space, step, false).await
    }

    async fn run(&self, space: &str, step: &SpaceStep<'_>, writes: bool) -> Result<Step, Unavailable> {
        let mut script = self.commit.prepare_invoke();
        for key in ["values", "marks", "ends", "state"] {
            script.key(self.names.space(space, key));
        }
        script.arg(u8::from(writes)).arg(step.bytes).arg(step.keys).arg(step.reads.len());
        for (key, version) in step.reads {
            script.arg(*key).arg(*version);
        }
        for SpaceWrite { key, value, ttl } in step.writes {
            let millis = ttl.map_or(0, |ttl| ttl.as_millis().clamp(1, 1 << 50));
            let millis = u64::try_from(millis).expect("it was clamped");
            script.arg(*key).arg(value.unwrap_or_default()).arg(u8::from(value.is_some())).arg(millis);
        }
        Ok(match self.client.invoke::<u8>(&script).await? {
            1 => Step::Taken,
            2 => Step::Full,
            _ => Step::Conflict,
        })
    }
}
