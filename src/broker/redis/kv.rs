//! Key-value spaces shared by all nodes: versioned reads, atomic writes, and a quota.
//!
//! Each operation is one script, so that a space has one hash tag and uses the server's clock. Independent of plugins:
//! a space is a name.

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

/// New value of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceWrite<'a> {
    /// Name of the key.
    pub key: &'a str,
    /// The value; `None` deletes.
    pub value: Option<&'a [u8]>,
    /// Time to live, at least one millisecond. `None` keeps the key until it is deleted.
    pub ttl: Option<Duration>,
}

/// Reads and writes of one atomic step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpaceStep<'a> {
    /// Version of each key that was read.
    pub reads: &'a [(&'a str, u64)],
    /// Writes, at most one per key.
    pub writes: &'a [SpaceWrite<'a>],
    /// Maximum bytes of keys and values after the step, unless the space already held more.
    pub bytes: usize,
    /// Maximum number of keys, with the same exception.
    pub keys: usize,
}

/// Result of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepResult {
    /// All writes were applied.
    Applied,
    /// A key that was read has another version now. Nothing was written.
    Conflict,
    /// The step exceeds the quota. Nothing was written.
    Full,
}

impl RedisSpaces {
    pub(super) fn new(client: Arc<Client>, names: Names) -> Self {
        let get = Script::new(include_str!("kv/get.lua"));
        let commit = Script::new(include_str!("kv/commit.lua"));
        Self { client, names, get, commit }
    }

    /// Returns version and value of a key. Version 0 means absent.
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

    /// Applies the step.
    ///
    /// # Errors
    /// [`Unavailable`]: the step may have been applied if only the answer was lost.
    pub async fn commit(&self, space: &str, step: &SpaceStep<'_>) -> Result<StepResult, Unavailable> {
        self.run(space, step, true).await
    }

    /// Returns the result that the step would have now, without writing.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn probe(&self, space: &str, step: &SpaceStep<'_>) -> Result<StepResult, Unavailable> {
        self.run(space, step, false).await
    }

    async fn run(&self, space: &str, step: &SpaceStep<'_>, writes: bool) -> Result<StepResult, Unavailable> {
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
            let millis = u64::try_from(millis).expect("clamped to 2^50");
            script.arg(*key).arg(value.unwrap_or_default()).arg(u8::from(value.is_some())).arg(millis);
        }
        Ok(match self.client.invoke::<u8>(&script).await? {
            1 => StepResult::Applied,
            2 => StepResult::Full,
            _ => StepResult::Conflict,
        })
    }
}
