//! Effects on other clients, committed together after the call returns ok. For handlers and events. The operator grants
//! `outbox`: `grants = ["outbox"]`.

pub use crate::bindings::host::skylark::plugin::outbox::{Error, History, Options};
use crate::{Message, Target};

/// Publishes a message to a target. The message passes the filters like any other.
///
/// # Errors
/// The call makes too many pushes, the message is too large, the chain of pushes is too long, or a name is not valid.
pub fn push(target: Target, message: Message) -> Result<(), Error> {
    push_with(target, message, None)
}

/// Like [`push`], with an idempotency key, a history option or an excluded connection.
///
/// # Errors
/// The same as those of [`push`].
#[cfg(target_family = "wasm")]
pub fn push_with(target: Target, message: Message, options: Option<Options>) -> Result<(), Error> {
    crate::bindings::host::skylark::plugin::outbox::push(&target, &message, options.as_ref())
}

/// Like [`push`], into the test's list of effects.
///
/// # Errors
/// None off WebAssembly.
#[cfg(not(target_family = "wasm"))]
pub fn push_with(target: Target, message: Message, _: Option<Options>) -> Result<(), Error> {
    crate::testing::effect(crate::testing::Effect::Push(target, Box::new(message)))
}

/// Adds the user's connections to the room.
///
/// # Errors
/// A name is not valid, or the call has too many effects.
#[cfg(target_family = "wasm")]
pub fn join(uid: &str, room: &str) -> Result<(), Error> {
    crate::bindings::host::skylark::plugin::outbox::join(uid, room)
}

/// Records the join in the test's list of effects.
///
/// # Errors
/// None off WebAssembly.
#[cfg(not(target_family = "wasm"))]
pub fn join(uid: &str, room: &str) -> Result<(), Error> {
    crate::testing::effect(crate::testing::Effect::Join(uid.to_owned(), room.to_owned()))
}

/// Removes the user's connections from the room.
///
/// # Errors
/// A name is not valid, or the call has too many effects.
#[cfg(target_family = "wasm")]
pub fn leave(uid: &str, room: &str) -> Result<(), Error> {
    crate::bindings::host::skylark::plugin::outbox::leave(uid, room)
}

/// Records the leave in the test's list of effects.
///
/// # Errors
/// None off WebAssembly.
#[cfg(not(target_family = "wasm"))]
pub fn leave(uid: &str, room: &str) -> Result<(), Error> {
    crate::testing::effect(crate::testing::Effect::Leave(uid.to_owned(), room.to_owned()))
}

/// Closes the connections of the target: a connection, a device, a user or users.
///
/// # Errors
/// The target is of another kind, or the call has too many effects.
#[cfg(target_family = "wasm")]
pub fn kick(target: Target, reason: &str) -> Result<(), Error> {
    crate::bindings::host::skylark::plugin::outbox::kick(&target, reason)
}

/// Records the kick in the test's list of effects.
///
/// # Errors
/// None off WebAssembly.
#[cfg(not(target_family = "wasm"))]
pub fn kick(target: Target, reason: &str) -> Result<(), Error> {
    crate::testing::effect(crate::testing::Effect::Kick(target, reason.to_owned()))
}
