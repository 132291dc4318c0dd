//! HS256 tokens for the `token-auth` sample, without code of the node.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;

/// The claims of a token.
#[derive(Debug, Clone)]
pub struct Claims(Value);

impl Claims {
    pub fn of(uid: &str) -> Self {
        Self(json!({"sub": uid, "exp": now() + 3600}))
    }

    pub fn device(self, device: &str) -> Self {
        self.with("device", device.into())
    }

    pub fn rooms(self, rooms: &[&str]) -> Self {
        self.with("rooms", rooms.into())
    }

    /// Sets the expiry in seconds from now; a negative number is in the past.
    pub fn expires_in(self, seconds: i64) -> Self {
        self.with("exp", (now() + seconds).into())
    }

    pub fn with(mut self, name: &str, value: Value) -> Self {
        self.0[name] = value;
        self
    }

    /// Signs with the key of the committed sample manifest.
    pub fn mint(&self) -> String {
        self.sign(&dev_key())
    }

    pub fn sign(&self, key: &[u8]) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let head = json!({"alg": "HS256", "typ": "JWT"});
        let signed = format!("{}.{}", part(&head), part(&self.0));
        let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
        mac.update(signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes()))
    }
}

pub fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(since.as_secs()).unwrap()
}

/// The first key of `token-auth.toml`.
pub fn dev_key() -> Vec<u8> {
    let manifest = std::fs::read_to_string(super::gateway::samples().join("token-auth.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let key = &manifest["settings"]["keys"][0];
    key.get("secret").unwrap_or(key).as_str().expect("the key is a string").as_bytes().to_vec()
}
