//! The `[settings]` table of `token-auth.toml`.

use std::fmt;

use jwt::Rules;
use serde::Deserialize;

/// Shortest secret: the size of the digest (RFC 7518 §3.2).
const MIN_SECRET_BYTES: usize = 32;

/// What the operator says.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Keys that are accepted. New tokens are made with the first one.
    pub keys: Vec<Key>,
    /// Seconds by which the clocks of issuer and node may differ.
    #[serde(default = "default_leeway")]
    pub leeway: u64,
    /// Whether a token without `exp` is refused.
    #[serde(default = "yes")]
    pub require_expiry: bool,
    /// The `aud` that a token must name; empty = any or none.
    #[serde(default)]
    pub audience: String,
    /// The `iss` that a token must name; empty = any or none.
    #[serde(default)]
    pub issuer: String,
    /// Claims kept with the connection, as text.
    #[serde(default)]
    pub keep_claims: Vec<String>,
}

/// One key.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// A token may name it in its header as `kid`.
    pub id: String,
    /// At least 32 bytes.
    pub secret: String,
}

/// Never shows the secret.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Settings {
    /// What tokens are held to.
    pub fn rules(&self) -> Rules<'_> {
        Rules {
            leeway: self.leeway,
            require_expiry: self.require_expiry,
            audience: &self.audience,
            issuer: &self.issuer,
        }
    }

    /// # Errors
    /// What is wrong, by its name in the file.
    pub fn check(&self) -> Result<(), String> {
        if self.keys.is_empty() {
            return Err("settings.keys: expected at least one key, got none".to_owned());
        }
        for (at, key) in self.keys.iter().enumerate() {
            let bytes = key.secret.len();
            if bytes < MIN_SECRET_BYTES {
                return Err(format!(
                    "settings.keys[{at}].secret: expected at least {MIN_SECRET_BYTES} bytes, got {bytes}"
                ));
            }
            if key.id.is_empty() || self.keys[..at].iter().any(|other| other.id == key.id) {
                return Err(format!("settings.keys[{at}].id: expected a name of its own, got {:?}", key.id));
            }
        }
        Ok(())
    }
}

fn default_leeway() -> u64 {
    5
}

fn yes() -> bool {
    true
}
