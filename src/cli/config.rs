//! `skylark config`: what is in force, and where each value came from.

use super::{ConfigSource, print};
use crate::config::Source;

#[derive(Debug, clap::Args)]
pub(super) struct ShowConfig {
    /// Only what is set somewhere, not the defaults.
    #[arg(long)]
    set: bool,
}

impl ShowConfig {
    pub(super) fn run(self, source: &ConfigSource) -> anyhow::Result<()> {
        let loaded = source.load()?;
        let shown = loaded.entries.iter().filter(|entry| !self.set || entry.source != Source::Default);
        let lines: Vec<(String, &Source)> =
            shown.map(|entry| (format!("{}: {}", entry.path, entry.value), &entry.source)).collect();
        // A long value pushes its own source aside, not everybody's.
        let width = lines.iter().map(|(line, _)| line.chars().count()).filter(|width| *width <= 60).max().unwrap_or(0);
        for (line, source) in lines {
            print(&format!("{line:width$}  # {source}"))?;
        }
        Ok(())
    }
}
