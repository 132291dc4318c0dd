//! Pages that may connect: checks the Origin header against the listener's list.
//!
//! Independent of sockets. A browser always sends Origin in a WebSocket handshake, and no script can forge it. Other
//! programs may send any Origin. The check therefore protects only credentials that a browser adds by itself: cookies.

use crate::authority::Authority;
use crate::config::Listener;

/// Result of the check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OriginCheck {
    /// No Origin: not a browser, so credentials that a browser adds by itself are not accepted.
    None,
    /// The page is on the list.
    Allowed {
        /// True if a cookie is accepted. It is refused if every page may connect. On TLS it is also refused if the page
        /// came over plain HTTP, where an attacker may have written it.
        cookie: bool,
    },
    /// The page is not on the list.
    Refused,
}

/// Checks `origin` for a request to `host` (its Host header) by the rules of `listener`: exact origins, `same-origin`,
/// `same-host`, `loopback` or `*`. Without a rule no page may connect.
pub(super) fn check(origin: Option<&str>, host: Option<&str>, listener: &Listener) -> OriginCheck {
    let Some(origin) = origin else { return OriginCheck::None };
    let is_tls = listener.tls.is_some();
    let allowed = listener.origins.iter().filter_map(|rule| cookie_counts(origin, host, rule, is_tls));
    allowed.reduce(|one, other| one || other).map_or(OriginCheck::Refused, |cookie| OriginCheck::Allowed { cookie })
}

/// True if an origin (`http://localhost:3000`) or a Host (`127.0.0.1:8080`) names this machine.
pub(super) fn is_loopback(text: &str) -> bool {
    let authority = if text.contains("://") { Site::of(text).map(|site| site.authority) } else { parsed(text) };
    authority.is_some_and(|authority| authority.is_loopback())
}

/// `None` if the rule does not allow the page; otherwise true if the page's cookies are accepted.
fn cookie_counts(origin: &str, host: Option<&str>, rule: &str, is_tls: bool) -> Option<bool> {
    if rule == "*" {
        return Some(false);
    }
    let page = Site::of(origin)?;
    let own = || host.and_then(parsed);
    let (allows, cookie) = match rule {
        "same-origin" => (own().is_some_and(|own| page.is_at(own, is_tls)), true),
        "same-host" => (own().is_some_and(|own| own.host == page.authority.host), page.is_secure() || !is_tls),
        "loopback" => (page.authority.is_loopback(), true),
        exact => (Site::of(exact).is_some_and(|exact| exact.is_same(&page)), true),
    };
    allows.then_some(cookie)
}

/// An origin: scheme, host, port.
struct Site<'a> {
    scheme: &'a str,
    authority: Authority<'a>,
}

impl<'a> Site<'a> {
    /// Parses an origin. `null` and texts with a path or a user are not origins.
    fn of(origin: &'a str) -> Option<Self> {
        let (scheme, rest) = origin.split_once("://")?;
        Some(Self { scheme, authority: parsed(rest)? })
    }

    fn is_secure(&self) -> bool {
        self.port_of_scheme() == Some(443)
    }

    fn port_of_scheme(&self) -> Option<u16> {
        let is = |names: [&str; 2]| names.iter().any(|name| self.scheme.eq_ignore_ascii_case(name));
        if is(["http", "ws"]) {
            Some(80)
        } else if is(["https", "wss"]) {
            Some(443)
        } else {
            None
        }
    }

    fn port(&self) -> Option<u16> {
        self.authority.port.or_else(|| self.port_of_scheme())
    }

    fn is_same(&self, other: &Self) -> bool {
        self.scheme.eq_ignore_ascii_case(other.scheme)
            && self.authority.host == other.authority.host
            && self.port() == other.port()
    }

    /// True if the page has the origin that the Host header names. A plain listener may be behind a proxy that ends
    /// TLS. There, the scheme of the page gives the port of a Host without one.
    fn is_at(&self, host: Authority<'_>, is_tls: bool) -> bool {
        let default = if is_tls { Some(443) } else { self.port_of_scheme() };
        (self.is_secure() || !is_tls) && host.host == self.authority.host && host.port.or(default) == self.port()
    }
}

fn parsed(text: &str) -> Option<Authority<'_>> {
    Authority::parse(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, TlsFiles};

    fn listener(rules: &[&str], tls: bool) -> Listener {
        let files = || TlsFiles { cert: "c.pem".into(), key: "k.pem".into() };
        Listener {
            origins: rules.iter().map(|rule| (*rule).to_owned()).collect(),
            tls: tls.then(files),
            ..Config::default().listeners.remove(0)
        }
    }

    fn page(origin: &str, host: &str, rules: &[&str]) -> OriginCheck {
        check(Some(origin), Some(host), &listener(rules, false))
    }

    #[test]
    fn listed_origins_are_allowed() {
        use OriginCheck::Refused;
        const ALLOWED: OriginCheck = OriginCheck::Allowed { cookie: true };
        const NO_COOKIE: OriginCheck = OriginCheck::Allowed { cookie: false };
        let table: &[(&str, &str, &[&str], OriginCheck)] = &[
            ("https://a.com", "a.com", &[], Refused),
            ("https://a.com", "a.com", &["same-origin"], ALLOWED),
            ("https://a.com", "a.com:443", &["same-origin"], ALLOWED),
            ("http://a.com", "a.com:443", &["same-origin"], Refused),
            ("https://A.com:443", "a.COM", &["same-origin"], ALLOWED),
            ("http://a.com:8080", "a.com:8080", &["same-origin"], ALLOWED),
            ("http://a.com:3000", "a.com:8080", &["same-origin"], Refused),
            ("http://a.com:3000", "a.com:8080", &["same-host"], ALLOWED),
            ("http://b.com", "a.com", &["same-host"], Refused),
            ("http://xa.com", "a.com", &["same-host"], Refused),
            ("http://a.com.evil", "a.com", &["same-host"], Refused),
            ("http://localhost:3000", "a.com", &["loopback"], ALLOWED),
            ("http://127.1.2.3", "a.com", &["loopback"], ALLOWED),
            ("http://[::1]:5", "a.com", &["loopback"], ALLOWED),
            ("http://127.0.0.1.evil.com", "a.com", &["loopback"], Refused),
            ("http://localhost.evil.com", "a.com", &["loopback"], Refused),
            ("https://app.a.com", "x", &["https://app.a.com"], ALLOWED),
            ("https://app.a.com:443", "x", &["https://app.a.com"], ALLOWED),
            ("http://app.a.com", "x", &["https://app.a.com"], Refused),
            ("https://app.a.com:444", "x", &["https://app.a.com"], Refused),
            ("https://sub.app.a.com", "x", &["https://app.a.com"], Refused),
            ("https://b.com", "a.com", &["https://a.com", "same-host", "loopback"], Refused),
            ("null", "a.com", &["same-origin", "same-host", "loopback"], Refused),
            ("null", "a.com", &["*"], NO_COOKIE),
            ("https://evil.com", "a.com", &["*"], NO_COOKIE),
            ("https://a.com", "a.com", &["*", "same-origin"], ALLOWED),
            ("https://a.com", "a.com:1.evil.example", &["same-host"], Refused),
            ("https://a.com:1.evil.example", "a.com", &["same-host", "loopback"], Refused),
            ("http://127.0.0.1:1.evil.example", "a.com", &["loopback"], Refused),
            ("http://[::1]evil.example:1", "a.com", &["loopback"], Refused),
            ("https://a.com/path", "a.com", &["same-origin"], Refused),
            ("https://a.com@evil.com", "evil.com", &["same-origin"], Refused),
            ("", "a.com", &["same-origin"], Refused),
            ("capacitor://localhost", "x", &["capacitor://localhost"], ALLOWED),
            ("http://localhost", "x", &["capacitor://localhost"], Refused),
        ];
        for (origin, host, rules, expected) in table {
            assert_eq!(page(origin, host, rules), *expected, "{origin} to {host} under {rules:?}");
        }
    }

    #[test]
    fn same_host_takes_any_port_of_it() {
        assert_eq!(page("http://a.com", "a.com:34567", &["same-host"]), OriginCheck::Allowed { cookie: true });
        assert_eq!(page("http://b.com", "a.com:34567", &["same-host"]), OriginCheck::Refused);
    }

    #[test]
    fn page_at_plain_http_is_another_origin_than_a_tls_listener() {
        let page = |origin, host, rule| check(Some(origin), Some(host), &listener(&[rule], true));
        let (allowed, no_cookie) = (OriginCheck::Allowed { cookie: true }, OriginCheck::Allowed { cookie: false });
        for (origin, host, rule, expected) in [
            ("https://a.com", "a.com", "same-origin", allowed),
            ("https://a.com:8443", "a.com:8443", "same-origin", allowed),
            ("http://a.com", "a.com", "same-origin", OriginCheck::Refused),
            ("http://a.com:443", "a.com", "same-origin", OriginCheck::Refused),
            ("http://a.com:8443", "a.com:8443", "same-origin", OriginCheck::Refused),
            ("https://a.com:3000", "a.com", "same-host", allowed),
            ("http://a.com:3000", "a.com", "same-host", no_cookie),
            // The operator named the page.
            ("http://a.com", "a.com", "http://a.com", allowed),
        ] {
            assert_eq!(page(origin, host, rule), expected, "{origin} to {host} under {rule}");
        }
    }

    #[test]
    fn request_without_an_origin_is_no_web_page() {
        assert_eq!(check(None, Some("a.com"), &listener(&[], false)), OriginCheck::None);
        assert_eq!(check(None, Some("a.com"), &listener(&["*"], false)), OriginCheck::None);
        assert_eq!(check(Some("http://a.com"), None, &listener(&["same-host"], false)), OriginCheck::Refused);
    }

    #[test]
    fn host_with_an_invalid_port_is_not_loopback() {
        for text in
            ["127.0.0.1:1.evil.example", "[::1]evil.example:1", "localhost:", "http://127.0.0.1:x", "a@localhost"]
        {
            assert!(!is_loopback(text), "{text}");
        }
        for text in ["127.0.0.1:8080", "localhost", "http://[::1]:1", "https://localhost"] {
            assert!(is_loopback(text), "{text}");
        }
    }
}
