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
mod settings;

use toml::Table;

pub(in crate::plugin) use grants::GRANTS;
pub(in crate::plugin) use http::Outgoing;
use reader::Reader;
pub(in crate::plugin) use settings::Settings;

use crate::config::PluginCaps;
use crate::plugin::Role;
use crate::plugin::guest::limits::Asked;
use crate::plugin::guest::manifest::matching::Rules;
use crate::plugin::guest::manifest::share::Share;

/// The operator's decisions for one plugin.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::plugin) struct Manifest {
    /// `false` keeps the file from being loaded.
    pub(in crate::plugin) enabled: bool,
    /// Roles that the file must export; `None` accepts any.
    pub(in crate::plugin) roles: Option<Vec<Role>>,
    /// Position in the chain, lowest first; equal ones by name.
    pub(in crate::plugin) order: i64,
    /// True if a publish goes on when this filter fails to judge it.
    pub(in crate::plugin) allow_on_failure: bool,
    /// Share of the senders that a new version serves first; `None` is all at once.
    pub(in crate::plugin) canary: Option<Share>,
    /// SHA-256 of the only file that may serve, in lower-case hexadecimal digits; `None` is any.
    pub(in crate::plugin) sha256: Option<String>,
    /// Interfaces that the plugin may use besides `log`, `settings`, `clock` and `crypto`.
    pub(in crate::plugin) grants: Vec<String>,
    /// Match rules of the plugin.
    pub(in crate::plugin) rules: Rules,
    /// Limits that it requests instead of its role's defaults.
    pub(in crate::plugin) limits: Asked,
    /// Allow-list and limits of its requests to the network.
    pub(in crate::plugin) http: Outgoing,
    /// The plugin's own table.
    pub(in crate::plugin) settings: Settings,
}

impl Default for Manifest {
    fn default() -> Self {
        Self {
            enabled: true,
            roles: None,
            order: 100,
            allow_on_failure: false,
            canary: None,
            sha256: None,
            grants: Vec::new(),
            rules: Rules::default(),
            limits: Asked::default(),
            http: Outgoing::default(),
            settings: Settings::from_table(&Table::new()),
        }
    }
}

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

impl Manifest {
    /// Checks that the component exports the roles that the operator names.
    ///
    /// # Errors
    /// The component exports other roles.
    pub(in crate::plugin) fn expects(&self, found: &[Role]) -> Result<(), String> {
        let Some(said) = self.roles.as_ref().filter(|said| *said != found) else { return Ok(()) };
        let words =
            |roles: &[Role]| roles.iter().map(|role| format!("{:?}", role.as_str())).collect::<Vec<_>>().join(", ");
        Err(format!("roles: expected [{}], as the file exports, got [{}]", words(found), words(said)))
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
