//! Parses the value after `KIND=`: a URL, and options after commas. Independent of protocols.

use std::collections::BTreeMap;
use std::net::{SocketAddr, ToSocketAddrs as _};

use anyhow::{Context as _, bail};

/// The given options. Adapters take the known ones; [`Options::finish`] rejects the rest.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) url: Url,
    /// The command that restarts the peer. It is the last option and takes the rest of the text.
    pub(super) start: Option<String>,
    given: BTreeMap<String, String>,
}

/// `SCHEME://HOST:PORT[/PATH]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Url {
    pub(super) scheme: String,
    /// Includes the port.
    pub(super) host: String,
    /// Empty, or starts with a slash.
    pub(super) path: String,
}

impl Options {
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let (text, start) = match text.split_once(",start=") {
            Some((text, start)) => (text, Some(start.to_owned())),
            None => (text, None),
        };
        let mut parts = text.split(',');
        let url = Url::parse(parts.next().unwrap_or_default())?;
        let pair = |part: &str| {
            let (name, value) = part.split_once('=').with_context(|| format!("expected OPTION=VALUE, got {part:?}"))?;
            anyhow::Ok((name.to_owned(), value.to_owned()))
        };
        Ok(Self { url, start, given: parts.map(pair).collect::<Result<_, _>>()? })
    }

    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.given.remove(name)
    }

    pub(super) fn need(&mut self, name: &str, what: &str) -> anyhow::Result<String> {
        self.take(name).with_context(|| format!("expected {name}={what}"))
    }

    /// # Errors
    /// An option is unknown to the adapter.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        match self.given.into_keys().next() {
            Some(unknown) => bail!("this kind of peer has no option {unknown:?}"),
            None => Ok(()),
        }
    }
}

impl Url {
    pub(super) fn parse(text: &str) -> anyhow::Result<Self> {
        let (scheme, rest) =
            text.split_once("://").with_context(|| format!("expected a URL such as ws://HOST:PORT, got {text:?}"))?;
        let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        Ok(Self { scheme: scheme.to_owned(), host: host.to_owned(), path: path.to_owned() })
    }

    /// # Errors
    /// The URL has another scheme.
    pub(super) fn expect(&self, schemes: &[&str]) -> anyhow::Result<()> {
        if !schemes.contains(&self.scheme.as_str()) {
            bail!("expected a URL of {}://, got {}://", schemes.join(":// or "), self.scheme);
        }
        Ok(())
    }

    /// # Errors
    /// The host has no address, or the port is missing.
    pub(super) fn address(&self) -> anyhow::Result<SocketAddr> {
        let found = self.host.to_socket_addrs().with_context(|| format!("expected HOST:PORT, got {:?}", self.host))?;
        found.into_iter().next().with_context(|| format!("{:?} has no address", self.host))
    }

    /// The path, or `default` if it is empty.
    pub(super) fn path_or<'a>(&'a self, default: &'a str) -> &'a str {
        if self.path.is_empty() { default } else { &self.path }
    }
}

/// Appends a POST request. `headers` are whole lines.
pub(super) fn post(out: &mut Vec<u8>, host: &str, path: &str, headers: &str, body: &[u8]) {
    let len = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Content-Length: {len}\r\n\r\n");
    out.extend_from_slice(head.as_bytes());
    out.extend_from_slice(body);
}

/// Header line of JSON bodies.
pub(super) const JSON: &str = "Content-Type: application/json\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_has_its_parts() {
        let url = Url::parse("ws://127.0.0.1:8000/connection/websocket").unwrap();
        assert_eq!((url.scheme.as_str(), url.path_or("/x")), ("ws", "/connection/websocket"));
        assert_eq!(url.address().unwrap(), "127.0.0.1:8000".parse().unwrap());
        assert_eq!(Url::parse("tcp://127.0.0.1:1").unwrap().path_or("/x"), "/x");
        assert!(Url::parse("127.0.0.1:1").is_err());
        assert!(Url::parse("ws://127.0.0.1").unwrap().address().is_err());
    }

    #[test]
    fn options_are_taken_once_and_the_rest_is_refused() {
        let mut options = Options::parse("ws://h:1,key=a=b,secret=s").unwrap();
        assert_eq!(options.take("key").as_deref(), Some("a=b"));
        assert_eq!(options.take("key"), None);
        assert!(options.need("id", "NAME").unwrap_err().to_string().contains("expected id=NAME"));
        assert!(options.finish().unwrap_err().to_string().contains("secret"));
        assert!(Options::parse("ws://h:1,key").is_err());
    }
}
