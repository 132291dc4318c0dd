//! The `[settings]` table of `token-auth.toml`.

use std::fmt;

use jwt::Rules;
use serde::Deserialize;

/// Minimum secret length: the size of the digest (RFC 7518 §3.2).
const MIN_SECRET_BYTES: usize = 32;

/// Settings of the operator.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Accepted keys. New tokens are signed with the first one.
    pub keys: Vec<Key>,
    /// Maximum clock difference between issuer and node, in seconds.
    #[serde(default = "default_leeway")]
    pub leeway: u64,
    /// Refuses a token without `exp`.
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
    /// Name of the key. A token may name the key in its header as `kid`.
    pub id: String,
    /// At least 32 bytes.
    pub secret: String,
}

/// Never prints the secret.
impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Key").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Settings {
    /// The rules for tokens.
    pub fn rules(&self) -> Rules<'_> {
        Rules {
            leeway: self.leeway,
            require_expiry: self.require_expiry,
            audience: &self.audience,
            issuer: &self.issuer,
        }
    }

    /// # Errors
    /// The first invalid setting, by its name in the file.
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
