//! `skylark check`: the configuration, the certificates and every plugin, all faults at once, no port opened.

use anyhow::bail;

use super::{ConfigSource, block_on, print};
use crate::config::Plugins;
use crate::plugin::check::{Report, check_dir};
use crate::server::tls_faults;

#[derive(Debug, clap::Args)]
pub(super) struct Check {}

impl Check {
    pub(super) fn run(self, source: &ConfigSource) -> anyhow::Result<()> {
        let examined = source.loader().examine();
        let mut faults: Vec<String> = examined.faults.iter().map(ToString::to_string).collect();
        // A listener with a fault may hold the default of its `tls`.
        if let Some(config) =
            examined.config.as_ref().filter(|_| !examined.faults.iter().any(|f| f.path.starts_with("listeners")))
        {
            faults.extend(tls_faults(&config.listeners));
        }
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
            return checked.iter().try_for_each(|line| print(line));
        }
        faults.iter().try_for_each(|fault| print(fault))?;
        let (n, m) = (config_faults, faults.len() - config_faults);
        let noun = if n == 1 { "fault" } else { "faults" };
        bail!("{n} {noun} in the configuration, {m} in the plugins");
    }
}

/// Checks every component of the directory, and gives a line for each that would serve.
fn plugins(plugins: &Plugins, faults: &mut Vec<String>) -> Vec<String> {
    let reports = match block_on(async { Ok(check_dir(plugins).await?) }) {
        Ok(reports) => reports,
        Err(error) => {
            faults.push(format!("plugins: {error:#}"));
            return Vec::new();
        }
    };
    for report in &reports {
        faults.extend(report.faults.iter().map(|fault| format!("plugin {}: {fault}", report.name)));
    }
    reports.iter().filter(|report| report.faults.is_empty()).map(line).collect()
}

/// `plugin word-filter: ok, filter, 65536 bytes, compiled in 120 ms`
fn line(report: &Report) -> String {
    let mut line = format!("plugin {}: {}", report.name, if report.disabled { "ok, disabled" } else { "ok" });
    for more in [report.roles.join("+"), report.keys.join(" ")].iter().filter(|more| !more.is_empty()) {
        line = format!("{line}, {more}");
    }
    format!("{line}, {} bytes, compiled in {} ms", report.size, report.compiled_in.as_millis())
}
