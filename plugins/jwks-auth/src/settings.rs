//! The `[settings]` table of `jwks-auth.toml`.

use jwt::{Fault, Rules, Token};
use serde::Deserialize;

use crate::Algorithm;

/// Longest time in seconds: a week, and for the interval the longest window that is counted, a day.
const WEEK: u64 = 7 * 24 * 60 * 60;
const DAY: u32 = 24 * 60 * 60;

/// What the operator says.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Where the issuer publishes its keys.
    pub url: String,
    /// The `iss` that a token must name; empty = any or none.
    pub issuer: String,
    /// The `aud` that a token must name; empty = any or none.
    pub audience: String,
    /// How a token may be signed.
    #[serde(default = "both")]
    pub algorithms: Vec<Algorithm>,
    /// Seconds for which keys are not asked for again.
    #[serde(default = "default_ttl")]
    pub ttl: u64,
    /// Seconds beyond `ttl` for which keys count that cannot be asked for.
    #[serde(default = "default_stale")]
    pub stale: u64,
    /// Seconds within which a node asks at most once.
    #[serde(default = "default_interval")]
    pub interval: u32,
    /// How often it does while it knows no keys at all.
    #[serde(default = "default_requests")]
    pub requests: u64,
    /// Longest wait for the issuer, milliseconds.
    #[serde(default = "default_timeout")]
    pub timeout_ms: u32,
    /// Seconds by which the clocks of issuer and node may differ.
    #[serde(default = "default_leeway")]
    pub leeway: u64,
    /// Whether a token without `exp` is refused.
    #[serde(default = "yes")]
    pub require_expiry: bool,
    /// Claims kept with the connection, as text.
    #[serde(default)]
    pub keep_claims: Vec<String>,
}

impl Settings {
    /// # Errors
    /// What is wrong, by its name in the file.
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

    /// What tokens are held to.
    pub fn rules(&self) -> Rules<'_> {
        Rules {
            leeway: self.leeway,
            require_expiry: self.require_expiry,
            audience: &self.audience,
            issuer: &self.issuer,
        }
    }

    /// The algorithm that the token names, if it is one of these.
    ///
    /// # Errors
    /// It is another: a secret's (HS256), none, or one that is not checked here.
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
