//! Lines for the node's log, limited per call.

pub use crate::bindings::host::skylark::plugin::log::Level;

/// Writes one line.
#[cfg(target_family = "wasm")]
pub fn write(level: Level, message: impl AsRef<str>) {
    crate::bindings::host::skylark::plugin::log::write(level, message.as_ref());
}

/// Writes one line to the in-memory host.
#[cfg(not(target_family = "wasm"))]
pub fn write(level: Level, message: impl AsRef<str>) {
    crate::testing::with(|host| host.lines.push((level, message.as_ref().to_owned())));
}

/// Writes a line for debugging.
pub fn debug(message: impl AsRef<str>) {
    write(Level::Debug, message);
}

/// Writes a line for the operator.
pub fn info(message: impl AsRef<str>) {
    write(Level::Info, message);
}

/// Writes a line about an unexpected condition that the plugin handled.
pub fn warn(message: impl AsRef<str>) {
    write(Level::Warn, message);
}

/// Writes a line about a failure.
pub fn error(message: impl AsRef<str>) {
    write(Level::Error, message);
}
