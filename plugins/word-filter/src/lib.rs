//! Masks, rejects or drops messages that hold words from a list.
//!
//! Decides which texts of a message are searched and what follows. `words` finds words; `normal` defines how texts are
//! compared. README.md describes the settings.

mod normal;
mod search;
mod settings;
mod tables;
mod words;

use skylark_plugin::{Entry, Filter, Message, Plugin, Publish, Verdict};

pub use normal::Spare;
pub use settings::{Field, Mode, Settings};
pub use words::Words;

/// For the test that generates and verifies the tables.
#[doc(hidden)]
#[cfg(not(target_family = "wasm"))]
pub mod unicode {
    pub use crate::normal::shows_nothing;
    pub use crate::tables::{class, folded, is_mark};
}

/// The plugin: its compiled list and its settings.
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
    /// Reads one field after the other, and reads the whole message only if there is something to mask.
    fn judge(&mut self, publish: &Publish) -> Verdict {
        if self.words.is_empty() {
            return Verdict::Allow;
        }
        let spare = Spare::default();
        if self.settings.mode == Mode::Mask {
            return self.masked(publish, &spare).map_or(Verdict::Allow, Verdict::Replace);
        }
        let hits = |text: &str| !self.is_left_alone(text) && self.words.hits(text, &spare);
        if !self.settings.fields.iter().any(|field| texts(field, publish).iter().any(|(_, text)| hits(text))) {
            return Verdict::Allow;
        }
        match self.settings.mode {
            Mode::Reject => Verdict::reject(self.settings.code.as_str(), self.settings.reason.as_str()),
            Mode::Mask | Mode::Drop => Verdict::Drop,
        }
    }
}

/// The texts of one field, each with its index in `content` or `extra`.
fn texts(field: &Field, publish: &Publish) -> Vec<(usize, String)> {
    let of = |entries: Vec<Entry>, key: &Option<String>| {
        let all = entries.into_iter().enumerate();
        let wanted = all.filter(|(_, (name, _))| key.as_ref().is_none_or(|key| key == name));
        wanted.map(|(at, (_, text))| (at, text)).collect()
    };
    match field {
        Field::Title => vec![(0, publish.title())],
        Field::Image => vec![(0, publish.image())],
        Field::Content(key) => of(publish.content(), key),
        Field::Extra(key) => of(publish.extra(), key),
    }
}

impl WordFilter {
    /// The message with the words in the configured fields masked; none if there is no word. Searches each text once.
    fn masked(&self, publish: &Publish, spare: &Spare) -> Option<Message> {
        let mut masked = Vec::new();
        for field in &self.settings.fields {
            for (at, text) in texts(field, publish) {
                if !self.is_left_alone(&text)
                    && let Some(text) = self.words.mask(&text, self.settings.mask, spare)
                {
                    masked.push((field, at, text));
                }
            }
        }
        if masked.is_empty() {
            return None;
        }
        let mut message = publish.message();
        for (field, at, text) in masked {
            match field {
                Field::Title => message.title = text,
                Field::Image => message.image = text,
                Field::Content(_) => message.content[at].1 = text,
                Field::Extra(_) => message.extra[at].1 = text,
            }
        }
        Some(message)
    }

    /// A masked address would lead nowhere, and readers do not see the address.
    fn is_left_alone(&self, text: &str) -> bool {
        let is_address = || text.starts_with("http://") || text.starts_with("https://");
        !self.settings.addresses && is_address() && text.bytes().all(|byte| byte.is_ascii_graphic())
    }
}

skylark_plugin::export!(WordFilter: filter);
