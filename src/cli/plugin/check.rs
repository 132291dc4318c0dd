//! `skylark plugin check`: runs the loader's checks on one file, without a node.

use std::path::PathBuf;

use anyhow::bail;

use crate::cli::{ConfigSource, block_on, print};
use crate::plugin::check::{Report, check_file};

#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// The component, NAME.wasm, with its manifest NAME.toml.
    file: PathBuf,
    /// Print the whole report as JSON.
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(self, source: &ConfigSource) -> anyhow::Result<()> {
        let config = source.load()?.config;
        let report = block_on(async { Ok(check_file(&self.file, &config.plugins).await?) })?;
        if self.json {
            print(&serde_json::to_string_pretty(&report)?)?;
        } else {
            lines(&report).iter().try_for_each(|line| print(line))?;
        }
        match report.faults.len() {
            0 => Ok(()),
            1 => bail!("{} has a fault", self.file.display()),
            n => bail!("{} has {n} faults", self.file.display()),
        }
    }
}

/// The report, line by line.
pub(super) fn lines(report: &Report) -> Vec<String> {
    let list = |items: Vec<&str>| if items.is_empty() { "none".to_owned() } else { items.join(", ") };
    let texts = |items: &[String]| list(items.iter().map(String::as_str).collect());
    let word = match (report.faults.is_empty(), report.disabled) {
        (true, false) => "would be loaded",
        (true, true) => "would be loaded, but disabled: its manifest says enabled = false",
        (false, _) => "would be refused",
    };
    let mut lines = vec![format!("{}: {word}", report.file.display())];
    let mut row = |name: &str, value: String| lines.push(format!("  {name:<12} {value}"));
    if !report.interface.is_empty() {
        row("roles", list(report.roles.clone()));
        row("interface", format!("skylark:plugin@{} (this host offers {})", report.interface, report.offered));
        row("imports", texts(&report.imports));
        row(
            "needs",
            match report.needs.is_empty() {
                true => "no grant".to_owned(),
                false => format!("grants = {:?}", report.needs),
            },
        );
    }
    if !report.keys.is_empty() {
        row("keys", texts(&report.keys));
    }
    if report.size > 0 {
        row("size", format!("{} bytes, sha256 {}", report.size, report.hash));
    }
    if !report.compiled_in.is_zero() {
        row("compiled in", format!("{} ms", report.compiled_in.as_millis()));
    }
    report.warnings.iter().for_each(|warning| row("warning", warning.clone()));
    report.faults.iter().for_each(|fault| row("fault", fault.clone()));
    lines
}
