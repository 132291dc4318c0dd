//! `skylark plugin`: everything around plugins, one file a command.

mod build;
mod check;
mod list;
mod test;

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
    /// Build a plugin's folder: find its tools, or say which command installs them, and run its own recipe.
    Build(build::Build),
    /// Compile and check a component with the manifest beside it, without a node.
    Check(check::Check),
    /// Play the cases of a plugin (cases.yaml) without a node: input, and the expected verdict, reply, pushes, kv and log.
    Test(test::Test),
}

impl Plugin {
    pub(super) fn run(self, source: &ConfigSource) -> anyhow::Result<()> {
        match self.command {
            PluginCommand::List(command) => command.run(source),
            PluginCommand::Build(command) => command.run(),
            PluginCommand::Check(command) => command.run(source),
            PluginCommand::Test(command) => command.run(source),
        }
    }
}
