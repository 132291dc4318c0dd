//! The composition root: builds the node in layer order, runs it, drains it in reverse. Owns every task.
//!
//! Knows how the parts fit, and nothing of what they do.

mod banner;
pub mod engine;
mod fetch;
pub mod ids;
mod kv;
mod reload;

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};

use self::engine::{Engine, EngineError};
use self::fetch::Network;
use crate::broker::Deliver;
use crate::config::{Config, Loaded, Plugins};
use crate::hub::Hub;
use crate::id::IdSequence;
use crate::node::deliver::Delivery;
use crate::node::effects::NodeServices;
use crate::node::{Node, Status};
use crate::plugin::PluginHost;
use crate::plugin::host::{CompileIn, LoadError, Options, Tasks as PluginTasks, WasmHost};
use crate::plugin::kv::OpenError;
use crate::server::api::{About, Api};
use crate::server::intake::Intakes;
use crate::server::{Listeners, Server, StartError};
use crate::telemetry::{Telemetry, TelemetryError};

/// What may still be under way when the grace time of a drain is over gets so long to end.
const LAST_CALL: Duration = Duration::from_secs(2);

/// What the first attempt to join the cluster may take before the node starts without it.
const FIRST_JOIN: Duration = Duration::from_secs(2);

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// No log, no metrics.
    #[error("log: {0}")]
    Telemetry(#[from] TelemetryError),
    /// An address is taken.
    #[error(transparent)]
    Listen(#[from] StartError),
    /// The plugin directory cannot be used at all; a single bad file is no reason.
    #[error("plugins: {0}")]
    Plugins(#[from] LoadError),
    /// The file of the plugins' keys cannot be used.
    #[error("plugins.kv: {0}")]
    Kv(#[from] OpenError),
    /// The engine of the bus cannot be named.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The file of the node's ids holds something else.
    #[error("node.state: {0}")]
    Ids(#[from] ids::FileError),
    /// The process gets no signals.
    #[error("cannot listen for signals: {0}")]
    Signals(io::Error),
}

/// Runs a node until it is told to end (SIGTERM, SIGINT) and has drained.
///
/// # Errors
/// [`AppError`] when it cannot start.
pub async fn run(loaded: Loaded) -> Result<(), AppError> {
    let telemetry = Telemetry::start(&loaded.config.log)?;
    let mut signals = Signals::listen().map_err(AppError::Signals)?;
    let mut app = App::start(telemetry, loaded).await?;
    let _ = writeln!(io::stdout(), "{}", app.banner);
    while let Told::Reload = signals.next().await {
        app.reload().await;
    }
    tokio::select! {
        () = app.drain() => {}
        () = signals.again() => tracing::warn!("told to end once more: what has not drained is cut"),
    }
    Ok(())
}

/// Everything that runs.
struct App {
    telemetry: Arc<Telemetry>,
    loaded: Arc<Loaded>,
    engine: Engine,
    banner: String,
    hub: Arc<Hub>,
    node: Arc<Node>,
    api: Arc<Api>,
    server: Server,
    intakes: Intakes,
    /// End when the hub stops.
    shards: JoinSet<()>,
    /// The plugin watcher and events.
    plugin_tasks: PluginTasks,
    /// What SIGHUP changes of `plugins`.
    plugin_rules: watch::Sender<Plugins>,
    /// Metrics and the node's place in the cluster; cut when all else has ended.
    upkeep: JoinSet<()>,
}

impl App {
    async fn start(telemetry: Telemetry, loaded: Loaded) -> Result<Self, AppError> {
        let config = Arc::new(loaded.config.clone());
        let listeners = Listeners::bind(&config)?;
        warn_of(&config);

        let ids = Arc::new(IdSequence::empty(config.node.number));
        let (hub, shard_tasks) = Hub::new(&(&*config).into(), Arc::clone(&ids));
        let hub = Arc::new(hub);
        let shards = shard_tasks.into_iter().collect();

        let delivery = Arc::new(Delivery::new(Arc::clone(&hub)));
        let receiver: Arc<dyn Deliver> = Arc::clone(&delivery) as _;
        let engine = Engine::start(&config, receiver)?;
        let reserver = ids::reserver(&config.node, &ids, engine.ids.clone())?;
        let network = Network::new(config.plugins.http_ca.clone());
        let kv = kv::open(&config.plugins.kv, engine.store.clone())?;
        let options = Options { kv, compile: CompileIn::Child, fetch: Some(Arc::new(network)), ..Options::default() };
        let (host, plugin_tasks) = WasmHost::load(&config.plugins, options).await?;
        let host = Arc::new(host);
        let plugins: Arc<dyn PluginHost> = Arc::clone(&host) as _;
        let shared = (Arc::clone(&engine.broker), Arc::clone(&engine.roster));
        let node = Arc::new(Node::new(&config, ids, Arc::clone(&hub), shared, plugins));
        delivery.belongs_to(Arc::downgrade(&node));
        host.set_services(Arc::new(NodeServices::new(Arc::downgrade(&node))));
        let mut upkeep = JoinSet::new();
        if let Some(mut reserver) = reserver {
            // Where that takes longer, or the engine is away, the node starts, is not ready, and tries again.
            let _ = timeout(FIRST_JOIN, reserver.reserve()).await;
            upkeep.spawn(reserver.run(Arc::clone(&node)));
        }
        // The same holds here.
        if let Ok(Err(why)) = timeout(FIRST_JOIN, node.join_cluster()).await {
            tracing::warn!(%why, "the node is not of the cluster yet");
        }

        warn_of_closed_rooms(&config, &node);

        let (plugin_rules, rules) = watch::channel(config.plugins.clone());
        let metrics = telemetry.metrics();
        let about = About {
            listeners: listeners.addresses().to_vec(),
            metrics: Arc::new(move || metrics.render()),
            guests: telemetry.guests(),
            plugins: std::fs::canonicalize(&config.plugins.dir).ok(),
        };
        let api = Arc::new(Api::new(Arc::clone(&node), &config, about));
        let banner = banner::banner(node.id().as_str(), listeners.addresses(), &config.intakes, &node.plugins());
        let intakes = Intakes::start(&node, &config, engine.feeds(&config)?);
        let server = Server::start(listeners, config, Arc::clone(&node), Arc::clone(&api));

        upkeep.spawn(telemetry.upkeep());
        upkeep.spawn(Arc::clone(&node).attend());
        upkeep.spawn(reload::follow(host, rules));
        let (telemetry, loaded) = (Arc::new(telemetry), Arc::new(loaded));
        Ok(Self {
            telemetry,
            loaded,
            engine,
            banner,
            hub,
            node,
            api,
            server,
            intakes,
            shards,
            plugin_tasks,
            plugin_rules,
            upkeep,
        })
    }

    /// Not ready, no new connection, every connection closed with a come-back code, then the parts in reverse order.
    async fn drain(mut self) {
        let drain = self.loaded.config.drain.clone();
        let deadline = Instant::now() + drain.grace;
        tracing::info!("draining");
        self.node.begin_drain();
        tokio::time::sleep(drain.wait).await;
        self.server.stop_accepting();
        if timeout_at(deadline, self.intakes.drain()).await.is_err() {
            tracing::warn!("drain: an intake did not end in time, its last records stay unsettled");
        }
        self.node.drain(drain.step_percent, deadline).await;
        self.hub.stop().await;
        let ended = async {
            self.server.stopped().await;
            while self.shards.join_next().await.is_some() {}
        };
        if timeout(LAST_CALL, ended).await.is_err() {
            tracing::warn!("drain: some tasks did not end in time");
        }
        self.plugin_tasks.stop().await;
        self.upkeep.shutdown().await;
        if timeout(LAST_CALL, self.node.leave_cluster()).await.is_err() {
            tracing::warn!("drain: the engine of the bus did not answer the goodbye");
        }
        tracing::info!("drained");
    }
}

/// What is allowed and seldom meant.
fn warn_of(config: &Config) {
    if config.api.keys.is_empty() {
        tracing::warn!(
            insecure = config.api.insecure,
            "the push API is open: whoever reaches it may push (api.keys is empty)"
        );
    }
    config.warnings().iter().for_each(|warning| tracing::warn!("{warning}"));
}

fn warn_of_closed_rooms(config: &Config, node: &Node) {
    let is_access = |status: &Status| status.state == "live" && status.roles.contains(&"access");
    if let Some(warning) = config.closed_rooms(node.plugins().iter().any(is_access)) {
        tracing::warn!("{warning}");
    }
}

/// What the operator told the process.
enum Told {
    Reload,
    End,
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// A drain is under way and somebody has no patience.
    async fn again(&mut self) {
        while matches!(self.next().await, Told::Reload) {
            tracing::warn!("the node drains: the configuration is not read again");
        }
    }

    async fn next(&mut self) -> Told {
        tokio::select! {
            _ = self.hangup.recv() => Told::Reload,
            _ = self.terminate.recv() => Told::End,
            _ = self.interrupt.recv() => Told::End,
        }
    }
}
