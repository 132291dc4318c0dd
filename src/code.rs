//! Result codes: [`Code`].
//!
//! Clients, back ends, plugins and other nodes see the same three digits. Their meaning is that of HTTP.

use std::fmt;

/// Three decimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Code([u8; 3]);

impl Code {
    /// Success.
    pub const OK: Self = Self::new(200);
    /// A field of the request is invalid.
    pub const BAD_REQUEST: Self = Self::new(400);
    /// The connection or the credential has no user.
    pub const UNAUTHORIZED: Self = Self::new(401);
    /// The caller may not do this.
    pub const FORBIDDEN: Self = Self::new(403);
    /// The named thing does not exist.
    pub const NOT_FOUND: Self = Self::new(404);
    /// The message is too large.
    pub const TOO_LARGE: Self = Self::new(413);
    /// The caller is at a limit.
    pub const TOO_MANY: Self = Self::new(429);
    /// The node failed.
    pub const INTERNAL: Self = Self::new(500);
    /// A part of the node does not answer now.
    pub const UNAVAILABLE: Self = Self::new(503);
    /// A chain of plugin pushes is too long.
    pub const LOOP: Self = Self::new(508);

    /// Creates a code.
    ///
    /// # Panics
    /// If `number` has more than three digits.
    #[must_use]
    pub const fn new(number: u16) -> Self {
        assert!(number < 1000, "a code has three digits");
        Self([digit(number / 100), digit(number / 10), digit(number)])
    }

    /// Reads exactly three digits. `None` for any other text.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let digits: [u8; 3] = text.as_bytes().try_into().ok()?;
        digits.iter().all(u8::is_ascii_digit).then_some(Self(digits))
    }

    /// The code as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("digits are ASCII")
    }

    /// The code as a number.
    #[must_use]
    pub fn number(self) -> u16 {
        self.0.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'))
    }

    /// True for 5xx: the node or a plugin failed, so the caller may try again.
    #[must_use]
    pub const fn is_server_fault(self) -> bool {
        self.0[0] == b'5'
    }
}

/// The last decimal digit of `number`, in ASCII.
const fn digit(number: u16) -> u8 {
    b'0' + (number % 10) as u8
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl PartialEq<str> for Code {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Code {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_three_digits_as_text_and_as_number() {
        for text in ["000", "200", "503", "999"] {
            let code = Code::parse(text).unwrap();
            assert_eq!((code.as_str(), Code::new(code.number())), (text, code));
            assert_eq!(code.is_server_fault(), text.starts_with('5'), "{text}");
        }
        for text in ["", "20", "2000", "20x", "２０"] {
            assert_eq!(Code::parse(text), None, "{text}");
        }
    }
}
