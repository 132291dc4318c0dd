//! Room 2, the imports: the host functions that a guest may call, one file for each interface.
//!
//! All are bounded, and all effects are staged. The permission to import an interface is checked at load. Here only the
//! role of the current call counts. Imports only the room `guest`.

mod clock;
mod counters;
mod crypto;
mod directory;
mod history;
pub(super) mod http;
mod kv;
mod log;
mod login;
mod outbox;
mod publication;
mod settings;
mod timers;

use wasmtime::Engine;
use wasmtime::component::{HasSelf, Linker};

use super::guest::bindings::Everything;
use super::guest::bindings::skylark::plugin::types;
use super::guest::state::Guest;

/// Everything that a component may import: Skylark's interfaces, and WASI with an empty context.
///
/// # Errors
/// The error of wasmtime if two definitions have the same name.
pub(super) fn linker(engine: &Engine) -> wasmtime::Result<Linker<Guest>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    Everything::add_to_linker::<_, HasSelf<Guest>>(&mut linker, |guest| guest)?;
    Ok(linker)
}

impl types::Host for Guest {}
