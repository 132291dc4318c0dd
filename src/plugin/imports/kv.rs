//! The interface `kv`: reads see the writes of their own call, and writes are staged.

use std::sync::Arc;
use std::time::Duration;

use crate::plugin::guest::bindings::skylark::plugin as wit;
use crate::plugin::guest::failure::Waiting;
use crate::plugin::guest::state::Guest;
use crate::plugin::kv::{MAX_BYTES_PER_CALL, MAX_KEY_BYTES, MAX_KEYS_PER_CALL, MAX_VALUE_BYTES, Write};

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
