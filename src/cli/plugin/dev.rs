//! `skylark plugin dev`: builds and checks each change, installs it into a running node, and follows its log.
//!
//! The node reports the state of the file (`GET /plugins`) and the log of the plugin (`GET /plugins/{name}/log`).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use hyper::Method;
use serde_json::Value;

use super::build::{build, replace_file};
use super::check;
use super::watch::Watch;
use crate::cli::http::{Node, NodeArgs};
use crate::cli::{ConfigSource, block_on, print};
use crate::config::{Plugins, Scope};
use crate::plugin::check::check_file;

/// Interval of requests for new log lines.
const POLL_INTERVAL: Duration = Duration::from_millis(300);
/// A node that has not noticed a file after this time reads another directory.
const NOTICE_TIMEOUT: Duration = Duration::from_secs(30);
/// From this time on, the node's status is taken to describe the new file, even if it has not changed.
const STATUS_DELAY: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(super) struct Dev {
    /// The plugin's folder.
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// The node's plugin directory, as a path on this machine [default: the directory that the node reports].
    #[arg(long, value_name = "DIR")]
    into: Option<PathBuf>,
    #[command(flatten)]
    node: NodeArgs,
}

/// A node and its plugin directory.
struct TargetNode {
    node: Node,
    into: PathBuf,
    config: Plugins,
}

impl Dev {
    pub(super) fn run(self, source: &ConfigSource) -> anyhow::Result<()> {
        let config = source.load()?.config.plugins;
        let node = self.node.node(source, &[Scope::Read, Scope::Plugins])?;
        let into = self.into.clone().map_or_else(|| reported_dir(&node), Ok)?;
        if !into.is_dir() {
            bail!(
                "no folder {}: name the node's plugin directory with --into, as a path on this machine",
                into.display()
            );
        }
        let target = TargetNode { node, into, config };
        let watch = Watch::sources_of(&self.dir)?;
        let mut number = target.lines("", 0)?.1;
        loop {
            let name = match target.build_and_install(&self.dir, &watch) {
                Ok(Some(name)) => name,
                Ok(None) => continue,
                Err(error) => {
                    eprintln!("{error:#}");
                    String::new()
                }
            };
            eprintln!("waiting for a change in {}", self.dir.display());
            while !watch.changed_within(POLL_INTERVAL)? {
                if name.is_empty() {
                    continue;
                }
                let (lines, next) = target.lines(&name, number)?;
                lines.iter().try_for_each(|line| print(line))?;
                number = next;
            }
        }
    }
}

/// Asks the node for its plugin directory. The node may run in another working directory, so the configured path may
/// not be valid here.
fn reported_dir(node: &Node) -> anyhow::Result<PathBuf> {
    let answer: Value = serde_json::from_str(&block_on(node.request(Method::GET, "/plugins", None))?)?;
    let dir = answer.pointer("/data/dir").and_then(Value::as_str);
    dir.map(PathBuf::from).context("the node has no plugin directory: set plugins.dir and restart the node")
}

impl TargetNode {
    /// Builds, checks and installs. Returns the plugin's name once the node serves it, or `None` if the source changed
    /// again before that.
    fn build_and_install(&self, dir: &Path, watch: &Watch) -> anyhow::Result<Option<String>> {
        let file = build(dir)?;
        let report = block_on(async { Ok(check_file(&file, &self.config).await?) })?;
        if !report.faults.is_empty() {
            bail!("{}", check::lines(&report).join("\n"));
        }
        let name = report.name;
        let before = self.status_of(&name)?;
        // Install the manifest first, because it may grant permissions that the new file needs.
        let manifest = file.with_extension("toml");
        let mut is_new = manifest.is_file() && replace_if_new(&manifest, &self.into.join(format!("{name}.toml")))?;
        is_new |= replace_if_new(&file, &self.into.join(format!("{name}.wasm")))?;
        // If no file is new, the current status already describes these files.
        let before = if is_new { before } else { Value::Null };
        Ok(self.wait_until_live(&name, &report.hash, &before, watch)?.then_some(name))
    }

    /// Waits until the node serves or refuses the file, or the source changes again. `before` is the status before the
    /// node saw the file: a changed manifest creates a new version of a component with an unchanged hash.
    fn wait_until_live(&self, name: &str, hash: &str, before: &Value, watch: &Watch) -> anyhow::Result<bool> {
        let begun = Instant::now();
        while begun.elapsed() < NOTICE_TIMEOUT {
            let status = self.status_of(name)?;
            let has_changed = ["version", "rejected"].iter().any(|key| status[key] != before[key]);
            if has_changed || begun.elapsed() > STATUS_DELAY {
                if status["rejected"]["hash"] == hash {
                    bail!("the node refused the plugin: {}", status["rejected"]["reason"].as_str().unwrap_or_default());
                }
                if status["hash"] == hash {
                    print(&format!("{name} is live, version {}", status["version"]))?;
                    return Ok(true);
                }
            }
            if watch.changed_within(POLL_INTERVAL)? {
                return Ok(false);
            }
        }
        bail!(
            "the node did not read {} within {NOTICE_TIMEOUT:?}: is it the plugins.dir of the node?",
            self.into.display()
        )
    }

    /// The node's status of the plugin; null if it is unknown.
    fn status_of(&self, name: &str) -> anyhow::Result<Value> {
        let answer: Value = serde_json::from_str(&block_on(self.node.request(Method::GET, "/plugins", None))?)?;
        let mut items = answer.pointer("/data/items").and_then(Value::as_array).into_iter().flatten();
        Ok(items.find(|item| item["name"] == name).cloned().unwrap_or_default())
    }

    /// Log lines of the plugin from this number on, and the next number.
    fn lines(&self, name: &str, number: u64) -> anyhow::Result<(Vec<String>, u64)> {
        // No plugin has this name, but the response still contains the next number.
        let name = if name.is_empty() { "-" } else { name };
        let path = format!("/plugins/{name}/log?since={number}");
        let answer: Value = serde_json::from_str(&block_on(self.node.request(Method::GET, &path, None))?)?;
        let next = answer.pointer("/data/next").and_then(Value::as_u64).context("expected a number in data.next")?;
        let items = answer.pointer("/data/items").and_then(Value::as_array).into_iter().flatten();
        let text = |item: &Value, key: &str| item[key].as_str().unwrap_or_default().to_owned();
        Ok((items.map(|item| format!("{:<5} {}", text(item, "level"), text(item, "text"))).collect(), next))
    }
}

/// Replaces a file; returns true if the contents differed.
fn replace_if_new(from: &Path, to: &Path) -> anyhow::Result<bool> {
    let is_new = std::fs::read(from)? != std::fs::read(to).unwrap_or_default();
    replace_file(from, to)?;
    Ok(is_new)
}
