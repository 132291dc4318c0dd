//! JSON Web Tokens (RFC 7519) in compact form: a parser, typed claims, and the admission and rooms that
//! they grant.
//!
//! Does not know keys or algorithms. Callers must verify [`Token::signature`] before they read [`Token::claims`].

mod claims;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use skylark_plugin::{AccessAnswer, Claim, Join};

pub use claims::{Claims, Rules};

/// The claim that lists the rooms that the client may join.
pub const JOIN: &str = "join";

/// Maximum length of a token.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Reason for which a token is refused. Its text goes to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// The text is not a token or breaks the standard; names the place.
    Malformed(&'static str),
    /// The token is signed with another algorithm than expected, or not signed.
    Algorithm {
        /// The accepted algorithms.
        expected: String,
        /// The algorithm that the token names.
        got: String,
    },
    /// The token names a key that does not exist.
    UnknownKey(String),
    /// No key matches the signature.
    Signature,
    /// `exp` is in the past.
    Expired,
    /// `nbf` is in the future.
    NotYet,
    /// A claim is missing or has the wrong type: name and expected type.
    Claim(&'static str, &'static str),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(what) => write!(f, "token: {what}"),
            Self::Algorithm { expected, got } => write!(f, "token: expected alg {expected}, got {got:?}"),
            Self::UnknownKey(kid) => write!(f, "token: no key is named {kid:?}"),
            Self::Signature => f.write_str("token: the signature does not match"),
            Self::Expired => f.write_str("token: expired"),
            Self::NotYet => f.write_str("token: not valid yet"),
            Self::Claim(name, expected) => write!(f, "token: {name}: expected {expected}"),
        }
    }
}

/// A token in its parts. Nothing in it is verified yet.
#[derive(Debug, Clone)]
pub struct Token<'a> {
    header: Map<String, Value>,
    claims: &'a str,
    /// The signed text.
    pub signed: &'a str,
    /// The signature's bytes.
    pub signature: Vec<u8>,
}

impl<'a> Token<'a> {
    /// Parses a token.
    ///
    /// # Errors
    /// The text is not a token, or requires extensions of the standard.
    pub fn parse(text: &'a str) -> Result<Self, Fault> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err(Fault::Malformed("too long"));
        }
        let mut parts = text.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Fault::Malformed("expected three parts"));
        };
        let header = object(header, "the header is not base64url of a JSON object")?;
        if header.contains_key("crit") {
            return Err(Fault::Malformed("the header asks for extensions (crit)"));
        }
        let signed = &text[..text.len() - signature.len() - 1];
        let signature = bytes(signature).ok_or(Fault::Malformed("the signature is not base64url"))?;
        Ok(Self { header, claims, signed, signature })
    }

    /// The algorithm that the header names; empty if it names none.
    pub fn algorithm(&self) -> &str {
        self.header.get("alg").and_then(Value::as_str).unwrap_or_default()
    }

    /// The key name in the header.
    pub fn key(&self) -> Option<&str> {
        self.header.get("kid").and_then(Value::as_str)
    }

    /// The claims, checked against the rules; `now` is in seconds since 1970. Verify the signature first.
    ///
    /// # Errors
    /// The first violation of the rules.
    pub fn claims(&self, rules: &Rules<'_>, now: u64) -> Result<Claims, Fault> {
        let claims = Claims::new(object(self.claims, "the claims are not base64url of a JSON object")?);
        claims.check(rules, now)?;
        Ok(claims)
    }
}

/// The token, or the claimed uid if it has the form of a token: CIM's web SDK has no other field for a token.
pub fn offered(claim: &Claim) -> Option<&str> {
    let looks_like_one = |text: &&str| text.starts_with("eyJ") && text.split('.').count() == 3;
    let token = claim.token.as_deref().filter(|token| !token.is_empty());
    token.or_else(|| claim.uid.as_deref().filter(looks_like_one))
}

/// Decides about a join by the claim `join` of the client's token. Abstains if the claim does not name the room.
pub fn may_join(join: &Join) -> AccessAnswer {
    let names = |pattern: &str| match pattern.strip_suffix('*') {
        Some(prefix) => join.room.starts_with(prefix),
        None => join.room == pattern,
    };
    match join.claim(JOIN).is_some_and(|patterns| patterns.split(',').any(names)) {
        true => AccessAnswer::allow(),
        false => AccessAnswer::Abstain,
    }
}

/// Decodes base64url without padding.
pub fn bytes(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn object(part: &str, fault: &'static str) -> Result<Map<String, Value>, Fault> {
    let bytes = bytes(part).ok_or(Fault::Malformed(fault))?;
    serde_json::from_slice(&bytes).map_err(|_| Fault::Malformed(fault))
}
