//! Small state of one plugin: survives reload, is seen by all its instances. The operator grants it: `grants = ["kv"]`.
//!
//! A call reads its own writes, and all of them are committed together once it has returned ok. If a key that it read was changed meanwhile,
//! the host runs the call again.

pub use crate::bindings::host::skylark::plugin::kv::{AddError, Error};

/// The value of a key.
#[cfg(target_family = "wasm")]
pub fn get(key: &str) -> Option<Vec<u8>> {
    crate::bindings::host::skylark::plugin::kv::get(key)
}

/// The value of a key, in the test's memory.
#[cfg(not(target_family = "wasm"))]
pub fn get(key: &str) -> Option<Vec<u8>> {
    crate::testing::with(|host| host.stored(key))
}

/// Sets a key; `ttl` in seconds, none = until deleted.
///
/// # Errors
/// A key over 256 bytes, a value over 64 KiB, a full share, or a role that may not write.
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

/// Forgets a key.
///
/// # Errors
/// A role that may not write.
#[cfg(target_family = "wasm")]
pub fn delete(key: &str) -> Result<(), Error> {
    crate::bindings::host::skylark::plugin::kv::delete(key)
}

/// Forgets a key in the test's memory.
///
/// # Errors
/// None off WebAssembly.
#[cfg(not(target_family = "wasm"))]
pub fn delete(key: &str) -> Result<(), Error> {
    crate::testing::with(|host| host.kv.remove(key));
    Ok(())
}

/// Sets `key` only if its value is `expected` (none = the key is absent); answers whether it did.
///
/// # Errors
/// As [`set`].
#[cfg(target_family = "wasm")]
pub fn compare_and_swap(key: &str, expected: Option<&[u8]>, value: &[u8], ttl: Option<u32>) -> Result<bool, Error> {
    crate::bindings::host::skylark::plugin::kv::compare_and_swap(key, expected, value, ttl)
}

/// Sets `key` in the test's memory only if its value is `expected`; answers whether it did.
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

/// Adds to the number that `key` holds (absent = 0, kept as decimal text) and answers the sum: no two calls get the same one. `ttl` as in
/// [`set`], counted anew.
///
/// # Errors
/// As [`set`], or the value is no whole number of 64 bits, or the sum would not be one.
#[cfg(target_family = "wasm")]
pub fn add(key: &str, amount: i64, ttl: Option<u32>) -> Result<i64, AddError> {
    crate::bindings::host::skylark::plugin::kv::add(key, amount, ttl)
}

/// Adds to the number that `key` holds in the test's memory and answers the sum.
///
/// # Errors
/// The value is no whole number of 64 bits, or the sum would not be one.
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
