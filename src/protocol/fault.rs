//! Faults of a body: field, expected and received value. Suitable as a response to the sender.
//!
//! Independent of layouts.

use std::borrow::Cow;

use crate::id::InvalidName;

/// A fault of a body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: expected {expected}, got {got}")]
pub struct FieldFault {
    /// The field, e.g. `[3].receiver`, `message.content.text`, `uids[2]`; `body` for the whole body.
    pub path: String,
    /// The allowed values.
    pub expected: Cow<'static, str>,
    /// The received value, truncated if long, or its kind.
    pub got: String,
    /// True if the kind is right but a limit is exceeded; HTTP then answers 413 instead of 400.
    pub over_limit: bool,
}

/// A [`FieldFault`] without its path.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mismatch {
    expected: Cow<'static, str>,
    got: String,
    over_limit: bool,
}

impl Mismatch {
    pub(super) fn new(expected: impl Into<Cow<'static, str>>, got: impl Into<String>) -> Self {
        Self { expected: expected.into(), got: got.into(), over_limit: false }
    }

    /// More than `limit` of a countable thing.
    pub(super) fn over(limit: usize, what: &str, got: impl Into<String>) -> Self {
        Self { expected: format!("at most {limit} {what}").into(), got: got.into(), over_limit: true }
    }

    /// A mandatory value is absent.
    pub(super) fn missing(expected: impl Into<Cow<'static, str>>) -> Self {
        Self::new(expected, "nothing")
    }

    pub(super) fn at(self, path: impl Into<String>) -> FieldFault {
        FieldFault { path: path.into(), expected: self.expected, got: self.got, over_limit: self.over_limit }
    }
}

impl From<InvalidName> for Mismatch {
    fn from(invalid: InvalidName) -> Self {
        match invalid {
            InvalidName::Empty => Self::new(NON_EMPTY, "\"\""),
            InvalidName::TooLong(bytes) => {
                Self::new(format!("at most {} bytes", crate::id::MAX_NAME_BYTES), bytes.to_string())
            }
            InvalidName::Forbidden(text) => Self::new("no comma or control character", quoted(&text)),
        }
    }
}

/// A text in quotes, truncated to [`SHOWN_CHARS`] characters, control characters escaped.
pub(super) fn quoted(text: &str) -> String {
    let mut shown = String::from("\"");
    let mut chars = text.chars();
    for c in chars.by_ref().take(SHOWN_CHARS) {
        match c {
            '"' | '\\' => shown.extend(['\\', c]),
            c if c.is_control() => shown.extend(c.escape_default()),
            c => shown.push(c),
        }
    }
    shown.push_str(if chars.next().is_some() { "…\"" } else { "\"" });
    shown
}

/// Expected form of a name.
pub(super) const NON_EMPTY: &str = "a non-empty string";

/// Maximum characters of a value in a fault.
const SHOWN_CHARS: usize = 48;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_reads_as_a_sentence_and_shows_no_more_than_a_line() {
        let fault = Mismatch::new(NON_EMPTY, "null").at("receiver");
        assert_eq!(fault.to_string(), "receiver: expected a non-empty string, got null");
        assert_eq!(quoted("a\"\n云"), r#""a\"\n云""#);
        assert_eq!(quoted(&"x".repeat(1000)), format!("\"{}…\"", "x".repeat(48)));
    }
}
