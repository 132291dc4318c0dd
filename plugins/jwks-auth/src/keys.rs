//! A JWKS (RFC 7517): those keys of an issuer that RS256 and ES256 signatures are checked with.
//!
//! Knows neither where it comes from nor how old it is. A key that is not understood is passed over: an issuer may have others.

use serde::Deserialize;
use serde_json::Value;
use skylark_plugin::crypto::{self, EcKey, PublicKey, RsaKey};
use skylark_plugin::log;

/// Keys of one set that are looked at: the host checks as many signatures for a token that names none.
const MAX_KEYS: usize = 32;
/// Least and most bytes of an RSA modulus, of 2 048 and 8 192 bits.
const MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1_024;
/// Bytes of each coordinate of a P-256 point.
const POINT_BYTES: usize = 32;

/// How a token may be signed. It is the key's, never the token's choice.
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
    /// As a header names it.
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
    /// Whether this key made the signature over these bytes.
    pub(crate) fn signed(&self, data: &str, signature: &[u8]) -> bool {
        crypto::verify(&self.public, data.as_bytes(), signature).unwrap_or_else(|fault| {
            log::warn(format!("the key {:?} cannot be used: {fault}", self.name));
            false
        })
    }
}

/// Reads a set: its keys, and a set that holds no others.
///
/// # Errors
/// It is none, or holds no key that is of use.
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
    // An RSA key may be made for another algorithm, PS256 say.
    if text("alg").is_some_and(|alg| alg != algorithm.as_str()) {
        return None;
    }
    Some(Key { name: text("kid").map(str::to_owned), algorithm, public })
}
