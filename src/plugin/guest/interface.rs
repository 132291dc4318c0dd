//! Exports and imports of a component, as found by the inspection of its file.

use std::collections::BTreeSet;

use crate::plugin::Role;

/// Roles, exports and imports of a component.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::plugin) struct ComponentInterface {
    pub(in crate::plugin) roles: Vec<Role>,
    pub(in crate::plugin) lifecycle: bool,
    pub(in crate::plugin) alarms: bool,
    pub(in crate::plugin) receipts: bool,
    /// Skylark interfaces that it imports, by short name.
    pub(in crate::plugin) imports: Vec<String>,
    /// The versions of the Skylark package that it names.
    pub(in crate::plugin) versions: BTreeSet<String>,
}
