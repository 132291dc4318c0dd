//! The table of all keys, generated from the declaration of the tree; used by `config/skylark.yaml` and by tests.

use super::Config;
use super::read::value::{Kind, Value};
use super::read::{Codec, Setting};

/// A key of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Path, e.g. `limits.frame_bytes`, `listeners[].address`.
    pub path: String,
    /// The default, in configuration syntax or in words; `None` if the key is mandatory.
    pub default: Option<String>,
    /// Description.
    pub text: String,
    /// True if its value may be a secret, which no output shows.
    pub is_secret: bool,
    /// True if a running node applies it at a reload; some live keys wait with the key that they depend on.
    pub is_live: bool,
}

/// Every key, in the order of the tree. A section comes before its keys.
#[must_use]
pub fn keys() -> Vec<Key> {
    let mut keys = Vec::new();
    Config::keys("", &mut keys);
    keys
}

/// The text of `config/skylark.yaml`: every key below its description, commented out with its default.
#[must_use]
pub fn reference() -> String {
    let mut text = String::from(HEADER);
    let defaults = Config::default().show();
    for key in keys().iter().filter(|key| !key.path.contains("[]")) {
        let depth = key.path.matches('.').count();
        let (indent, name) = ("  ".repeat(depth), key.path.rsplit('.').next().unwrap_or_default());
        if depth == 0 {
            text.push('\n');
        }
        comment(&mut text, &indent, "", &format!("{}{}", key.text, live_suffix(key)));
        let items: Vec<Key> =
            keys().into_iter().filter(|item| item.path.starts_with(&format!("{}[].", key.path))).collect();
        for item in &items {
            let name = item.path.rsplit('.').next().unwrap_or_default();
            let default =
                item.default.as_ref().map_or("Must be given.".to_owned(), |words| format!("Default: {words}."));
            let deeper = "  ".repeat(item.path[key.path.len()..].matches('.').count());
            let hanging_indent = format!("    {deeper}");
            comment(
                &mut text,
                &format!("{indent}# {deeper}{name}: "),
                &hanging_indent,
                &format!("{} {default}{}", item.text, live_suffix(item)),
            );
        }
        let value = key.path.split('.').try_fold(&defaults, |value, name| value.get(name));
        match value.map(|value| &value.kind) {
            Some(Kind::Map(keys)) if !keys.is_empty() => text.push_str(&format!("{indent}{name}:\n")),
            Some(Kind::List(entries)) if !items.is_empty() && !entries.is_empty() => {
                text.push_str(&format!("{indent}#{name}:\n"));
                entries.iter().for_each(|entry| list_entry(&mut text, &indent, entry));
            }
            _ => text.push_str(&format!("{indent}#{name}: {}\n", value.map(ToString::to_string).unwrap_or_default())),
        }
    }
    text
}

/// Tells that a running node takes the key on SIGHUP.
fn live_suffix(key: &Key) -> &'static str {
    if key.is_live { " Live." } else { "" }
}

const HEADER: &str = "\
# Skylark's configuration: every key with what it is for and its default. Nothing here is set: take the `#` before a
# key away to change it. On top of this file comes the one of the environment (`--env NAME`: skylark-NAME.yaml beside
# it; same keys win, a list replaces the whole list), then variables: SKYLARK__LIMITS__BATCH=100,
# SKYLARK__LISTENERS__0__ADDRESS=0.0.0.0:80. `skylark config` shows what is in force and where each value came from,
# `skylark check` every fault at once.
#
# Durations: 25s, 500ms, 1m30s. Sizes: 64KiB, 1MiB, or plain bytes. Relative paths start at the working directory.
# Any text may be written elsewhere: ${NAME} within it or {env: NAME} takes a variable, {file: PATH} a file's contents
# (`$${` is a plain `${`). This file is made from src/config.rs; a test holds the two in step.
#
# Live: a running node takes a changed value on SIGHUP. All other keys need a restart.
";

/// Maximum width of a comment line, in characters.
const WIDTH: usize = 120;

fn comment(text: &mut String, lead: &str, hanging_indent: &str, words: &str) {
    let (first, next) = match lead.find('#') {
        Some(at) => (lead.to_owned(), format!("{}#{hanging_indent}", &lead[..at])),
        None => (format!("{lead}# "), format!("{lead}# ")),
    };
    let mut line = first;
    for (index, word) in words.split_whitespace().enumerate() {
        if line.chars().count() + word.chars().count() + 1 > WIDTH {
            text.push_str(line.trim_end());
            text.push('\n');
            line = next.clone();
        } else if index > 0 {
            line.push(' ');
        }
        line.push_str(word);
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

fn list_entry(text: &mut String, indent: &str, entry: &Value) {
    let Kind::Map(fields) = &entry.kind else { return };
    for (index, field) in fields.iter().enumerate() {
        let dash = if index == 0 { "- " } else { "  " };
        text.push_str(&format!("{indent}#  {dash}{}: {}\n", field.name, field.value));
    }
}

/// Adds one key and the keys below it. Called by the declaration of the tree.
pub(super) fn add<T>(
    keys: &mut Vec<Key>,
    (parent, name, is_live): (&str, &str, bool),
    text: &[&str],
    default: Option<String>,
    codec: &impl Codec<T>,
) {
    let path = if parent.is_empty() { name.to_owned() } else { format!("{parent}.{name}") };
    let at = keys.len();
    let text = text.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ");
    keys.push(Key { path: path.clone(), default, text, is_secret: codec.is_secret(), is_live });
    codec.keys(&path, keys);
    // A list that is live as a whole.
    keys[at..].iter_mut().for_each(|key| key.is_live |= is_live);
}
