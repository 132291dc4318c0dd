//! Cost of one plugin call, in this process and without a node. Measured are filters in each language that allow
//! everything, a publish that match rules keep out, and the verification of a token. The input is the original's sample
//! message; one filter reads nothing of it, one reads all of it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use skylark::allocator;
use skylark::cli::sample_message;
use skylark::cli::token;
use skylark::config::Plugins;
use skylark::id::Uid;
use skylark::plugin::harness::{Given, LoadedPlugin as Plugin, PluginHarness};
use skylark::plugin::{Claim, Transport};

use super::guests::{BUILT, C, JS, PYTHON, RUST};
use crate::block_on;
use crate::cell::{Cell, Line, Stage};
use crate::results::bar::{Bar, By, Must};
use crate::results::sample::{Figure, Sample, Unit, Work};
use crate::results::stats::{Latency, float, histogram};
use crate::subject::meter::Cost;
use crate::subject::proc::own_cpu;
use crate::subject::{Contender, Kind, Node};

pub(crate) struct Calls;

const JUDGE: &str = "judge, reads nothing";
const READ: &str = "judge, reads everything";
const MATCH: &str = "a rule that does not match";
const ADMIT: &str = "admit, HS256";
const AUTH: Contender = Contender { name: "token-auth", kind: Kind::Node(Node::PLAIN) };
const WARM: u32 = 2_000;
const BATCH: u32 = 64;

impl Cell for Calls {
    fn name(&self) -> &'static str {
        "calls"
    }

    fn about(&self) -> &'static str {
        "one call of a no-op filter in Rust, C, JavaScript and Python, of a rule that keeps it out, of an HS256 token"
    }

    fn contenders(&self) -> Vec<Contender> {
        vec![RUST, C, JS, PYTHON, AUTH]
    }

    fn needs(&self) -> Option<&'static str> {
        Some(BUILT)
    }

    fn measure(&self, stage: &Stage<'_>, contender: Contender) -> anyhow::Result<Vec<Line>> {
        let (dist, calls) = (stage.workspace.dist(), stage.pick(20_000, 100_000));
        if contender == AUTH {
            let token = token::mint(&dist, &"1074".parse::<Uid>()?, None, &[], Duration::from_secs(3_600))?;
            return block_on(async {
                let plugin = begin(dist.join("token-auth.wasm"), Given::default()).await?;
                Ok(vec![(ADMIT, admit(&plugin, token, calls).await?)])
            });
        }
        let Kind::Node(Node { components: [component, ..], .. }) = contender.kind else { return Ok(Vec::new()) };
        let file = stage.workspace.component(component)?;
        let reader = stage.workspace.component(&component.replace("noop", "reader"))?;
        block_on(async {
            let mut lines = Vec::new();
            for (line, file) in [(JUDGE, file.clone()), (READ, reader)] {
                lines.push((line, judge(&begin(file, Given::default()).await?, calls).await?));
            }
            if contender == RUST {
                lines.push((MATCH, unmatched(&begin(file, unmatched_given()).await?, calls).await));
            }
            Ok(lines)
        })
    }

    fn bars(&self) -> Vec<Bar> {
        let bar = |name, line, contender: Contender, most| Bar {
            name,
            figure: Figure::CpuMicros,
            of: (line, contender.name),
            by: By::Number(1.0),
            must: Must::BeAtMost(most),
        };
        vec![
            bar("a call of a no-op filter in Rust, µs of CPU", JUDGE, RUST, 1.2),
            bar("a call of a no-op filter in C", JUDGE, C, 1.2),
            bar("a call of a no-op filter in JavaScript", JUDGE, JS, 12.0),
            bar("a call of a no-op filter in Python", JUDGE, PYTHON, 15.0),
            bar("a publish that a match rule keeps out", MATCH, RUST, 0.05),
            bar("admit by an HS256 token", ADMIT, AUTH, 30.0),
        ]
    }
}

async fn begin(file: PathBuf, given: Given) -> anyhow::Result<Plugin> {
    // Tokens are minted with the machine's clock.
    let given = Given { now: skylark::clock::since_1970(), ..given };
    let harness = PluginHarness::open(&file, &Plugins::default()).await?;
    harness.begin(&given).await.map_err(|reasons| anyhow::Error::msg(reasons.join("; ")))
}

fn unmatched_given() -> Given {
    let actions = toml::Value::from(vec!["no such action", "nor this*"]);
    let rules = toml::Table::from_iter([("actions".to_owned(), actions)]);
    let manifest = toml::Table::from_iter([("match".to_owned(), toml::Value::Table(rules))]);
    Given { manifest, ..Given::default() }
}

async fn judge(plugin: &Plugin, calls: u32) -> anyhow::Result<Sample> {
    let message = sample_message();
    let mut meter = Meter::new();
    for turn in 0..WARM + calls {
        // The input is created before the clock starts.
        let mut envelope = message.clone();
        let begun = meter.begin(turn >= WARM);
        let failed = plugin.judge(&mut envelope).await.failed;
        meter.end(begun);
        if let Some(failed) = failed {
            return Err(failed.into());
        }
    }
    Ok(meter.sample())
}

async fn admit(plugin: &Plugin, token: String, calls: u32) -> anyhow::Result<Sample> {
    let transport = Transport { listener: "ws", ..Transport::default() };
    let claim = Claim { token: Some(token), ..Claim::default() };
    let mut meter = Meter::new();
    for turn in 0..WARM + calls {
        let begun = meter.begin(turn >= WARM);
        let admitted = plugin.admit(&transport, &claim).await?;
        meter.end(begun);
        anyhow::ensure!(admitted.is_some_and(|admitted| admitted.is_ok()), "the token was refused");
    }
    Ok(meter.sample())
}

/// Judges batches, with one read of the plugin set per batch. Creating the batch is not measured.
async fn unmatched(plugin: &Plugin, calls: u32) -> Sample {
    let mut batch = vec![sample_message(); BATCH as usize];
    let mut meter = Meter { each: u64::from(BATCH), ..Meter::new() };
    for turn in 0..(WARM + calls) / BATCH {
        let begun = meter.begin(turn >= WARM / BATCH);
        std::hint::black_box(plugin.judge_all(&mut batch).await);
        meter.end(begun);
    }
    meter.sample()
}

/// Sums the intervals between `begin` and `end`.
struct Meter {
    times: hdrhistogram::Histogram<u64>,
    /// Calls between one `begin` and its `end`.
    each: u64,
    count: u64,
    wall: Duration,
    allocations: u64,
    own: Duration,
    began: Option<Instant>,
}

#[derive(Clone, Copy)]
struct CallStart(Option<(Instant, u64)>);

impl Meter {
    fn new() -> Self {
        // The first call switches counting on.
        allocator::allocations();
        let zero = Duration::ZERO;
        Self { times: histogram(), each: 1, count: 0, wall: zero, allocations: 0, own: zero, began: None }
    }

    fn begin(&mut self, counts: bool) -> CallStart {
        if counts && self.began.is_none() {
            (self.began, self.own) = (Some(Instant::now()), own_cpu());
        }
        CallStart(counts.then(|| (Instant::now(), allocator::allocations())))
    }

    fn end(&mut self, begun: CallStart) {
        let Some((at, allocations)) = begun.0 else { return };
        let took = at.elapsed();
        self.allocations += allocator::allocations() - allocations;
        self.wall += took;
        self.count += self.each;
        self.times.saturating_record(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX) / self.each);
    }

    /// CPU is the whole process's usage over the whole time, scaled to the share of the calls. Only one thread is busy.
    fn sample(self) -> Sample {
        let whole = self.began.map_or(Duration::ZERO, |began| began.elapsed());
        let busy = (own_cpu() - self.own).as_secs_f64() / whole.as_secs_f64().max(f64::MIN_POSITIVE);
        let cpu = self.wall.as_secs_f64() * busy.min(1.0);
        let cost = Cost {
            wall: self.wall.as_secs_f64(),
            user: cpu,
            system: 0.0,
            generator: 0.0,
            allocations: Some(float(self.allocations)),
            engine: None,
        };
        let work = Work { unit: Unit::Call, count: self.count, publishes: self.count, ..Work::default() };
        Sample { work, cost, latency: Latency::of(&self.times), ..Sample::default() }
    }
}
