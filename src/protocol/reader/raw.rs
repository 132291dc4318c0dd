//! One JSON value as text: its grammar is checked, its meaning is not.
//!
//! Each accessor returns the value or a mismatch. The caller knows the position of the value.

use std::borrow::Cow;
use std::str::FromStr;

use crate::id::{InvalidName, MAX_SAFE_INTEGER};
use crate::protocol::fault::{Mismatch, NON_EMPTY, quoted};

/// The text of one JSON value, without surrounding white space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::protocol) struct Raw<'a>(&'a str);

impl<'a> Raw<'a> {
    /// Wraps a text that a JSON parser has accepted.
    pub(in crate::protocol) fn new(text: &'a str) -> Self {
        Self(text)
    }

    pub(in crate::protocol) fn as_str(self) -> &'a str {
        self.0
    }

    pub(in crate::protocol) fn is_null(self) -> bool {
        self.0 == "null"
    }

    /// Reads a string, borrowed unless it contains an escape.
    pub(in crate::protocol) fn text(self) -> Result<Cow<'a, str>, Mismatch> {
        let Some(inside) = self.0.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) else {
            return Err(self.mismatch("a string"));
        };
        if !inside.contains('\\') {
            return Ok(Cow::Borrowed(inside));
        }
        // The grammar is checked, so only unpaired surrogates can fail.
        serde_json::from_str(self.0)
            .map(Cow::Owned)
            .map_err(|_| Mismatch::new("a string", "an escape that is not a character"))
    }

    /// Reads a name that may be written as a number, because PHP sends both.
    pub(in crate::protocol) fn name_text(self) -> Result<Cow<'a, str>, Mismatch> {
        match self.0.as_bytes()[0] {
            b'"' => self.text(),
            b'-' | b'0'..=b'9' if self.0.bytes().skip(1).all(|byte| byte.is_ascii_digit()) => Ok(self.0.into()),
            _ => match self.number() {
                Some(integer) => Ok(integer.to_string().into()),
                None => Err(self.mismatch(NON_EMPTY)),
            },
        }
    }

    /// Reads the name of a user, device, room or node.
    pub(in crate::protocol) fn name<N: FromStr<Err = InvalidName>>(self) -> Result<N, Mismatch> {
        Ok(self.name_text()?.parse()?)
    }

    /// Reads an integer from a number (`1.0` is one) or from a string of digits.
    pub(in crate::protocol) fn integer(self) -> Result<i64, Mismatch> {
        let number = match self.text() {
            Ok(text) if is_digits(&text) => text.parse().ok(),
            Ok(_) => None,
            Err(_) => self.number(),
        };
        number.ok_or_else(|| self.mismatch("an integer"))
    }

    /// Reads the text of an entry; `None` for null. Strings stay as they are, numbers and booleans as written. Objects
    /// and lists become compact JSON of at most `levels` levels.
    pub(in crate::protocol) fn entry(self, levels: usize) -> Result<Option<String>, Mismatch> {
        match self.0.as_bytes()[0] {
            b'n' => Ok(None),
            b'"' => self.text().map(|text| Some(text.into_owned())),
            b'{' | b'[' => self.check_depth(levels).map(|()| Some(self.compact())),
            _ => Ok(Some(self.0.to_owned())),
        }
    }

    /// Verifies that objects and lists nest at most `levels` deep.
    pub(in crate::protocol) fn check_depth(self, levels: usize) -> Result<(), Mismatch> {
        if !self.0.starts_with(['{', '[']) {
            return Ok(());
        }
        let mut depth = 0_usize;
        for (_, byte) in outside_strings(self.0) {
            match byte {
                b'{' | b'[' => depth += 1,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            if depth > levels {
                return Err(Mismatch::over(super::MAX_DEPTH, "levels of nesting", "more"));
            }
        }
        Ok(())
    }

    /// The mismatch with this value as the received one.
    pub(in crate::protocol) fn mismatch(self, expected: impl Into<Cow<'static, str>>) -> Mismatch {
        Mismatch::new(expected, self.shown())
    }

    fn shown(self) -> String {
        match self.0.as_bytes()[0] {
            b'{' => "an object".to_owned(),
            b'[' => "an array".to_owned(),
            b'"' => self.text().map_or_else(|_| "a string".to_owned(), |text| quoted(&text)),
            // A number may have as many digits as the body has bytes.
            _ => self.0.chars().take(48).collect(),
        }
    }

    /// The value of a number that is exactly an integer.
    fn number(self) -> Option<i64> {
        if let Ok(integer) = self.0.parse() {
            return Some(integer);
        }
        let float: f64 = self.0.parse().ok()?;
        #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "bounded to exact integers")]
        (float.fract() == 0.0 && float.abs() <= MAX_SAFE_INTEGER as f64).then_some(float as i64)
    }

    /// Removes white space between tokens.
    fn compact(self) -> String {
        let mut out = String::with_capacity(self.0.len());
        let mut start = 0;
        for (at, byte) in outside_strings(self.0) {
            if byte.is_ascii_whitespace() {
                out.push_str(&self.0[start..at]);
                start = at + 1;
            }
        }
        out.push_str(&self.0[start..]);
        out
    }
}

/// The bytes of valid JSON outside of strings, with their offsets.
fn outside_strings(json: &str) -> impl Iterator<Item = (usize, u8)> {
    let (mut inside, mut escaped) = (false, false);
    json.bytes().enumerate().filter(move |(_, byte)| {
        let was_inside = inside;
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => inside = !inside,
            _ => {}
        }
        !was_inside && !inside
    })
}

/// True for an integer in digits, as JavaScript's BigInt writes it.
fn is_digits(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn got(result: Result<impl std::fmt::Debug, Mismatch>) -> String {
        result.unwrap_err().at("x").to_string()
    }

    #[test]
    fn integers_are_numbers_or_digits() {
        for (text, integer) in
            [("1", 1), ("1.0", 1), ("1e3", 1000), ("-1", -1), ("\"748\"", 748), ("\"-1\"", -1), ("-0", 0)]
        {
            assert_eq!(Raw(text).integer(), Ok(integer), "{text}");
        }
        assert_eq!(Raw("9223372036854775807").integer(), Ok(i64::MAX));
        for text in ["1.5", "1e300", "\"\"", "\"-\"", "\"+1\"", "\"1.0\"", "9223372036854775808", "true", "null", "[]"]
        {
            assert!(Raw(text).integer().is_err(), "{text}");
        }
        assert_eq!(got(Raw("\"a\"").integer()), "x: expected an integer, got \"a\"");
    }

    #[test]
    fn names_may_be_numbers() {
        for (text, name) in [("1074", "1074"), ("\"1074\"", "1074"), ("1074.0", "1074"), (r#""\u4e91""#, "云")] {
            assert_eq!(Raw(text).name_text().unwrap(), name);
        }
        // Too long for a number type, but exact as a name.
        assert_eq!(Raw("123456789012345678901234567890").name_text().unwrap(), "123456789012345678901234567890");
        assert_eq!(got(Raw("null").name::<crate::id::Uid>()), "x: expected a non-empty string, got null");
        assert_eq!(got(Raw("\"\"").name::<crate::id::Uid>()), "x: expected a non-empty string, got \"\"");
        assert_eq!(got(Raw("1.5").name::<crate::id::Uid>()), "x: expected a non-empty string, got 1.5");
        assert_eq!(
            got(Raw("\"a,b\"").name::<crate::id::Uid>()),
            "x: expected no comma or control character, got \"a,b\""
        );
    }

    #[test]
    fn entries_become_text() {
        let entry = |text| Raw(text).entry(3).unwrap();
        assert_eq!(entry("null"), None);
        assert_eq!(entry("1.10").unwrap(), "1.10");
        assert_eq!(entry("true").unwrap(), "true");
        assert_eq!(entry(r#""a\"b""#).unwrap(), "a\"b");
        assert_eq!(entry("{ \"a b\" : [ 1 , \" \\\" } \" ] }").unwrap(), r#"{"a b":[1," \" } "]}"#);
        assert!(Raw("[[[]]]").entry(3).is_ok());
        assert_eq!(got(Raw("[[[[]]]]").entry(3)), "x: expected at most 32 levels of nesting, got more");
        assert_eq!(got(Raw(r#""\ud800""#).entry(3)), "x: expected a string, got an escape that is not a character");
    }
}
