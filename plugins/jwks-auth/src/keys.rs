//! A JWKS (RFC 7517): the keys of an issuer for RS256 and ES256 signatures.
//!
//! Does not know the source or the age of the set. Keys that cannot be used are skipped, because a set may hold other
//! keys.

use serde::Deserialize;
use serde_json::Value;
use skylark_plugin::crypto::{self, EcKey, PublicKey, RsaKey};
use skylark_plugin::log;

/// Maximum keys of one set. For a token that names no key, the host checks a signature with each of them.
const MAX_KEYS: usize = 32;
/// Minimum and maximum bytes of an RSA modulus: 2 048 and 8 192 bits.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1_024;
/// Bytes of each coordinate of a P-256 point.
const POINT_BYTES: usize = 32;

/// Signature algorithm. The key determines it, never the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    #[serde(rename = "RS256")]
    Rs256,
    /// ECDSA on P-256 with SHA-256.
    #[serde(rename = "ES256")]
    Es256,
}

impl Algorithm {
    /// The name in a token's header.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rs256 => "RS256",
            Self::Es256 => "ES256",
        }
    }
}

/// One key of an issuer.
#[derive(Debug, Clone)]
pub(crate) struct Key {
    /// Its `kid`.
    pub(crate) name: Option<String>,
    pub(crate) algorithm: Algorithm,
    public: PublicKey,
}

impl Key {
    /// True if this key made the signature over the data.
    pub(crate) fn signed(&self, data: &str, signature: &[u8]) -> bool {
        crypto::verify(&self.public, data.as_bytes(), signature).unwrap_or_else(|fault| {
            log::warn(format!("the key {:?} cannot be used: {fault}", self.name));
            false
        })
    }
}

/// Reads a set. Returns its usable keys, and a JSON set with only those keys.
///
/// # Errors
/// The body is not a set, or holds no usable key.
pub(crate) fn read(body: &[u8]) -> Result<(Vec<Key>, Value), String> {
    let set: Value = serde_json::from_slice(body).map_err(|error| format!("expected a JSON object: {error}"))?;
    let all = set.get("keys").and_then(Value::as_array).ok_or("expected a list \"keys\", got none")?;
    let usable = all.iter().filter_map(|jwk| Some((key(jwk)?, jwk.clone()))).take(MAX_KEYS);
    let (keys, compact): (Vec<Key>, Vec<Value>) = usable.unzip();
    if keys.is_empty() {
        return Err(format!("expected a key for RS256 or ES256, got {} others", all.len()));
    }
    Ok((keys, Value::Object([("keys".to_owned(), Value::Array(compact))].into_iter().collect())))
}

fn key(jwk: &Value) -> Option<Key> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let verifies = |operations: &Value| operations.as_array().is_some_and(|all| all.iter().any(|one| one == "verify"));
    if text("use").is_some_and(|what| what != "sig") || jwk.get("key_ops").is_some_and(|list| !verifies(list)) {
        return None;
    }
    let number = |name: &str| {
        let bytes = jwt::bytes(text(name)?)?;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        Some(bytes[zeros..].to_vec())
    };
    let point = |name: &str| jwt::bytes(text(name)?).filter(|bytes| bytes.len() == POINT_BYTES);
    let (algorithm, public) = match (text("kty")?, text("crv")) {
        ("RSA", _) => {
            let n = number("n").filter(|n| MODULUS_BYTES.contains(&n.len()))?;
            (Algorithm::Rs256, PublicKey::Rs256(RsaKey { n, e: number("e")? }))
        }
        ("EC", Some("P-256")) => (Algorithm::Es256, PublicKey::Es256(EcKey { x: point("x")?, y: point("y")? })),
        _ => return None,
    };
    // An RSA key may be for another algorithm, for example PS256.
    if text("alg").is_some_and(|alg| alg != algorithm.as_str()) {
        return None;
    }
    Some(Key { name: text("kid").map(str::to_owned), algorithm, public })
}
