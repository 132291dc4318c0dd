//! Services of the host, one module for each interface that a plugin may import.
//!
//! Off WebAssembly they call the in-memory host of `testing`. The crate exports each module at its root.

pub mod clock;
pub mod counters;
pub mod crypto;
pub mod directory;
pub mod history;
pub mod http;
pub mod kv;
pub mod log;
pub mod login;
pub mod outbox;
pub mod timers;
