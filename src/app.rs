//! The composition root: builds the node in layer order, runs it and drains it in reverse order. Owns every task.
//!
//! Connects the parts and contains none of their logic.

mod banner;
pub mod engine;
mod fetch;
pub mod ids;
mod kv;
mod reload;
mod signals;
#[cfg(test)]
mod tests;

use std::io::{self, Write};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout};

use self::engine::{Engine, EngineError};
use self::fetch::HttpClient;
use self::signals::Signals;
use crate::broker::Deliver;
use crate::config::{Config, LiveConfig, Loaded};
use crate::hub::Hub;
use crate::id::IdSequence;
use crate::node::deliver::Delivery;
use crate::node::effects::NodeServices;
use crate::node::{Node, PluginHistory, PluginState, Status};
use crate::plugin::history::HistoryReader;
use crate::plugin::host::{Tasks as PluginTasks, WasmHost};
use crate::plugin::kv::OpenError;
use crate::plugin::{CompileIn, LoadError, Options, PluginHost};
use crate::server::api::{About, Api};
use crate::server::intake::Intakes;
use crate::server::{Descriptors, Listeners, Server, StartError};
use crate::telemetry::{Telemetry, TelemetryError};
use crate::vital::{Failure, Vitals};

/// Time that unfinished work gets to end after the grace time of a drain.
const SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(2);

/// Time that a start gets to return the error that ended one of its vital tasks.
const START_ERROR_TIMEOUT: Duration = Duration::from_millis(500);

/// Time of the first attempt to join the cluster before the node starts without it.
const FIRST_JOIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Exit code after the end of a vital task (`EX_SOFTWARE`).
const VITAL_TASK_ENDED: u8 = 70;

/// The node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// Logs or metrics cannot be set up.
    #[error("log: {0}")]
    Telemetry(#[from] TelemetryError),
    /// An address cannot be bound.
    #[error(transparent)]
    Listen(#[from] StartError),
    /// The plugin directory is unusable. A single bad file does not cause this error.
    #[error("plugins: {0}")]
    Plugins(#[from] LoadError),
    /// The file of the plugins' keys cannot be opened.
    #[error("plugins.kv: {0}")]
    Kv(#[from] OpenError),
    /// The address or the properties of the bus engine are invalid.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The file of the node's ids has other contents.
    #[error("node.state: {0}")]
    Ids(#[from] ids::FileError),
    /// Signal handlers cannot be installed.
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
}

/// The way a node ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// A signal ended it, and it has drained.
    Drained,
    /// A signal ended it before it was ready.
    NotStarted,
    /// This second signal came during the drain; the remaining connections and tasks were cut.
    Aborted(i32),
    /// A vital task ended. The node drained if it was ready before.
    Failed(Failure),
}

impl End {
    /// The exit code of the process; `docs/reference/process.md` has the table.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Drained | Self::NotStarted => 0,
            Self::Aborted(signal) => signals::exit_code_of(*signal),
            Self::Failed(_) => VITAL_TASK_ENDED,
        }
    }
}

/// Reason to stop serving.
enum Stop {
    Signal,
    Failed(Failure),
}

/// Runs a node until a signal (SIGTERM, SIGINT) or the end of a vital task, and drains it.
///
/// # Errors
/// [`AppError`] if it cannot start.
pub async fn run(loaded: Loaded) -> Result<End, AppError> {
    run_with(loaded, Vitals::default()).await
}

async fn run_with(loaded: Loaded, vitals: Vitals) -> Result<End, AppError> {
    let telemetry = Arc::new(Telemetry::start(&loaded.config.log)?);
    let mut signals = Signals::listen().map_err(AppError::Signals)?;
    raise_descriptors(&loaded.config);
    // The start runs in its own task, so blocking code in it delays neither signals nor the report of an ended task.
    let mut starting = Starting(tokio::spawn(App::start(Arc::clone(&telemetry), loaded, vitals.clone())));
    let mut app = tokio::select! {
        biased;
        stop = stopped(&signals, &vitals) => return end_of_start(stop, &mut starting).await,
        started = starting.ready() => started?,
    };
    let _ = writeln!(io::stdout(), "{}", app.banner);
    let stop = app.serve(&mut signals, &vitals).await;
    if let Stop::Failed(failure) = &stop {
        tracing::error!(task = %failure.task, %failure, "vital task ended: the node drains and exits");
        app.node.set_component_fault(&Arc::from("the node"), Some(format!("{failure}: it drains and exits")));
    }
    tokio::select! {
        biased;
        signal = second_signal(&signals) => {
            tracing::warn!("second stop signal: the remaining connections and tasks are aborted");
            return Ok(End::Aborted(signal));
        }
        () = app.drain(&vitals) => {}
    }
    Ok(match stop {
        Stop::Signal => End::Drained,
        Stop::Failed(failure) => End::Failed(failure),
    })
}

/// Waits for the first reason to stop.
async fn stopped(signals: &Signals, vitals: &Vitals) -> Stop {
    tokio::select! {
        biased;
        () = signals.stop() => Stop::Signal,
        failure = vitals.failed() => Stop::Failed(failure),
    }
}

/// Waits for the second signal during a drain.
async fn second_signal(signals: &Signals) -> i32 {
    let mut hangups = signals.clone();
    loop {
        tokio::select! {
            biased;
            signal = signals.second_stop() => return signal,
            () = hangups.hangup() => tracing::warn!("SIGHUP ignored: the node is draining"),
        }
    }
}

/// Ends a node that is not ready yet. A failed start also ends its tasks; then its error is returned.
async fn end_of_start(stop: Stop, starting: &mut Starting) -> Result<End, AppError> {
    if let Stop::Failed(_) = &stop
        && let Ok(Err(error)) = timeout(START_ERROR_TIMEOUT, starting.ready()).await
    {
        return Err(error);
    }
    Ok(end_before_ready(stop))
}

/// Ends a node that is not ready yet. It has neither connections nor intake records to drain.
fn end_before_ready(stop: Stop) -> End {
    match stop {
        Stop::Signal => {
            tracing::info!("stop signal received before the node was ready");
            End::NotStarted
        }
        Stop::Failed(failure) => {
            tracing::error!(task = %failure.task, %failure, "vital task ended: the node does not start");
            End::Failed(failure)
        }
    }
}

/// The start of a node. Dropping it aborts the start.
struct Starting(JoinHandle<Result<App, AppError>>);

impl Starting {
    async fn ready(&mut self) -> Result<App, AppError> {
        match (&mut self.0).await {
            Ok(started) => started,
            Err(error) => resume_unwind(error.into_panic()),
        }
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// All parts of a running node.
struct App {
    telemetry: Arc<Telemetry>,
    loaded: Arc<Loaded>,
    config: LiveConfig,
    engine: Engine,
    banner: String,
    hub: Arc<Hub>,
    node: Arc<Node>,
    server: Server,
    intakes: Intakes,
    /// Hub shards; they end when the hub stops.
    shards: JoinSet<()>,
    /// The plugin watcher and events.
    plugin_tasks: PluginTasks,
    /// Metrics and cluster membership; aborted after everything else has ended.
    upkeep: JoinSet<()>,
}

impl App {
    async fn start(telemetry: Arc<Telemetry>, loaded: Loaded, vitals: Vitals) -> Result<Self, AppError> {
        let config = loaded.config.clone();
        let listeners = Listeners::bind(&config)?;
        log_warnings(&config);

        let ids = Arc::new(IdSequence::empty(config.node.number));
        let (hub, shard_tasks) = Hub::new(&(&config).into(), Arc::clone(&ids));
        let hub = Arc::new(hub);
        let shards = shard_tasks.into_iter().enumerate();
        let shards = shards.map(|(index, shard)| vitals.run(format!("shard {index}"), shard)).collect();

        let delivery = Arc::new(Delivery::new(Arc::clone(&hub)));
        let receiver: Arc<dyn Deliver> = Arc::clone(&delivery) as _;
        let engine = Engine::start(&config, receiver, &vitals)?;
        let reserver = ids::reserver(&config.node, &ids, engine.ids.clone())?;
        let options = plugin_options(&config, &engine, &vitals)?;
        let (host, plugin_tasks) = WasmHost::load(&config.plugins, options).await?;
        let host = Arc::new(host);
        let plugins: Arc<dyn PluginHost> = Arc::clone(&host) as _;
        let shared = (Arc::clone(&engine.broker), Arc::clone(&engine.roster));
        let live = LiveConfig::new(loaded.config.clone());
        let node = Arc::new(Node::new(live.clone(), ids, Arc::clone(&hub), shared, plugins, engine.history.clone()));
        delivery.set_node(Arc::downgrade(&node));
        host.set_services(Arc::new(NodeServices::new(Arc::downgrade(&node))));
        let mut upkeep = JoinSet::new();
        if let Some(mut reserver) = reserver {
            // If this takes longer, or the engine is away, the node starts unready and retries.
            let _ = timeout(FIRST_JOIN_TIMEOUT, reserver.reserve()).await;
            upkeep.spawn(vitals.run("ids", reserver.run(Arc::clone(&node))));
        }
        // The same applies to the join.
        if let Ok(Err(why)) = timeout(FIRST_JOIN_TIMEOUT, node.join_cluster()).await {
            tracing::warn!(%why, "cluster not joined yet; retrying");
        }

        log_closed_rooms(&config, &node);

        let api = Arc::new(Api::new(Arc::clone(&node), live.clone(), about(&telemetry, &listeners, &config)));
        let banner = banner::banner(node.id().as_str(), listeners.addresses(), &config.intakes, &node.plugins());
        let intakes = Intakes::start(&node, &live, engine.intake_sources(&config, &vitals)?, &vitals);
        let server = Server::start(listeners, live.clone(), Arc::clone(&node), api, &vitals);

        upkeep.spawn(vitals.run("metrics", telemetry.upkeep()));
        upkeep.spawn(vitals.run("lease", Arc::clone(&node).run_cluster()));
        upkeep.spawn(vitals.run("history", engine.history_upkeep()));
        upkeep.spawn(vitals.run("plugin rules", reload::apply_plugin_rules(host, live.clone())));
        let loaded = Arc::new(loaded);
        Ok(Self {
            telemetry,
            loaded,
            config: live,
            engine,
            banner,
            hub,
            node,
            server,
            intakes,
            shards,
            plugin_tasks,
            upkeep,
        })
    }

    /// Handles SIGHUPs until there is a reason to stop. A running reload does not delay the stop.
    async fn serve(&mut self, signals: &mut Signals, vitals: &Vitals) -> Stop {
        loop {
            let seen = signals.clone();
            let reload = async {
                signals.hangup().await;
                self.reload().await;
            };
            tokio::select! {
                biased;
                stop = stopped(&seen, vitals) => return stop,
                () = reload => {}
            }
        }
    }

    /// Drains: readiness turns red, accepting stops, connections close with a reconnect code, then parts stop in
    /// reverse order.
    async fn drain(mut self, vitals: &Vitals) {
        let drain = self.config.load().drain.clone();
        let deadline = Instant::now() + drain.grace;
        tracing::info!("draining");
        self.node.begin_drain();
        tokio::time::sleep(drain.wait).await;
        // From here on tasks end on purpose.
        vitals.release();
        self.server.stop_accepting();
        if !self.intakes.drain(deadline).await {
            tracing::warn!("drain: an intake did not end in time; its last records stay unacknowledged");
        }
        self.node.drain(drain.step_percent, deadline).await;
        self.hub.stop().await;
        let ended = async {
            self.server.stopped().await;
            while self.shards.join_next().await.is_some() {}
        };
        if timeout(SHUTDOWN_TIMEOUT, ended).await.is_err() {
            tracing::warn!("drain: some tasks did not end in time");
        }
        self.plugin_tasks.stop().await;
        self.upkeep.shutdown().await;
        if timeout(SHUTDOWN_TIMEOUT, self.node.leave_cluster()).await.is_err() {
            tracing::warn!("drain: the bus engine did not confirm that the node left the cluster");
        }
        tracing::info!("drained");
    }
}

/// The parts of the node that plugins use.
fn plugin_options(config: &Config, engine: &Engine, vitals: &Vitals) -> Result<Options, OpenError> {
    let history = engine.history.clone().map(|store| Arc::new(PluginHistory::new(store)) as Arc<dyn HistoryReader>);
    Ok(Options {
        kv: kv::open(&config.plugins.kv, engine.store.clone(), vitals)?,
        history,
        compile: CompileIn::Child,
        fetch: Some(Arc::new(HttpClient::new(config.plugins.http_ca.clone()))),
        vitals: vitals.clone(),
        ..Options::default()
    })
}

fn about(telemetry: &Telemetry, listeners: &Listeners, config: &Config) -> About {
    let metrics = telemetry.metrics();
    About {
        listeners: listeners.addresses().to_vec(),
        metrics: Arc::new(move || metrics.render()),
        guests: telemetry.guests(),
        plugins: std::fs::canonicalize(&config.plugins.dir).ok(),
    }
}

/// Raises the descriptor limit to its maximum and warns if it is too low.
fn raise_descriptors(config: &Config) {
    let (before, now) = Descriptors::raise();
    if before != now {
        tracing::info!(from = before.limit(), to = now.limit(), "file descriptor limit raised");
    }
    if let Some(shortage) = now.shortage(config.limits.connections) {
        tracing::warn!(%shortage, "too few file descriptors for limits.connections");
    }
}

/// Warns about settings that are valid but rarely intended.
fn log_warnings(config: &Config) {
    if config.api.keys.is_empty() {
        tracing::warn!(insecure = config.api.insecure, "push API is open: api.keys is empty, so every caller may push");
    }
    config.warnings().iter().for_each(|warning| tracing::warn!(%warning, "configuration warning"));
}

fn log_closed_rooms(config: &Config, node: &Node) {
    let is_access = |status: &Status| status.state == PluginState::Live && status.roles.contains(&"access");
    if let Some(warning) = config.closed_rooms(node.plugins().iter().any(is_access)) {
        tracing::warn!(%warning, "configuration warning");
    }
}
