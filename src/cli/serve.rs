//! `skylark serve`: loads the configuration and runs the app.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use super::ConfigSource;

/// Time for blocking threads after the node has drained.
const THREADS_TIMEOUT: Duration = Duration::from_millis(500);

#[derive(Debug, clap::Args)]
pub(super) struct Serve {
    /// Plugin directory, instead of plugins.dir.
    #[arg(long, value_name = "DIR")]
    plugins: Option<PathBuf>,
    /// Address of the first listener, instead of the configured one; port 0 takes a free one.
    #[arg(long, value_name = "ADDR")]
    listen: Option<SocketAddr>,
}

impl Serve {
    pub(super) fn run(self, source: &ConfigSource) -> anyhow::Result<ExitCode> {
        let mut loader = source.loader();
        if let Some(dir) = &self.plugins {
            loader = loader.with_option("--plugins", "plugins.dir", dir.display().to_string());
        }
        if let Some(address) = self.listen {
            loader = loader.with_option("--listen", "listeners.0.address", address.to_string());
        }
        let loaded = loader.load()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let ended = runtime.block_on(crate::app::run(loaded));
        runtime.shutdown_timeout(THREADS_TIMEOUT);
        Ok(ended?.exit_code().into())
    }
}
