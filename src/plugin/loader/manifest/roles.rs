//! `roles`: roles that a plugin must have, so that they stay guarded even if its file is broken or gone.

use toml::Table;

use super::Reader;
use crate::plugin::Role;

/// In the order of their numbers, each once.
pub(super) fn read(read: &mut Reader, table: &Table) -> Option<Vec<Role>> {
    table.get("roles")?;
    let words = read.texts(table, "", "roles");
    let valid = Role::ALL.map(Role::as_str).join(", ");
    for word in words.iter().filter(|word| Role::ALL.iter().all(|role| role.as_str() != **word)) {
        read.faults.push(format!("roles: unknown role {word:?}; valid are {valid}"));
    }
    if words.is_empty() && read.faults.is_empty() {
        read.faults.push(format!("roles: expected at least one of {valid}, got none"));
    }
    let said = |role: &Role| words.iter().any(|word| word == role.as_str());
    Some(Role::ALL.into_iter().filter(said).collect())
}
