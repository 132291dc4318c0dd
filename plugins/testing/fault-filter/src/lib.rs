//! Filter that commits a fault when the message's action, or `always` in its settings, names one (`faults::NAMES`).
//!
//! Otherwise the action may name a verdict: `reject` (code 418), `drop`, or `replace` (the title becomes `replaced`).
//! All other actions are allowed.

use skylark_plugin::{Filter, Plugin, Publish, Verdict};

#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Faulty {
    always: String,
}

impl Plugin for Faulty {
    type Settings = Self;

    fn start(settings: Self) -> Result<Self, String> {
        Ok(settings)
    }
}

impl Filter for Faulty {
    fn judge(&mut self, publish: &Publish) -> Verdict {
        faults::commit(&self.always);
        let action = publish.action();
        faults::commit(&action);
        match action.as_str() {
            "reject" => Verdict::reject("418", "told to reject"),
            "drop" => Verdict::Drop,
            "replace" => Verdict::Replace(publish.message().with_title("replaced")),
            _ => Verdict::Allow,
        }
    }
}

skylark_plugin::export!(Faulty: filter);
