//! Reads everything of a message and allows it: the price of a filter that looks at all of it.

use std::hint::black_box;

use skylark_plugin::{Filter, NoSettings, Plugin, Publish, Verdict};

struct Reader;

impl Plugin for Reader {
    type Settings = NoSettings;

    fn start(_: NoSettings) -> Result<Self, String> {
        Ok(Self)
    }
}

impl Filter for Reader {
    fn judge(&mut self, publish: &Publish) -> Verdict {
        black_box(publish.message());
        Verdict::Allow
    }
}

skylark_plugin::export!(Reader: filter);
