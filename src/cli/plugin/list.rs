//! `skylark plugin list`: shows the plugins of a running node.

use anyhow::{Context as _, bail};
use hyper::Method;
use serde_json::Value;

use crate::cli::http::NodeArgs;
use crate::cli::{ConfigSource, block_on, print};
use crate::config::Scope;

#[derive(Debug, clap::Args)]
pub(super) struct List {
    /// Print the node's response as it is.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    node: NodeArgs,
}

impl List {
    pub(super) fn run(self, source: &ConfigSource) -> anyhow::Result<()> {
        let node = self.node.node(source, &[Scope::Read])?;
        let answer = block_on(node.request(Method::GET, "/plugins", None))?;
        if self.json {
            return print(&answer);
        }
        let answer: Value = serde_json::from_str(&answer)?;
        let items = answer.pointer("/data/items").or_else(|| answer.get("data")).and_then(Value::as_array);
        let Some(items) = items else { bail!("expected a list of plugins from the node, got {answer}") };
        table(items).iter().try_for_each(|line| print(line)).context("cannot print")
    }
}

const COLUMNS: [&str; 9] = ["name", "state", "version", "roles", "calls", "failures", "p50", "p99", "circuit"];

/// A header and one line per plugin. A canary, a refused newer file and a lost older one are noted after the line.
pub(in crate::cli) fn table(items: &[Value]) -> Vec<String> {
    let mut rows = vec![COLUMNS.map(str::to_uppercase)];
    rows.extend(items.iter().map(|item| COLUMNS.map(|column| cell(&item[column]))));
    let widths: Vec<usize> = (0..COLUMNS.len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default())
        .collect();
    let line = |row: &[String; COLUMNS.len()]| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        cells.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(&rows[0])];
    for (row, item) in rows[1..].iter().zip(items) {
        let reason = item.pointer("/rejected/reason").and_then(Value::as_str);
        let rejected = reason.map(|reason| format!("  newest file refused: {reason}")).unwrap_or_default();
        let canary = item.get("canary").filter(|canary| canary.is_object()).map(|canary| {
            format!("  version {} serves {} of the senders", cell(&canary["version"]), cell(&canary["share"]))
        });
        let reason = item.pointer("/lost/reason").and_then(Value::as_str);
        let lost = reason
            .map(|reason| format!("  the version restored by the rollback is lost: {reason}"))
            .unwrap_or_default();
        lines.push(line(row) + &canary.unwrap_or_default() + &rejected + &lost);
    }
    lines
}

fn cell(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(cell).collect::<Vec<_>>().join(","),
        // Only microseconds have a fraction.
        Value::Number(number) if number.is_f64() => format!("{:.1}µs", number.as_f64().unwrap_or_default()),
        other => other.to_string(),
    }
}
