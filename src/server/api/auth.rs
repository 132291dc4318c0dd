//! Authorization: API keys with scopes. Without keys, only requests that no web page on the same machine can forge.
//!
//! Independent of paths. The configuration ensures that a node without keys listens on loopback only.

use std::num::NonZeroU32;
use std::sync::Arc;

use hyper::StatusCode;
use hyper::header::{HOST, HeaderMap, ORIGIN};
use subtle::ConstantTimeEq;

use super::answer::Problem;
use crate::config::{self, Scope};
use crate::server::claim::bearer;
use crate::server::origin::is_loopback;

/// The keys of one configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys<'a>(pub(super) &'a config::ApiSettings);

/// Position of a key in the configuration, counted from 1. Four bytes, so that the future of a request stays small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct KeyNumber(NonZeroU32);

impl KeyNumber {
    fn new(index: usize) -> Option<Self> {
        u32::try_from(index + 1).ok().and_then(NonZeroU32::new).map(Self)
    }
}

impl Keys<'_> {
    /// Admits a request whose key has the scope, and returns its key. Without configured keys a request passes, unless
    /// a web page of another origin may have sent it.
    ///
    /// # Errors
    /// 401 without a known key, 403 without the scope or from a web page. The error never contains the key.
    pub(super) fn check(&self, headers: &HeaderMap, scope: Scope) -> Result<Option<KeyNumber>, Problem> {
        let Self(config::ApiSettings { keys, insecure }) = self;
        if keys.is_empty() {
            return if *insecure { Ok(None) } else { refuse_web_pages(headers).map(|()| None) };
        }
        let given = given_key(headers)?;
        // Every key is compared in constant time, so the duration does not reveal a partial match.
        let mut found = None;
        for (index, key) in keys.iter().enumerate() {
            if bool::from(key.key.as_bytes().ct_eq(given)) {
                found = Some((index, key));
            }
        }
        let (index, key) =
            found.ok_or_else(|| Problem::unauthorized("key: expected a known API key, got an unknown one"))?;
        if key.may(scope) {
            return Ok(KeyNumber::new(index));
        }
        let has: Vec<_> = key.scopes.iter().map(|s| s.as_str()).collect();
        let text = format!("key: expected the scope {}, got {:?} with {}", scope.as_str(), key.name, has.join(", "));
        Err(Problem::new(StatusCode::FORBIDDEN, text))
    }

    /// Name of a key that [`check`](Self::check) returned.
    pub(super) fn name(&self, KeyNumber(number): KeyNumber) -> Option<Arc<str>> {
        let key = self.0.keys.get(number.get() as usize - 1)?;
        Some(Arc::clone(&key.name))
    }

    /// True if the caller may read internal details. It needs a key with `read`. Without any keys, it needs a listener
    /// that `serves_api`, which is on loopback or explicitly open.
    pub(super) fn may_see_details(&self, headers: &HeaderMap, serves_api: bool) -> bool {
        (serves_api || !self.0.keys.is_empty()) && self.check(headers, Scope::Read).is_ok()
    }
}

/// Reads the key from `Authorization: Bearer`, else from `X-Api-Key`.
fn given_key(headers: &HeaderMap) -> Result<&[u8], Problem> {
    let given = bearer(headers).or_else(|| headers.get(API_KEY).map(|v| v.as_bytes().trim_ascii()));
    given.filter(|key| !key.is_empty()).ok_or_else(|| {
        Problem::unauthorized("key: expected `Authorization: Bearer <key>` or `X-Api-Key: <key>`, got neither")
    })
}

/// An API without keys listens on loopback. Every page in a local browser can reach that, too: with a plain cross-site
/// form, or through a host name that resolves to 127.0.0.1. Browsers reveal such requests in `Origin` and `Host`.
fn refuse_web_pages(headers: &HeaderMap) -> Result<(), Problem> {
    for (name, what) in [(ORIGIN, "origin"), (HOST, "host")] {
        let Some(value) = headers.get(&name) else { continue };
        if !value.to_str().is_ok_and(is_loopback) {
            let text = format!("{what}: expected localhost (no API key is set), got {value:?}");
            return Err(Problem::new(StatusCode::FORBIDDEN, text));
        }
    }
    Ok(())
}

const API_KEY: &str = "x-api-key";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ApiKey;

    fn key(name: &str, scopes: &[Scope]) -> ApiKey {
        ApiKey { name: name.into(), key: format!("{name}-secret"), scopes: scopes.into() }
    }

    fn check(keys: &[ApiKey], headers: &[(&'static str, &'static str)], scope: Scope) -> Result<(), (u16, String)> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(*name, value.parse().unwrap());
        }
        let api = config::ApiSettings { keys: keys.into(), insecure: false };
        Keys(&api).check(&map, scope).map(drop).map_err(|p| (p.status().as_u16(), p.to_string()))
    }

    #[test]
    fn a_key_opens_its_scopes_in_either_header() {
        let keys = [key("shop", &[Scope::Push]), key("ops", &[Scope::Read, Scope::Manage])];
        assert_eq!(check(&keys, &[("authorization", "Bearer shop-secret")], Scope::Push), Ok(()));
        assert_eq!(check(&keys, &[("authorization", "bearer  ops-secret")], Scope::Manage), Ok(()));
        assert_eq!(check(&keys, &[("x-api-key", "ops-secret")], Scope::Read), Ok(()));
        assert_eq!(
            check(&keys, &[("x-api-key", "shop-secret")], Scope::Manage),
            Err((403, "key: expected the scope manage, got \"shop\" with push".into()))
        );
    }

    #[test]
    fn no_key_or_an_unknown_one_opens_nothing_and_is_not_repeated() {
        let keys = [key("shop", &[Scope::Push])];
        for headers in [
            &[] as &[_],
            &[("authorization", "Basic c2hvcA==")],
            &[("authorization", "Bearer ")],
            &[("x-api-key", "")],
            &[("x-api-key", "shop-secre")],
            &[("x-api-key", "shop-secret2")],
            &[("authorization", "Bearer wrong"), ("x-api-key", "shop-secret")],
        ] {
            let (status, text) = check(&keys, headers, Scope::Push).unwrap_err();
            assert_eq!(status, 401, "{headers:?}");
            assert!(!text.contains("secre") && !text.contains("wrong"), "{text}");
        }
    }

    #[test]
    fn without_keys_pages_of_other_origins_are_refused() {
        for (headers, good) in [
            (&[] as &[_], true),
            (&[("host", "127.0.0.1:8080")], true),
            (&[("host", "[::1]:8080")], true),
            (&[("host", "localhost:8080"), ("origin", "http://localhost:3000")], true),
            (&[("host", "localhost:8080"), ("origin", "https://evil.example")], false),
            (&[("host", "localhost:8080"), ("origin", "null")], false),
            (&[("host", "rebound.example:8080")], false),
            (&[("host", "127.0.0.1.evil.example")], false),
        ] {
            assert_eq!(check(&[], headers, Scope::Push).is_ok(), good, "{headers:?}");
        }
    }
}
