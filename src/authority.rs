//! A host with an optional port, as a Host header, an Origin and a URL name it.
//!
//! Every part of the node reads authorities here, so that no two readers see different hosts in one text. The grammar
//! is stricter than RFC 3986: no user, no percent-encoding, no empty port, no address in an unusual form.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Longest host name, in bytes (RFC 1035).
const MAX_NAME: usize = 253;

/// A host and its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Authority<'a> {
    /// The host.
    pub host: Host<'a>,
    /// The port, where the text has one; never 0.
    pub port: Option<u16>,
}

/// A host. Names compare case-insensitively and without a trailing dot.
#[derive(Debug, Clone, Copy)]
pub enum Host<'a> {
    /// Letters, digits, hyphens, underscores and dots, as written.
    Name(&'a str),
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address, written in brackets.
    V6(Ipv6Addr),
}

/// The text is not a host with an optional port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAuthority {
    /// The host is invalid.
    #[error("expected a host name, an IPv4 address or an IPv6 address in brackets, got {0:?}")]
    Host(String),
    /// The port is invalid.
    #[error("expected a port from 1 to 65535, got {0:?}")]
    Port(String),
}

impl<'a> Authority<'a> {
    /// Reads `host`, `host:port`, `[address]` or `[address]:port`.
    ///
    /// # Errors
    /// [`InvalidAuthority`] names the invalid part.
    pub fn parse(text: &'a str) -> Result<Self, InvalidAuthority> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (address, rest) = rest.split_once(']').ok_or_else(|| bad_host(text))?;
                let address = address.parse().map_err(|_| bad_host(text))?;
                let port = match rest.strip_prefix(':') {
                    Some(port) => Some(port),
                    None if rest.is_empty() => None,
                    None => return Err(bad_host(text)),
                };
                (Host::V6(address), port)
            }
            None => match text.split_once(':') {
                Some((host, port)) => (named(host)?, Some(port)),
                None => (named(text)?, None),
            },
        };
        Ok(Self { host, port: port.map(port_of).transpose()? })
    }

    /// True for this machine: `localhost`, a subdomain of it, or a loopback address.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        match self.host {
            Host::Name(name) => {
                let name = trimmed(name);
                let top = name.rsplit('.').next().unwrap_or_default();
                top.eq_ignore_ascii_case("localhost")
            }
            Host::V4(address) => address.is_loopback(),
            Host::V6(address) => IpAddr::V6(address).to_canonical().is_loopback(),
        }
    }
}

impl PartialEq for Host<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Name(one), Self::Name(other)) => trimmed(one).eq_ignore_ascii_case(trimmed(other)),
            (Self::V4(one), Self::V4(other)) => one == other,
            (Self::V6(one), Self::V6(other)) => one == other,
            _ => false,
        }
    }
}

impl Eq for Host<'_> {}

/// Names in lower case, IPv6 addresses without brackets.
impl fmt::Display for Host<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(&name.to_ascii_lowercase()),
            Self::V4(address) => address.fmt(f),
            Self::V6(address) => address.fmt(f),
        }
    }
}

fn named(text: &str) -> Result<Host<'_>, InvalidAuthority> {
    if let Ok(address) = text.parse() {
        return Ok(Host::V4(address));
    }
    let is_letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    let labels = || trimmed(text).split('.');
    let fits = text.len() <= MAX_NAME && labels().all(|label| !label.is_empty() && label.bytes().all(is_letter));
    // Resolvers and browsers read a number at the end (127.1, 0x7f000001, 2130706433) as an address.
    if !fits || labels().next_back().is_some_and(is_number) {
        return Err(bad_host(text));
    }
    Ok(Host::Name(text))
}

fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    hex.map_or_else(
        || label.bytes().all(|b| b.is_ascii_digit()),
        |digits| digits.bytes().all(|b| b.is_ascii_hexdigit()),
    )
}

fn port_of(text: &str) -> Result<u16, InvalidAuthority> {
    let number = text.parse().ok().filter(|number| *number != 0 && text.bytes().all(|b| b.is_ascii_digit()));
    number.ok_or_else(|| InvalidAuthority::Port(shortened(text)))
}

/// Strips the trailing dot of an absolute name.
fn trimmed(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

fn bad_host(text: &str) -> InvalidAuthority {
    InvalidAuthority::Host(shortened(text))
}

fn shortened(text: &str) -> String {
    if text.chars().count() <= 80 { text.to_owned() } else { text.chars().take(79).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn authority_has_a_host_and_perhaps_a_port() {
        let parsed = |text| Authority::parse(text).map(|a| (a.host.to_string(), a.port));
        for (text, host, port) in [
            ("a.com", "a.com", None),
            ("A.com:8080", "a.com", Some(8080)),
            ("my_service:80", "my_service", Some(80)),
            ("3f4e5d6c7b8a:1", "3f4e5d6c7b8a", Some(1)),
            ("10.0.0.1:65535", "10.0.0.1", Some(65_535)),
            ("[::1]", "::1", None),
            ("[2001:DB8::1]:443", "2001:db8::1", Some(443)),
        ] {
            assert_eq!(parsed(text), Ok((host.to_owned(), port)), "{text}");
        }
        assert_eq!(Authority::parse("A.com."), Authority::parse("a.COM"));
        assert_ne!(Authority::parse("a.com"), Authority::parse("a.com:80"));
    }

    #[test]
    fn authority_with_two_readings_is_refused() {
        for text in [
            "",
            ":80",
            ".a",
            "a..b",
            "a b",
            "a/b",
            "a@b",
            "a%31",
            "bücher.example",
            "a:",
            "a:0",
            "a:+80",
            "a:65536",
            "a:80:80",
            "a:1.evil.example",
            "127.0.0.1:1.evil.example",
            "localhost:1@evil.example",
            "[::1]evil.example:1",
            "[::1]:evil.example",
            "[::1",
            "::1",
            "[localhost]",
            "[::1%1]:80",
            "127.1",
            "0x7f.1",
            "0x7f000001",
            "2130706433",
            "127.0.0.1.",
        ] {
            assert!(Authority::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn loopback_is_this_machine_only() {
        let is_loopback = |text| Authority::parse(text).is_ok_and(|a| a.is_loopback());
        for text in ["localhost", "LOCALHOST.:80", "app.localhost", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]"] {
            assert!(is_loopback(text), "{text}");
        }
        for text in ["localhost.evil", "evillocalhost", "10.0.0.1", "[::2]", "127.0.0.1.evil.com"] {
            assert!(!is_loopback(text), "{text}");
        }
    }
}
