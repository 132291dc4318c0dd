//! Approximate sliding windows, for rate limits. They are the only state that a filter may change. The operator grants
//! `counters`: `grants = ["counters"]`.
//!
//! ```
//! use skylark_plugin::{Publish, Verdict, counters};
//! fn judge(publish: &Publish) -> Verdict {
//!     let sent = counters::add_and_read(&publish.sender(), 60, 1);
//!     if sent > 20 { Verdict::reject("429", "20 messages a minute") } else { Verdict::Allow }
//! }
//! # let spoken = Publish::of(skylark_plugin::Message::text("chat", "hi").between("1", "2"));
//! # assert!((0..20).all(|_| judge(&spoken) == Verdict::Allow) && judge(&spoken) != Verdict::Allow);
//! ```

/// Adds `amount` to the counter and returns its count over the last `window` seconds, `amount` included. An `amount` of
/// 0 only reads. The count changes at once and is kept even if the call fails. The error is at most the count of one
/// sixteenth of the window.
#[cfg(target_family = "wasm")]
pub fn add_and_read(name: &str, window: u32, amount: u32) -> u64 {
    crate::bindings::host::skylark::plugin::counters::add_and_read(name, window, amount)
}

/// Adds `amount` to the counter in the test's memory and returns the exact count over the last `window` seconds.
#[cfg(not(target_family = "wasm"))]
pub fn add_and_read(name: &str, window: u32, amount: u32) -> u64 {
    crate::testing::with(|host| {
        let now = host.now;
        let counted = host.counters.entry((name.to_owned(), window)).or_default();
        counted.push((now, amount));
        counted.retain(|(at, _)| at + u64::from(window) * 1_000 > now);
        counted.iter().map(|(_, amount)| u64::from(*amount)).sum()
    })
}
