//! `skylark plugin`: everything around plugins, one file a command.

mod bench;
mod build;
mod check;
mod dev;
mod list;
mod new;
mod sign;
mod tell;
mod test;
mod watch;

pub(super) use bench::sample_message;
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
    /// Make a folder for a plugin of your own, that builds and passes its tests as it stands.
    New(new::New),
    /// List the plugins of a running node.
    List(list::List),
    /// Measure a plugin by the host's own code: warm calls, allocations, memory, cold start, compile time, and the verdict against its budget.
    Bench(bench::Bench),
    /// Build a plugin's folder: find its tools, or say which command installs them, and run its own recipe.
    Build(build::Build),
    /// Build a plugin's folder whenever something is saved, put it into a running node, and follow what it logs there.
    Dev(dev::Dev),
    /// Put a disabled plugin of a running node back into service.
    Enable(tell::Tell),
    /// Take a plugin out of service until it is enabled or the node starts again: a filter's gate is open then.
    Disable(tell::Tell),
    /// Have a running node load a plugin's files anew, a refused or rolled back one too.
    Reload(tell::Tell),
    /// Go back to the version that served before.
    Rollback(tell::Tell),
    /// Let the sources in again that a plugin has set apart, because it failed for them.
    Readmit(tell::Tell),
    /// Compile and check a component with the manifest beside it, without a node.
    Check(check::Check),
    /// Make a key that signs plugins, and print what the configuration says of it.
    Keygen(sign::Keygen),
    /// Sign components for plugins.signing_keys.
    Sign(sign::Sign),
    /// Play the cases of a plugin (cases.yaml) without a node: input, and the expected verdict, reply, pushes, kv and log.
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
