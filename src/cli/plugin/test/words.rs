//! Scalar types of case files: expected texts, names, moments, durations, and maps that keep their order.

use std::fmt;
use std::marker::PhantomData;
use std::str::FromStr;
use std::time::{Duration, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{self, Deserialize, Deserializer, MapAccess, Visitor};

/// A text or bytes, as input or expectation of a plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli::plugin) enum Text {
    /// Exactly this.
    Exact(String),
    /// `{like: "…"}`: `*` matches any text.
    Like(String),
    /// `{base64: …}`: exactly these bytes.
    Bytes(Vec<u8>),
}

impl Text {
    pub(in crate::cli::plugin) fn matches(&self, got: &[u8]) -> bool {
        match self {
            Self::Exact(text) => text.as_bytes() == got,
            Self::Like(pattern) => is_like(pattern, &String::from_utf8_lossy(got)),
            Self::Bytes(bytes) => bytes == got,
        }
    }

    /// The value as input.
    pub(in crate::cli::plugin) fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Exact(text) | Self::Like(text) => text.clone().into_bytes(),
            Self::Bytes(bytes) => bytes.clone(),
        }
    }
}

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(text) => write!(f, "{text:?}"),
            Self::Like(pattern) => write!(f, "like {pattern:?}"),
            Self::Bytes(bytes) => write!(f, "base64 {:?}", STANDARD.encode(bytes)),
        }
    }
}

/// True if the text matches the pattern; each `*` matches any text, also an empty one.
fn is_like(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextVisitor)
    }
}

struct TextVisitor;

impl<'de> Visitor<'de> for TextVisitor {
    type Value = Text;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string, {like: \"text with *\"} or {base64: \"…\"}")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Text, E> {
        Ok(Text::Exact(text.to_owned()))
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<Text, E> {
        Ok(Text::Exact(number.to_string()))
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Text, E> {
        Ok(Text::Exact(number.to_string()))
    }

    fn visit_bool<E: de::Error>(self, yes: bool) -> Result<Text, E> {
        Ok(Text::Exact(yes.to_string()))
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<Text, E> {
        Err(E::custom(format!("expected a string, got the number {number}: put it in quotes")))
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Text, M::Error> {
        let Some((kind, text)) = map.next_entry::<String, String>()? else {
            return Err(de::Error::custom("expected the key like or base64, got none"));
        };
        if map.next_key::<String>()?.is_some() {
            return Err(de::Error::custom("expected one key, like or base64, got two"));
        }
        match kind.as_str() {
            "like" => Ok(Text::Like(text)),
            "base64" => {
                STANDARD.decode(&text).map(Text::Bytes).map_err(|error| de::Error::custom(format!("base64: {error}")))
            }
            _ => Err(de::Error::unknown_field(&kind, &["like", "base64"])),
        }
    }
}

/// A value parsed from one text: a user, a room, a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli::plugin) struct Name<T>(pub(in crate::cli::plugin) T);

impl<'de, T: FromStr<Err: fmt::Display>> Deserialize<'de> for Name<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map(Self).map_err(de::Error::custom)
    }
}

/// A map in the order of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::cli::plugin) struct Pairs<V>(pub(in crate::cli::plugin) Vec<(String, V)>);

impl<V> Default for Pairs<V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Pairs<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor(PhantomData))
    }
}

struct PairsVisitor<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for PairsVisitor<V> {
    type Value = Pairs<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Pairs<V>, M::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Pairs(pairs))
    }
}

/// A moment such as `2026-01-01T00:00:00Z`, or milliseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli::plugin) struct Moment(pub(in crate::cli::plugin) Duration);

impl FromStr for Moment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(millis) = text.parse() {
            return Ok(Self(Duration::from_millis(millis)));
        }
        let moment = humantime::parse_rfc3339_weak(text).ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        moment.map(Self).ok_or_else(|| {
            format!("expected a time such as 2026-01-01T00:00:00Z, or milliseconds since 1970, got {text:?}")
        })
    }
}

/// A duration such as `30s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cli::plugin) struct Span(pub(in crate::cli::plugin) Duration);

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let span = humantime::parse_duration(text).map(Self);
        span.map_err(|_| format!("expected a duration such as 30s or 1h, got {text:?}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn star_in_a_pattern_matches_any_text() {
        for (pattern, text) in
            [("*", ""), ("a*", "abc"), ("*c", "abc"), ("a*c*e", "abcde"), ("abc", "abc"), ("a**b", "ab")]
        {
            assert!(is_like(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("a", "ab"), ("a*", "ba"), ("a*bc*c", "abc"), ("ab*ba", "aba")] {
            assert!(!is_like(pattern, text), "{pattern} {text}");
        }
    }
}
