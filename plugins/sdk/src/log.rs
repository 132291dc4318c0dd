//! Lines for the node's log; capped per call.

pub use crate::bindings::host::skylark::plugin::log::Level;

/// Writes one line.
#[cfg(target_family = "wasm")]
pub fn write(level: Level, message: impl AsRef<str>) {
    crate::bindings::host::skylark::plugin::log::write(level, message.as_ref());
}

/// Writes one line to the host in memory.
#[cfg(not(target_family = "wasm"))]
pub fn write(level: Level, message: impl AsRef<str>) {
    crate::testing::with(|host| host.lines.push((level, message.as_ref().to_owned())));
}

/// A line for whoever looks for a fault.
pub fn debug(message: impl AsRef<str>) {
    write(Level::Debug, message);
}

/// A line for the operator.
pub fn info(message: impl AsRef<str>) {
    write(Level::Info, message);
}

/// Something is odd, and the plugin went on.
pub fn warn(message: impl AsRef<str>) {
    write(Level::Warn, message);
}

/// Something failed.
pub fn error(message: impl AsRef<str>) {
    write(Level::Error, message);
}
