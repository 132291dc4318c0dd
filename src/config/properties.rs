//! Properties of an engine's client library: a map that Skylark passes on without checking it.

use std::collections::BTreeMap;

use super::credential::Credential;
use super::read::value::{Kind, Value};
use super::read::{Reader, Setting};

/// Properties by name. Values with secret names are never shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Properties(pub BTreeMap<String, Credential>);

impl Setting for Properties {
    fn expected() -> String {
        "a map of strings".to_owned()
    }

    fn read(value: &Value, reader: &mut Reader<'_>) -> Option<Self> {
        let Kind::Map(fields) = &value.kind else {
            return reader.wrong(value, &Self::expected());
        };
        let mut read = Self::default();
        for field in fields {
            let step = format!(".{}", field.name);
            let credential = reader.below(&step, |reader| {
                let text = reader.text(&field.value, "a string")?;
                Some(Credential::new(text, reader.file_of(&field.value)))
            })?;
            read.0.insert(field.name.clone(), credential);
        }
        Some(read)
    }

    fn show(&self) -> Value {
        let is_secret = |name: &str| SECRET_WORDS.iter().any(|word| name.to_ascii_lowercase().contains(word));
        let shown = |(name, value): (&'_ String, &Credential)| {
            let kind = if is_secret(name) { Kind::Secret } else { Kind::Text };
            (name.clone(), Value::built_in(kind(value.text().to_owned())))
        };
        let fields: Vec<(String, Value)> = self.0.iter().map(shown).collect();
        Value::map(fields.iter().map(|(name, value)| (name.as_str(), value.clone())))
    }

    /// Some properties are secret, so faults show no value of any.
    fn is_secret() -> bool {
        true
    }
}

/// Name fragments that mark a property as secret.
const SECRET_WORDS: [&str; 4] = ["password", "secret", "pem", "oauthbearer"];
