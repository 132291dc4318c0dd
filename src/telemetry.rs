//! What the node tells of itself: log lines and metrics. Set up once, by the app, which owns the [`Telemetry`].
//!
//! Log lines go to standard error and, if configured, to a file, each through a bounded queue and a thread of its own:
//! a full queue loses lines and counts them, and never holds up a connection. Metric names stand in [`names`].

mod file;
pub mod guests;
pub mod names;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::config::{Log, LogFormat};
use file::LogFile;
use guests::GuestLog;

/// Lines that wait for one writer before more are lost.
const QUEUE_LINES: usize = 16_384;
/// How often samples are gathered, so that they do not pile up while nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);
/// Bounds of the histograms of durations, in seconds: a filter takes microseconds, a handler may take seconds.
const SECONDS: [f64; 16] =
    [2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 5e-2, 0.25, 1.0, 5.0];

/// Most characters of a text that somebody else chose.
const LINE_CHARS: usize = 160;

/// At `trace` tungstenite logs whole messages, tokens of `client_bind` included: it never gets that far.
const WITHOUT_PAYLOADS: &str = "tungstenite=warn";

/// Why the telemetry cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is no filter.
    #[error("log.level: expected a filter such as info,skylark::plugin=debug, got {level:?}")]
    Level {
        /// What came.
        level: String,
        /// Why.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// The log file cannot be written.
    #[error("log.file: cannot write {path:?}")]
    File {
        /// Its name.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Something else in this process logs or counts already.
    #[error("the process has a log already")]
    Twice,
}

/// Logs and metrics of this process. Dropping it writes out the lines that wait.
pub struct Telemetry {
    level: reload::Handle<EnvFilter, Registry>,
    metrics: Metrics,
    guests: GuestLog,
    lost: Vec<ErrorCounter>,
    _writers: Vec<WorkerGuard>,
}

impl Telemetry {
    /// Sets up logs and metrics for the whole process.
    ///
    /// # Errors
    /// [`TelemetryError`] for a level that does not parse, a file that cannot be written, a second start.
    pub fn start(log: &Log) -> Result<Self, TelemetryError> {
        let (filter, level) = reload::Layer::new(parse_level(&log.level)?);
        let (stderr, stderr_guard) = writer(std::io::stderr(), "log-stderr");
        let mut lost = vec![stderr.error_counter()];
        let mut writers = vec![stderr_guard];
        let file = match file_writer(log)? {
            Some((file, guard)) => {
                lost.push(file.error_counter());
                writers.push(guard);
                Some(fmt::layer().json().flatten_event(true).with_writer(file))
            }
            None => None,
        };
        let guests = GuestLog::default();
        let registry = tracing_subscriber::registry().with(filter).with(stderr_layer(log.format, stderr)).with(file);
        let registry = registry.with(guests.clone());
        registry.try_init().map_err(|_| TelemetryError::Twice)?;
        Ok(Self { level, metrics: Metrics::install(), guests, lost, _writers: writers })
    }

    /// Logs at another level from now on.
    ///
    /// # Errors
    /// [`TelemetryError::Level`]; the old level stays.
    pub fn set_level(&self, level: &str) -> Result<(), TelemetryError> {
        let filter = parse_level(level)?;
        self.level.reload(filter).expect("the subscriber lives as long as the process");
        Ok(())
    }

    /// The metrics of this process.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        self.metrics.clone()
    }

    /// The newest lines of plugins, as far as the level lets them through.
    #[must_use]
    pub fn guests(&self) -> GuestLog {
        self.guests.clone()
    }

    /// Gathers samples and lost lines every 5 s; never ends. To be run as a task of the app.
    pub fn upkeep(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let (metrics, lost) = (self.metrics.clone(), self.lost.clone());
        async move {
            let mut ticks = tokio::time::interval(UPKEEP);
            loop {
                ticks.tick().await;
                metrics.0.run_upkeep();
                let lines: usize = lost.iter().map(ErrorCounter::dropped_lines).sum();
                metrics::counter!(names::LOG_LINES_LOST).absolute(lines as u64);
            }
        }
    }
}

/// The metrics of this process: a cheap handle.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Collects what is counted from now on; the second call gives the same.
    ///
    /// # Panics
    /// When a recorder of another kind is installed in this process.
    #[must_use]
    pub fn install() -> Self {
        static METRICS: OnceLock<Metrics> = OnceLock::new();
        let install = || {
            let builder = PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".into()), &SECONDS);
            let recorder = builder.expect("there are buckets").build_recorder();
            let handle = recorder.handle();
            metrics::set_global_recorder(recorder).expect("nothing else in this process records metrics");
            names::describe();
            Self(handle)
        };
        METRICS.get_or_init(install).clone()
    }

    /// The page for Prometheus, as it is now.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }
}

/// A fault for the log: what was expected and where, without what came, for that may be a token or somebody's words.
#[must_use]
pub fn without_value(fault: &impl std::fmt::Display) -> String {
    let mut text = fault.to_string();
    text.truncate(text.find(", got ").unwrap_or(text.len()));
    capped(&text)
}

/// A text that somebody else chose, no longer in the log than a line.
#[must_use]
pub fn capped(text: &str) -> String {
    text.chars().take(LINE_CHARS).collect()
}

fn parse_level(level: &str) -> Result<EnvFilter, TelemetryError> {
    let filter = EnvFilter::builder().parse(level);
    let filter = filter.map_err(|source| TelemetryError::Level { level: level.to_owned(), source })?;
    Ok(filter.add_directive(WITHOUT_PAYLOADS.parse().expect("a directive")))
}

fn writer(target: impl std::io::Write + Send + 'static, thread: &str) -> (NonBlocking, WorkerGuard) {
    NonBlockingBuilder::default().buffered_lines_limit(QUEUE_LINES).lossy(true).thread_name(thread).finish(target)
}

fn stderr_layer<S>(format: LogFormat, stderr: NonBlocking) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'span> tracing_subscriber::registry::LookupSpan<'span>,
{
    let is_terminal = std::io::stderr().is_terminal();
    let is_text = format == LogFormat::Text || (format == LogFormat::Auto && is_terminal);
    if is_text {
        let colours = is_terminal && std::env::var_os("NO_COLOR").is_none();
        fmt::layer().with_ansi(colours).with_writer(stderr).boxed()
    } else {
        fmt::layer().json().flatten_event(true).with_writer(stderr).boxed()
    }
}

fn file_writer(log: &Log) -> Result<Option<(NonBlocking, WorkerGuard)>, TelemetryError> {
    if log.file.as_os_str().is_empty() {
        return Ok(None);
    }
    let failed = |source| TelemetryError::File { path: log.file.clone(), source };
    Ok(Some(writer(LogFile::open(log).map_err(failed)?, "log-file")))
}
