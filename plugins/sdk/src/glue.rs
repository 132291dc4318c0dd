//! Keeps the plugin value of an instance between calls. The expansion of [`export!`](crate::export) calls this module.

use std::any::Any;
use std::cell::RefCell;

use crate::Plugin;

thread_local! {
    static PLUGIN: RefCell<Option<Box<dyn Any>>> = const { RefCell::new(None) };
}

/// Builds the plugin from its settings.
///
/// # Errors
/// The settings do not parse, or [`Plugin::start`] rejects them.
pub fn start<P: Plugin>() -> Result<(), String> {
    let json = settings_json();
    let settings = serde_json::from_str(&json).map_err(|e| format!("settings: {e}"))?;
    let plugin = P::start(settings)?;
    PLUGIN.with(|slot| *slot.borrow_mut() = Some(Box::new(plugin)));
    Ok(())
}

/// Calls the plugin, and builds the plugin first if the host did not.
///
/// # Panics
/// The plugin cannot be built. The panic ends the instance.
pub fn with<P: Plugin, T>(call: impl FnOnce(&mut P) -> T) -> T {
    PLUGIN.with(|slot| {
        if slot.borrow().is_none()
            && let Err(reason) = start::<P>()
        {
            panic!("{reason}");
        }
        let mut slot = slot.borrow_mut();
        let plugin = slot.as_mut().and_then(|p| p.downcast_mut()).expect("one component holds one plugin");
        call(plugin)
    })
}

#[cfg(target_family = "wasm")]
fn settings_json() -> String {
    crate::bindings::host::skylark::plugin::settings::json()
}

#[cfg(not(target_family = "wasm"))]
fn settings_json() -> String {
    crate::testing::with(|host| host.settings.clone())
}
