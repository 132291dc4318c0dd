//! A JSON Web Token (RFC 7519) in compact form, signed with HMAC-SHA-256: read, verified, its claims in their types.
//!
//! Knows no connection. The signature is checked before a claim is looked at, in constant time.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Map, Value};
use sha2::Sha256;

use crate::{Key, Settings};

/// Longest token that is looked at.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Why a token is refused; the client is told these words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Not a token at all, or one that breaks the standard: says where.
    Malformed(&'static str),
    /// Signed in another way than HS256, or not at all.
    Algorithm(String),
    /// Names a key that is not there.
    UnknownKey(String),
    /// No key made this signature.
    Signature,
    /// `exp` is over.
    Expired,
    /// `nbf` lies ahead.
    NotYet,
    /// A claim is missing or has the wrong type: name and expectation.
    Claim(&'static str, &'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "token: {what}"),
            Self::Algorithm(alg) => write!(f, "token: expected alg HS256, got {alg:?}"),
            Self::UnknownKey(kid) => write!(f, "token: no key is named {kid:?}"),
            Self::Signature => f.write_str("token: the signature does not match"),
            Self::Expired => f.write_str("token: expired"),
            Self::NotYet => f.write_str("token: not valid yet"),
            Self::Claim(name, expected) => write!(f, "token: {name}: expected {expected}"),
        }
    }
}

/// The claims of a token whose signature and times are right.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims(Map<String, Value>);

/// Whether a text has the form of a token: three parts, the first the start of a JSON object.
pub(crate) fn looks_like_one(text: &str) -> bool {
    text.starts_with("eyJ") && text.split('.').count() == 3
}

/// Checks signature, times, audience and issuer; `now` in seconds since 1970.
///
/// # Errors
/// The first thing that is wrong.
pub(crate) fn verify(token: &str, settings: &Settings, now: u64) -> Result<Claims, Fault> {
    if token.len() > MAX_TOKEN_BYTES {
        return Err(Fault::Malformed("too long"));
    }
    let [header, claims, signature] = <[&str; 3]>::try_from(token.split('.').collect::<Vec<_>>())
        .map_err(|_| Fault::Malformed("expected three parts"))?;
    let signed = &token[..token.len() - signature.len() - 1];
    let header = object(header, "the header is not base64url of a JSON object")?;
    check_signature(&header, signed, signature, &settings.keys)?;
    let claims = Claims(object(claims, "the claims are not base64url of a JSON object")?);
    claims.check(settings, now)?;
    Ok(claims)
}

fn check_signature(header: &Map<String, Value>, signed: &str, signature: &str, keys: &[Key]) -> Result<(), Fault> {
    match header.get("alg").and_then(Value::as_str) {
        Some("HS256") => {}
        other => return Err(Fault::Algorithm(other.unwrap_or_default().to_owned())),
    }
    if header.contains_key("crit") {
        return Err(Fault::Malformed("the header asks for extensions (crit)"));
    }
    let signature =
        URL_SAFE_NO_PAD.decode(signature).map_err(|_| Fault::Malformed("the signature is not base64url"))?;
    let made_with = |key: &Key| {
        let mut mac = Hmac::<Sha256>::new_from_slice(key.secret.as_bytes()).expect("HMAC takes keys of any size");
        mac.update(signed.as_bytes());
        mac.verify_slice(&signature).is_ok()
    };
    let matches = match header.get("kid").and_then(Value::as_str) {
        Some(kid) => {
            let key = keys.iter().find(|key| key.id == kid).ok_or_else(|| Fault::UnknownKey(kid.to_owned()))?;
            made_with(key)
        }
        None => keys.iter().any(made_with),
    };
    if matches { Ok(()) } else { Err(Fault::Signature) }
}

fn object(part: &str, fault: &'static str) -> Result<Map<String, Value>, Fault> {
    let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|_| Fault::Malformed(fault))?;
    serde_json::from_slice(&bytes).map_err(|_| Fault::Malformed(fault))
}

impl Claims {
    /// `uid`, or `sub` where there is no `uid`.
    ///
    /// # Errors
    /// Neither is there, or the two differ.
    pub fn uid(&self) -> Result<String, Fault> {
        let expected = "a non-empty text or an integer";
        match (self.name("uid", expected)?, self.name("sub", expected)?) {
            (Some(uid), Some(sub)) if uid != sub => Err(Fault::Claim("uid", "the same as sub")),
            (Some(uid), _) | (None, Some(uid)) => Ok(uid),
            (None, None) => Err(Fault::Claim("sub", expected)),
        }
    }

    /// `device`, or `did`.
    ///
    /// # Errors
    /// It is neither a text nor an integer.
    pub fn device(&self) -> Result<Option<String>, Fault> {
        let expected = "a non-empty text or an integer";
        Ok(self.name("device", expected)?.or(self.name("did", expected)?))
    }

    /// `rooms`: a list of texts, or one text with commas.
    ///
    /// # Errors
    /// It is anything else.
    pub fn rooms(&self) -> Result<Vec<String>, Fault> {
        const EXPECTED: Fault = Fault::Claim("rooms", "a list of non-empty texts");
        let room = |room: &Value| room.as_str().filter(|r| !r.is_empty()).map(str::to_owned).ok_or(EXPECTED);
        match self.0.get("rooms") {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(rooms)) => rooms.iter().map(room).collect(),
            Some(Value::String(rooms)) => {
                Ok(rooms.split(',').map(str::trim).filter(|r| !r.is_empty()).map(str::to_owned).collect())
            }
            Some(_) => Err(EXPECTED),
        }
    }

    /// `exp`, in whole seconds since 1970.
    ///
    /// # Errors
    /// It is no number.
    pub fn expires(&self) -> Result<Option<u64>, Fault> {
        self.seconds("exp")
    }

    /// Any claim as text: numbers and booleans in their JSON form, lists and objects as compact JSON.
    pub fn text(&self, name: &str) -> Option<String> {
        match self.0.get(name)? {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    fn check(&self, settings: &Settings, now: u64) -> Result<(), Fault> {
        match self.seconds("exp")? {
            Some(at) if now >= at.saturating_add(settings.leeway) => return Err(Fault::Expired),
            None if settings.require_expiry => return Err(Fault::Claim("exp", "seconds since 1970, got none")),
            _ => {}
        }
        if self.seconds("nbf")?.is_some_and(|at| now.saturating_add(settings.leeway) < at) {
            return Err(Fault::NotYet);
        }
        if !settings.audience.is_empty() && !self.is_for(&settings.audience) {
            return Err(Fault::Claim("aud", "this service"));
        }
        if !settings.issuer.is_empty() && self.0.get("iss").and_then(Value::as_str) != Some(&settings.issuer) {
            return Err(Fault::Claim("iss", "a trusted issuer"));
        }
        Ok(())
    }

    fn is_for(&self, audience: &str) -> bool {
        match self.0.get("aud") {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(many)) => many.iter().any(|one| one == audience),
            _ => false,
        }
    }

    /// Back ends write user ids as numbers as often as as texts.
    fn name(&self, name: &'static str, expected: &'static str) -> Result<Option<String>, Fault> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.clone())),
            Some(Value::Number(number)) if number.is_i64() || number.is_u64() => Ok(Some(number.to_string())),
            Some(_) => Err(Fault::Claim(name, expected)),
        }
    }

    /// A NumericDate may have a fraction, which is cut.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "finite and not negative; `as` saturates"
    )]
    fn seconds(&self, name: &'static str) -> Result<Option<u64>, Fault> {
        let fault = Fault::Claim(name, "seconds since 1970");
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Number(number)) => match (number.as_u64(), number.as_f64()) {
                (Some(seconds), _) => Ok(Some(seconds)),
                (None, Some(seconds)) if seconds >= 0.0 => Ok(Some(seconds as u64)),
                _ => Err(fault),
            },
            Some(_) => Err(fault),
        }
    }
}
