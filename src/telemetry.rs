//! Log lines and metrics of the process. The app sets them up once and owns the [`Telemetry`].
//!
//! Log lines go to standard error and, if configured, to a file, each through a bounded queue and its own thread. A
//! full queue drops lines and counts them; it never blocks a connection. Metric names are in [`names`].

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
use lines::{LineWriter, Unwritten};

/// Lines queued for one writer before more are dropped.
const QUEUE_LINES: usize = 16_384;
/// Interval of gathering samples, so that they do not pile up while no scraper reads them.
const UPKEEP: Duration = Duration::from_secs(5);
/// Histogram bounds of durations, in seconds: a filter takes microseconds, a handler may take seconds.
const SECONDS: [f64; 16] =
    [2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 1e-2, 5e-2, 0.25, 1.0, 5.0];

/// Maximum characters of a foreign text in a log line.
const LINE_CHARS: usize = 160;
/// Maximum bytes of that text; an escaped character takes up to ten.
const LINE_BYTES: usize = 640;
/// Burst of log lines about one address.
const LOG_BURST: NonZeroU32 = NonZeroU32::new(10).expect("not zero");
/// Number of lines between two removals of idle addresses from the limiter.
const SWEEP: u32 = 1_024;

/// At `trace` tungstenite logs whole messages, including the tokens of `client_bind`. This directive prevents it.
const WITHOUT_PAYLOADS: &str = "tungstenite=warn";

/// Telemetry setup failed.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level is not a valid filter.
    #[error("log.level: expected a filter such as info,skylark::plugin=debug, got {level:?}")]
    Level {
        /// The configured level.
        level: String,
        /// The parser's error.
        #[source]
        source: tracing_subscriber::filter::ParseError,
    },
    /// The log file cannot be opened.
    #[error("log.file: cannot write {path:?}")]
    File {
        /// Path of the file.
        path: PathBuf,
        /// The I/O error.
        #[source]
        source: std::io::Error,
    },
    /// Another logger or recorder is already installed in this process.
    #[error("a logger or metrics recorder is already installed")]
    AlreadyInstalled,
}

/// Logs and metrics of this process. Dropping it flushes the queued lines.
pub struct Telemetry {
    level: reload::Handle<EnvFilter, Registry>,
    metrics: Metrics,
    guests: GuestLog,
    lost: Vec<ErrorCounter>,
    unwritten: Unwritten,
    /// Settings of the log file, and the slot for the reopened file.
    file: Option<(Log, Next)>,
    _writers: Vec<WorkerGuard>,
}

impl Telemetry {
    /// Sets up logs and metrics for the whole process.
    ///
    /// # Errors
    /// [`TelemetryError`] if the level does not parse, the file cannot be written, or logging was already started.
    pub fn start(log: &Log) -> Result<Self, TelemetryError> {
        let (filter, level) = reload::Layer::new(parse_level(&log.level)?);
        let unwritten = Unwritten::default();
        let (stderr, stderr_guard) = writer(LineWriter::new(std::io::stderr(), unwritten.clone()), "log-stderr");
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
        registry.try_init().map_err(|_| TelemetryError::AlreadyInstalled)?;
        let metrics = Metrics::install();
        Ok(Self { level, metrics, guests, lost, unwritten, file: reopened, _writers: writers })
    }

    /// Changes the log level.
    pub fn set_level(&self, level: LogLevel) {
        self.level.reload(level.0).expect("the subscriber lives as long as the process");
    }

    /// Reopens the log file under its name; the next line goes there. Does nothing without a log file. May block.
    ///
    /// # Errors
    /// [`TelemetryError::File`]. Lines then keep going to the previous file.
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

    /// The newest log lines of plugins, filtered by the log level.
    #[must_use]
    pub fn guests(&self) -> GuestLog {
        self.guests.clone()
    }

    /// Gathers samples and lost lines every 5 s; never ends. The app runs it as a task.
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

/// A parsed log level.
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
    /// Installs the recorder. Later calls return the same handle.
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

    /// The current metrics page for Prometheus.
    #[must_use]
    pub fn render(&self) -> String {
        self.0.render()
    }
}

/// Formats a fault for the log without the received value, which may be a token or private text.
#[must_use]
pub fn without_value(fault: &impl std::fmt::Display) -> String {
    let mut text = fault.to_string();
    text.truncate(text.find(", got ").unwrap_or(text.len()));
    capped(&text)
}

/// Shortens a foreign text to one log line and escapes its control characters.
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

/// Rate limit of log lines about one address: one a second, with a burst of [`LOG_BURST`]. IPv6 addresses are grouped
/// by /64. Returns true if the line may be logged.
#[must_use]
pub fn may_log(ip: IpAddr) -> bool {
    static LIMITER: OnceLock<DefaultKeyedRateLimiter<IpAddr>> = OnceLock::new();
    static CHECKS: AtomicU32 = AtomicU32::new(0);
    let quota = || Quota::per_second(NonZeroU32::MIN).allow_burst(LOG_BURST);
    let limiter = LIMITER.get_or_init(|| RateLimiter::keyed(quota()));
    if CHECKS.fetch_add(1, Ordering::Relaxed) % SWEEP == SWEEP - 1 {
        limiter.retain_recent();
    }
    let net = match ip.to_canonical() {
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) >> 64 << 64).into()),
        v4 => v4,
    };
    limiter.check_key(&net).is_ok()
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
    let (writer, guard) = writer(LineWriter::new(file, unwritten.clone()), "log-file");
    Ok(Some((writer, guard, next)))
}

fn open_file(log: &Log) -> Result<LogFile, TelemetryError> {
    LogFile::open(log).map_err(|source| TelemetryError::File { path: log.file.clone(), source })
}
