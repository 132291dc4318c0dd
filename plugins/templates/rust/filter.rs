//! Rejects messages with the word of the settings in the title or the text.

use serde::Deserialize;
use skylark_plugin::{Filter, Plugin, Publish, Verdict};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MyPlugin {
    word: String,
}

impl Plugin for MyPlugin {
    type Settings = Self;

    fn start(settings: Self) -> Result<Self, String> {
        Ok(settings)
    }
}

impl Filter for MyPlugin {
    fn judge(&mut self, publish: &Publish) -> Verdict {
        let found = |text: &str| text.contains(&self.word);
        if found(&publish.title()) || publish.content().iter().any(|(key, value)| key == "text" && found(value)) {
            return Verdict::reject("403", format!("no {} here", self.word));
        }
        Verdict::Allow
    }
}

skylark_plugin::export!(MyPlugin: filter);
