//! Which pages may connect: the Origin header against a listener's list.
//!
//! Knows no socket. A browser always sends Origin on a WebSocket handshake and no script can forge it; a program that is
//! no browser may send anything, which is why an Origin only ever protects what a browser adds by itself: cookies.

use std::net::{IpAddr, SocketAddr};

use hyper::http::uri::Authority;

/// What the header says about the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page {
    /// No Origin: no browser, so nothing that a browser adds by itself may count.
    None,
    /// On the list.
    Allowed,
    /// Not on the list.
    Refused,
}

/// Judges `origin` for a request to `host` (its Host header). `rules` are exact origins, `same-origin`, `same-host`,
/// `loopback` or `*`; without a rule no page may connect.
pub(super) fn judge(origin: Option<&str>, host: Option<&str>, rules: &[String]) -> Page {
    let Some(origin) = origin else { return Page::None };
    let allowed = rules.iter().any(|rule| is_allowed(origin, host, rule));
    if allowed { Page::Allowed } else { Page::Refused }
}

/// Whether an origin (`http://localhost:3000`) or a Host (`127.0.0.1:8080`) names this machine.
pub(super) fn is_loopback(text: &str) -> bool {
    // What nearly every back end sends with each push needs no URI parser.
    if let Ok(address) = text.parse::<SocketAddr>() {
        return address.ip().to_canonical().is_loopback();
    }
    let place = if text.contains("://") { Place::of_origin(text) } else { Place::of_host(text, 0) };
    place.is_some_and(|place| place.is_loopback())
}

fn is_allowed(origin: &str, host: Option<&str>, rule: &str) -> bool {
    if rule == "*" {
        return true;
    }
    let Some(page) = Place::of_origin(origin) else { return false };
    match rule {
        "same-origin" => host.and_then(|h| Place::of_host(h, page.port)).is_some_and(|own| own == page),
        "same-host" => host.and_then(|h| Place::of_host(h, page.port)).is_some_and(|own| own.host == page.host),
        "loopback" => page.is_loopback(),
        exact => {
            Place::of_origin(exact).is_some_and(|p| p == page) && scheme(exact).eq_ignore_ascii_case(scheme(origin))
        }
    }
}

fn scheme(origin: &str) -> &str {
    origin.split_once("://").map_or("", |(scheme, _)| scheme)
}

/// Host and port, each in one spelling.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    host: String,
    port: u16,
}

impl Place {
    /// `null` and what is no origin (a path, a user) is no place.
    fn of_origin(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        if rest.contains(['/', '?', '#', '@']) {
            return None;
        }
        let port = match scheme.to_ascii_lowercase().as_str() {
            "http" | "ws" => 80,
            "https" | "wss" => 443,
            _ => 0,
        };
        Self::of_host(rest, port)
    }

    /// A Host without a port is at the default port of the page's scheme: whether TLS ended before us, only the page knows.
    fn of_host(text: &str, default: u16) -> Option<Self> {
        let authority: Authority = text.parse().ok().filter(|_| !text.contains('@'))?;
        let host = authority.host().trim_end_matches('.').to_ascii_lowercase();
        let port = match authority.port() {
            Some(port) => port.as_u16(),
            None if authority.as_str().ends_with(':') => return None,
            None => default,
        };
        (!host.is_empty()).then_some(Self { host, port })
    }

    fn is_loopback(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        self.host == "localhost"
            || self.host.ends_with(".localhost")
            || bare.parse::<IpAddr>().is_ok_and(|ip| ip.to_canonical().is_loopback())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(origin: &str, host: &str, rules: &[&str]) -> Page {
        let rules: Vec<String> = rules.iter().map(|r| (*r).to_owned()).collect();
        judge(Some(origin), Some(host), &rules)
    }

    #[test]
    fn the_list_decides() {
        use Page::{Allowed, Refused};
        let table: &[(&str, &str, &[&str], Page)] = &[
            ("https://a.com", "a.com", &[], Refused),
            ("https://a.com", "a.com", &["same-origin"], Allowed),
            ("https://a.com", "a.com:443", &["same-origin"], Allowed),
            ("http://a.com", "a.com:443", &["same-origin"], Refused),
            ("https://A.com:443", "a.COM", &["same-origin"], Allowed),
            ("http://a.com:8080", "a.com:8080", &["same-origin"], Allowed),
            ("http://a.com:3000", "a.com:8080", &["same-origin"], Refused),
            ("http://a.com:3000", "a.com:8080", &["same-host"], Allowed),
            ("http://b.com", "a.com", &["same-host"], Refused),
            ("http://xa.com", "a.com", &["same-host"], Refused),
            ("http://a.com.evil", "a.com", &["same-host"], Refused),
            ("http://localhost:3000", "a.com", &["loopback"], Allowed),
            ("http://127.1.2.3", "a.com", &["loopback"], Allowed),
            ("http://[::1]:5", "a.com", &["loopback"], Allowed),
            ("http://127.0.0.1.evil.com", "a.com", &["loopback"], Refused),
            ("http://localhost.evil.com", "a.com", &["loopback"], Refused),
            ("https://app.a.com", "x", &["https://app.a.com"], Allowed),
            ("https://app.a.com:443", "x", &["https://app.a.com"], Allowed),
            ("http://app.a.com", "x", &["https://app.a.com"], Refused),
            ("https://app.a.com:444", "x", &["https://app.a.com"], Refused),
            ("https://sub.app.a.com", "x", &["https://app.a.com"], Refused),
            ("https://b.com", "a.com", &["https://a.com", "same-host", "loopback"], Refused),
            ("null", "a.com", &["same-origin", "same-host", "loopback"], Refused),
            ("null", "a.com", &["*"], Allowed),
            ("https://evil.com", "a.com", &["*"], Allowed),
            ("https://a.com/path", "a.com", &["same-origin"], Refused),
            ("https://a.com@evil.com", "evil.com", &["same-origin"], Refused),
            ("", "a.com", &["same-origin"], Refused),
            ("capacitor://localhost", "x", &["capacitor://localhost"], Allowed),
            ("http://localhost", "x", &["capacitor://localhost"], Refused),
        ];
        for (origin, host, rules, expected) in table {
            assert_eq!(page(origin, host, rules), *expected, "{origin} to {host} under {rules:?}");
        }
    }

    #[test]
    fn same_host_takes_any_port_of_it() {
        assert_eq!(page("http://a.com", "a.com:34567", &["same-host"]), Page::Allowed);
        assert_eq!(page("http://b.com", "a.com:34567", &["same-host"]), Page::Refused);
    }

    #[test]
    fn no_origin_is_no_page_whatever_the_list_says() {
        assert_eq!(judge(None, Some("a.com"), &[]), Page::None);
        assert_eq!(judge(None, Some("a.com"), &["*".to_owned()]), Page::None);
        assert_eq!(judge(Some("http://a.com"), None, &["same-host".to_owned()]), Page::Refused);
    }
}
