//! Room 1, the guest: one WebAssembly instance with its data, its limits and its calls.
//!
//! Imports no other room. The host functions that a guest calls are in `imports`.

pub(super) mod answers;
pub(super) mod bindings;
pub(super) mod convert;
pub(super) mod counters;
pub(super) mod engine;
pub(super) mod failure;
pub(super) mod files;
pub(super) mod instance;
pub(super) mod interface;
pub(super) mod limits;
pub(super) mod manifest;
pub(super) mod state;
pub(super) mod ticker;
pub(super) mod timers;
pub(super) mod wasi;
