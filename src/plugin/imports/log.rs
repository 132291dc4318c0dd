//! The interface `log`: lines of a guest, within the budget of its call and its plugin.

use crate::plugin::guest::bindings::skylark::plugin as wit;
use crate::plugin::guest::state::Guest;

impl wit::log::Host for Guest {
    fn write(&mut self, level: wit::log::Level, message: String) -> wasmtime::Result<()> {
        self.call.hand_over(message.len())?;
        let plugin = &self.context.plugin;
        if let Some(line) = self.log.line(&message) {
            match level {
                wit::log::Level::Debug => tracing::debug!(target: "skylark::plugin::guest", %plugin, line),
                wit::log::Level::Info => tracing::info!(target: "skylark::plugin::guest", %plugin, line),
                wit::log::Level::Warn => tracing::warn!(target: "skylark::plugin::guest", %plugin, line),
                wit::log::Level::Error => tracing::error!(target: "skylark::plugin::guest", %plugin, line),
            }
        }
        Ok(())
    }
}
