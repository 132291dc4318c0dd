//! Time from a change of a known plugin's file to its first call: settle, read, load from the cache, link, warm up,
//! swap.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

use super::guests::{BUILT, C, JS, PYTHON, RUST};
use crate::block_on;
use crate::cell::{Cell, Line, Stage};
use crate::load::api::Api;
use crate::results::bar::{Bar, By, Must};
use crate::results::sample::{Figure, Sample, Unit, Work};
use crate::results::stats::{Latency, histogram};
use crate::subject::meter::Meter;
use crate::subject::{Contender, Kind, Node};

pub(crate) struct Live;

const LINE: &str = "from file to first call";
/// Interval of checking if the file serves.
const PACE: Duration = Duration::from_millis(2);
/// Maximum time; the compilation of the largest guest takes less.
const LIVE_TIMEOUT: Duration = Duration::from_secs(300);

impl Cell for Live {
    fn name(&self) -> &'static str {
        "live"
    }

    fn about(&self) -> &'static str {
        "from the change of a cached plugin's file to its first call, in each language"
    }

    fn contenders(&self) -> Vec<Contender> {
        vec![RUST, C, JS, PYTHON]
    }

    fn needs(&self) -> Option<&'static str> {
        Some(BUILT)
    }

    fn measure(&self, stage: &Stage<'_>, contender: Contender) -> anyhow::Result<Vec<Line>> {
        let Kind::Node(Node { components: [component, ..], .. }) = contender.kind else { return Ok(Vec::new()) };
        let subject = stage.workspace.start(contender)?;
        let plugin = format!("{component}-0");
        let folder = Folder { dir: stage.workspace.plugin_dir(), api: Api { address: subject.publish }, plugin };
        let first = fs::read(stage.workspace.component(component)?)?;
        // The same code with another hash: a custom section of four bytes is added.
        let second: Vec<u8> = first.iter().copied().chain([0, 4, 3, b'n', b'e', b'w']).collect();
        for known in [&second, &first] {
            folder.swap(known)?;
        }
        let mut times = histogram();
        let meter = Meter::start(&subject)?;
        let swaps = stage.pick(6, 20);
        for turn in 0..swaps {
            let took = folder.swap(if turn % 2 == 0 { &second } else { &first })?;
            times.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
        }
        let cost = meter.stop(&subject)?;
        let work = Work { unit: Unit::Call, count: swaps, ..Work::default() };
        let memory = subject.memory()?;
        Ok(vec![(LINE, Sample { work, cost, memory, latency: Latency::of(&times), ..Sample::default() })])
    }

    fn bars(&self) -> Vec<Bar> {
        let bar = |name, contender: Contender| Bar {
            name,
            figure: Figure::P99,
            of: (LINE, contender.name),
            by: By::Number(1e3),
            must: Must::BeAtMost(250.0),
        };
        vec![
            bar("a cached plugin in Rust goes live, ms from its file's change to its first call, p99", RUST),
            bar("a cached plugin in C", C),
            bar("a cached plugin in JavaScript", JS),
            bar("a cached plugin in Python", PYTHON),
        ]
    }
}

/// The plugin directory of a running node, and its API.
struct Folder {
    dir: PathBuf,
    api: Api,
    plugin: String,
}

impl Folder {
    /// Installs the file as a deployment does (write aside, rename), and waits until it has judged a publish.
    fn swap(&self, bytes: &[u8]) -> anyhow::Result<Duration> {
        let aside = self.dir.join(".aside");
        fs::write(&aside, bytes)?;
        block_on(async {
            let before = self.version().await?;
            let begun = Instant::now();
            fs::rename(&aside, self.dir.join(format!("{}.wasm", self.plugin)))?;
            let mut pace = tokio::time::interval(PACE);
            while self.version().await? <= before {
                if begun.elapsed() > LIVE_TIMEOUT {
                    bail!("{} is not live {LIVE_TIMEOUT:?} after its file changed", self.plugin);
                }
                pace.tick().await;
            }
            let message = json!({"receiver": "nobody", "action": "chat", "content": {"text": "hi"}});
            self.api.post("/send", &message).await?;
            Ok(begun.elapsed())
        })
    }

    /// Version of the plugin; grows with each file that goes live.
    async fn version(&self) -> anyhow::Result<u64> {
        let answer = self.api.get("/plugins").await?;
        let items = answer.pointer("/data/items").and_then(Value::as_array).context("expected plugins")?;
        let own = items
            .iter()
            .find(|item| item["name"] == self.plugin.as_str())
            .context("the node does not list the plugin")?;
        if let Some(reason) = own["rejected"]["reason"].as_str() {
            bail!("{} is refused: {reason}", self.plugin);
        }
        own["version"].as_u64().context("expected a version")
    }
}
