//! Wall clock and monotonic clock.

/// Milliseconds since 1970.
#[cfg(target_family = "wasm")]
pub fn now() -> u64 {
    crate::bindings::host::skylark::plugin::clock::now()
}

/// Milliseconds since 1970, from the clock of the in-memory host.
#[cfg(not(target_family = "wasm"))]
pub fn now() -> u64 {
    crate::testing::with(|host| host.now)
}

/// Nanoseconds since an arbitrary start; never decreases.
#[cfg(target_family = "wasm")]
pub fn monotonic() -> u64 {
    crate::bindings::host::skylark::plugin::clock::monotonic()
}

/// Nanoseconds; each call adds one.
#[cfg(not(target_family = "wasm"))]
pub fn monotonic() -> u64 {
    crate::testing::with(|host| {
        host.ticks += 1;
        host.now * 1_000_000 + host.ticks
    })
}
