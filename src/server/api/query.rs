//! A strict query string: each parameter must be known, occur once, be UTF-8 and match its type. Independent of paths.

use std::fmt::Display;
use std::ops::RangeInclusive;

use super::answer::Problem;
use crate::id::InvalidName;

/// The parameters of one request.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Parses the text after `?`; only `known` parameters are allowed.
    ///
    /// # Errors
    /// 400 for a parameter that is unknown, occurs twice, or is not UTF-8.
    pub(super) fn parse(text: Option<&str>, known: &[&str]) -> Result<Self, Problem> {
        let mut pairs: Vec<(String, String)> = Vec::new();
        for (name, value) in form_urlencoded::parse(text.unwrap_or_default().as_bytes()) {
            if !known.contains(&&*name) {
                let expected =
                    if known.is_empty() { "no parameter".to_owned() } else { format!("one of {}", known.join(", ")) };
                return Err(Problem::bad_request(format!("query: expected {expected}, got {}", shown(&name))));
            }
            if pairs.iter().any(|(n, _)| *n == *name) {
                return Err(fault(&name, "one value", "two"));
            }
            // Decoding replaces invalid UTF-8 with this character.
            if value.contains(char::REPLACEMENT_CHARACTER) {
                return Err(fault(&name, "UTF-8", shown(&value)));
            }
            pairs.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(pairs))
    }

    /// Returns a parameter as text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }

    /// Returns a parameter as a name.
    pub(super) fn name<T>(&self, name: &str, parse: fn(&str) -> Result<T, InvalidName>) -> Result<Option<T>, Problem> {
        let parsed = self.text(name).map(parse).transpose();
        parsed.map_err(|e| Problem::bad_request(format!("{name}: {e}")))
    }

    /// Returns a boolean parameter: `true` or `false`; absent = `false`.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.text(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(text) => Err(fault(name, "true or false", shown(text))),
        }
    }

    /// Returns a parameter as a number in `range`.
    pub(super) fn number(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse().ok().filter(|n| digits && range.contains(n)) {
            Some(number) => Ok(Some(number)),
            None => {
                let expected = format!("an integer from {} to {}", range.start(), range.end());
                Err(fault(name, expected, shown(text)))
            }
        }
    }

    /// Returns a parameter as the id of a message.
    pub(super) fn id(&self, name: &str) -> Result<Option<i64>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let id = text.parse().ok().filter(|_| is_integer(text));
        id.map(Some).ok_or_else(|| fault(name, "a 64-bit integer", shown(text)))
    }
}

/// True for an integer in digits, with or without a sign.
fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

/// The text of every fault: field, expected and received value.
pub(super) fn fault(name: &str, expected: impl Display, got: impl Display) -> Problem {
    Problem::bad_request(format!("{name}: expected {expected}, got {got}"))
}

/// A value in a fault: quoted, at most 64 characters.
pub(super) fn shown(text: &str) -> String {
    let short: String = text.chars().take(64).collect();
    format!("{short:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Uid;

    #[test]
    fn parameters_are_known_single_utf8_and_of_their_type() {
        let parse = |text| Query::parse(Some(text), &["page", "uid"]);
        let query = parse("page=2&uid=%E5%B0%8F").unwrap();
        assert_eq!(query.number("page", 1..=9).unwrap(), Some(2));
        assert_eq!(query.name("uid", Uid::parse).unwrap().unwrap().as_str(), "小");
        for (text, fault) in [
            ("pages=1", "query: expected one of page, uid, got \"pages\""),
            ("page=1&page=2", "page: expected one value, got two"),
            ("uid=%ff", "uid: expected UTF-8, got \"\u{fffd}\""),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), fault);
        }
        for text in
            ["page=", "page=0", "page=10", "page=-1", "page=+1", "page=1.0", "page=x", "page=99999999999999999999"]
        {
            let fault = parse(text).unwrap().number("page", 1..=9).unwrap_err().to_string();
            assert!(fault.starts_with("page: expected an integer from 1 to 9, got \""), "{text}: {fault}");
        }
        for (text, id) in [("x=-9", Some(-9)), ("x=9223372036854775807", Some(i64::MAX)), ("", None)] {
            assert_eq!(Query::parse(Some(text), &["x"]).unwrap().id("x").unwrap(), id);
        }
        for text in ["x=", "x=-", "x=+1", "x=1.0", "x=9223372036854775808"] {
            let fault = Query::parse(Some(text), &["x"]).unwrap().id("x").unwrap_err().to_string();
            assert!(fault.starts_with("x: expected a 64-bit integer, got \""), "{text}: {fault}");
        }
        assert!(Query::parse(Some("x=true"), &["x"]).unwrap().flag("x").unwrap());
        assert!(!query.flag("x").unwrap());
        let fault = query.flag("page").unwrap_err().to_string();
        assert_eq!(fault, "page: expected true or false, got \"2\"");
        let fault = parse("uid=a,b").unwrap().name("uid", Uid::parse).unwrap_err().to_string();
        assert_eq!(fault, "uid: expected no comma or control character, got \"a,b\"");
        assert_eq!(Query::parse(Some("x=1"), &[]).unwrap_err().to_string(), "query: expected no parameter, got \"x\"");
    }
}
