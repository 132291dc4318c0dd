//! SIGHUP: the configuration is read again, checked with what a running node keeps, and taken whole or not at all.
//!
//! Everything that can fail happens before the first change. The log file is opened again in any case.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::task::spawn_blocking;

use super::{App, warn_of, warn_of_closed_rooms};
use crate::config::{Config, ConfigError, Plugins, Reloaded};
use crate::plugin::host::WasmHost;
use crate::server::tls_faults;
use crate::telemetry::{LogLevel, TelemetryError};
use crate::trust;

/// Why a reload changes nothing.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    /// Faults of the new files, or of them together with what waits for a restart.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The level of the log.
    #[error(transparent)]
    Level(#[from] TelemetryError),
    /// Files that the configuration names.
    #[error("{}", .0.join("; "))]
    Files(Vec<String>),
}

/// A configuration that can be taken without a fault.
struct Prepared {
    reloaded: Reloaded,
    level: LogLevel,
}

impl App {
    /// Reads the configuration again and takes what a running node can take.
    pub(super) async fn reload(&mut self) {
        self.reopen_log().await;
        match self.prepare().await {
            Ok(prepared) => self.commit(prepared),
            Err(error) => tracing::error!(%error, "the configuration stays as it was"),
        }
    }

    /// For logrotate, which moves the file away and signals.
    async fn reopen_log(&self) {
        let telemetry = Arc::clone(&self.telemetry);
        let opened = spawn_blocking(move || telemetry.reopen()).await;
        if let Ok(Err(error)) = opened {
            tracing::error!(%error, "the log file stays as it was");
        }
    }

    /// Does all that may fail, and changes nothing.
    async fn prepare(&self) -> Result<Prepared, ReloadError> {
        let loaded = Arc::clone(&self.loaded);
        let reloaded =
            spawn_blocking(move || loaded.reload()).await.expect("reading a configuration does not panic")?;
        let level = LogLevel::parse(&reloaded.config.log.level)?;
        let config = reloaded.config.clone();
        let faults = spawn_blocking(move || file_faults(&config)).await.expect("reading files does not panic");
        if faults.is_empty() { Ok(Prepared { reloaded, level }) } else { Err(ReloadError::Files(faults)) }
    }

    fn commit(&mut self, Prepared { reloaded: Reloaded { config, changes }, level }: Prepared) {
        self.telemetry.set_level(level);
        warn_of(&config);
        self.loaded = Arc::new(self.loaded.with(config.clone()));
        let config = Arc::new(config);
        self.node.reconfigure(&config);
        warn_of_closed_rooms(&config, &self.node);
        self.api.reconfigure(&config);
        self.server.reconfigure(&config);
        self.intakes.reconfigure(&config);
        self.engine.reconfigure(&config);
        self.plugin_rules.send_replace(config.plugins.clone());
        tracing::info!(taken = ?changes.live, needs_restart = ?changes.needs_restart, "configuration read again");
    }
}

/// Gives the plugin host each new set of rules; never ends by itself. The host may be busy with a compile for minutes, and
/// neither signals nor the next reload wait for that: rules that came meanwhile are taken as one.
pub(super) async fn follow(host: Arc<WasmHost>, mut rules: watch::Receiver<Plugins>) {
    let trust = |rules: &Plugins| (rules.require_hash, rules.signing_keys.clone());
    let mut trusted = trust(&rules.borrow_and_update());
    while rules.changed().await.is_ok() {
        let new = rules.borrow_and_update().clone();
        host.allow_remove(new.allow_remove.clone()).await;
        if trust(&new) != trusted {
            trusted = trust(&new);
            host.set_trust(&new).await;
        }
    }
}

/// What is wrong with the files that the running node reads besides its configuration, a line for each.
fn file_faults(config: &Config) -> Vec<String> {
    let mut faults = tls_faults(&config.listeners);
    let named: [(&str, &PathBuf); 2] =
        [("plugins.http_ca", &config.plugins.http_ca), ("bus.redis.ca", &config.bus.redis.ca)];
    let is_named = |(_, path): &(&str, &PathBuf)| !path.as_os_str().is_empty();
    let fault = |(key, path): (&str, &PathBuf)| trust::fault(Path::new(path), key);
    faults.extend(named.into_iter().filter(is_named).filter_map(fault));
    faults
}
