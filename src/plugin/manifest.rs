//! `<name>.toml` beside a plugin: what its operator decides. Without one everything has its safe default.
//!
//! Reads text, all faults at once; knows no component.

use std::collections::BTreeMap;
use std::time::Duration;

use toml::{Table, Value};

use super::limits::{Asked, Caps};
use super::matching::{Pattern, Rules};
use crate::message::Origin;

/// What the operator decided for one plugin.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Manifest {
    /// `false` keeps the file from being loaded.
    pub(super) enabled: bool,
    /// Place in the chain, small first; equal ones by name.
    pub(super) order: i64,
    /// Whether what a failed filter should have judged goes on.
    pub(super) allow_on_failure: bool,
    /// Interfaces that the plugin may use besides `log`, `settings` and `clock`.
    pub(super) grants: Vec<String>,
    /// What it sees.
    pub(super) rules: Rules,
    /// What it asks for besides its role's defaults.
    pub(super) limits: Asked,
    /// The plugin's own table.
    pub(super) settings: Settings,
}

impl Default for Manifest {
    fn default() -> Self {
        Self {
            enabled: true,
            order: 100,
            allow_on_failure: false,
            grants: Vec::new(),
            rules: Rules::default(),
            limits: Asked::default(),
            settings: Settings::from_table(&Table::new()),
        }
    }
}

/// Interfaces that an operator grants.
pub(super) const GRANTS: [&str; 3] = ["directory", "outbox", "kv"];
/// Keys of a manifest, in the order in which they are documented.
pub(super) const KEYS: [&str; 7] = ["enabled", "order", "on_failure", "grants", "match", "limits", "settings"];
const MATCH_KEYS: [&str; 4] = ["actions", "rooms", "keys", "origins"];
const LIMIT_KEYS: [&str; 3] = ["cpu", "wall", "memory"];
const ORIGINS: [Origin; 4] = [Origin::Client, Origin::Http, Origin::Broker, Origin::Plugin];

impl Manifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// Every fault, each in one sentence that names the key.
    pub(super) fn parse(text: &str, caps: &Caps) -> Result<Self, Vec<String>> {
        let table: Table = text.parse().map_err(|error| vec![no_toml(text, &error)])?;
        let mut read = Reader::default();
        let default = Self::default();
        read.known("", &table, &KEYS);
        let manifest = Self {
            enabled: read.bool(&table, "enabled").unwrap_or(default.enabled),
            order: read.integer(&table, "order").unwrap_or(default.order),
            allow_on_failure: read.one_of(&table, "on_failure", &["reject", "allow"]) == Some("allow"),
            grants: read.grants(&table),
            rules: read.rules(&table),
            limits: read.limits(&table, caps),
            settings: Settings::from_table(read.table(&table, "settings").unwrap_or(&Table::new())),
        };
        if read.faults.is_empty() { Ok(manifest) } else { Err(read.faults) }
    }
}

/// The `[settings]` table as plugins see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Settings {
    values: BTreeMap<String, String>,
    json: String,
}

impl Settings {
    fn from_table(table: &Table) -> Self {
        let values = table.iter().map(|(key, value)| {
            let text = match value {
                Value::String(text) => text.clone(),
                other => json(other).to_string(),
            };
            (key.clone(), text)
        });
        let whole: serde_json::Map<_, _> = table.iter().map(|(key, value)| (key.clone(), json(value))).collect();
        Self { values: values.collect(), json: serde_json::Value::Object(whole).to_string() }
    }

    /// A text as it is, anything else as JSON.
    #[must_use]
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// The whole table as a JSON object.
    #[must_use]
    pub(super) fn json(&self) -> &str {
        &self.json
    }
}

fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::String(text) => text.clone().into(),
        Value::Integer(number) => (*number).into(),
        Value::Float(number) => (*number).into(),
        Value::Boolean(yes) => (*yes).into(),
        Value::Datetime(time) => time.to_string().into(),
        Value::Array(list) => list.iter().map(json).collect(),
        Value::Table(table) => table.iter().map(|(key, value)| (key.clone(), json(value))).collect(),
    }
}

/// Reads typed values and remembers every fault.
#[derive(Default)]
struct Reader {
    faults: Vec<String>,
}

impl Reader {
    fn expected(&mut self, key: &str, what: &str, got: &Value) {
        self.faults.push(format!("{key}: expected {what}, got {got}"));
    }

    fn known(&mut self, prefix: &str, table: &Table, keys: &[&str]) {
        for key in table.keys().filter(|key| !keys.contains(&key.as_str())) {
            self.faults.push(format!("unknown key {prefix}{key}; valid are {}", keys.join(", ")));
        }
    }

    fn bool(&mut self, table: &Table, key: &str) -> Option<bool> {
        let value = table.get(key)?;
        if value.as_bool().is_none() {
            self.expected(key, "true or false", value);
        }
        value.as_bool()
    }

    fn integer(&mut self, table: &Table, key: &str) -> Option<i64> {
        let value = table.get(key)?;
        if value.as_integer().is_none() {
            self.expected(key, "a whole number", value);
        }
        value.as_integer()
    }

    fn one_of<'a>(&mut self, table: &Table, key: &str, words: &[&'a str]) -> Option<&'a str> {
        let value = table.get(key)?;
        let word = words.iter().find(|word| value.as_str() == Some(word)).copied();
        if word.is_none() {
            self.expected(key, &format!("one of {}", words.join(", ")), value);
        }
        word
    }

    fn table<'a>(&mut self, table: &'a Table, key: &str) -> Option<&'a Table> {
        let value = table.get(key)?;
        if value.as_table().is_none() {
            self.expected(key, &format!("a table [{key}]"), value);
        }
        value.as_table()
    }

    fn texts(&mut self, table: &Table, prefix: &str, key: &str) -> Vec<String> {
        let Some(value) = table.get(key) else { return Vec::new() };
        let texts = value.as_array().and_then(|list| list.iter().map(|v| v.as_str().map(str::to_owned)).collect());
        texts.unwrap_or_else(|| {
            self.expected(&format!("{prefix}{key}"), "a list of texts", value);
            Vec::new()
        })
    }

    fn grants(&mut self, table: &Table) -> Vec<String> {
        let grants = self.texts(table, "", "grants");
        for grant in grants.iter().filter(|grant| !GRANTS.contains(&grant.as_str())) {
            self.faults.push(format!("grants: unknown grant {grant:?}; valid are {}", GRANTS.join(", ")));
        }
        grants
    }

    fn rules(&mut self, table: &Table) -> Rules {
        let Some(rules) = self.table(table, "match") else { return Rules::default() };
        self.known("match.", rules, &MATCH_KEYS);
        let mut patterns = |key| self.texts(rules, "match.", key).iter().map(|text| Pattern::parse(text)).collect();
        let (actions, rooms, keys) = (patterns("actions"), patterns("rooms"), patterns("keys"));
        let words = self.texts(rules, "match.", "origins");
        let mut origins = Vec::new();
        for word in words {
            match ORIGINS.iter().find(|origin| origin.as_str() == word) {
                Some(origin) => origins.push(*origin),
                None => {
                    let valid = ORIGINS.map(Origin::as_str).join(", ");
                    self.faults.push(format!("match.origins: unknown origin {word:?}; valid are {valid}"));
                }
            }
        }
        Rules { actions, rooms, keys, origins }
    }

    fn limits(&mut self, table: &Table, caps: &Caps) -> Asked {
        let Some(limits) = self.table(table, "limits") else { return Asked::default() };
        self.known("limits.", limits, &LIMIT_KEYS);
        Asked {
            cpu: self.duration(limits, "cpu", caps.budget.cpu),
            wall: self.duration(limits, "wall", caps.budget.wall),
            memory: self.bytes(limits, "memory", caps.memory),
        }
    }

    fn duration(&mut self, limits: &Table, key: &str, cap: Duration) -> Option<Duration> {
        let value = limits.get(key)?;
        let key = format!("limits.{key}");
        let Some(time) = value.as_str().and_then(|text| humantime::parse_duration(text).ok()) else {
            self.expected(&key, "a time such as \"50ms\"", value);
            return None;
        };
        if time.is_zero() || time > cap {
            self.faults.push(format!("{key}: expected more than 0 and at most {cap:?}, got {time:?}"));
        }
        Some(time)
    }

    fn bytes(&mut self, limits: &Table, key: &str, cap: usize) -> Option<usize> {
        let value = limits.get(key)?;
        let key = format!("limits.{key}");
        let Some(bytes) = value.as_str().and_then(parse_bytes) else {
            self.expected(&key, "a size such as \"64MiB\"", value);
            return None;
        };
        if bytes == 0 || bytes > cap {
            self.faults.push(format!("{key}: expected more than 0 and at most {}MiB, got {value}", cap >> 20));
        }
        Some(bytes)
    }
}

fn parse_bytes(text: &str) -> Option<usize> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(1 << shift)
}

/// Where and what, but not the line itself, which may hold a secret and goes to the log.
fn no_toml(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}: {}", error.message().replace('\n', ", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_said_means_safe_defaults() {
        let manifest = Manifest::parse("", &Caps::default()).unwrap();
        assert_eq!(manifest, Manifest::default());
        assert!(manifest.enabled && !manifest.allow_on_failure && manifest.grants.is_empty());
        assert_eq!(manifest.settings.json(), "{}");
    }

    #[test]
    fn everything_can_be_said() {
        let text = r#"
            order = 10
            on_failure = "allow"
            grants = ["kv", "outbox"]
            [match]
            actions = ["chat", "9*"]
            origins = ["client"]
            [limits]
            cpu = "20ms"
            memory = "32MiB"
            [settings]
            words = ["a", "b"]
            mask = "*"
            strict = true
        "#;
        let manifest = Manifest::parse(text, &Caps::default()).unwrap();
        assert!(manifest.allow_on_failure);
        assert_eq!(manifest.limits.memory, Some(32 << 20));
        assert_eq!(manifest.limits.cpu, Some(Duration::from_millis(20)));
        assert_eq!(manifest.rules.origins, [Origin::Client]);
        assert_eq!(manifest.settings.get("mask"), Some("*"));
        assert_eq!(manifest.settings.get("words"), Some(r#"["a","b"]"#));
        assert_eq!(manifest.settings.json(), r#"{"mask":"*","strict":true,"words":["a","b"]}"#);
    }

    #[test]
    fn all_faults_are_told_at_once() {
        let text = r#"
            ordr = 1
            enabled = "yes"
            on_failure = "explode"
            grants = ["http"]
            [match]
            origin = ["client"]
            origins = ["moon"]
            [limits]
            cpu = "1h"
            memory = "lots"
        "#;
        let faults = Manifest::parse(text, &Caps::default()).unwrap_err();
        let expected = [
            "unknown key ordr; valid are enabled, order, on_failure, grants, match, limits, settings",
            "enabled: expected true or false, got \"yes\"",
            "on_failure: expected one of reject, allow, got \"explode\"",
            "grants: unknown grant \"http\"; valid are directory, outbox, kv",
            "unknown key match.origin; valid are actions, rooms, keys, origins",
            "match.origins: unknown origin \"moon\"; valid are client, http, broker, plugin",
            "limits.cpu: expected more than 0 and at most 1s, got 3600s",
            "limits.memory: expected a size such as \"64MiB\", got \"lots\"",
        ];
        assert_eq!(faults, expected);
    }

    #[test]
    fn what_is_no_toml_is_told_by_its_place_and_not_shown() {
        for (text, place) in [
            ("a = ", "line 1, column "),
            ("[settings]\n# key\nsecret = \"0123456789\nmore = 1\n", "line 3, column "),
            ("[settings]\nsecret = 0123456789\n", "line 2, column "),
            ("[settings]\nsecret = \"0123456789\"\nsecret = \"0123456789\"\n", "line 3, column "),
        ] {
            let faults = Manifest::parse(text, &Caps::default()).unwrap_err();
            assert!(faults.len() == 1 && faults[0].starts_with(place), "{faults:?}");
            assert!(!faults[0].contains("12345") && !faults[0].contains('\n'), "a secret is shown: {faults:?}");
        }
    }
}
