//! Checks the parts of a request's head that name the server.
//!
//! A request that names two servers or none could be read differently by a proxy in front of the node. Independent of
//! paths.

use hyper::header::HOST;
use hyper::{Request, Version};

use crate::authority::Authority;

/// Checks Host, and the request target if it names a server.
///
/// # Errors
/// The text tells the expected and the received value.
pub(super) fn check<B>(request: &Request<B>) -> Result<(), String> {
    let mut hosts = request.headers().get_all(HOST).into_iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err("host: expected one Host header, got several".to_owned());
    }
    let Some(host) = host else {
        // HTTP/1.0 has no Host header.
        let is_old = request.version() < Version::HTTP_11;
        return if is_old { Ok(()) } else { Err("host: expected a Host header, got none".to_owned()) };
    };
    let host = host.to_str().map_err(|_| format!("host: expected visible ASCII letters, got {host:?}"))?;
    let host = Authority::parse(host).map_err(|invalid| format!("host: {invalid}"))?;
    let Some(target) = request.uri().authority() else { return Ok(()) };
    let target = Authority::parse(target.as_str()).map_err(|invalid| format!("target: {invalid}"))?;
    let default = match request.uri().scheme_str() {
        Some("https") => Some(443),
        Some("http") => Some(80),
        _ => None,
    };
    if target.host != host.host || target.port.or(default) != host.port.or(default) {
        return Err(format!("host: expected the request target's host, {}, got {}", target.host, host.host));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(uri: &str, version: Version, hosts: &[&str]) -> Result<(), String> {
        let mut request = Request::builder().uri(uri).version(version);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        check(&request.body(()).unwrap())
    }

    #[test]
    fn request_names_one_server() {
        let is_good = |uri, hosts: &[&str]| checked(uri, Version::HTTP_11, hosts).is_ok();
        for (uri, host) in [
            ("/", "a.com"),
            ("/", "[::1]:8080"),
            ("http://a.com/x", "A.com:80"),
            ("http://a.com:80/x", "a.com"),
            ("https://a.com/x", "a.com:443"),
            ("http://a.com:8080/", "a.com:8080"),
        ] {
            assert!(is_good(uri, &[host]), "{uri} {host}");
        }
        for (uri, hosts) in [
            ("/", &[] as &[&str]),
            ("/", &["a.com", "a.com"]),
            ("/", &["a.com", "b.com"]),
            ("/", &[""]),
            ("/", &["a.com, b.com"]),
            ("/", &["user@a.com"]),
            ("/", &["a.com/x"]),
            ("/", &["127.0.0.1:1.evil.example"]),
            ("/", &["[::1]evil.example:1"]),
            ("http://a.com/", &[]),
            ("http://a.com/", &["b.com"]),
            ("http://a.com/", &["a.com:8080"]),
            ("https://a.com/", &["a.com:80"]),
            ("http://user@a.com/", &["a.com"]),
        ] {
            assert!(!is_good(uri, hosts), "{uri} {hosts:?}");
        }
        assert_eq!(checked("/", Version::HTTP_10, &[]), Ok(()), "HTTP/1.0 knows no Host");
        assert!(checked("/", Version::HTTP_10, &["a", "b"]).is_err());
    }
}
