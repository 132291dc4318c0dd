//! What is allowed and seldom meant: told by `skylark check` and at the start, and no fault.

use super::{Config, Scope};

impl Config {
    /// One sentence for each, with its key first.
    #[must_use]
    pub fn warnings(&self) -> Vec<String> {
        let mut warnings = Vec::new();
        self.warn_of_scopes(&mut warnings);
        warnings
    }

    /// `manage` opened the commands to plugins until they got a scope of their own.
    fn warn_of_scopes(&self, warnings: &mut Vec<String>) {
        let changed = |key: &&super::ApiKey| key.may(Scope::Manage) && !key.may(Scope::Plugins);
        for (index, key) in self.api.keys.iter().enumerate().filter(|(_, key)| changed(key)) {
            warnings.push(format!(
                "api.keys[{index}].scopes: {:?} has `manage` without `plugins`, and may no longer enable, disable, reload or roll \
                 back plugins, nor read their log: add `plugins` if it should",
                key.name
            ));
        }
    }
}
