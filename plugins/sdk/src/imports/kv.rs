//! Small persistent state of one plugin, shared by all its instances. The operator grants `kv`: `grants = ["kv"]`.
//!
//! A call reads its own writes. All writes are committed together after the call returns ok. If another call changed a
//! key that the call read, the host runs the call again.

pub use crate::bindings::host::skylark::plugin::kv::{AddError, Error};

/// The value of a key.
#[cfg(target_family = "wasm")]
pub fn get(key: &str) -> Option<Vec<u8>> {
    crate::bindings::host::skylark::plugin::kv::get(key)
}

/// The value of a key in the test's memory.
#[cfg(not(target_family = "wasm"))]
pub fn get(key: &str) -> Option<Vec<u8>> {
    crate::testing::with(|host| host.stored(key))
}

/// Sets a key; `ttl` is in seconds, none = until deleted.
///
/// # Errors
/// The key is over 256 bytes, the value over 64 KiB, the plugin's share is full, or the role may not write.
#[cfg(target_family = "wasm")]
pub fn set(key: &str, value: &[u8], ttl: Option<u32>) -> Result<(), Error> {
    crate::bindings::host::skylark::plugin::kv::set(key, value, ttl)
}

/// Sets a key in the test's memory.
///
/// # Errors
/// None off WebAssembly.
#[cfg(not(target_family = "wasm"))]
pub fn set(key: &str, value: &[u8], ttl: Option<u32>) -> Result<(), Error> {
    crate::testing::with(|host| host.store(key, value, ttl));
    Ok(())
}

/// Deletes a key.
///
/// # Errors
/// The role may not write.
#[cfg(target_family = "wasm")]
pub fn delete(key: &str) -> Result<(), Error> {
    crate::bindings::host::skylark::plugin::kv::delete(key)
}

/// Deletes a key in the test's memory.
///
/// # Errors
/// None off WebAssembly.
#[cfg(not(target_family = "wasm"))]
pub fn delete(key: &str) -> Result<(), Error> {
    crate::testing::with(|host| host.kv.remove(key));
    Ok(())
}

/// Sets `key` only if its value is `expected` (none = the key is absent). Returns true if the key was set.
///
/// # Errors
/// The same as those of [`set`].
#[cfg(target_family = "wasm")]
pub fn compare_and_swap(key: &str, expected: Option<&[u8]>, value: &[u8], ttl: Option<u32>) -> Result<bool, Error> {
    crate::bindings::host::skylark::plugin::kv::compare_and_swap(key, expected, value, ttl)
}

/// Sets `key` in the test's memory only if its value is `expected`. Returns true if the key was set.
///
/// # Errors
/// None off WebAssembly.
#[cfg(not(target_family = "wasm"))]
pub fn compare_and_swap(key: &str, expected: Option<&[u8]>, value: &[u8], ttl: Option<u32>) -> Result<bool, Error> {
    crate::testing::with(|host| {
        let same = host.stored(key).as_deref() == expected;
        if same {
            host.store(key, value, ttl);
        }
        Ok(same)
    })
}

/// Adds to the number that `key` holds (absent = 0, stored as decimal text) and returns the sum. No two calls get the
/// same sum. `ttl` is as in [`set`] and starts again.
///
/// # Errors
/// Those of [`set`], or the value or the sum is not a 64-bit integer.
#[cfg(target_family = "wasm")]
pub fn add(key: &str, amount: i64, ttl: Option<u32>) -> Result<i64, AddError> {
    crate::bindings::host::skylark::plugin::kv::add(key, amount, ttl)
}

/// Adds to the number that `key` holds in the test's memory and returns the sum.
///
/// # Errors
/// The value or the sum is not a 64-bit integer.
#[cfg(not(target_family = "wasm"))]
pub fn add(key: &str, amount: i64, ttl: Option<u32>) -> Result<i64, AddError> {
    crate::testing::with(|host| {
        let text = host.stored(key).map_or(Ok("0".to_owned()), String::from_utf8);
        let held = text.ok().and_then(|text| text.parse::<i64>().ok()).ok_or(AddError::NotANumber)?;
        let sum = held.checked_add(amount).ok_or(AddError::NotANumber)?;
        host.store(key, sum.to_string().as_bytes(), ttl);
        Ok(sum)
    })
}
