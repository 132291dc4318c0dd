//! `skylark plugin bench`: measures the cost of one plugin in this process, with the host's own code.
//!
//! A call has the cost that a node pays: the chain, a warm instance, the guest, its answer. Each role is measured.

mod sample;

pub use sample::sample_message;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde::Serialize;

use crate::allocator;
use crate::cli::{ConfigSource, block_on, print};
use crate::plugin::Role;
use crate::plugin::harness::{Given, LoadedPlugin, PluginHarness};
use sample::Sample;

/// Warm-up calls.
const WARM_UP: usize = 2_000;
/// Number of new instances to create.
const STARTS: usize = 50;

#[derive(Debug, clap::Args)]
pub(super) struct Bench {
    /// The component, NAME.wasm, with its manifest NAME.toml. The input is the first step of each role in
    /// NAME.cases.yaml or cases.yaml, if one exists.
    file: PathBuf,
    /// Measured calls per role.
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    calls: u32,
    /// Print the figures as JSON.
    #[arg(long)]
    json: bool,
}

/// All measurements. Times in microseconds.
#[derive(Debug, Serialize)]
struct Figures {
    file: PathBuf,
    bytes: usize,
    compile_ms: f64,
    cold_start_us: f64,
    memory_bytes: usize,
    memory_limit_bytes: usize,
    roles: Vec<Figure>,
    /// Cost of a publish that the match rules keep out, in nanoseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    unmatched_ns: Option<f64>,
}

/// Measurements of one role.
#[derive(Debug, Serialize)]
struct Figure {
    role: &'static str,
    asked: String,
    calls: usize,
    mean_us: f64,
    p50_us: f64,
    p99_us: f64,
    allocations: f64,
    budget_us: f64,
    within_budget: bool,
}

impl Bench {
    pub(super) fn run(self, source: &ConfigSource) -> anyhow::Result<()> {
        let mut config = source.load()?.config.plugins;
        // Measure the compiler, not the cache.
        config.cache = PathBuf::new();
        let figures = block_on(async {
            let harness = PluginHarness::open(&self.file, &config).await?;
            self.measure(&harness).await
        })?;
        if self.json {
            print(&serde_json::to_string_pretty(&figures)?)?;
        } else {
            lines(&figures).iter().try_for_each(|line| print(line))?;
        }
        match figures.roles.iter().find(|figure| !figure.within_budget) {
            Some(figure) => bail!("{}: p99 is over the budget of the role {}", self.file.display(), figure.role),
            None => Ok(()),
        }
    }

    async fn measure(&self, harness: &PluginHarness) -> anyhow::Result<Figures> {
        let samples = sample::read_samples(&self.file)?;
        let loaded = begin(harness, &samples.given).await?;
        let mut starts = Vec::with_capacity(STARTS);
        for _ in 0..STARTS {
            starts.push(loaded.cold_start().await.context("cannot create an instance")?);
        }
        starts.sort();
        let mut roles = Vec::new();
        for role in loaded.roles().to_vec() {
            // A plugin that is loaded anew, so that one role does not find the effects of another.
            let loaded = begin(harness, &samples.given).await?;
            let sample = samples.of(role, &loaded)?;
            roles.push(self.role(&loaded, role, &sample).await?);
        }
        let (memory_bytes, memory_limit_bytes) = loaded.memory().await?;
        Ok(Figures {
            file: self.file.clone(),
            bytes: harness.size(),
            compile_ms: harness.compiled_in().as_secs_f64() * 1e3,
            cold_start_us: micros(starts[starts.len() / 2]),
            memory_bytes,
            memory_limit_bytes,
            unmatched_ns: match loaded.roles().contains(&Role::Filter) {
                true => Some(self.unmatched(harness, &samples).await?),
                false => None,
            },
            roles,
        })
    }

    async fn role(&self, loaded: &LoadedPlugin, role: Role, sample: &Sample) -> anyhow::Result<Figure> {
        let (mut times, calls) = (Vec::new(), self.calls as usize);
        times.reserve_exact(calls);
        let mut allocations = 0;
        for turn in 0..WARM_UP.min(calls) + calls {
            let prepared = sample.prepare();
            let before = allocator::allocations();
            let begun = Instant::now();
            prepared.call(loaded).await.with_context(|| format!("role {}: {sample}", role.as_str()))?;
            let took = begun.elapsed();
            if turn >= WARM_UP.min(calls) {
                allocations += allocator::allocations() - before;
                times.push(took);
            }
            drop(loaded.take_effects());
        }
        times.sort();
        let (total, budget) = (times.iter().sum::<Duration>(), loaded.cpu_budget(role));
        let p99 = times[(times.len() * 99).div_ceil(100) - 1];
        #[allow(clippy::cast_precision_loss, reason = "counts of a bench are far below 2^52")]
        let (count, allocations) = (times.len() as f64, allocations as f64);
        Ok(Figure {
            role: role.as_str(),
            asked: sample.to_string(),
            calls: times.len(),
            mean_us: micros(total) / count,
            p50_us: micros(times[times.len() / 2]),
            p99_us: micros(p99),
            allocations: allocations / count,
            budget_us: micros(budget),
            within_budget: p99 <= budget,
        })
    }

    /// Measures the cost per publish of a batch that no rule lets in, including its share of the chain.
    async fn unmatched(&self, harness: &PluginHarness, samples: &sample::Samples) -> anyhow::Result<f64> {
        let mut given = samples.given.clone();
        let rules = toml::Table::from_iter([("actions".to_owned(), vec!["no such action", "nor this*"].into())]);
        given.manifest.insert("match".to_owned(), toml::Value::Table(rules));
        let loaded = begin(harness, &given).await?;
        let mut batch = vec![sample_message(); 64];
        for _ in 0..WARM_UP / 64 {
            loaded.judge_all(&mut batch).await;
        }
        let rounds = self.calls.div_ceil(64).max(100);
        let begun = Instant::now();
        for _ in 0..rounds {
            std::hint::black_box(loaded.judge_all(&mut batch).await);
        }
        Ok(begun.elapsed().as_secs_f64() * 1e9 / f64::from(rounds) / 64.0)
    }
}

async fn begin(harness: &PluginHarness, given: &Given) -> anyhow::Result<LoadedPlugin> {
    harness
        .begin(given)
        .await
        .map_err(|reasons| anyhow::Error::msg(reasons.join("; ")).context("the plugin would be refused"))
}

fn micros(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

fn lines(figures: &Figures) -> Vec<String> {
    #[allow(clippy::cast_precision_loss, reason = "sizes of a bench are far below 2^52")]
    let mib = |bytes: usize| bytes as f64 / f64::from(1 << 20);
    let mut lines = vec![
        format!("{}  {} bytes", figures.file.display(), figures.bytes),
        format!("  compile     {:.0} ms", figures.compile_ms),
        format!("  cold start  {:.1} µs for a new instance", figures.cold_start_us),
        format!("  memory      {:.2} MiB of {:.0} MiB", mib(figures.memory_bytes), mib(figures.memory_limit_bytes)),
    ];
    for figure in &figures.roles {
        let verdict = if figure.within_budget { "within" } else { "OVER" };
        lines.push(format!(
            "  {:<10}  p50 {:.2} µs, p99 {:.2} µs, mean {:.2} µs, {:.1} allocations a call ({} calls: {})",
            figure.role, figure.p50_us, figure.p99_us, figure.mean_us, figure.allocations, figure.calls, figure.asked
        ));
        let share = figure.p99_us / figure.budget_us * 100.0;
        lines.push(format!(
            "  {:<10}  {verdict} its budget of {:.0} ms CPU: p99 is {share:.2} % of it",
            "",
            figure.budget_us / 1e3
        ));
    }
    if let Some(nanos) = figures.unmatched_ns {
        lines.push(format!("  match       {nanos:.0} ns for a publish that the rules keep out"));
    }
    lines
}
