//! Filter that writes its version into `extra.version` of each message. Tests of reload see which version judged it.
//!
//! Built as v1 and, with the feature `v2`, as v2; `version` in the settings overrides the built-in version. `start` in
//! the settings names a fault that an instance commits when it starts, or `error`, which fails the start. An action
//! that names a fault commits it.

use skylark_plugin::{Filter, Plugin, Publish, Verdict};

const BUILT: &str = if cfg!(feature = "v2") { "v2" } else { "v1" };

#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Stamp {
    version: String,
    start: String,
}

impl Default for Stamp {
    fn default() -> Self {
        Self { version: BUILT.to_owned(), start: String::new() }
    }
}

impl Plugin for Stamp {
    type Settings = Self;

    fn start(settings: Self) -> Result<Self, String> {
        if settings.start == "error" {
            return Err("told not to start".to_owned());
        }
        faults::commit(&settings.start);
        Ok(settings)
    }
}

impl Filter for Stamp {
    fn judge(&mut self, publish: &Publish) -> Verdict {
        let mut message = publish.message();
        faults::commit(&message.action);
        message.set_extra("version", self.version.as_str());
        Verdict::Replace(message)
    }
}

skylark_plugin::export!(Stamp: filter);
