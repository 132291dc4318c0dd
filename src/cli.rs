//! The command line, one file per command. Exit codes: 0 success, 1 failure, 2 invalid command line; `serve` has more.
//!
//! Commands print their result on standard output and everything else on standard error. None asks for confirmation.

mod check;
mod compile_plugin;
mod completions;
mod config;
mod connect;
mod dial;
mod history;
mod http;
mod plugin;
mod push;
mod serve;
pub mod token;
mod wire;

#[cfg(test)]
mod tests;

pub use plugin::sample_message;

use std::ffi::OsString;
use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Loaded, Loader};

/// Runs the command that `words` name; the first word is the name of the program.
///
/// # Errors
/// The error of the command, with its causes. An invalid command line ends the process with code 2.
pub fn run(words: impl IntoIterator<Item = OsString>) -> anyhow::Result<ExitCode> {
    Cli::parse_from(words).run()
}

/// Exit code of a program that ends with this result. Prints the error with its causes.
pub fn exit_code(result: anyhow::Result<ExitCode>) -> ExitCode {
    match result {
        Ok(code) => code,
        // The reader closed our output pipe. That is not an error of this command.
        Err(error) if is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut printed = error.to_string();
            for cause in error.chain().skip(1).map(ToString::to_string) {
                if !printed.contains(&cause) {
                    eprintln!("  because: {cause}");
                    printed = cause;
                }
            }
            ExitCode::FAILURE
        }
    }
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    let is_io = error.downcast_ref::<std::io::Error>();
    is_io.is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
}

/// Skylark (云雀): a WebAssembly-extensible real-time message gateway.
#[derive(Debug, Parser)]
#[command(name = "skylark", version, propagate_version = true)]
struct Cli {
    #[command(flatten)]
    source: ConfigSource,
    #[command(subcommand)]
    command: Command,
}

impl Cli {
    fn run(self) -> anyhow::Result<ExitCode> {
        match self.command {
            Command::Serve(command) => return command.run(&self.source),
            Command::Check(command) => command.run(&self.source),
            Command::Config(command) => command.run(&self.source),
            Command::Token(command) => command.run(&self.source),
            Command::Connect(command) => command.run(&self.source),
            Command::Push(command) => command.run(&self.source),
            Command::History(command) => command.run(&self.source),
            Command::Plugin(command) => command.run(&self.source),
            Command::Completions(command) => command.run(),
            Command::CompilePlugin(command) => command.run(),
        }?;
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a node in the foreground until SIGTERM or SIGINT drains it; SIGHUP reloads the configuration.
    Serve(serve::Serve),
    /// Check the configuration and every plugin, report all faults at once, open no port.
    Check(check::Check),
    /// Show the configuration in force and the source of each value; secrets are masked.
    Config(config::ShowConfig),
    /// Mint a token for the sample plugin token-auth and print it.
    Token(token::Token),
    /// Connect as a client: print each frame as a JSON line, send each line of input.
    Connect(connect::Connect),
    /// Push a message through a running node and print the response.
    Push(push::Push),
    /// Print the kept messages of a user, a room or everyone.
    History(history::History),
    /// Create, build, test and manage plugins.
    Plugin(plugin::Plugin),
    /// Print shell completions.
    Completions(completions::Completions),
    /// Compile one plugin, within limits, from standard input to standard output; started by a node.
    #[command(hide = true)]
    CompilePlugin(compile_plugin::CompilePlugin),
}

/// The configuration that a command reads.
#[derive(Debug, clap::Args)]
struct ConfigSource {
    /// Configuration file [default: config/skylark.yaml if it exists, else built-in defaults].
    #[arg(long, global = true, value_name = "FILE", help_heading = "Configuration")]
    config: Option<PathBuf>,
    /// Environment; overlays config/skylark-NAME.yaml. `dev` is built in.
    #[arg(long, global = true, value_name = "NAME", value_parser = env_name, help_heading = "Configuration")]
    env: Option<String>,
}

impl ConfigSource {
    fn loader(&self) -> Loader {
        Loader::new(self.config.clone(), self.env.clone())
    }

    fn load(&self) -> anyhow::Result<Loaded> {
        Ok(self.loader().load()?)
    }
}

/// Checks the name, which becomes part of a file name.
fn env_name(text: &str) -> Result<String, String> {
    let is_plain = !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    is_plain.then(|| text.to_owned()).ok_or_else(|| "expected letters, digits, - and _".to_owned())
}

/// Runs a client command on one thread.
fn block_on<T>(task: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let done = runtime.block_on(task);
    // A read of standard input cannot be cancelled, so the shutdown must not wait for it.
    runtime.shutdown_background();
    done
}

/// Prints one line; fails if the output is closed.
fn print(line: &str) -> anyhow::Result<()> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    out.write_all(line.as_bytes())?;
    out.write_all(b"\n")?;
    out.flush()?;
    Ok(())
}
