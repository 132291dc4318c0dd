//! The `[settings]` table of `word-filter.toml`.

use serde::Deserialize;
use serde::de::Error as _;

/// Settings of the operator.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The words and phrases to find.
    pub words: Vec<String>,
    /// The action for a message that has a word of the list.
    pub mode: Mode,
    /// Replaces each character of a word, in mode `mask`.
    pub mask: char,
    /// The texts to search.
    pub fields: Vec<Field>,
    /// Ignores a word next to other letters, in scripts that put spaces between words.
    pub whole_words: bool,
    /// Searches texts that consist only of an http address.
    pub addresses: bool,
    /// Code of three digits for the publisher, in mode `reject`.
    pub code: String,
    /// Reason for the publisher in plain words, in mode `reject`.
    pub reason: String,
}

/// The action for a message that has a word of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Replaces the characters of the word and publishes the message.
    Mask,
    /// Rejects the message and tells the publisher.
    Reject,
    /// Drops the message.
    Drop,
}

/// A text of a message: `title`, `image`, `content`, `extra`, or one key as `content.text`, `extra.nickname`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// The headline.
    Title,
    /// The address of the picture.
    Image,
    /// The body: all its values, or the value of one key.
    Content(Option<String>),
    /// The `extra` entries: all values, or the value of one key.
    Extra(Option<String>),
}

impl Settings {
    /// # Errors
    /// The first invalid setting, by its name in the file.
    pub fn check(&self) -> Result<(), String> {
        let three_digits = self.code.len() == 3 && self.code.bytes().all(|byte| byte.is_ascii_digit());
        if !three_digits {
            return Err(format!("settings.code: expected three digits, got {:?}", self.code));
        }
        if self.mask.is_control() {
            return Err(format!("settings.mask: expected a visible character, got {:?}", self.mask));
        }
        Ok(())
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            words: Vec::new(),
            mode: Mode::Mask,
            mask: '*',
            fields: vec![Field::Title, Field::Content(None), Field::Extra(None)],
            whole_words: true,
            addresses: false,
            code: "403".to_owned(),
            reason: "the message contains a forbidden word".to_owned(),
        }
    }
}

impl<'de> Deserialize<'de> for Field {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (field, key) = text.split_once('.').map_or((text.as_str(), None), |(f, k)| (f, Some(k.to_owned())));
        match (field, key) {
            ("title", None) => Ok(Self::Title),
            ("image", None) => Ok(Self::Image),
            ("content", key) => Ok(Self::Content(key)),
            ("extra", key) => Ok(Self::Extra(key)),
            _ => Err(D::Error::custom(format!(
                "fields: expected title, image, content, extra, content.<key> or extra.<key>, got {text:?}"
            ))),
        }
    }
}
