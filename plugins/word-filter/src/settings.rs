//! The `[settings]` table of `word-filter.toml`.

use serde::Deserialize;
use serde::de::Error as _;

/// What the operator says.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// The words and phrases that are looked for.
    pub words: Vec<String>,
    /// What happens to a message that has one.
    pub mode: Mode,
    /// Stands for each character of a word, in mode `mask`.
    pub mask: char,
    /// The texts that are looked at.
    pub fields: Vec<Field>,
    /// Whether letters right before or after keep a word from counting, in scripts that put spaces between words.
    pub whole_words: bool,
    /// Whether a text that is nothing but an http address is looked at.
    pub addresses: bool,
    /// What the publisher is told, in mode `reject`: three digits.
    pub code: String,
    /// And in plain words.
    pub reason: String,
}

/// What happens to a message that has a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The word's characters are covered, and the message goes on.
    Mask,
    /// The publisher is told no.
    Reject,
    /// It disappears.
    Drop,
}

/// A text of a message: `title`, `image`, `content`, `extra`, or one key as `content.text`, `extra.nickname`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// The headline.
    Title,
    /// The picture's address.
    Image,
    /// The body: all its values, or that of one key.
    Content(Option<String>),
    /// What goes with the body: all its values, or that of one key.
    Extra(Option<String>),
}

impl Settings {
    /// # Errors
    /// What is wrong, by its name in the file.
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
