//! `<name>.toml` beside a plugin: the operator's decisions. Without a manifest every key has its safe default.
//!
//! Parses text and reports all faults at once; knows no component. Each table of the manifest has a file of its own in
//! this folder.

mod canary;
mod grants;
mod http;
mod limits;
mod reader;
mod roles;
mod rules;

use toml::Table;

pub(in crate::plugin) use grants::GRANTS;
use reader::Reader;

use crate::config::PluginCaps;
use crate::plugin::guest::manifest::Manifest;
use crate::plugin::guest::manifest::settings::Settings;

/// Keys of a manifest, in the order in which they are documented.
pub(in crate::plugin) const KEYS: [&str; 11] =
    ["enabled", "roles", "order", "on_failure", "canary", "sha256", "grants", "match", "limits", "http", "settings"];

impl Manifest {
    /// Parses a manifest.
    ///
    /// # Errors
    /// Every fault, each in one sentence that names the key.
    pub(in crate::plugin) fn parse(text: &str, caps: &PluginCaps) -> Result<Self, Vec<String>> {
        let table: Table = text.parse().map_err(|error| vec![no_toml(text, &error)])?;
        let mut read = Reader::default();
        let default = Self::default();
        read.known("", &table, &KEYS);
        let manifest = Self {
            enabled: read.bool(&table, "enabled").unwrap_or(default.enabled),
            roles: roles::read(&mut read, &table),
            order: read.integer(&table, "order").unwrap_or(default.order),
            allow_on_failure: read.one_of(&table, "on_failure", &["reject", "allow"]) == Some("allow"),
            canary: canary::read(&mut read, &table),
            sha256: read.sha256(&table, "sha256"),
            grants: grants::read(&mut read, &table),
            rules: rules::read(&mut read, &table),
            limits: limits::read(&mut read, &table, caps),
            http: http::read(&mut read, &table),
            settings: Settings::from_table(read.table(&table, "settings").unwrap_or(&Table::new())),
        };
        if read.faults.is_empty() { Ok(manifest) } else { Err(read.faults) }
    }
}

/// Position and message of the error. The line itself may hold a secret and must not reach the log.
fn no_toml(text: &str, error: &toml::de::Error) -> String {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    format!("line {line}, column {column}: {}", error.message().replace('\n', ", "))
}

#[cfg(test)]
mod tests;
