//! Typed claims of a token, checked against the operator's rules.

use serde_json::{Map, Value};
use skylark_plugin::Admission;

use crate::{Fault, JOIN};

/// Requirements on a token.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// Maximum clock difference between issuer and node, in seconds.
    pub leeway: u64,
    /// Refuses a token without `exp`.
    pub require_expiry: bool,
    /// The `aud` that a token must name; empty = any or none.
    pub audience: &'a str,
    /// The `iss` that a token must name; empty = any or none.
    pub issuer: &'a str,
}

/// The claims of a token.
#[derive(Debug, Clone, PartialEq)]
pub struct Claims(Map<String, Value>);

impl Claims {
    pub(crate) fn new(claims: Map<String, Value>) -> Self {
        Self(claims)
    }

    /// The admission that the token grants.
    ///
    /// # Errors
    /// A claim has the wrong type.
    pub fn admission(&self, rules: &Rules<'_>, keep: &[String]) -> Result<Admission, Fault> {
        let kept = keep.iter().filter(|name| *name != JOIN).filter_map(|name| Some((name.clone(), self.text(name)?)));
        let join = self.join()?.map(|patterns| (JOIN.to_owned(), patterns));
        Ok(Admission {
            uid: self.uid()?,
            device: self.device()?,
            rooms: self.rooms()?,
            // The leeway also extends the admission; otherwise an expired token that was accepted would close its
            // connection at once.
            expires: self.expires()?.map(|at| at.saturating_add(rules.leeway)),
            claims: kept.chain(join).collect(),
        })
    }

    /// `uid`, or `sub` if there is no `uid`.
    ///
    /// # Errors
    /// Both are missing, or they differ.
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
    /// The claim is neither a text nor an integer.
    pub fn device(&self) -> Result<Option<String>, Fault> {
        let expected = "a non-empty text or an integer";
        Ok(self.name("device", expected)?.or(self.name("did", expected)?))
    }

    /// `rooms`: a list of texts, or one comma-separated text.
    ///
    /// # Errors
    /// The claim has another type.
    pub fn rooms(&self) -> Result<Vec<String>, Fault> {
        self.list("rooms")
    }

    /// `join`: the rooms that the client may join, as [`may_join`](crate::may_join) reads them; none if there is no
    /// such claim.
    ///
    /// # Errors
    /// The claim is neither a list of texts nor a comma-separated text.
    pub fn join(&self) -> Result<Option<String>, Fault> {
        let patterns = self.list(JOIN)?;
        // Room names contain no comma; the comma separates the patterns of the claim.
        if patterns.iter().any(|pattern| pattern.contains(',')) {
            return Err(Fault::Claim(JOIN, "a list of rooms without commas"));
        }
        Ok(Some(patterns.join(",")).filter(|patterns| !patterns.is_empty()))
    }

    fn list(&self, name: &'static str) -> Result<Vec<String>, Fault> {
        let fault = || Fault::Claim(name, "a list of non-empty texts");
        let text = |text: &Value| text.as_str().filter(|t| !t.is_empty()).map(str::to_owned);
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(Vec::new()),
            Some(Value::Array(texts)) => texts.iter().map(|t| text(t).ok_or_else(fault)).collect(),
            Some(Value::String(texts)) => {
                Ok(texts.split(',').map(str::trim).filter(|t| !t.is_empty()).map(str::to_owned).collect())
            }
            Some(_) => Err(fault()),
        }
    }

    /// `exp`, in whole seconds since 1970.
    ///
    /// # Errors
    /// The claim is not a number.
    pub fn expires(&self) -> Result<Option<u64>, Fault> {
        self.seconds("exp")
    }

    /// A claim as text: numbers and booleans in their JSON form, lists and objects as compact JSON.
    pub fn text(&self, name: &str) -> Option<String> {
        match self.0.get(name)? {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        }
    }

    pub(crate) fn check(&self, rules: &Rules<'_>, now: u64) -> Result<(), Fault> {
        match self.seconds("exp")? {
            Some(at) if now >= at.saturating_add(rules.leeway) => return Err(Fault::Expired),
            None if rules.require_expiry => return Err(Fault::Claim("exp", "seconds since 1970, got none")),
            _ => {}
        }
        if self.seconds("nbf")?.is_some_and(|at| now.saturating_add(rules.leeway) < at) {
            return Err(Fault::NotYet);
        }
        if !rules.audience.is_empty() && !self.is_for(rules.audience) {
            return Err(Fault::Claim("aud", "this service"));
        }
        if !rules.issuer.is_empty() && self.0.get("iss").and_then(Value::as_str) != Some(rules.issuer) {
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

    /// A text or an integer: back ends write user ids as numbers as often as as texts.
    fn name(&self, name: &'static str, expected: &'static str) -> Result<Option<String>, Fault> {
        match self.0.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.clone())),
            Some(Value::Number(number)) if number.is_i64() || number.is_u64() => Ok(Some(number.to_string())),
            Some(_) => Err(Fault::Claim(name, expected)),
        }
    }

    /// Whole seconds of a NumericDate; the fraction is cut.
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
