//! `skylark compile-plugin`: the child process in which a node compiles a plugin. Not a user command.

use crate::plugin::host::{ChildLimits, compile_stdin};

#[derive(Debug, clap::Args)]
pub(super) struct CompilePlugin {
    /// Maximum memory in bytes.
    #[arg(long)]
    memory: u64,
    /// Maximum CPU time in seconds.
    #[arg(long)]
    cpu: u64,
    /// Fingerprint of the engine that will run the code.
    #[arg(long)]
    engine: u64,
}

impl CompilePlugin {
    pub(super) fn run(self) -> anyhow::Result<()> {
        let Self { memory, cpu, engine } = self;
        match compile_stdin(ChildLimits { memory, cpu, engine })? {
            0 => Ok(()),
            code => std::process::exit(code),
        }
    }
}
