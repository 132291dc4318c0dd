//! The fields of a small JSON object that manages something: `{"room", "uid"}`, `{"cid", "reason"}`.
//!
//! Unknown fields are ignored, `null` is a field that is not there. Bodies that push are read by `protocol::push`.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::answer::Problem;
use super::query::fault;
use crate::id::{ConnectionId, InvalidName, MAX_SAFE_INTEGER, Uid};
use crate::message::Target;

/// The object's fields.
#[derive(Debug)]
pub(super) struct Fields(Map<String, Value>);

impl Fields {
    /// Of a whole body.
    ///
    /// # Errors
    /// 400 when it is no JSON object.
    pub(super) fn parse(body: &[u8]) -> Result<Self, Problem> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Ok(Self(map)),
            Ok(other) => Err(fault("body", "a JSON object", shown(&other))),
            Err(_) if body.trim_ascii().is_empty() => Err(fault("body", "a JSON object", "nothing")),
            Err(e) => Err(fault("body", "a JSON object", e)),
        }
    }

    /// A name that may be absent; a number stands for its digits.
    pub(super) fn name<T>(&self, key: &str, parse: fn(&str) -> Result<T, InvalidName>) -> Result<Option<T>, Problem> {
        self.given(key).map(|value| name(key, value, parse)).transpose()
    }

    /// A name that must be there.
    pub(super) fn required<T>(&self, key: &str, parse: fn(&str) -> Result<T, InvalidName>) -> Result<T, Problem> {
        self.name(key, parse)?.ok_or_else(|| {
            let got = if self.0.contains_key(key) { "null" } else { "nothing" };
            fault(key, "a non-empty string", got)
        })
    }

    /// A text of at most `limit` bytes that may be absent.
    pub(super) fn text(&self, key: &str, limit: usize) -> Result<Option<&str>, Problem> {
        match self.given(key) {
            None => Ok(None),
            Some(Value::String(text)) if text.len() <= limit => Ok(Some(text)),
            Some(Value::String(text)) => Err(fault(key, format!("at most {limit} bytes"), text.len())),
            Some(other) => Err(fault(key, "a string", shown(other))),
        }
    }

    /// Whom the object means: exactly one of `uid`, `cid` and, with `most` of them at most, `uids`.
    pub(super) fn target(&self, most: Option<usize>) -> Result<Target, Problem> {
        let named: Vec<_> = ["uid", "uids", "cid"].into_iter().filter(|k| self.given(k).is_some()).collect();
        let expected = if most.is_some() { "one of uid, uids, cid" } else { "one of uid, cid" };
        match (named.as_slice(), most) {
            (["uid"], _) => Ok(Target::User(self.required("uid", Uid::parse)?)),
            (["cid"], _) => Ok(Target::Connection(self.cid()?)),
            (["uids"], Some(most)) => Ok(Target::Users(self.uids(most)?)),
            ([], _) if self.0.contains_key("uid") => Err(fault("uid", "a non-empty string", "null")),
            ([], _) => Err(fault("body", expected, "none")),
            (named, _) => Err(fault("body", expected, named.join(" and "))),
        }
    }

    fn uids(&self, most: usize) -> Result<Arc<[Uid]>, Problem> {
        let Some(Value::Array(values)) = self.given("uids") else {
            return Err(fault("uids", "an array of strings", self.given("uids").map_or("null".into(), shown)));
        };
        if values.is_empty() || values.len() > most {
            return Err(fault("uids", format!("1 to {most} users"), values.len()));
        }
        let parse = |(i, value)| name(&format!("uids[{i}]"), value, Uid::parse);
        let unique: BTreeSet<Uid> = values.iter().enumerate().map(parse).collect::<Result<_, _>>()?;
        Ok(unique.into_iter().collect())
    }

    fn cid(&self) -> Result<ConnectionId, Problem> {
        let value = self.given("cid").unwrap_or(&Value::Null);
        let number = match value {
            Value::Number(number) => number.as_u64(),
            Value::String(text) if text.bytes().all(|b| b.is_ascii_digit()) => text.parse().ok(),
            _ => None,
        };
        let expected = || format!("an integer from 1 to {MAX_SAFE_INTEGER}");
        number.and_then(ConnectionId::new).ok_or_else(|| fault("cid", expected(), shown(value)))
    }

    fn given(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }
}

fn name<T>(key: &str, value: &Value, parse: fn(&str) -> Result<T, InvalidName>) -> Result<T, Problem> {
    let number;
    let text = match value {
        Value::String(text) => text.as_str(),
        Value::Number(n) if n.is_i64() || n.is_u64() => {
            number = n.to_string();
            &number
        }
        other => return Err(fault(key, "a non-empty string", shown(other))),
    };
    parse(text).map_err(|e| Problem::bad_request(format!("{key}: {e}")))
}

/// A value as a fault names it: short, whatever came.
fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        Value::String(text) => format!("{:?}", text.chars().take(64).collect::<String>()),
        plain => plain.to_string(),
    }
}
