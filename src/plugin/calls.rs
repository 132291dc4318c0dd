//! Room 3, the calls: which version of which plugin is asked, in which order, and the effect of its answer or failure.
//!
//! Imports the rooms `guest` and `imports`. Does not know where versions come from: the loader builds them.

pub(super) mod access;
pub(super) mod alarms;
pub(super) mod auth;
pub(super) mod breaker;
pub(super) mod chain;
pub(super) mod commit;
pub(super) mod events;
pub(super) mod evidence;
pub(super) mod handler;
pub(super) mod lease;
pub(super) mod pool;
pub(super) mod retry;
pub(super) mod snapshot;
pub(super) mod source;
pub(super) mod version;
