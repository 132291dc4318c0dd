//! `skylark check`: checks the configuration, certificates, engines of bus and intakes, and every plugin. Reports all
//! faults at once and opens no port.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt;

use anyhow::bail;

use super::{ConfigSource, block_on, print};
use crate::app::engine;
use crate::config::{Bus, BusKind, Config, GuardedFile, intake_names};
use crate::plugin::check::{Report, check_dir};
use crate::server::{Descriptors, tls_faults};

#[derive(Debug, clap::Args)]
pub(super) struct Check {}

impl Check {
    pub(super) fn run(self, source: &ConfigSource) -> anyhow::Result<()> {
        let examined = source.loader().examine();
        let mut faults: Vec<String> = examined.faults.iter().map(ToString::to_string).collect();
        // After a fault in a listener, its `tls` may hold the default.
        if let Some(config) =
            examined.config.as_ref().filter(|_| !examined.faults.iter().any(|f| f.path.starts_with("listeners")))
        {
            faults.extend(tls_faults(&config.listeners));
        }
        if let Some(config) =
            examined.config.as_ref().filter(|_| !examined.faults.iter().any(|f| f.path.starts_with("history")))
        {
            faults.extend(engine::journal_fault(config));
        }
        let config_faults = faults.len();
        let mut warnings = examined.config.as_ref().map(Config::warnings).unwrap_or_default();
        warnings.extend(exposed_files(&examined.guarded_files));
        // A warning instead of a fault, because the node may be started elsewhere.
        let connections = examined.config.as_ref().map(|config| config.limits.connections);
        warnings.extend(connections.and_then(|connections| Descriptors::attainable().shortage(connections)));
        warnings.iter().try_for_each(|warning| print(&format!("warning: {warning}")))?;
        let mut checked = Vec::new();
        if let Some(config) =
            examined.config.as_ref().filter(|_| !examined.faults.iter().any(|f| f.path.starts_with("bus")))
        {
            checked.extend(bus(&config.bus, &mut faults));
        }
        let bus_faults = faults.len() - config_faults;
        if let Some(config) = examined.config.as_ref().filter(|_| config_faults == 0) {
            checked.extend(intakes(config, &mut faults));
        }
        let intake_faults = faults.len() - config_faults - bus_faults;
        // A key with a fault holds its default, so the directory is as configured unless this key itself has a fault.
        if let Some(config) =
            examined.config.filter(|_| !examined.faults.iter().any(|f| f.path.starts_with("plugins.dir")))
        {
            checked.extend(plugins(&config, &mut faults));
        }
        if faults.is_empty() {
            let files =
                if examined.files.is_empty() { "built-in defaults".to_owned() } else { examined.files.join(", ") };
            print(&format!("configuration: ok ({files})"))?;
            return checked.iter().try_for_each(|line| print(line));
        }
        faults.iter().try_for_each(|fault| print(fault))?;
        let (n, m) = (config_faults, faults.len() - config_faults - bus_faults - intake_faults);
        let noun = if n == 1 { "fault" } else { "faults" };
        let bus = if bus_faults == 0 { String::new() } else { format!("{bus_faults} in the bus, ") };
        let intakes = if intake_faults == 0 { String::new() } else { format!("{intake_faults} in the intakes, ") };
        bail!("{n} {noun} in the configuration, {bus}{intakes}{m} in the plugins");
    }
}

/// Warns about files that other users may write, and files with secrets that everyone may read; one line per file.
fn exposed_files(files: &[GuardedFile]) -> Vec<String> {
    let mut seen = HashSet::new();
    let warning = |GuardedFile { key, path, is_secret }: &GuardedFile| {
        let mode = std::fs::metadata(path).ok().filter(std::fs::Metadata::is_file)?.mode() & 0o7777;
        let (problem, fix) = match (mode & 0o022 != 0, *is_secret && mode & 0o004 != 0) {
            (true, _) => ("users other than its owner may write it", "go-w,o-r"),
            (false, true) => ("every user may read it, and it holds a secret", "o-r"),
            (false, false) => return None,
        };
        let (colon, path) = (if key.is_empty() { "" } else { ": " }, path.display());
        Some((path.to_string(), format!("{key}{colon}{path} has mode {mode:04o}: {problem}; chmod {fix} {path}")))
    };
    let warnings = files.iter().filter_map(warning);
    warnings.filter(|(path, _)| seen.insert(path.clone())).map(|(_, warning)| warning).collect()
}

/// Connects to the engine of the bus. Returns a line if it is usable.
fn bus(bus: &Bus, faults: &mut Vec<String>) -> Option<String> {
    let found = match block_on(async { Ok(engine::faults(bus).await) }) {
        Ok(found) => found,
        Err(error) => vec![format!("bus: {error:#}")],
    };
    let is_valid = found.is_empty();
    faults.extend(found);
    (is_valid && bus.kind != BusKind::Memory).then(|| format!("bus: ok ({})", bus.kind.as_str()))
}

/// Connects to the engine of each intake. Returns a line for each readable topic.
fn intakes(config: &Config, faults: &mut Vec<String>) -> Vec<String> {
    let mut valid = Vec::new();
    let names = intake_names(&config.intakes, &config.bus);
    for (intake, name) in config.intakes.iter().zip(names) {
        let name = format!("intake {name}");
        let found = match block_on(async { Ok(engine::intake_faults(config, intake).await) }) {
            Ok(found) => found,
            Err(error) => vec![format!("{error:#}")],
        };
        if found.is_empty() {
            valid.push(format!("{name}: ok"));
        }
        faults.extend(found.into_iter().map(|fault| format!("{name}: {fault}")));
    }
    valid
}

/// Checks every component of the directory. Returns a line for each valid one, and the warnings.
fn plugins(config: &Config, faults: &mut Vec<String>) -> Vec<String> {
    let reports = match block_on(async { Ok(check_dir(&config.plugins).await?) }) {
        Ok(reports) => reports,
        Err(error) => {
            faults.push(format!("plugins: {error:#}"));
            return Vec::new();
        }
    };
    for report in &reports {
        faults.extend(report.faults.iter().map(|fault| format!("plugin {}: {fault}", report.name)));
    }
    let valid = || reports.iter().filter(|report| report.faults.is_empty());
    let has_access = valid().any(|report| !report.disabled && report.roles.contains(&"access"));
    let warning = config.closed_rooms(has_access).map(|warning| format!("warning: {warning}"));
    valid().map(line).chain(warning).collect()
}

/// Formats a line such as `plugin word-filter: ok, filter, 65536 bytes, compiled in 120 ms`.
fn line(report: &Report) -> String {
    let mut line = format!("plugin {}: {}", report.name, if report.disabled { "ok, disabled" } else { "ok" });
    for more in [report.roles.join("+"), report.keys.join(" ")].iter().filter(|more| !more.is_empty()) {
        line = format!("{line}, {more}");
    }
    format!("{line}, {} bytes, compiled in {} ms", report.size, report.compiled_in.as_millis())
}
