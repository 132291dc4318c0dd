//! The interface `settings`: the plugin's own table of its manifest.

use crate::plugin::guest::bindings::skylark::plugin as wit;
use crate::plugin::guest::state::Guest;

impl wit::settings::Host for Guest {
    fn get(&mut self, key: String) -> Option<String> {
        self.context.settings.get(&key).map(str::to_owned)
    }

    fn json(&mut self) -> String {
        self.context.settings.json().to_owned()
    }
}
