//! Hostile plugins in Rust, written with the SDK: `plugins/testing/fault-handler` and `fault-filter`, built from
//! source.

use super::{Case, Expected::*, play};
use crate::support::gateway::component;

const GRANTS: &str = "grants = [\"outbox\", \"kv\"]";

/// A call of a key of the test plugin `fault-handler`.
const fn calling(name: &'static str, key: &'static str, words: &'static str) -> Case {
    Case { name, file: || component("fault-handler"), manifest: GRANTS, expected: AnswersTo(key, "503", words) }
}

const CALLS: [Case; 7] = [
    calling("rust-panic", "fault_trap", "unreachable"),
    calling("rust-loop", "fault_spin", "CPU time of 50ms"),
    calling("rust-memory", "fault_hog", "ran out of memory"),
    // Its own stack, in linear memory, overflows before the host's stack.
    calling("rust-recursion", "fault_overflow", "out of bounds memory access"),
    // They reach their CPU limit or the output limit of a call, depending on the machine.
    calling("rust-log-flood", "fault_flood", ""),
    calling("rust-push-flood", "fault_pushes", ""),
    calling("rust-key-flood", "fault_keys", ""),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_rust_guests_affect_only_their_calls() {
    play(&CALLS).await;
}
