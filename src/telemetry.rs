//! What the node tells of itself: log lines and metrics. Set up once, by the app, which owns the [`Telemetry`].
//!
//! Log lines go to standard error and, if configured, to a file, each through a bounded queue and a thread of its own:
//! a full queue loses lines and counts them, and never holds up a connection. Metric names stand in [`names`].

mod file;
pub mod guests;
mod lines;
pub mod names;

#[cfg(test)]
mod tests;

use std::future::Future;
use std::io::IsTerminal as _;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt, reload};

use crate::config::{Log, LogFormat};
use file::{LogFile, Next};
use guests::GuestLog;
use lines::{Lines, Unwritten};

/// Lines that wait for one writer before more are lost.
const QUEUE_LINES: usize = 16_384;
/// How often samples are gathered, so that they do not pile up while nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);
/// Bounds of the histograms of durations, in seconds: a filter takes microseconds, a handler may take seconds.
const SECONDS: [f64; 16] =
    [2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 5e-2, 0.25, 1.0, 5.0];

/// Most characters of a text that somebody else chose.
const LINE_CHARS: usize = 160;
/// Most bytes of it; an escaped character takes up to ten.
const LINE_BYTES: usize = 640;
/// Lines about one address at once.
const TOLD_BURST: NonZeroU32 = NonZeroU32::new(10).expect("not zero");
/// Addresses that are long forgotten are looked for once in so many lines.
const SWEEP: u32 = 1_024;

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
    unwritten: Unwritten,
    /// The log file's settings, and where it is put when it is opened anew.
    file: Option<(Log, Next)>,
    _writers: Vec<WorkerGuard>,
}

impl Telemetry {
    /// Sets up logs and metrics for the whole process.
    ///
    /// # Errors
    /// [`TelemetryError`] for a level that does not parse, a file that cannot be written, a second start.
    pub fn start(log: &Log) -> Result<Self, TelemetryError> {
        let (filter, level) = reload::Layer::new(parse_level(&log.level)?);
        let unwritten = Unwritten::default();
        let (stderr, stderr_guard) = writer(Lines::new(std::io::stderr(), unwritten.clone()), "log-stderr");
        let mut lost = vec![stderr.error_counter()];
        let mut writers = vec![stderr_guard];
        let (file, reopened) = match file_writer(log, &unwritten)? {
            Some((file, guard, next)) => {
                lost.push(file.error_counter());
                writers.push(guard);
                (Some(fmt::layer().json().flatten_event(true).with_writer(file)), Some((log.clone(), next)))
            }
            None => (None, None),
        };
        let guests = GuestLog::default();
        let registry = tracing_subscriber::registry().with(filter).with(stderr_layer(log.format, stderr)).with(file);
        let registry = registry.with(guests.clone());
        registry.try_init().map_err(|_| TelemetryError::Twice)?;
        let metrics = Metrics::install();
        Ok(Self { level, metrics, guests, lost, unwritten, file: reopened, _writers: writers })
    }

    /// Logs at another level from now on.
    pub fn set_level(&self, level: LogLevel) {
        self.level.reload(level.0).expect("the subscriber lives as long as the process");
    }

    /// Opens the log file again under its name; the next line goes there. Without a log file it does nothing. To be called
    /// where it may block.
    ///
    /// # Errors
    /// [`TelemetryError::File`]; lines go to the former file then.
    pub fn reopen(&self) -> Result<(), TelemetryError> {
        if let Some((log, next)) = &self.file {
            let file = open_file(log)?;
            *next.lock() = Some(file);
        }
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
        let (metrics, lost, unwritten) = (self.metrics.clone(), self.lost.clone(), self.unwritten.clone());
        async move {
            let mut ticks = tokio::time::interval(UPKEEP);
            loop {
                ticks.tick().await;
                metrics.0.run_upkeep();
                let lines: usize = lost.iter().map(ErrorCounter::dropped_lines).sum();
                metrics::counter!(names::LOG_LINES_LOST, "reason" => "slow").absolute(lines as u64);
                let unwritten = unwritten.load(Ordering::Relaxed);
                metrics::counter!(names::LOG_LINES_LOST, "reason" => "write").absolute(unwritten);
            }
        }
    }
}

/// What is logged: a level that was parsed.
pub struct LogLevel(EnvFilter);

impl LogLevel {
    /// Reads `log.level`.
    ///
    /// # Errors
    /// [`TelemetryError::Level`].
    pub fn parse(level: &str) -> Result<Self, TelemetryError> {
        parse_level(level).map(Self)
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

/// A text that somebody else chose, no longer in the log than a line, control characters escaped.
#[must_use]
pub fn capped(text: &str) -> String {
    let mut line = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == LINE_CHARS || line.len() >= LINE_BYTES {
            break;
        }
        if c.is_control() { line.extend(c.escape_default()) } else { line.push(c) }
    }
    line
}

/// True while the log may hear of another mistake of this address: one a second, [`TOLD_BURST`] at once. IPv6 addresses
/// count by their /64.
#[must_use]
pub fn may_tell(ip: IpAddr) -> bool {
    static TOLD: OnceLock<DefaultKeyedRateLimiter<IpAddr>> = OnceLock::new();
    static ASKED: AtomicU32 = AtomicU32::new(0);
    let quota = || Quota::per_second(NonZeroU32::MIN).allow_burst(TOLD_BURST);
    let told = TOLD.get_or_init(|| RateLimiter::keyed(quota()));
    if ASKED.fetch_add(1, Ordering::Relaxed) % SWEEP == SWEEP - 1 {
        told.retain_recent();
    }
    let net = match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
        v4 => v4,
    };
    told.check_key(&net).is_ok()
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

type FileWriter = (NonBlocking, WorkerGuard, Next);

fn file_writer(log: &Log, unwritten: &Unwritten) -> Result<Option<FileWriter>, TelemetryError> {
    if log.file.as_os_str().is_empty() {
        return Ok(None);
    }
    let file = open_file(log)?;
    let next = file.next();
    let (writer, guard) = writer(Lines::new(file, unwritten.clone()), "log-file");
    Ok(Some((writer, guard, next)))
}

fn open_file(log: &Log) -> Result<LogFile, TelemetryError> {
    LogFile::open(log).map_err(|source| TelemetryError::File { path: log.file.clone(), source })
}
