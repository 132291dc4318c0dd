//! `[limits]`: limits that a plugin requests instead of its role's defaults, up to the operator's caps
//! (`plugins.caps`).

use std::time::Duration;

use toml::{Table, Value};

use super::Reader;
use crate::config::PluginCaps;
use crate::plugin::Role;
use crate::plugin::guest::limits::{RequestedBudget, RequestedLimits};

/// In the order of the documentation.
const KEYS: [&str; 18] = [
    "cpu",
    "wall",
    "memory",
    "tables",
    "handles",
    "instances",
    "recycle",
    "host_bytes",
    "log_bytes",
    "log_rate",
    "pushes",
    "kv_bytes",
    "kv_keys",
    "auth",
    "filter",
    "handler",
    "events",
    "start",
];
const BUDGET_KEYS: [&str; 2] = ["cpu", "wall"];

pub(super) fn read(read: &mut Reader, table: &Table, caps: &PluginCaps) -> RequestedLimits {
    let Some(limits) = read.table(table, "limits") else { return RequestedLimits::default() };
    read.known("limits.", limits, &KEYS);
    let mut read = Limits { read, caps };
    RequestedLimits {
        every: read.budget(limits, "limits."),
        roles: Role::ALL.map(|role| read.part(limits, role.as_str())),
        start: read.part(limits, "start"),
        memory: read.bytes(limits, "memory", caps.memory),
        tables: read.count(limits, "tables", 0, caps.tables),
        handles: read.count(limits, "handles", 0, caps.handles),
        instances: read.count(limits, "instances", 1, caps.instances),
        recycle: read.count(limits, "recycle", 1, caps.recycle),
        host_bytes: read.bytes(limits, "host_bytes", caps.host_bytes),
        log_bytes: read.bytes(limits, "log_bytes", caps.log_bytes),
        log_rate: read.bytes(limits, "log_rate", caps.log_rate),
        pushes: read.count(limits, "pushes", 0, caps.pushes),
        kv_bytes: read.bytes(limits, "kv_bytes", caps.kv_bytes),
        kv_keys: read.count(limits, "kv_keys", 0, caps.kv_keys),
    }
}

/// Reads values that have a cap.
struct Limits<'a> {
    read: &'a mut Reader,
    caps: &'a PluginCaps,
}

impl Limits<'_> {
    /// The times in `[limits.ROLE]`.
    fn part(&mut self, limits: &Table, role: &str) -> RequestedBudget {
        let Some(value) = limits.get(role) else { return RequestedBudget::default() };
        let Some(part) = value.as_table() else {
            self.read.expected(&format!("limits.{role}"), &format!("a table [limits.{role}]"), value);
            return RequestedBudget::default();
        };
        let prefix = format!("limits.{role}.");
        self.read.known(&prefix, part, &BUDGET_KEYS);
        self.budget(part, &prefix)
    }

    fn budget(&mut self, table: &Table, prefix: &str) -> RequestedBudget {
        let caps = self.caps;
        RequestedBudget {
            cpu: self.time(table, prefix, "cpu", caps.cpu),
            wall: self.time(table, prefix, "wall", caps.wall),
        }
    }

    fn time(&mut self, table: &Table, prefix: &str, key: &str, cap: Duration) -> Option<Duration> {
        let parse = |value: &Value| humantime::parse_duration(value.as_str()?).ok().filter(|time| !time.is_zero());
        let shown = humantime::format_duration(cap);
        self.value(table, (prefix, key), "a time above 0 such as \"50ms\"", parse, &cap, &shown.to_string())
    }

    fn bytes(&mut self, table: &Table, key: &str, cap: usize) -> Option<usize> {
        let parse = |value: &Value| value.as_str().and_then(parse_bytes);
        self.value(table, ("limits.", key), "a size such as \"64MiB\"", parse, &cap, &show_bytes(cap))
    }

    fn count(&mut self, table: &Table, key: &str, least: usize, cap: usize) -> Option<usize> {
        let parse = |value: &Value| usize::try_from(value.as_integer()?).ok().filter(|count| *count >= least);
        let what = format!("a whole number of at least {least}");
        self.value(table, ("limits.", key), &what, parse, &cap, &cap.to_string())
    }

    fn value<T: PartialOrd>(
        &mut self,
        table: &Table,
        (prefix, key): (&str, &str),
        what: &str,
        parse: impl FnOnce(&Value) -> Option<T>,
        cap: &T,
        shown: &str,
    ) -> Option<T> {
        let value = table.get(key)?;
        let Some(parsed) = parse(value) else {
            self.read.expected(&format!("{prefix}{key}"), what, value);
            return None;
        };
        if parsed > *cap {
            self.read.faults.push(format!(
                "{prefix}{key}: {value} is more than this node allows ({shown}): ask for less, or raise plugins.caps.{key}"
            ));
        }
        Some(parsed)
    }
}

const UNITS: [(&str, u32); 4] = [("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

pub(super) fn parse_bytes(text: &str) -> Option<usize> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim();
    let (_, shift) = UNITS.iter().find(|(name, _)| *name == if unit.is_empty() { "B" } else { unit })?;
    number.parse::<usize>().ok()?.checked_mul(1 << shift)
}

fn show_bytes(bytes: usize) -> String {
    let whole = |(_, shift): &&(&str, u32)| bytes > 0 && bytes.is_multiple_of(1 << shift);
    let (name, shift) = UNITS.iter().find(whole).unwrap_or(&("B", 0));
    format!("{}{name}", bytes >> shift)
}
