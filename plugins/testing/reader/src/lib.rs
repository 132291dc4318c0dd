//! Filter that reads the whole message and allows it: the cost of a filter that reads everything.

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
