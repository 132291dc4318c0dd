//! Requests that the operator allows: the hosts that a plugin may call, and the largest answer.

use std::sync::Arc;

use crate::plugin::fetch::{Networks, Url};

/// Default for the most bytes of an answer's body.
pub(in crate::plugin) const BODY: usize = 1 << 20;

/// Requests that the operator allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::plugin) struct Outgoing {
    /// Hosts that it may call.
    pub(in crate::plugin) allow: Vec<AllowedHost>,
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
pub(in crate::plugin) struct AllowedHost {
    /// For `*.name`: the name, with `below` set.
    url: Url,
    below: bool,
}

impl AllowedHost {
    /// Parses an entry of the allow-list.
    ///
    /// # Errors
    /// The entry is no scheme and host.
    pub(in crate::plugin) fn parse(text: &str) -> Result<Self, String> {
        let below = text.contains("://*.");
        let url =
            Url::parse(&text.replacen("://*.", "://", 1)).map_err(|why| why.trim_start_matches("url: ").to_owned())?;
        let is_bare = url.path == "/" && !text.ends_with(['?', '#']);
        if is_bare {
            Ok(Self { url, below })
        } else {
            Err("expected a URL without a path: a host is allowed with all its paths".to_owned())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allowed_host_matches_scheme_host_and_port() {
        let allows = |place: &str, url: &str| AllowedHost::parse(place).unwrap().is(&Url::parse(url).unwrap());
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
            assert!(AllowedHost::parse(wrong).is_err(), "{wrong}");
        }
    }
}
