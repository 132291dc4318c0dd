//! Files, variables and command-line options → one [`Loaded`] configuration, or every fault at once.
//!
//! Later sources win: built-in defaults, base file, overlay of the environment, `SKYLARK__…` variables, options.

mod memory;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Config;
use super::changes::Changes;
use super::check::check;
use super::read::fault::{ConfigError, Fault};
use super::read::value::{Kind, Value, ValueSource};
use super::read::yaml;
use super::read::{Reader, Setting};
use crate::id::{MAX_NAME_BYTES, NodeId};

/// The base file if `--config` names no other.
pub const BASE_FILE: &str = "config/skylark.yaml";
/// The environment that needs no file.
pub const BUILT_IN_ENV: &str = "dev";
/// Prefix of the variables that set keys.
const PREFIX: &str = "SKYLARK__";
/// Part of the memory limit that the history may use by default: one of this many.
const HISTORY_PARTS: usize = 8;
/// The overlay of [`BUILT_IN_ENV`] if it has no file.
const DEV_OVERLAY: &str = include_str!("../../config/skylark-dev.yaml");
const DEV_OVERLAY_NAME: &str = "built-in skylark-dev.yaml";

/// The sources of a configuration. Every load reads the files again.
#[derive(Debug, Clone, Default)]
pub struct Loader {
    file: Option<PathBuf>,
    env: Option<String>,
    pub(super) variables: BTreeMap<String, String>,
    options: Vec<(Arc<str>, String, String)>,
    host: Option<String>,
    /// True if `[::]` does not accept IPv4 (`net.ipv6.bindv6only`).
    only_v6: bool,
    /// Memory limit of this process in bytes.
    memory: Option<usize>,
}

/// A configuration with the sources of its values.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration in force.
    pub config: Config,
    /// Every key with its value and source, secrets masked, in the order of the tree.
    pub entries: Vec<Entry>,
    /// The files that were read, in order.
    pub files: Vec<String>,
    loader: Loader,
    tree: Value,
}

/// A configuration loaded again from the same sources.
#[derive(Debug, Clone)]
pub struct Reloaded {
    /// Live keys have their new values, all others keep the old ones. The combination has been checked.
    pub config: Config,
    /// Keys that differ between the old files and the new ones.
    pub changes: Changes,
}

/// Result of reading a configuration that may have faults.
pub struct Examined {
    /// Keys with a fault hold their default. `None` if no tree could be read.
    pub config: Option<Config>,
    /// The faults.
    pub faults: Vec<Fault>,
    /// The files that were read, in order.
    pub files: Vec<String>,
    /// Files whose permissions matter: files with secrets, and files that define trust.
    pub guarded_files: Vec<GuardedFile>,
    tree: Value,
}

/// A file that must not be readable or writable by every user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuardedFile {
    /// The key that names the file or is set in it, e.g. `api.keys[0].key`; empty for a configuration file itself.
    pub key: String,
    /// Path of the file.
    pub path: PathBuf,
    /// True if it holds a secret.
    pub is_secret: bool,
}

/// One key in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The key, e.g. `listeners[0].address`.
    pub path: String,
    /// Its value as YAML on one line; `***` for a secret.
    pub value: String,
    /// ValueSource of the value.
    pub source: ValueSource,
}

impl Loader {
    /// Loads `file`, the overlay of `env` in the same directory, and the variables of this process. Without `file` it
    /// loads [`BASE_FILE`] if that exists, else the built-in defaults.
    #[must_use]
    pub fn new(file: Option<PathBuf>, env: Option<String>) -> Self {
        let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        let only_v6 = std::fs::read_to_string("/proc/sys/net/ipv6/bindv6only").is_ok_and(|text| text.trim() == "1");
        Self {
            file,
            env,
            variables: std::env::vars_os().filter_map(text).collect(),
            options: Vec::new(),
            host,
            only_v6,
            memory: memory::limit(Path::new("/")),
        }
    }

    /// As [`new`](Self::new), but with these variables only, without a host name and without a memory limit.
    #[cfg(test)]
    pub(crate) fn isolated(file: Option<PathBuf>, env: Option<&str>, variables: &[(&str, &str)]) -> Self {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { file, env: env.map(str::to_owned), variables, ..Self::default() }
    }

    /// As on a machine with this memory limit in bytes.
    #[cfg(test)]
    pub(super) fn with_memory(self, bytes: usize) -> Self {
        Self { memory: Some(bytes), ..self }
    }

    /// Sets one key by a command-line option, e.g. `--listen`, `listeners.0.address`, `127.0.0.1:80`.
    #[must_use]
    pub fn with_option(mut self, option: &str, path: &str, value: impl Into<String>) -> Self {
        self.options.push((option.into(), path.to_owned(), value.into()));
        self
    }

    /// Reads all sources.
    ///
    /// # Errors
    /// Every fault of every file, variable and option at once.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        let Examined { config, faults, files, tree, .. } = self.examine();
        match config {
            Some(config) if faults.is_empty() => {
                Ok(Loaded { entries: entries(&config, &tree), config, files, loader: self.clone(), tree })
            }
            _ => Err(ConfigError { faults }),
        }
    }

    /// Reads all sources and continues after faults.
    #[must_use]
    pub fn examine(&self) -> Examined {
        let mut faults = Vec::new();
        let mut files = Vec::new();
        let mut tree = self.defaults();
        for (file, text) in self.files(&mut faults) {
            match yaml::parse(&file, &text, &mut faults) {
                Ok(value) => tree.overlay(value),
                Err(fault) => faults.push(fault),
            }
            files.push(file.to_string());
        }
        self.apply_variables(&mut tree, &mut faults);
        self.apply_options(&mut tree, &mut faults);
        let mut reader = Reader::new(&self.variables, faults);
        let config = Config::read(&tree, &mut reader).map(name_api_keys);
        let (mut faults, mut guarded_files) = (reader.faults, reader.guarded_files);
        guarded_files.extend(files.iter().map(|file| GuardedFile::trusted("", Path::new(file))));
        if let Some(config) = &config {
            guarded_files.extend(named_files(config));
            check(config, &tree, self.only_v6, &mut faults);
        }
        Examined { config, faults, files, guarded_files, tree }
    }

    pub(super) fn defaults(&self) -> Value {
        let mut config = Config::default();
        if let Some(id) = self.host.as_deref().and_then(node_id) {
            config.node.id = id;
        }
        if let Some(memory) = self.memory {
            // Whole MiB are easier to read. The least is that of the key.
            let part = (memory / HISTORY_PARTS) >> 20 << 20;
            config.history.bytes = part.clamp(1 << 20, config.history.bytes);
        }
        config.show()
    }

    /// Name and text of each configuration file.
    fn files(&self, faults: &mut Vec<Fault>) -> Vec<(Arc<str>, String)> {
        let base = self.file.clone().unwrap_or_else(|| BASE_FILE.into());
        let mut files = Vec::new();
        match read(&base) {
            Ok(text) => files.push((name_of(&base), text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && self.file.is_none() => {}
            Err(error) => faults.push(unreadable(&base, &error, "")),
        }
        let Some(env) = &self.env else { return files };
        let stem = base.file_stem().unwrap_or_default().to_string_lossy();
        let extension = base.extension().map_or("yaml".into(), |extension| extension.to_string_lossy());
        let overlay = base.with_file_name(format!("{stem}-{env}.{extension}"));
        match read(&overlay) {
            Ok(text) => files.push((name_of(&overlay), text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && env == BUILT_IN_ENV => {
                files.push((DEV_OVERLAY_NAME.into(), DEV_OVERLAY.to_owned()));
            }
            Err(error) => faults.push(unreadable(&overlay, &error, &format!(" (the overlay of --env {env})"))),
        }
        files
    }

    fn apply_variables(&self, tree: &mut Value, faults: &mut Vec<Fault>) {
        for (name, text) in self.variables.iter().filter(|(name, _)| name.starts_with(PREFIX)) {
            let path = name[PREFIX.len()..].to_lowercase().replace("__", ".");
            apply(tree, &ValueSource::Variable(name.as_str().into()), &path, text, faults);
        }
    }

    fn apply_options(&self, tree: &mut Value, faults: &mut Vec<Fault>) {
        for (option, path, text) in &self.options {
            apply(tree, &ValueSource::Flag(option.clone()), path, text, faults);
        }
    }
}

impl Loaded {
    /// Reads the same files again. Checks the new values of live keys together with the values of all others that are
    /// `in_force`, because the node runs with this combination until it restarts.
    ///
    /// # Errors
    /// As [`Loader::load`], or a rule that the combination violates. The configuration then stays unchanged.
    pub fn reload(&self, in_force: &Config) -> Result<Reloaded, ConfigError> {
        let new = self.loader.load()?;
        let changes = in_force.changes(&new.config);
        let config = in_force.with_live(&new.config);
        let mut faults = Vec::new();
        check(&config, &new.tree, self.loader.only_v6, &mut faults);
        if faults.is_empty() {
            return Ok(Reloaded { config, changes });
        }
        let restart_keys = changes.needs_restart.join(", ");
        for fault in &mut faults {
            fault.problem += &format!(
                "; until a restart the node keeps the old {restart_keys}: restart it, or choose a value that fits both"
            );
        }
        Err(ConfigError { faults })
    }
}

/// Names each API key without a name by its position, such as `#2`.
fn name_api_keys(mut config: Config) -> Config {
    for (index, key) in config.api.keys.iter_mut().enumerate().filter(|(_, key)| key.name.is_empty()) {
        key.name = format!("#{}", index + 1).into();
    }
    config
}

/// Sets one key from a text. `[…]` and `{…}` are parsed as YAML; any other text is taken literally.
fn apply(tree: &mut Value, source: &ValueSource, path: &str, text: &str, faults: &mut Vec<Fault>) {
    let fault = |problem: String| Fault { source: source.clone(), path: path.to_owned(), problem, nearest: None };
    let mut value = Value { kind: Kind::Text(text.to_owned()), source: source.clone() };
    if text.starts_with(['[', '{']) {
        match yaml::parse(&"".into(), text, faults) {
            Ok(parsed) => value = parsed,
            Err(error) => return faults.push(fault(error.problem)),
        }
        value.set_source(source);
    }
    let steps: Vec<&str> = path.split('.').collect();
    if !tree.set(&steps, value) {
        faults.push(fault("no such list entry, expected the number of an existing entry or the next one".to_owned()));
    }
}

impl GuardedFile {
    pub(super) fn secret(key: impl Into<String>, path: &Path) -> Self {
        Self { key: key.into(), path: path.to_owned(), is_secret: true }
    }

    fn trusted(key: impl Into<String>, path: &Path) -> Self {
        Self { is_secret: false, ..Self::secret(key, path) }
    }
}

/// Key and certificate files that the configuration names.
fn named_files(config: &Config) -> Vec<GuardedFile> {
    let mut files = Vec::new();
    for (index, listener) in config.listeners.iter().enumerate() {
        if let Some(tls) = &listener.tls {
            files.push(GuardedFile::secret(format!("listeners[{index}].tls.key"), &tls.key));
            files.push(GuardedFile::trusted(format!("listeners[{index}].tls.cert"), &tls.cert));
        }
    }
    let authorities = [("plugins.http_ca", &config.plugins.http_ca), ("bus.redis.ca", &config.bus.redis.ca)];
    files.extend(authorities.map(|(key, path)| GuardedFile::trusted(key, path)));
    files
}

fn entries(config: &Config, tree: &Value) -> Vec<Entry> {
    let shown = config.show();
    let entry = |(path, value): (String, &Value)| {
        let source = tree.source_at(&path);
        Entry { path, value: value.to_string(), source }
    };
    shown.leaves().into_iter().map(entry).collect()
}

fn read(path: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(yaml::MAX_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > yaml::MAX_BYTES {
        return Err(std::io::Error::other(format!("expected at most {} bytes", yaml::MAX_BYTES)));
    }
    Ok(text)
}

fn unreadable(path: &Path, error: &std::io::Error, what: &str) -> Fault {
    let source = ValueSource::File { file: name_of(path), line: 0 };
    Fault { source, path: String::new(), problem: format!("cannot be read{what}: {error}"), nearest: None }
}

fn name_of(path: &Path) -> Arc<str> {
    path.display().to_string().into()
}

/// Converts a host name to a valid node name.
fn node_id(host: &str) -> Option<NodeId> {
    let valid = |c: &char| *c != ',' && !c.is_control() && !c.is_whitespace();
    let mut name: String = host.chars().filter(valid).collect();
    name.truncate(name.floor_char_boundary(MAX_NAME_BYTES));
    NodeId::parse(&name).ok()
}
