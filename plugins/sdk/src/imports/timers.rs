//! Timers that call [`Alarms::on_timer`](crate::Alarms::on_timer) later. For handlers and events. The operator grants
//! `timers`: `grants = ["timers"]`. A timer belongs to the plugin, survives a reload, is staged with the other effects,
//! and ends with the node.
//!
//! ```
//! use skylark_plugin::{Alarms, Handler, Message, NoSettings, Plugin, Target, outbox, timers};
//! # use skylark_plugin::{Call, Reply, testing};
//! struct Remind;
//! # impl Plugin for Remind { type Settings = NoSettings; fn start(_: NoSettings) -> Result<Self, String> { Ok(Self) } }
//! # impl Handler for Remind {
//! #     fn keys(&self) -> Vec<String> { vec!["remind".into()] }
//! #     fn handle(&mut self, call: &Call) -> Result<Reply, String> {
//! let uid = call.caller.as_ref().map_or("", |who| &who.uid);
//! timers::start("tea", 180_000, uid).map_err(|e| e.to_string())?;
//! #         Ok(Reply::ok()) } }
//! impl Alarms for Remind {
//!     fn on_timer(&mut self, name: &str, data: &[u8]) {
//!         let _ = outbox::push(Target::user(String::from_utf8_lossy(data)), Message::text("remind", name));
//!     }
//! }
//! skylark_plugin::export!(Remind: handler, alarms);
//! # Remind.handle(&Call { key: "remind".into(), data: vec![], caller: None, cid: 1 }).unwrap();
//! # assert!(testing::take_due_timers().is_empty());
//! # testing::advance(180_000);
//! # assert_eq!(testing::take_due_timers(), [("tea".to_owned(), Vec::new())]);
//! ```

pub use crate::bindings::host::skylark::plugin::timers::Error;

/// Calls the plugin with this name and data after `after_ms` milliseconds, at most seven days. Replaces an earlier
/// timer of that name.
///
/// # Errors
/// The plugin has too many timers or too much data, or the name or time is out of range.
#[cfg(target_family = "wasm")]
pub fn start(name: &str, after_ms: u64, data: impl AsRef<[u8]>) -> Result<(), Error> {
    crate::bindings::host::skylark::plugin::timers::start(name, after_ms, data.as_ref())
}

/// Sets a timer in the test's memory.
///
/// # Errors
/// None off WebAssembly.
#[cfg(not(target_family = "wasm"))]
pub fn start(name: &str, after_ms: u64, data: impl AsRef<[u8]>) -> Result<(), Error> {
    crate::testing::with(|host| host.timers.insert(name.to_owned(), (host.now + after_ms, data.as_ref().to_vec())));
    Ok(())
}

/// Cancels the timer of this name, if there is one.
///
/// # Errors
/// The call has too many effects.
#[cfg(target_family = "wasm")]
pub fn cancel(name: &str) -> Result<(), Error> {
    crate::bindings::host::skylark::plugin::timers::cancel(name)
}

/// Cancels the timer in the test's memory.
///
/// # Errors
/// None off WebAssembly.
#[cfg(not(target_family = "wasm"))]
pub fn cancel(name: &str) -> Result<(), Error> {
    crate::testing::with(|host| host.timers.remove(name));
    Ok(())
}
