//! `[limits]`: what a plugin asks for besides its role's defaults, up to the operator's caps.

use std::time::Duration;

use toml::Table;

use super::Reader;
use crate::plugin::limits::{Asked, Caps};

const KEYS: [&str; 3] = ["cpu", "wall", "memory"];

pub(super) fn read(read: &mut Reader, table: &Table, caps: &Caps) -> Asked {
    let Some(limits) = read.table(table, "limits") else { return Asked::default() };
    read.known("limits.", limits, &KEYS);
    Asked {
        cpu: read.duration(limits, "cpu", caps.budget.cpu),
        wall: read.duration(limits, "wall", caps.budget.wall),
        memory: read.bytes(limits, "memory", caps.memory),
    }
}

impl Reader {
    fn duration(&mut self, limits: &Table, key: &str, cap: Duration) -> Option<Duration> {
        let value = limits.get(key)?;
        let key = format!("limits.{key}");
        let Some(time) = value.as_str().and_then(|text| humantime::parse_duration(text).ok()) else {
            self.expected(&key, "a time such as \"50ms\"", value);
            return None;
        };
        if time.is_zero() || time > cap {
            self.faults.push(format!("{key}: expected more than 0 and at most {cap:?}, got {time:?}"));
        }
        Some(time)
    }

    fn bytes(&mut self, limits: &Table, key: &str, cap: usize) -> Option<usize> {
        let value = limits.get(key)?;
        let key = format!("limits.{key}");
        let Some(bytes) = value.as_str().and_then(parse_bytes) else {
            self.expected(&key, "a size such as \"64MiB\"", value);
            return None;
        };
        if bytes == 0 || bytes > cap {
            self.faults.push(format!("{key}: expected more than 0 and at most {}MiB, got {value}", cap >> 20));
        }
        Some(bytes)
    }
}

fn parse_bytes(text: &str) -> Option<usize> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.parse::<usize>().ok()?.checked_mul(1 << shift)
}
