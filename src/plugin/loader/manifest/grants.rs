//! `grants`: interfaces that a plugin may use besides `log`, `settings`, `clock` and `crypto`.

use toml::Table;

use super::Reader;

/// Interfaces that an operator grants.
pub(in crate::plugin) const GRANTS: [&str; 8] =
    ["directory", "outbox", "timers", "login", "kv", "counters", "history", "http"];

pub(super) fn read(read: &mut Reader, table: &Table) -> Vec<String> {
    let grants = read.texts(table, "", "grants");
    for grant in grants.iter().filter(|grant| !GRANTS.contains(&grant.as_str())) {
        read.faults.push(format!("grants: unknown grant {grant:?}; valid are {}", GRANTS.join(", ")));
    }
    grants
}
