//! `skylark plugin check`: the loader's own steps on one file, without a node.

use std::path::PathBuf;

use crate::cli::{ConfigSource, check};

#[derive(Debug, clap::Args)]
pub(super) struct Check {
    /// The component, NAME.wasm; NAME.toml beside it is its manifest.
    file: PathBuf,
}

impl Check {
    pub(super) fn run(self, source: &ConfigSource) -> anyhow::Result<()> {
        check::one_plugin(&self.file, source)
    }
}
