//! `skylark plugin`: plugin commands, one file per command.

mod bench;
mod build;
mod check;
mod control;
mod dev;
mod list;
mod new;
mod sign;
mod test;
mod watch;

pub use bench::sample_message;
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
    /// Create a folder for a new plugin that builds and passes its tests as it is.
    New(new::New),
    /// List the plugins of a running node.
    List(list::List),
    /// Measure a plugin with the host's own code: warm calls, allocations, memory, cold start, compile time, and the
    /// verdict against its budget.
    Bench(bench::Bench),
    /// Build a plugin's folder: find its tools, or name the command that installs them, and run its own recipe.
    Build(build::Build),
    /// Build a plugin's folder after every change, install it into a running node, and follow its log.
    Dev(dev::Dev),
    /// Enable a disabled plugin of a running node.
    Enable(control::Control),
    /// Disable a plugin until it is enabled or the node restarts; messages then pass a disabled filter unchecked.
    Disable(control::Control),
    /// Reload a plugin's files in a running node, even after a refusal or rollback.
    Reload(control::Control),
    /// Roll back to the previous version.
    Rollback(control::Control),
    /// Readmit the sources that a plugin set apart after repeated failures.
    Readmit(control::Control),
    /// Compile and check a component with the manifest beside it, without a node.
    Check(check::Check),
    /// Create a key that signs plugins, and print its configuration entry.
    Keygen(sign::Keygen),
    /// Sign components for plugins.signing_keys.
    Sign(sign::Sign),
    /// Run the test cases of a plugin (cases.yaml) without a node: input, and the expected verdict, reply, pushes, kv
    /// and log.
    Test(test::Test),
}

impl Plugin {
    pub(super) fn run(self, source: &ConfigSource) -> anyhow::Result<()> {
        match self.command {
            PluginCommand::New(command) => command.run(),
            PluginCommand::List(command) => command.run(source),
            PluginCommand::Bench(command) => command.run(source),
            PluginCommand::Build(command) => command.run(),
            PluginCommand::Dev(command) => command.run(source),
            PluginCommand::Enable(command) => command.run("enable", source),
            PluginCommand::Disable(command) => command.run("disable", source),
            PluginCommand::Reload(command) => command.run("reload", source),
            PluginCommand::Rollback(command) => command.run("rollback", source),
            PluginCommand::Readmit(command) => command.run("readmit", source),
            PluginCommand::Check(command) => command.run(source),
            PluginCommand::Keygen(command) => command.run(),
            PluginCommand::Sign(command) => command.run(),
            PluginCommand::Test(command) => command.run(source),
        }
    }
}
