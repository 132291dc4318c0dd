//! `skylark plugin check` and the plugin part of `skylark check`: the loader's own steps, with a report instead of a
//! plugin that serves.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::guest::files::PluginFiles;
use super::guest::interface::ComponentInterface;
use super::guest::manifest::Manifest;
use super::loader::disk::{self, Owners, RawFiles};
use super::loader::inspect;
use super::loader::load::{self, Env, LoadFault};
use super::{CompileIn, LoadError, Options, Role};
use crate::config::Plugins;

/// Description of a plugin file, and every reason that keeps it from serving.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Report {
    /// The plugin's name.
    pub name: String,
    /// The `.wasm` file.
    pub file: PathBuf,
    /// SHA-256 of the file, hexadecimal.
    pub hash: String,
    /// Bytes of the file.
    pub size: u64,
    /// The manifest says `enabled = false`.
    pub disabled: bool,
    /// `auth`, `filter`, `handler`, `events`, `access`; and `receipts` after `events` if it is exported.
    pub roles: Vec<&'static str>,
    /// Interfaces of Skylark that it imports.
    pub imports: Vec<String>,
    /// The grants that its imports need.
    pub needs: Vec<&'static str>,
    /// The newest version of `skylark:plugin` that it names; empty if it names none.
    pub interface: String,
    /// The version that this host offers.
    pub offered: &'static str,
    /// Handler keys that it owns.
    pub keys: Vec<String>,
    /// Compile time.
    pub compiled_in: Duration,
    /// Why it would not serve; empty if it would.
    pub faults: Vec<String>,
    /// Findings that the operator may not have intended.
    pub warnings: Vec<String>,
}

impl Report {
    fn new(dir: &Path, name: &str) -> Self {
        Self {
            name: name.to_owned(),
            file: dir.join(format!("{name}.wasm")),
            hash: String::new(),
            size: 0,
            disabled: false,
            roles: Vec::new(),
            imports: Vec::new(),
            needs: Vec::new(),
            interface: String::new(),
            offered: inspect::offered(),
            keys: Vec::new(),
            compiled_in: Duration::ZERO,
            faults: Vec::new(),
            warnings: Vec::new(),
        }
    }
}

/// Checks one `.wasm` file with the manifest beside it.
///
/// # Errors
/// The engine or a thread cannot be created.
pub async fn check_file(file: &Path, config: &Plugins) -> Result<Report, LoadError> {
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    if file.extension().is_none_or(|kind| kind != "wasm") {
        let mut report = Report::new(dir, &name);
        report.file = file.to_owned();
        report.faults.push("expected a file whose name ends with .wasm".to_owned());
        return Ok(report);
    }
    Ok(check(&env(config)?, dir, &name, Owners::Anyone).await)
}

/// Checks every plugin of `config.dir`, and that no two plugins own the same handler key.
///
/// # Errors
/// The directory cannot be read, or the engine or a thread cannot be created.
pub async fn check_dir(config: &Plugins) -> Result<Vec<Report>, LoadError> {
    if config.dir.as_os_str().is_empty() {
        return Ok(Vec::new());
    }
    let found = disk::scan(&config.dir).map_err(|error| LoadError::Dir { path: config.dir.clone(), error })?;
    let dangling = disk::dangling(&config.dir).map_err(|error| LoadError::Dir { path: config.dir.clone(), error })?;
    let env = env(config)?;
    let mut reports = Vec::new();
    let mut owners: BTreeMap<String, String> = BTreeMap::new();
    for name in found.keys() {
        let mut report = check(&env, &config.dir, name, Owners::Trusted).await;
        for key in &report.keys {
            match owners.get(key) {
                Some(owner) => {
                    report.faults.push(format!("it owns the key {key:?}, which plugin {owner} owns already"));
                }
                None => drop(owners.insert(key.clone(), name.clone())),
            }
        }
        reports.push(report);
    }
    for file in dangling {
        let name = file.split_once(".wasm").or(file.split_once(".toml")).map_or(&*file, |(name, _)| name);
        let fault = format!("{file} is a dangling symbolic link");
        match reports.iter_mut().find(|report| report.name == name) {
            Some(report) => report.faults.push(fault),
            None => reports.push(Report { faults: vec![fault], ..Report::new(&config.dir, name) }),
        }
    }
    Ok(reports)
}

fn env(config: &Plugins) -> Result<Env, LoadError> {
    // Only the canary is called here, so no task has to make instances.
    let ((warmer, _), (rollbacks, _)) = (mpsc::channel(1), mpsc::channel(1));
    // Compiles as the node does: a file that the node refuses for its size must not pass here. A test binary is not
    // `skylark`, so it compiles in its own process.
    let compile = if cfg!(test) { CompileIn::ThisProcess } else { CompileIn::Child };
    Env::new(config, Options { compile, ..Options::default() }, warmer, rollbacks)
}

async fn check(env: &Env, dir: &Path, name: &str, owners: Owners) -> Report {
    let mut report = Report::new(dir, name);
    let files = match disk::read(dir, name, owners) {
        Ok(RawFiles { wasm: Some(wasm), manifest, signature }) => {
            PluginFiles::new(name.into(), wasm, manifest, signature)
        }
        Ok(RawFiles { wasm: None, .. }) => {
            report.faults.push(format!("{name}.wasm does not exist"));
            return report;
        }
        Err(error) => {
            report.faults.push(error.to_string());
            return report;
        }
    };
    (report.hash, report.size) = (files.id.hash.to_string(), files.bytes.len() as u64);
    let manifest = Manifest::parse(files.manifest(), env.caps()).unwrap_or_else(|faults| {
        report.faults.extend(faults.iter().map(|fault| format!("{name}.toml: {fault}")));
        Manifest::default()
    });
    report.disabled = !manifest.enabled;
    if let Err(fault) = load::check_trust(env, &files, &manifest) {
        // Like the loader, does not process an untrusted file any further.
        report.faults.extend(fault.reasons);
        return report;
    }
    if let Err(fault) = examine(env, &files, manifest, &mut report).await {
        report.roles = fault.roles.iter().map(|role| role.as_str()).collect();
        report.faults.extend(fault.reasons);
    }
    report
}

async fn examine(env: &Env, files: &PluginFiles, manifest: Manifest, report: &mut Report) -> Result<(), LoadFault> {
    let begun = Instant::now();
    let component = load::compile(env, files).await?;
    report.compiled_in = begun.elapsed();
    let (interface, _) = inspect::read_interface(env.engine(), &component);
    report.needs = inspect::needed(&interface.imports).collect();
    report.interface = newest(&interface).to_owned();
    report.warnings = warnings(&interface, &manifest, files.bytes.len());
    report.imports = interface.imports;
    let version: Arc<_> = load::link(env, files, &component, manifest, 1).await?;
    report.roles = version.shown_roles();
    report.keys.clone_from(&version.keys);
    Ok(())
}

/// Findings about a plugin that serves but may not do as intended.
fn warnings(interface: &ComponentInterface, manifest: &Manifest, size: usize) -> Vec<String> {
    let has = |role| interface.roles.contains(&role);
    let rules = &manifest.rules;
    let unused: Vec<&str> = manifest
        .grants
        .iter()
        .map(String::as_str)
        .filter(|grant| !interface.imports.iter().any(|i| i == grant))
        .collect();
    let newest = newest(interface);
    let all = [
        (!unused.is_empty(), format!("grants {}, which the plugin does not import", unused.join(" and "))),
        (
            manifest.allow_on_failure && !has(Role::Filter),
            "on_failure has no effect: the plugin is not a filter".to_owned(),
        ),
        (
            interface.receipts && !has(Role::Events),
            "receipts has no effect: the plugin is not an events plugin".to_owned(),
        ),
        (
            !rules.keys.is_empty() && !has(Role::Handler),
            "match.keys has no effect: the plugin is not a handler".to_owned(),
        ),
        (
            !(has(Role::Filter) || rules.actions.is_empty() && rules.origins.is_empty()),
            "match.actions and match.origins have no effect: the plugin is not a filter".to_owned(),
        ),
        (
            patch(newest) > patch(inspect::offered()),
            format!(
                "the plugin was built for interface {newest}, and this host offers {}: newer functions may be missing",
                inspect::offered()
            ),
        ),
        (
            size > LARGE,
            format!("the file has {} MiB, which compile for seconds without a cache (plugins.cache)", size >> 20),
        ),
    ];
    all.into_iter().filter(|(applies, _)| *applies).map(|(_, warning)| warning).collect()
}

/// Size in bytes above which a component takes long to compile.
const LARGE: usize = 8 << 20;

fn newest(interface: &ComponentInterface) -> &str {
    interface.versions.iter().max_by_key(|version| patch(version)).map_or("", String::as_str)
}

fn patch(version: &str) -> Option<u64> {
    version.rsplit('.').next()?.parse().ok()
}
