//! The `[settings]` table of `jwks-auth.toml`.

use jwt::{Fault, Rules, Token};
use serde::Deserialize;

use crate::Algorithm;

/// Maximum durations in seconds: a week, and for the interval a day, the longest window of a counter.
const WEEK: u64 = 7 * 24 * 60 * 60;
const DAY: u32 = 24 * 60 * 60;

/// Settings of the operator.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// URL of the issuer's key set.
    pub url: String,
    /// The `iss` that a token must name; empty = any or none.
    pub issuer: String,
    /// The `aud` that a token must name; empty = any or none.
    pub audience: String,
    /// Accepted signature algorithms.
    #[serde(default = "both")]
    pub algorithms: Vec<Algorithm>,
    /// Seconds for which a fetched key set is fresh.
    #[serde(default = "default_ttl")]
    pub ttl: u64,
    /// Seconds after `ttl` for which keys stay trusted while the issuer cannot be reached.
    #[serde(default = "default_stale")]
    pub stale: u64,
    /// Seconds in which a node fetches the keys at most once.
    #[serde(default = "default_interval")]
    pub interval: u32,
    /// Fetches per interval while the node has no trusted keys.
    #[serde(default = "default_requests")]
    pub requests: u64,
    /// Maximum time for a fetch, in milliseconds.
    #[serde(default = "default_timeout")]
    pub timeout_ms: u32,
    /// Maximum clock difference between issuer and node, in seconds.
    #[serde(default = "default_leeway")]
    pub leeway: u64,
    /// Refuses a token without `exp`.
    #[serde(default = "yes")]
    pub require_expiry: bool,
    /// Claims kept with the connection, as text.
    #[serde(default)]
    pub keep_claims: Vec<String>,
}

impl Settings {
    /// # Errors
    /// The first invalid setting, by its name in the file.
    pub fn check(&self) -> Result<(), String> {
        if !["https://", "http://"].iter().any(|scheme| self.url.starts_with(scheme)) {
            return Err(format!("settings.url: expected https:// or http://, got {:?}", self.url));
        }
        if self.algorithms.is_empty() {
            return Err("settings.algorithms: expected RS256, ES256 or both, got none".to_owned());
        }
        for (name, value, least, most) in [
            ("ttl", self.ttl, 1, WEEK),
            ("stale", self.stale, 0, WEEK),
            ("interval", self.interval.into(), 1, DAY.into()),
            ("requests", self.requests, 1, 10_000),
            ("timeout_ms", self.timeout_ms.into(), 1, 10_000),
        ] {
            if !(least..=most).contains(&value) {
                return Err(format!("settings.{name}: expected {least} to {most}, got {value}"));
            }
        }
        Ok(())
    }

    /// The rules for tokens.
    pub fn rules(&self) -> Rules<'_> {
        Rules {
            leeway: self.leeway,
            require_expiry: self.require_expiry,
            audience: &self.audience,
            issuer: &self.issuer,
        }
    }

    /// The algorithm that the token names, if it is one of the accepted ones.
    ///
    /// # Errors
    /// The token names another algorithm, for example HS256, or none.
    pub(crate) fn algorithm(&self, token: &Token<'_>) -> Result<Algorithm, Fault> {
        let named = self.algorithms.iter().find(|algorithm| algorithm.as_str() == token.algorithm());
        named.copied().ok_or_else(|| {
            let expected: Vec<&str> = self.algorithms.iter().map(|algorithm| algorithm.as_str()).collect();
            Fault::Algorithm { expected: expected.join(" or "), got: token.algorithm().to_owned() }
        })
    }
}

fn both() -> Vec<Algorithm> {
    vec![Algorithm::Rs256, Algorithm::Es256]
}

fn default_ttl() -> u64 {
    600
}

fn default_stale() -> u64 {
    3_600
}

fn default_interval() -> u32 {
    10
}

fn default_requests() -> u64 {
    16
}

fn default_timeout() -> u32 {
    1_000
}

fn default_leeway() -> u64 {
    5
}

fn yes() -> bool {
    true
}
