//! Time.

/// Milliseconds since 1970.
#[cfg(target_family = "wasm")]
pub fn now() -> u64 {
    crate::bindings::host::skylark::plugin::clock::now()
}

/// Milliseconds since 1970, as the test says.
#[cfg(not(target_family = "wasm"))]
pub fn now() -> u64 {
    crate::testing::with(|host| host.now)
}

/// Nanoseconds since some start, never going back.
#[cfg(target_family = "wasm")]
pub fn monotonic() -> u64 {
    crate::bindings::host::skylark::plugin::clock::monotonic()
}

/// Nanoseconds, one more with each look.
#[cfg(not(target_family = "wasm"))]
pub fn monotonic() -> u64 {
    crate::testing::with(|host| {
        host.ticks += 1;
        host.now * 1_000_000 + host.ticks
    })
}
