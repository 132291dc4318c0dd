//! A JSON Web Token (RFC 7519) in compact form: taken apart, its claims in their types, and what they mean for a connection
//! and its rooms.
//!
//! Knows no key and no algorithm: whoever uses it checks [`Token::signature`] before it asks for [`Token::claims`].

mod claims;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};
use skylark_plugin::{AccessAnswer, Claim, Join};

pub use claims::{Claims, Rules};

/// The claim that names the rooms which its holder may join.
pub const JOIN: &str = "join";

/// Longest token that is looked at.
pub const MAX_TOKEN_BYTES: usize = 8 * 1024;

/// Why a token is refused; the client is told these words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Not a token at all, or one that breaks the standard: says where.
    Malformed(&'static str),
    /// Signed in another way than expected, or not at all.
    Algorithm {
        /// What would do.
        expected: String,
        /// What the token says.
        got: String,
    },
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
            Self::Algorithm { expected, got } => write!(f, "token: expected alg {expected}, got {got:?}"),
            Self::UnknownKey(kid) => write!(f, "token: no key is named {kid:?}"),
            Self::Signature => f.write_str("token: the signature does not match"),
            Self::Expired => f.write_str("token: expired"),
            Self::NotYet => f.write_str("token: not valid yet"),
            Self::Claim(name, expected) => write!(f, "token: {name}: expected {expected}"),
        }
    }
}

/// A token in its parts. Nothing of it is believed yet.
#[derive(Debug, Clone)]
pub struct Token<'a> {
    header: Map<String, Value>,
    claims: &'a str,
    /// What the signature is over.
    pub signed: &'a str,
    /// The signature's bytes.
    pub signature: Vec<u8>,
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    ///
    /// # Errors
    /// It is none, or asks for extensions of the standard.
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

    /// The name of the key that the header gives.
    pub fn key(&self) -> Option<&str> {
        self.header.get("kid").and_then(Value::as_str)
    }

    /// The claims, checked by the rules; `now` in seconds since 1970. To be asked when the signature is known to be good.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn claims(&self, rules: &Rules<'_>, now: u64) -> Result<Claims, Fault> {
        let claims = Claims::new(object(self.claims, "the claims are not base64url of a JSON object")?);
        claims.check(rules, now)?;
        Ok(claims)
    }
}

/// The token, or the claimed uid where it has a token's form: CIM's web SDK can set nothing else.
pub fn offered(claim: &Claim) -> Option<&str> {
    let looks_like_one = |text: &&str| text.starts_with("eyJ") && text.split('.').count() == 3;
    let token = claim.token.as_deref().filter(|token| !token.is_empty());
    token.or_else(|| claim.uid.as_deref().filter(looks_like_one))
}

/// Decides about a join by the claim `join` of the client's token; abstains where the token does not name the room.
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

/// The bytes of base64url without padding.
pub fn bytes(text: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(text).ok()
}

fn object(part: &str, fault: &'static str) -> Result<Map<String, Value>, Fault> {
    let bytes = bytes(part).ok_or(Fault::Malformed(fault))?;
    serde_json::from_slice(&bytes).map_err(|_| Fault::Malformed(fault))
}
