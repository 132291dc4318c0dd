//! `canary`: the share of the senders that a new version serves first.

use toml::Table;

use super::Reader;
use crate::plugin::guest::manifest::share::Share;

pub(super) fn read(read: &mut Reader, table: &Table) -> Option<Share> {
    let value = table.get("canary")?;
    let share = value.as_str().and_then(Share::parse);
    if share.is_none() {
        read.expected("canary", "a share of the senders such as \"5%\"", value);
    }
    share
}
