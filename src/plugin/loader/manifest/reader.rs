//! Reads typed values from a manifest's tables and collects every fault. Knows no key.

use toml::{Table, Value};

/// Reads typed values and collects every fault.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) faults: Vec<String>,
}

impl Reader {
    pub(super) fn expected(&mut self, key: &str, what: &str, got: &Value) {
        self.faults.push(format!("{key}: expected {what}, got {got}"));
    }

    pub(super) fn known(&mut self, prefix: &str, table: &Table, keys: &[&str]) {
        for key in table.keys().filter(|key| !keys.contains(&key.as_str())) {
            self.faults.push(format!("unknown key {prefix}{key}; valid are {}", keys.join(", ")));
        }
    }

    pub(super) fn bool(&mut self, table: &Table, key: &str) -> Option<bool> {
        let value = table.get(key)?;
        if value.as_bool().is_none() {
            self.expected(key, "true or false", value);
        }
        value.as_bool()
    }

    pub(super) fn integer(&mut self, table: &Table, key: &str) -> Option<i64> {
        let value = table.get(key)?;
        if value.as_integer().is_none() {
            self.expected(key, "a whole number", value);
        }
        value.as_integer()
    }

    /// 64 hexadecimal digits, converted to lower case.
    pub(super) fn sha256(&mut self, table: &Table, key: &str) -> Option<String> {
        let value = table.get(key)?;
        let digits =
            value.as_str().filter(|text| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        if digits.is_none() {
            self.expected(key, "64 hexadecimal digits", value);
        }
        digits.map(str::to_ascii_lowercase)
    }

    pub(super) fn one_of<'a>(&mut self, table: &Table, key: &str, words: &[&'a str]) -> Option<&'a str> {
        let value = table.get(key)?;
        let word = words.iter().find(|word| value.as_str() == Some(word)).copied();
        if word.is_none() {
            self.expected(key, &format!("one of {}", words.join(", ")), value);
        }
        word
    }

    pub(super) fn table<'a>(&mut self, table: &'a Table, key: &str) -> Option<&'a Table> {
        let value = table.get(key)?;
        if value.as_table().is_none() {
            self.expected(key, &format!("a table [{key}]"), value);
        }
        value.as_table()
    }

    pub(super) fn texts(&mut self, table: &Table, prefix: &str, key: &str) -> Vec<String> {
        let Some(value) = table.get(key) else { return Vec::new() };
        let texts = value.as_array().and_then(|list| list.iter().map(|v| v.as_str().map(str::to_owned)).collect());
        texts.unwrap_or_else(|| {
            self.expected(&format!("{prefix}{key}"), "a list of texts", value);
            Vec::new()
        })
    }
}
