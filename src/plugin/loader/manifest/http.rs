//! `[http]`: the hosts that a plugin may call, and the largest answer.

use std::sync::Arc;

use toml::Table;

use super::Reader;
use super::limits::parse_bytes;
use crate::plugin::fetch::{Network, Networks, Url};

const KEYS: [&str; 3] = ["allow", "private", "body"];
/// Most bytes of an answer: the default, and the highest value that a manifest may set.
const BODY: usize = 1 << 20;
const MAX_BODY: usize = 8 << 20;

/// Requests that the operator allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::plugin) struct Outgoing {
    allow: Vec<Place>,
    /// Addresses that are not public and may be connected to.
    pub(in crate::plugin) networks: Arc<Networks>,
    /// Most bytes of an answer's body.
    pub(in crate::plugin) body: usize,
}

impl Default for Outgoing {
    fn default() -> Self {
        Self { allow: Vec::new(), networks: Arc::default(), body: BODY }
    }
}

impl Outgoing {
    /// True if the list names the scheme, host and port of this URL.
    pub(in crate::plugin) fn allows(&self, url: &Url) -> bool {
        self.allow.iter().any(|place| place.is(url))
    }
}

/// One entry of the list: a scheme, a host or all hosts below a name, and a port.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// For `*.name`: the name, with `below` set.
    url: Url,
    below: bool,
}

impl Place {
    fn parse(text: &str) -> Result<Self, String> {
        let below = text.contains("://*.");
        let url =
            Url::parse(&text.replacen("://*.", "://", 1)).map_err(|why| why.trim_start_matches("url: ").to_owned())?;
        let is_bare = url.path == "/" && !text.ends_with(['?', '#']);
        if is_bare {
            Ok(Self { url, below })
        } else {
            Err("expected no path: a place is allowed as a whole".to_owned())
        }
    }

    fn is(&self, url: &Url) -> bool {
        let host = match url.host.strip_suffix(&self.url.host) {
            Some("") => !self.below,
            Some(rest) => self.below && rest.ends_with('.'),
            None => false,
        };
        host && (self.url.scheme, self.url.port) == (url.scheme, url.port)
    }
}

pub(super) fn read(read: &mut Reader, table: &Table) -> Outgoing {
    let Some(http) = read.table(table, "http") else { return Outgoing::default() };
    read.known("http.", http, &KEYS);
    let allow = each(read, http, "allow", Place::parse);
    let granted = each(read, http, "private", Network::parse);
    let body = http.get("body").map_or(BODY, |value| {
        let bytes = value.as_str().and_then(parse_bytes).filter(|bytes| *bytes <= MAX_BODY);
        bytes.unwrap_or_else(|| {
            read.expected("http.body", "a size such as \"1MiB\", at most 8MiB", value);
            BODY
        })
    });
    Outgoing { allow, networks: Arc::new(Networks::new(granted)), body }
}

fn each<T>(read: &mut Reader, http: &Table, key: &str, parse: fn(&str) -> Result<T, String>) -> Vec<T> {
    let mut all = Vec::new();
    for text in read.texts(http, "http.", key) {
        match parse(&text) {
            Ok(one) => all.push(one),
            Err(why) => read.faults.push(format!("http.{key}: {text:?}: {why}")),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_scheme_a_host_and_a_port() {
        let allows = |place: &str, url: &str| Place::parse(place).unwrap().is(&Url::parse(url).unwrap());
        assert!(
            allows("https://a.example", "https://a.example/x")
                && allows("https://a.example/", "https://A.example:443/")
        );
        assert!(
            !allows("https://a.example", "http://a.example/")
                && !allows("https://a.example", "https://a.example:8443/")
        );
        assert!(
            !allows("https://a.example", "https://b.a.example/") && !allows("https://a.example", "https://ba.example/")
        );
        assert!(
            allows("https://*.a.example", "https://b.a.example/")
                && allows("https://*.a.example", "https://c.b.a.example/")
        );
        assert!(
            !allows("https://*.a.example", "https://a.example/")
                && !allows("https://*.a.example", "https://ba.example/")
        );
        assert!(allows("http://[::1]:80", "http://[0:0:0::1]/"));
        for wrong in ["https://a.example/path", "a.example", "https://*", "https://a.*.example", "https://a.example?"] {
            assert!(Place::parse(wrong).is_err(), "{wrong}");
        }
    }
}
