//! SIGHUP: reloads the configuration, checks it together with the kept values, and applies it whole or not at all.
//!
//! All fallible steps come before the first change. The log file is reopened in any case.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::spawn_blocking;

use super::{App, log_closed_rooms, log_warnings};
use crate::config::{Config, ConfigError, LiveConfig, Plugins, Reloaded};
use crate::plugin::host::WasmHost;
use crate::server::tls_faults;
use crate::telemetry::{LogLevel, TelemetryError};
use crate::trust;

/// The reload is refused and changes nothing.
#[derive(Debug, thiserror::Error)]
enum ReloadError {
    /// Faults of the new files, alone or combined with values that need a restart.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The log level is invalid.
    #[error(transparent)]
    Level(#[from] TelemetryError),
    /// Files that the configuration names are invalid.
    #[error("{}", .0.join("; "))]
    Files(Vec<String>),
}

/// A configuration that applies without errors.
struct Prepared {
    reloaded: Reloaded,
    level: LogLevel,
}

impl App {
    /// Reads the configuration again and applies its live keys.
    pub(super) async fn reload(&self) {
        self.reopen_log().await;
        match self.prepare().await {
            Ok(prepared) => self.commit(prepared),
            Err(error) => tracing::error!(%error, "reload failed: the configuration is unchanged"),
        }
    }

    /// For logrotate, which renames the file and sends the signal.
    async fn reopen_log(&self) {
        let telemetry = Arc::clone(&self.telemetry);
        let opened = spawn_blocking(move || telemetry.reopen()).await;
        if let Ok(Err(error)) = opened {
            tracing::error!(%error, "reopening the log file failed: the previous file stays in use");
        }
    }

    /// Performs all fallible steps and changes nothing.
    async fn prepare(&self) -> Result<Prepared, ReloadError> {
        let (loaded, config) = (Arc::clone(&self.loaded), self.config.load_full());
        let reloaded =
            spawn_blocking(move || loaded.reload(&config)).await.expect("reading a configuration does not panic")?;
        let level = LogLevel::parse(&reloaded.config.log.level)?;
        let config = reloaded.config.clone();
        let faults = spawn_blocking(move || file_faults(&config)).await.expect("reading files does not panic");
        if faults.is_empty() { Ok(Prepared { reloaded, level }) } else { Err(ReloadError::Files(faults)) }
    }

    /// Swaps the snapshot that the node, the server, the API, the intakes and [`apply_plugin_rules`] read. Only the log
    /// filter and the clients of engines have copies of their own.
    fn commit(&self, Prepared { reloaded: Reloaded { config, changes }, level }: Prepared) {
        self.telemetry.set_level(level);
        log_warnings(&config);
        let config = Arc::new(config);
        self.config.store(Arc::clone(&config));
        self.engine.reconfigure(&config);
        log_closed_rooms(&config, &self.node);
        tracing::info!(taken = ?changes.live, needs_restart = ?changes.needs_restart, "configuration reloaded");
    }
}

/// Passes the `plugins` rules of each reload to the plugin host; never ends by itself. A compile can keep the host busy
/// for minutes. Signals and further reloads do not wait for it: only the newest rules are passed on.
pub(super) fn apply_plugin_rules(host: Arc<WasmHost>, config: LiveConfig) -> impl Future<Output = ()> {
    let trust = |rules: &Plugins| (rules.require_hash, rules.signing_keys.clone());
    // Subscribed before the task runs, so that no reload is missed.
    let mut swaps = config.subscribe();
    let mut trusted = trust(&config.load().plugins);
    async move {
        while swaps.changed().await.is_ok() {
            let new = config.load_full();
            host.allow_remove(new.plugins.allow_remove.clone()).await;
            if trust(&new.plugins) != trusted {
                trusted = trust(&new.plugins);
                host.set_trust(&new.plugins).await;
            }
        }
    }
}

/// Checks the files that the running node reads besides its configuration; returns one line per fault.
fn file_faults(config: &Config) -> Vec<String> {
    let mut faults = tls_faults(&config.listeners);
    let named: [(&str, &PathBuf); 2] =
        [("plugins.http_ca", &config.plugins.http_ca), ("bus.redis.ca", &config.bus.redis.ca)];
    let is_named = |(_, path): &(&str, &PathBuf)| !path.as_os_str().is_empty();
    let fault = |(key, path): (&str, &PathBuf)| trust::fault(Path::new(path), key);
    faults.extend(named.into_iter().filter(is_named).filter_map(fault));
    faults
}
