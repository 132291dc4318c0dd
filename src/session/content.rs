//! Texts in a SendBody's data that stand for a map: a message's `content` and `extra`.
//!
//! A value that is a number or boolean becomes its text, an object or list its compact JSON text; null is left out.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::message::{Entries, MAX_ENTRIES};

/// Text that is a JSON object is a map; any other is the map's `text`.
pub(super) fn text_or_map(text: &str) -> Result<Entries, String> {
    if text.is_empty() {
        return Ok(Entries::new());
    }
    if text.trim_start().starts_with('{') && serde_json::from_str::<&RawValue>(text).is_ok() {
        return map_of(text);
    }
    Ok([("text", text)].into_iter().collect())
}

/// Text that must be a JSON object, or empty.
pub(super) fn map_of(text: &str) -> Result<Entries, String> {
    if text.is_empty() {
        return Ok(Entries::new());
    }
    let mut json = serde_json::Deserializer::from_str(text);
    let entries = json.deserialize_map(Map).map_err(|e| e.to_string())?;
    json.end().map_err(|e| e.to_string())?;
    Ok(entries)
}

struct Map;

impl<'de> Visitor<'de> for Map {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = Entries::new();
        while let Some((key, value)) = map.next_entry::<String, &RawValue>()? {
            let Some(value) = text_of(value.get()).map_err(A::Error::custom)? else { continue };
            entries.insert(key, value);
            if entries.len() > MAX_ENTRIES {
                return Err(A::Error::custom(format!("expected at most {MAX_ENTRIES} entries, got more")));
            }
        }
        Ok(entries)
    }
}

fn text_of(raw: &str) -> Result<Option<String>, serde_json::Error> {
    match raw.as_bytes().first() {
        Some(b'"') => serde_json::from_str(raw).map(Some),
        Some(b'{' | b'[') => Ok(Some(compact(raw))),
        Some(b'n') => Ok(None),
        _ => Ok(Some(raw.to_owned())),
    }
}

/// Valid JSON without the white space between its tokens.
fn compact(raw: &str) -> String {
    let (mut in_string, mut escaped) = (false, false);
    raw.chars()
        .filter(|&c| {
            let keep = in_string || !c.is_ascii_whitespace();
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = in_string,
                '"' => in_string = !in_string,
                _ => {}
            }
            keep
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &Entries) -> Vec<(&str, &str)> {
        entries.iter().collect()
    }

    #[test]
    fn plain_text_is_the_text_of_a_map() {
        for text in ["hi", "{not json", "{\"a\":1} tail", "[1,2]", "\"quoted\"", "你好 {}"] {
            assert_eq!(list(&text_or_map(text).unwrap()), [("text", text)]);
        }
        assert!(text_or_map("").unwrap().is_empty());
    }

    #[test]
    fn an_object_is_a_map_in_its_own_order() {
        let text = r#" {"b":"x\n😀","a":1.0,"on":true,"none":null,"deep":{"k": ["v w", "q\" ,"] },"b":"again"} "#;
        let expected = [("b", "again"), ("a", "1.0"), ("on", "true"), ("deep", r#"{"k":["v w","q\" ,"]}"#)];
        assert_eq!(list(&text_or_map(text).unwrap()), expected);
    }

    #[test]
    fn too_many_entries_and_non_objects_are_told() {
        let many = format!("{{{}}}", (0..257).map(|i| format!("\"k{i}\":1")).collect::<Vec<_>>().join(","));
        assert!(text_or_map(&many).unwrap_err().contains("at most 256 entries"));
        assert!(map_of("[1]").unwrap_err().contains("a JSON object"));
        assert!(map_of("{\"a\":}").is_err());
    }
}
