//! `[match]`: the match rules of a plugin.

use toml::Table;

use super::Reader;
use crate::message::Origin;
use crate::plugin::guest::manifest::matching::{Pattern, Rules};

const KEYS: [&str; 4] = ["actions", "rooms", "keys", "origins"];
const ORIGINS: [Origin; 4] = [Origin::Client, Origin::Http, Origin::Broker, Origin::Plugin];

impl Rules {
    /// Rules in the form of a manifest; an unknown origin is left out.
    pub(in crate::plugin) fn of_texts(
        actions: &[String],
        rooms: &[String],
        keys: &[String],
        origins: &[String],
    ) -> Self {
        let patterns = |texts: &[String]| texts.iter().map(|text| Pattern::parse(text)).collect();
        let origin = |word: &String| ORIGINS.into_iter().find(|origin| origin.as_str() == word);
        Self {
            actions: patterns(actions),
            rooms: patterns(rooms),
            keys: patterns(keys),
            origins: origins.iter().filter_map(origin).collect(),
        }
    }
}

pub(super) fn read(read: &mut Reader, table: &Table) -> Rules {
    let Some(rules) = read.table(table, "match") else { return Rules::default() };
    read.known("match.", rules, &KEYS);
    let mut patterns = |key| read.texts(rules, "match.", key).iter().map(|text| Pattern::parse(text)).collect();
    let (actions, rooms, keys) = (patterns("actions"), patterns("rooms"), patterns("keys"));
    let words = read.texts(rules, "match.", "origins");
    let mut origins = Vec::new();
    for word in words {
        match ORIGINS.iter().find(|origin| origin.as_str() == word) {
            Some(origin) => origins.push(*origin),
            None => {
                let valid = ORIGINS.map(Origin::as_str).join(", ");
                read.faults.push(format!("match.origins: unknown origin {word:?}; valid are {valid}"));
            }
        }
    }
    Rules { actions, rooms, keys, origins }
}
