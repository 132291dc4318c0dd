//! URLs that a plugin may request: http or https, a host, an optional port, a path. Parsing is strict, because the
//! allow-list judges a URL by its text.

use std::fmt;

use crate::authority::Authority;

/// Longest URL, bytes.
const MAX_BYTES: usize = 2_048;

/// Scheme of a URL.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HTTP without TLS.
    Http,
    /// HTTP over TLS.
    Https,
}

impl Scheme {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// A parsed URL.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// The scheme.
    pub scheme: Scheme,
    /// A name in lower case, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// The port in the URL, or the scheme's default.
    pub port: u16,
    /// Path and query, beginning with a slash.
    pub path: String,
}

impl Url {
    /// Parses a URL.
    ///
    /// # Errors
    /// The URL is not valid; the error says what was expected.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_BYTES {
            return Err(format!("url: expected at most {MAX_BYTES} bytes, got {}", text.len()));
        }
        if let Some(odd) = text.chars().find(|c| !c.is_ascii_graphic()) {
            return Err(format!("url: expected visible ASCII characters, got {odd:?}"));
        }
        let (scheme, rest) = text.split_once("://").ok_or("url: expected http:// or https://")?;
        let scheme = match scheme {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            other => return Err(format!("url: expected http:// or https://, got {other}://")),
        };
        let rest = rest.split('#').next().unwrap_or_default();
        let at = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(at);
        let Authority { host, port } = Authority::parse(authority).map_err(|invalid| format!("url: {invalid}"))?;
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { scheme, host: host.to_string(), port: port.unwrap_or(scheme.port()), path })
    }

    /// The host, with the port if it is not the scheme's default: the value of a Host header.
    #[must_use]
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == self.scheme.port() { host } else { format!("{host}:{}", self.port) }
    }
}

/// Without path, as in an allow-list.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn url_is_split_into_its_parts() {
        let url = Url::parse("https://Keys.Example/.well-known/jwks.json?v=1#top").unwrap();
        assert_eq!((url.scheme, url.host.as_str(), url.port), (Scheme::Https, "keys.example", 443));
        assert_eq!(
            (url.path.as_str(), url.to_string().as_str()),
            ("/.well-known/jwks.json?v=1", "https://keys.example")
        );
        let url = Url::parse("http://[::1]:8080?q").unwrap();
        assert_eq!((url.host.as_str(), url.port, url.path.as_str()), ("::1", 8080, "/?q"));
        assert_eq!(url.authority(), "[::1]:8080");
    }

    #[test]
    fn ambiguous_url_is_refused() {
        for text in [
            "example.com",
            "ftp://example.com/",
            "http://",
            "http://user@example.com/",
            "http://a b/",
            "http://a\n/",
            "http://example.com:0/",
            "http://example.com:99999/",
            "http://example.com:+80/",
            "http://[::1/",
            "http://[::1]x/",
            "http://0x7f.1/",
            "http://2130706433/",
            "http://127.1/",
            "http://bücher.example/",
            "http://a\\b/",
            "http://%31/",
            "http://.a/",
        ] {
            assert!(Url::parse(text).is_err(), "{text}");
        }
    }
}
