//! `skylark plugin`: everything around plugins, one file a command.

mod check;
mod list;

#[cfg(test)]
pub(super) use list::table;

use super::ConfigSource;

#[derive(Debug, clap::Args)]
pub(super) struct Plugin {
    #[command(subcommand)]
    command: PluginCommand,
}

#[derive(Debug, clap::Subcommand)]
enum PluginCommand {
    /// List the plugins of a running node.
    List(list::List),
    /// Compile and check a component with the manifest beside it, without a node.
    Check(check::Check),
}

impl Plugin {
    pub(super) fn run(self, source: &ConfigSource) -> anyhow::Result<()> {
        match self.command {
            PluginCommand::List(command) => command.run(source),
            PluginCommand::Check(command) => command.run(source),
        }
    }
}
