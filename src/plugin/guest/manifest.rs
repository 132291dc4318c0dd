//! The operator's decisions for one plugin, as the host applies them.
//!
//! Does not parse: `loader/manifest.rs` reads the text of `<name>.toml`.

pub(in crate::plugin) mod matching;
pub(in crate::plugin) mod outgoing;
pub(in crate::plugin) mod settings;
pub(in crate::plugin) mod share;

use toml::Table;

use matching::Rules;
use outgoing::Outgoing;
use settings::Settings;
use share::Share;

use super::limits::RequestedLimits;
use crate::plugin::Role;

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
    pub(in crate::plugin) limits: RequestedLimits,
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
            limits: RequestedLimits::default(),
            http: Outgoing::default(),
            settings: Settings::from_table(&Table::new()),
        }
    }
}

impl Manifest {
    /// Checks that the component exports the roles that the operator names.
    ///
    /// # Errors
    /// The component exports other roles.
    pub(in crate::plugin) fn check_roles(&self, found: &[Role]) -> Result<(), String> {
        let Some(said) = self.roles.as_ref().filter(|said| *said != found) else { return Ok(()) };
        let words =
            |roles: &[Role]| roles.iter().map(|role| format!("{:?}", role.as_str())).collect::<Vec<_>>().join(", ");
        Err(format!("roles: expected [{}], as the file exports, got [{}]", words(found), words(said)))
    }
}
