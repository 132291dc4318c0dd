//! Filter that allows everything: the cost of a filter that does nothing.

use skylark_plugin::{Filter, NoSettings, Plugin, Publish, Verdict};

struct Noop;

impl Plugin for Noop {
    type Settings = NoSettings;

    fn start(_: NoSettings) -> Result<Self, String> {
        Ok(Self)
    }
}

impl Filter for Noop {
    fn judge(&mut self, _: &Publish) -> Verdict {
        Verdict::Allow
    }
}

skylark_plugin::export!(Noop: filter);
