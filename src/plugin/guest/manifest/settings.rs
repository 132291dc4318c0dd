//! `[settings]`: the plugin's own table. The host passes it on without interpreting it.

use std::collections::BTreeMap;

use toml::{Table, Value};

/// The `[settings]` table as plugins see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::plugin) struct Settings {
    values: BTreeMap<String, String>,
    json: String,
}

impl Settings {
    pub(in crate::plugin) fn from_table(table: &Table) -> Self {
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

    /// A text as it is, any other value as JSON.
    #[must_use]
    pub(in crate::plugin) fn get(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(String::as_str)
    }

    /// The whole table as a JSON object.
    #[must_use]
    pub(in crate::plugin) fn json(&self) -> &str {
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
