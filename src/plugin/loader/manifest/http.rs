//! `[http]`: the hosts that a plugin may call, and the largest answer.

use std::sync::Arc;

use toml::Table;

use super::Reader;
use super::limits::parse_bytes;
use crate::plugin::fetch::{Network, Networks};
use crate::plugin::guest::manifest::outgoing::{AllowedHost, BODY, Outgoing};

const KEYS: [&str; 3] = ["allow", "private", "body"];
/// Most bytes of an answer that a manifest may set.
const MAX_BODY: usize = 8 << 20;
pub(super) fn read(read: &mut Reader, table: &Table) -> Outgoing {
    let Some(http) = read.table(table, "http") else { return Outgoing::default() };
    read.known("http.", http, &KEYS);
    let allow = each(read, http, "allow", AllowedHost::parse);
    let granted = each(read, http, "private", Network::parse);
    let body = http.get("body").map_or(BODY, |value| {
        let bytes = value.as_str().and_then(parse_bytes).filter(|bytes| *bytes <= MAX_BODY);
        bytes.unwrap_or_else(|| {
            read.expected("http.body", "a size such as \"1MiB\", at most 8MiB", value);
            BODY
        })
    });
    Outgoing { allow, networks: Arc::new(Networks::new(granted)), body }
}

fn each<T>(read: &mut Reader, http: &Table, key: &str, parse: fn(&str) -> Result<T, String>) -> Vec<T> {
    let mut all = Vec::new();
    for text in read.texts(http, "http.", key) {
        match parse(&text) {
            Ok(one) => all.push(one),
            Err(why) => read.faults.push(format!("http.{key}: {text:?}: {why}")),
        }
    }
    all
}
