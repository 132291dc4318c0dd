//! Masks, rejects or drops messages that hold words from a list.
//!
//! Decides which texts of a message are looked at and what follows; how words are found stands in `words`, how texts are compared in
//! `normal`. README.md tells the settings.

mod normal;
mod search;
mod settings;
mod tables;
mod words;

use skylark_plugin::{Entry, Filter, Message, Plugin, Publish, Verdict};

pub use settings::{Field, Mode, Settings};
pub use words::Words;

/// For the test that makes and holds the tables.
#[doc(hidden)]
#[cfg(not(target_family = "wasm"))]
pub mod unicode {
    pub use crate::normal::shows_nothing;
    pub use crate::tables::{class, folded, is_mark};
}

/// The plugin: its list, compiled, and its rules.
#[derive(Debug)]
pub struct WordFilter {
    words: Words,
    settings: Settings,
}

impl Plugin for WordFilter {
    type Settings = Settings;

    fn start(settings: Settings) -> Result<Self, String> {
        settings.check()?;
        let words = Words::new(&settings.words, settings.whole_words)?;
        Ok(Self { words, settings })
    }
}

impl Filter for WordFilter {
    /// Asks for one field after the other, and for the whole message only if there is something to mask.
    fn judge(&mut self, publish: &Publish) -> Verdict {
        if self.words.is_empty() || !self.settings.fields.iter().any(|field| self.hits(field, publish)) {
            return Verdict::Allow;
        }
        match self.settings.mode {
            Mode::Mask => Verdict::Replace(self.masked(publish.message())),
            Mode::Reject => Verdict::reject(self.settings.code.as_str(), self.settings.reason.as_str()),
            Mode::Drop => Verdict::Drop,
        }
    }
}

impl WordFilter {
    fn hits(&self, field: &Field, publish: &Publish) -> bool {
        match field {
            Field::Title => self.hits_text(&publish.title()),
            Field::Image => self.hits_text(&publish.image()),
            Field::Content(key) => self.hits_entries(&publish.content(), key.as_deref()),
            Field::Extra(key) => self.hits_entries(&publish.extra(), key.as_deref()),
        }
    }

    fn hits_entries(&self, entries: &[Entry], key: Option<&str>) -> bool {
        entries.iter().filter(|(k, _)| key.is_none_or(|key| key == k)).any(|(_, value)| self.hits_text(value))
    }

    fn hits_text(&self, text: &str) -> bool {
        !self.is_left_alone(text) && self.words.hits(text)
    }

    /// The message with its words masked, in the fields that are looked at.
    fn masked(&self, mut message: Message) -> Message {
        for field in &self.settings.fields {
            match field {
                Field::Title => self.mask(&mut message.title),
                Field::Image => self.mask(&mut message.image),
                Field::Content(key) => self.mask_entries(&mut message.content, key.as_deref()),
                Field::Extra(key) => self.mask_entries(&mut message.extra, key.as_deref()),
            }
        }
        message
    }

    fn mask_entries(&self, entries: &mut [Entry], key: Option<&str>) {
        entries.iter_mut().filter(|(k, _)| key.is_none_or(|key| key == k)).for_each(|(_, value)| self.mask(value));
    }

    fn mask(&self, text: &mut String) {
        if !self.is_left_alone(text)
            && let Some(masked) = self.words.mask(text, self.settings.mask)
        {
            *text = masked;
        }
    }

    /// A masked address leads nowhere, and nobody reads it.
    fn is_left_alone(&self, text: &str) -> bool {
        let is_address = || text.starts_with("http://") || text.starts_with("https://");
        !self.settings.addresses && is_address() && text.bytes().all(|byte| byte.is_ascii_graphic())
    }
}

skylark_plugin::export!(WordFilter: filter);
