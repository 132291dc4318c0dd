//! Effects on others, committed together once the call has returned ok. Handlers and events only; the operator grants it:
//! `grants = ["outbox"]`.

pub use crate::bindings::host::skylark::plugin::outbox::{Error, History, Options};
use crate::{Message, Target};

/// Publishes a message to a target; it passes the filters like any other.
///
/// # Errors
/// More pushes than a call may make, a message over the limit, a chain of pushes that is too long, or an invalid name.
pub fn push(target: Target, message: Message) -> Result<(), Error> {
    push_with(target, message, None)
}

/// As [`push`], with an idempotency key, a word for history, or a connection left out.
///
/// # Errors
/// As [`push`].
#[cfg(target_family = "wasm")]
pub fn push_with(target: Target, message: Message, options: Option<Options>) -> Result<(), Error> {
    crate::bindings::host::skylark::plugin::outbox::push(&target, &message, options.as_ref())
}

/// As [`push`], into the test's list of effects.
///
/// # Errors
/// None off WebAssembly.
#[cfg(not(target_family = "wasm"))]
pub fn push_with(target: Target, message: Message, _: Option<Options>) -> Result<(), Error> {
    crate::testing::effect(crate::testing::Effect::Push(target, Box::new(message)))
}

/// The user's connections join the room.
///
/// # Errors
/// An invalid name, or more effects than a call may have.
#[cfg(target_family = "wasm")]
pub fn join(uid: &str, room: &str) -> Result<(), Error> {
    crate::bindings::host::skylark::plugin::outbox::join(uid, room)
}

/// The user's connections join the room, in the test's list of effects.
///
/// # Errors
/// None off WebAssembly.
#[cfg(not(target_family = "wasm"))]
pub fn join(uid: &str, room: &str) -> Result<(), Error> {
    crate::testing::effect(crate::testing::Effect::Join(uid.to_owned(), room.to_owned()))
}

/// The user's connections leave the room.
///
/// # Errors
/// An invalid name, or more effects than a call may have.
#[cfg(target_family = "wasm")]
pub fn leave(uid: &str, room: &str) -> Result<(), Error> {
    crate::bindings::host::skylark::plugin::outbox::leave(uid, room)
}

/// The user's connections leave the room, in the test's list of effects.
///
/// # Errors
/// None off WebAssembly.
#[cfg(not(target_family = "wasm"))]
pub fn leave(uid: &str, room: &str) -> Result<(), Error> {
    crate::testing::effect(crate::testing::Effect::Leave(uid.to_owned(), room.to_owned()))
}

/// Closes the target's connections: a connection, a device, a user or users.
///
/// # Errors
/// A target of another kind, or more effects than a call may have.
#[cfg(target_family = "wasm")]
pub fn kick(target: Target, reason: &str) -> Result<(), Error> {
    crate::bindings::host::skylark::plugin::outbox::kick(&target, reason)
}

/// Closes the target's connections, in the test's list of effects.
///
/// # Errors
/// None off WebAssembly.
#[cfg(not(target_family = "wasm"))]
pub fn kick(target: Target, reason: &str) -> Result<(), Error> {
    crate::testing::effect(crate::testing::Effect::Kick(target, reason.to_owned()))
}
