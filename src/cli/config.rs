//! `skylark config`: shows the configuration in force and the source of each value.

use super::{ConfigSource, print};
use crate::config::ValueSource;

#[derive(Debug, clap::Args)]
pub(super) struct ShowConfig {
    /// Only values that are set, not the defaults.
    #[arg(long)]
    set: bool,
}

impl ShowConfig {
    pub(super) fn run(self, source: &ConfigSource) -> anyhow::Result<()> {
        let loaded = source.load()?;
        let shown = loaded.entries.iter().filter(|entry| !self.set || entry.source != ValueSource::Default);
        let lines: Vec<(String, &ValueSource)> =
            shown.map(|entry| (format!("{}: {}", entry.path, entry.value), &entry.source)).collect();
        // A long value shifts only its own source column.
        let width = lines.iter().map(|(line, _)| line.chars().count()).filter(|width| *width <= 60).max().unwrap_or(0);
        for (line, source) in lines {
            print(&format!("{line:width$}  # {source}"))?;
        }
        Ok(())
    }
}
