//! `skylark plugin test`: runs the test cases of a plugin with the host's own code, without a node.

pub(super) mod cases;
mod compare;
mod history;
pub(super) mod run;
mod words;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::watch::Watch;
use crate::cli::{ConfigSource, block_on, print};
use crate::config::Plugins;
use crate::plugin::harness::{LoadedPlugin, PluginHarness};
use crate::telemetry::guests::GuestLog;
use cases::{Case, CaseFile, Given, Step};
use compare::{Difference, Differences};
use words::Name;

#[derive(Debug, clap::Args)]
pub(super) struct Test {
    /// A folder, a case file (.yaml) or a component (.wasm).
    #[arg(default_value = ".", value_name = "DIR|FILE")]
    path: PathBuf,
    /// Component to test, instead of the one beside the cases.
    #[arg(long, value_name = "FILE")]
    plugin: Option<PathBuf>,
    /// Only cases with this text in their name.
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Run the cases again after every change of a file, until interrupted.
    #[arg(long)]
    watch: bool,
}

/// The cases of one file, and the component to test.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Suite {
    cases: PathBuf,
    plugin: PathBuf,
}

/// Number of passed and failed cases.
#[derive(Debug, Clone, Copy, Default)]
struct Count {
    passed: usize,
    failed: usize,
}

impl Test {
    pub(super) fn run(self, source: &ConfigSource) -> anyhow::Result<()> {
        let config = source.load()?.config.plugins;
        let log = GuestLog::install()?;
        if self.watch {
            return self.run_on_change(&config, &log);
        }
        self.run_once(&config, &log)
    }

    /// Runs the cases now and after each change until the process ends; prints failures.
    fn run_on_change(&self, config: &Plugins, log: &GuestLog) -> anyhow::Result<()> {
        let watch = Watch::files_beside(&self.path)?;
        loop {
            if let Err(error) = self.run_once(config, log) {
                eprintln!("{error:#}");
            }
            eprintln!("waiting for a change");
            while !watch.changed_within(Duration::MAX)? {}
        }
    }

    fn run_once(&self, config: &Plugins, log: &GuestLog) -> anyhow::Result<()> {
        let suites = find(&self.path, self.plugin.as_deref())?;
        let mut count = Count::default();
        for suite in &suites {
            let file = read(&suite.cases)?;
            block_on(self.run_suite(suite, file, config, log, &mut count))?;
        }
        match count {
            Count { passed: 0, failed: 0 } => bail!("no case was run"),
            Count { passed, failed: 0 } => print(&format!("{passed} passed")),
            Count { passed, failed } => bail!("{failed} failed, {passed} passed"),
        }
    }

    async fn run_suite(
        &self,
        suite: &Suite,
        file: CaseFile,
        config: &Plugins,
        log: &GuestLog,
        count: &mut Count,
    ) -> anyhow::Result<()> {
        let harness = PluginHarness::open(&suite.plugin, config).await?;
        print(&format!("{}, {} bytes", suite.plugin.display(), harness.size()))?;
        for mut case in file.cases {
            let name = case.name.value.clone();
            if self.only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
                continue;
            }
            let location = format!("{}:{}", suite.cases.display(), case.name.referenced.line());
            let differences = run_case(&harness, &file.given, &mut case, log).await;
            let differences =
                differences.map_err(anyhow::Error::msg).with_context(|| format!("{location}: case {name:?}"))?;
            if differences.is_empty() {
                count.passed += 1;
                print(&format!("  ok    {name}"))?;
            } else {
                count.failed += 1;
                print(&format!("  FAIL  {name}  ({location})"))?;
                differences.iter().try_for_each(|line| print(&format!("        {line}")))?;
            }
        }
        Ok(())
    }
}

/// Runs a case and returns its differences, line by line.
///
/// # Errors
/// The case contains an invalid request.
async fn run_case(
    harness: &PluginHarness,
    file: &Given,
    case: &mut Case,
    log: &GuestLog,
) -> Result<Vec<String>, String> {
    let steps = case.take_steps()?;
    let given = run::setup(&std::mem::take(&mut case.given).over(file))?;
    let loaded = match (harness.begin(&given).await, &case.refused) {
        (Ok(loaded), None) => loaded,
        (Ok(_), Some(words)) => {
            return Ok(difference_lines("the load", &format!("a refusal with {words:?}"), "a plugin that loads"));
        }
        (Err(reasons), Some(words)) => {
            let is_expected = reasons.iter().any(|reason| reason.contains(words.as_str()));
            let expected = format!("a refusal with {words:?}");
            return Ok(if is_expected {
                Vec::new()
            } else {
                difference_lines("the load", &expected, &reasons.join("; "))
            });
        }
        (Err(reasons), None) => {
            return Ok(difference_lines(
                "the load",
                "a plugin that loads",
                &format!("a refusal, {}", reasons.join("; ")),
            ));
        }
    };
    let many = steps.len() > 1;
    for (step, number) in steps.iter().zip(1..) {
        let found = run_step(&loaded, log, step).await?;
        if !found.is_empty() {
            let at = |difference: &Difference| match many {
                true => format!("step {number}: {}", difference.at),
                false => difference.at.clone(),
            };
            let lines = found.iter().flat_map(|found| difference_lines(&at(found), &found.expected, &found.got));
            return Ok(lines.collect());
        }
    }
    Ok(Vec::new())
}

async fn run_step(loaded: &LoadedPlugin, log: &GuestLog, step: &Step) -> Result<Vec<Difference>, String> {
    let outcome = run::run_step(loaded, log, step).await?;
    let mut all = Differences::of(&step.expect, &outcome);
    for (key, expected) in step.expect.kv.iter().flat_map(|pairs| &pairs.0) {
        let (at, got) = (format!("kv.{key}"), loaded.value(key).await);
        match expected {
            Some(expected) => all.bytes(&at, Some(expected), got.as_deref()),
            None => all.absent(&at, got.as_deref()),
        }
    }
    let timers = loaded.timers();
    for (name, expected) in step.expect.timers.iter().flat_map(|pairs| &pairs.0) {
        all.timer(&format!("timers.{name}"), expected.map(|Name(span)| span.0), timers.get(name).copied());
    }
    Ok(all.found)
}

fn difference_lines(at: &str, expected: &str, got: &str) -> Vec<String> {
    vec![at.to_owned(), format!("  expected  {expected}"), format!("  got       {got}")]
}

pub(super) fn read(path: &Path) -> anyhow::Result<CaseFile> {
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let options = serde_saphyr::options! { with_snippet: false, strict_booleans: true };
    serde_saphyr::from_str_with_options(&text, options)
        .map_err(|error| anyhow::Error::msg(format!("{}: {error}", path.display())))
}

/// The case files at a path, each with its component.
fn find(path: &Path, plugin: Option<&Path>) -> anyhow::Result<Vec<Suite>> {
    let extension = path.extension().and_then(|kind| kind.to_str()).unwrap_or_default();
    let files = match extension {
        "yaml" | "yml" => vec![path.to_owned()],
        "wasm" => {
            let dir = path.parent().unwrap_or(Path::new(""));
            let own = path.with_extension("cases.yaml");
            vec![if own.is_file() { own } else { dir.join("cases.yaml") }]
        }
        _ => case_files(path)?,
    };
    let component = |cases: PathBuf| -> anyhow::Result<Suite> {
        let plugin = match plugin {
            Some(plugin) => plugin.to_owned(),
            None if extension == "wasm" => path.to_owned(),
            None => component_of(&cases)?,
        };
        Ok(Suite { cases, plugin })
    };
    files.into_iter().map(component).collect()
}

/// `cases.yaml` and every `NAME.cases.yaml`.
fn case_files(dir: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let files = listed(dir, |name| name == "cases.yaml" || name.ends_with(".cases.yaml"))?;
    if files.is_empty() {
        bail!("{}: expected a file cases.yaml or NAME.cases.yaml, got none", dir.display());
    }
    Ok(files)
}

/// The component named in the file, else `NAME.wasm` for `NAME.cases.yaml`, else the only component of the folder.
fn component_of(cases: &Path) -> anyhow::Result<PathBuf> {
    let dir = cases.parent().unwrap_or(Path::new(""));
    if let Some(named) = read(cases)?.plugin {
        return Ok(dir.join(named));
    }
    let name = cases.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if let Some(name) = name.strip_suffix(".cases.yaml") {
        return Ok(dir.join(format!("{name}.wasm")));
    }
    let found = listed(dir, |name| name.ends_with(".wasm"))?;
    match found.as_slice() {
        [only] => Ok(only.clone()),
        [] => bail!("there is no component beside {}: build it first (skylark plugin build)", cases.display()),
        _ => {
            bail!(
                "{}: expected plugin: FILE.wasm, because there are {} components beside it",
                cases.display(),
                found.len()
            )
        }
    }
}

fn listed(dir: &Path, wanted: impl Fn(&str) -> bool) -> anyhow::Result<Vec<PathBuf>> {
    let dir = if dir.as_os_str().is_empty() { Path::new(".") } else { dir };
    let entries = std::fs::read_dir(dir).with_context(|| format!("cannot read the folder {}", dir.display()))?;
    let mut files = Vec::new();
    for entry in entries {
        let name = entry?.file_name();
        if name.to_str().is_some_and(&wanted) {
            files.push(if dir == Path::new(".") { PathBuf::from(name) } else { dir.join(name) });
        }
    }
    files.sort();
    Ok(files)
}
