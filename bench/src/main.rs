//! The bench: starts servers as separate processes, loads them, and reports their work per CPU-second.
//!
//! A node under test is this program with another command: it links the same library as `skylark`. The load generator
//! shares no code with the hub or the server. Methods and validity rules: `docs/benchmarks/method.md`.

mod cell;
mod cells;
mod load;
mod peer;
mod reference;
mod results;
mod subject;

use std::ffi::OsString;
use std::io::Write as _;
use std::iter;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, bail};
use clap::Parser as _;
use indicatif::{ProgressBar, ProgressStyle};
use rustix::process::{Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit};

use skylark::allocator::Allocator;
use skylark::cli;

use cell::{Cell, Stage};
use peer::Peer;
use reference::Reference;
use results::{Results, markdown, plot, report};
use subject::{Contender, Kind, Workspace, allocations};

/// The allocator of `skylark`, because a node under test must have it.
#[global_allocator]
static ALLOCATOR: Allocator = Allocator;

fn main() -> ExitCode {
    cli::exit_code(Bench::parse().run())
}

/// Measures this machine: work per CPU-second of a Skylark node, compared with servers that only write.
#[derive(Debug, clap::Parser)]
#[command(name = "skylark-bench", version, args_conflicts_with_subcommands = true)]
struct Bench {
    #[command(subcommand)]
    part: Option<Part>,
    /// One repetition with short windows; takes two minutes.
    #[arg(long)]
    quick: bool,
    /// Only this cell; may be repeated [default: all cells that need only this program and its plugins].
    #[arg(long = "cell", value_name = "NAME")]
    cells: Vec<String>,
    /// Repetitions, interleaved [default: 5, with --quick 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    repetitions: Option<u32>,
    /// Maximum connections of any cell, for a machine with few descriptors; bars are then not judged.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(20..))]
    connections: Option<u32>,
    /// Write all figures to this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Compare with the figures of an earlier run.
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// Also measure a running peer: KIND=URL with options after commas (docs/benchmarks/method.md). Kinds: centrifugo,
    /// centrifugo-protobuf, pusher, cim. May be repeated.
    #[arg(long = "peer", value_name = "KIND=URL[,…]")]
    peers: Vec<String>,
    /// Directory of the sample plugins.
    #[arg(long, value_name = "DIR", default_value = "plugins")]
    plugins: PathBuf,
    /// Directory of guests that are not committed: noop-c.wasm, noop-js.wasm, noop-python.wasm, as built by
    /// plugins/testing/languages.
    #[arg(long, value_name = "DIR", default_value = "target/guests")]
    guests: PathBuf,
    /// List the cells and their questions.
    #[arg(long)]
    list: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Part {
    /// Draw the figures of --json: one SVG file per chart.
    Plot {
        /// File written by --json.
        file: PathBuf,
        /// Output directory.
        #[arg(short = 'o', long = "out", value_name = "DIR", default_value = ".")]
        dir: PathBuf,
    },
    /// Print the figures of --json as Markdown.
    Table {
        /// File written by --json.
        file: PathBuf,
    },
    /// Run one of the reference servers.
    #[command(hide = true)]
    Reference {
        /// The server.
        kind: Reference,
    },
    /// Run a node.
    #[command(hide = true)]
    Node {
        /// Count allocations, and answer each line of standard input with the count.
        #[arg(long)]
        count_allocations: bool,
        /// The arguments of `skylark`.
        #[arg(last = true)]
        words: Vec<OsString>,
    },
    /// Run another program.
    #[command(hide = true)]
    Program {
        program: PathBuf,
        /// Its arguments.
        #[arg(last = true)]
        words: Vec<OsString>,
    },
    /// Compile one plugin; started by a node.
    #[command(hide = true, disable_help_flag = true)]
    CompilePlugin {
        /// The arguments of `skylark compile-plugin`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
}

impl Bench {
    fn run(mut self) -> anyhow::Result<ExitCode> {
        if let Some(part) = self.part.take() {
            return part.run();
        }
        if self.list {
            cell::all().iter().try_for_each(|cell| print(&entry(cell.as_ref())))?;
            return Ok(ExitCode::SUCCESS);
        }
        let cells = self.chosen()?;
        let peers = peers(&self.peers)?;
        let baseline = self.baseline.as_deref().map(Results::read).transpose()?;
        raise_descriptors()?;
        let mut results = self.measure(&cells, &peers)?;
        if self.connections.is_none() {
            let bars = cells.iter().flat_map(|cell| cell.bars().into_iter().map(|bar| (cell.name(), bar)));
            results.bars = bars.filter_map(|(cell, bar)| bar.judge(cell, &results)).collect();
            let beside_peers: Vec<_> = peers.iter().flat_map(|peer| peer::bars(peer, &results)).collect();
            results.bars.extend(beside_peers);
        }
        if let Some(path) = &self.json {
            results.write(path)?;
        }
        print(&report::table(&results, baseline.as_ref()))?;
        Ok(results.exit_code().into())
    }

    fn chosen(&self) -> anyhow::Result<Vec<Box<dyn Cell>>> {
        let mut all = cell::all();
        if let Some(unknown) = self.cells.iter().find(|name| all.iter().all(|cell| cell.name() != name.as_str())) {
            let names: Vec<&str> = all.iter().map(|cell| cell.name()).collect();
            bail!("no cell is named {unknown:?}: expected one of {}", names.join(", "));
        }
        all.retain(|cell| match self.cells.as_slice() {
            [] => cell.needs().is_none(),
            named => named.iter().any(|name| name == cell.name()),
        });
        Ok(all)
    }

    /// Repetitions are the outer loop and contenders the inner one, so that other load of the machine affects all of
    /// them.
    fn measure(&self, cells: &[Box<dyn Cell>], peers: &[&'static Peer]) -> anyhow::Result<Results> {
        let workspace = Workspace::new(&self.plugins, &self.guests)?;
        let stage = Stage { workspace: &workspace, quick: self.quick, most: self.connections };
        let repetitions = self.repetitions.unwrap_or(if self.quick { 1 } else { 5 });
        let contenders: Vec<Vec<Contender>> = cells.iter().map(|cell| contenders(cell.as_ref(), peers)).collect();
        let steps: usize = contenders.iter().map(Vec::len).sum();
        let progress = ProgressBar::new(steps as u64 * u64::from(repetitions));
        progress.set_style(ProgressStyle::with_template("{elapsed_precise} {bar:20} {pos}/{len} {msg}")?);
        let mut results = Results {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            quick: self.quick,
            connections: self.connections,
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            kernel: std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            ..Results::default()
        };
        for _ in 0..repetitions {
            for (cell, contenders) in cells.iter().zip(&contenders) {
                for &contender in contenders {
                    progress.set_message(format!("{}, {}", cell.name(), contender.name));
                    match cell.measure(&stage, contender) {
                        Ok(lines) => {
                            for (line, sample) in lines {
                                tell(&progress, &report::brief(cell.name(), line, contender.name, &sample));
                                results.add(cell.name(), line, contender.name, sample);
                            }
                        }
                        Err(error) => {
                            tell(&progress, &workspace.log_tail());
                            results.invalid.push(format!("{}, {}: {error:#}", cell.name(), contender.name));
                        }
                    }
                    progress.inc(1);
                }
            }
        }
        progress.finish_and_clear();
        Ok(results)
    }
}

/// A line of `--list`.
fn entry(cell: &dyn Cell) -> String {
    let needs = cell.needs().map_or_else(String::new, |what| format!("; needs {what}, runs only with --cell"));
    format!("{:<14} {}{needs}", cell.name(), cell.about())
}

/// Each peer lives as long as the program, so that it can be referenced without ownership.
fn peers(texts: &[String]) -> anyhow::Result<Vec<&'static Peer>> {
    let mut peers: Vec<&'static Peer> = Vec::new();
    for text in texts {
        let peer = Peer::parse(text).with_context(|| format!("--peer {text}"))?;
        if peers.iter().any(|other| other.name == peer.name) {
            bail!("--peer {text}: another peer is named {:?}: set name=", peer.name);
        }
        peers.push(Box::leak(Box::new(peer)));
    }
    Ok(peers)
}

fn contenders(cell: &dyn Cell, peers: &[&'static Peer]) -> Vec<Contender> {
    let peers = if cell.is_for_peers() { peers } else { &[] };
    let peer = |peer: &&'static Peer| Contender { name: &peer.name, kind: Kind::Peer(peer) };
    cell.contenders().into_iter().chain(peers.iter().map(peer)).collect()
}

/// Prints above the progress bar on a terminal, and as a plain line without one.
fn tell(progress: &ProgressBar, line: &str) {
    if progress.is_hidden() {
        eprintln!("{line}");
    } else {
        progress.println(line);
    }
}

impl Part {
    fn run(self) -> anyhow::Result<ExitCode> {
        match self {
            Self::Plot { file, dir } => {
                let paths = plot::write(&Results::read(&file)?, &dir)?;
                paths.iter().try_for_each(|path| print(&path.display().to_string()))?;
            }
            Self::Table { file } => print(markdown::document(&Results::read(&file)?).trim_end())?,
            Self::Reference { kind } => {
                end_with_parent()?;
                kind.run()?;
            }
            Self::Node { count_allocations, words } => {
                end_with_parent()?;
                if count_allocations {
                    allocations::answer_on_stdin();
                }
                return cli::run(iter::once("skylark".into()).chain(words));
            }
            Self::Program { program, words } => {
                end_with_parent()?;
                let failed = Command::new(&program).args(words).exec();
                return Err(failed).with_context(|| format!("cannot run {}", program.display()));
            }
            Self::CompilePlugin { words } => {
                return cli::run(["skylark".into(), "compile-plugin".into()].into_iter().chain(words));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The kernel kills this process if the bench is killed.
fn end_with_parent() -> anyhow::Result<()> {
    Ok(set_parent_process_death_signal(Some(Signal::KILL))?)
}

/// Raises the limit: one descriptor per connection, here and in each server, which inherits it.
fn raise_descriptors() -> anyhow::Result<()> {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    Ok(setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?)
}

/// Runs a task on one thread.
fn block_on<T>(task: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(task)
}

/// Prints one line; fails if the output is closed.
fn print(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
