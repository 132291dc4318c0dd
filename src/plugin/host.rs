//! The plugin host: loads the files of the directory, serves calls from the current snapshot, and keeps the snapshot up
//! to date.
//!
//! Knows the node only as [`Services`], which are set once the node runs.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use super::calls::events::{self, Queue};
use super::calls::snapshot::Snapshot;
use super::calls::version::warm_up;
use super::calls::{access, alarms, auth, chain, handler};
use super::guest::manifest::share;
pub use super::loader::compile::{ChildLimits, compile_stdin};
use super::loader::load::Env;
use super::loader::reload::{Loader, LoaderCommand, LoaderInput, LoaderInputs, Settling};
use super::loader::trust::Trust;
use super::loader::watch::Watch;
pub use super::time::Time;
use super::{
    Access, Admission, Answer, Call, Claim, Event, JoinRequest, Judgement, LoadError, Options, PluginCommand,
    PluginCommandFault, PluginHost, Refusal, Services, Status, Transport,
};
use crate::config::Plugins;
use crate::message::Envelope;

/// The plugins of this node, in wasmtime.
pub struct WasmHost {
    serving: Arc<ArcSwap<Snapshot>>,
    env: Arc<Env>,
    events: Queue,
    commands: mpsc::Sender<LoaderCommand>,
}

/// Background tasks of the host; the composition root owns them.
pub struct Tasks {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// Capacity of the queues for commands, rollback requests and requests for warm instances.
const WAITING: usize = 256;
/// After a first change in the directory, further changes are gathered for this long.
const GATHER: Duration = Duration::from_millis(20);
/// How long waiting events are still delivered when the node ends.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);

impl WasmHost {
    /// Loads every file in `config.dir`. A file that does not load stops no other plugin: it is logged and shown.
    /// Metrics count from here on, so the recorder must be installed before.
    ///
    /// # Errors
    /// The directory cannot be read, or the engine or a thread cannot be created.
    pub async fn load(config: &Plugins, options: Options) -> Result<(Self, Tasks), LoadError> {
        let (warmer, asked) = mpsc::channel(WAITING);
        let (rollbacks, rollback_requests) = mpsc::channel(WAITING);
        let vitals = options.vitals.clone();
        let env = Arc::new(Env::new(config, options, warmer, rollbacks)?);
        let serving = Arc::<ArcSwap<Snapshot>>::default();
        let mut tasks = JoinSet::new();
        let (stop, stopped) = watch::channel(false);
        let (commands, received) = mpsc::channel(WAITING);
        if !config.dir.as_os_str().is_empty() {
            let inputs = LoaderInputs::new(received, rollback_requests);
            let mut loader = Loader::new(config, Arc::clone(&env), Arc::clone(&serving), inputs);
            let mut watch = Watch::new();
            watch.arm(loader.dir());
            loader.scan(Settling::Now).await.map_err(|error| LoadError::Dir { path: config.dir.clone(), error })?;
            env.serve();
            tasks.spawn(vitals.run("plugin watcher", run_loader(loader, watch, config.rescan, stopped.clone())));
        }
        let (queue, events) = Queue::new();
        let events = events::deliver_events(Arc::clone(&serving), events, stopped.clone());
        tasks.spawn(vitals.run("plugin events", events));
        let timers = alarms::deliver_timers(Arc::clone(&env.timers), Arc::clone(&serving), stopped.clone());
        tasks.spawn(vitals.run("plugin timers", timers));
        tasks.spawn(vitals.run("plugin instances", run_until_stopped(stopped, warm_up(asked))));
        Ok((Self { serving, env, events: queue, commands }, Tasks { stop, tasks }))
    }

    /// Connects plugins to the node; only the first call has an effect. Before it no user is online, and effects are
    /// lost.
    pub fn set_services(&self, services: Arc<dyn Services>) {
        if self.env.services.set(services).is_err() {
            tracing::warn!("services of plugins are set already: the second call is ignored");
        }
    }

    /// Scans the directory now and does not wait for files to settle. Returns when every file found serves or is
    /// refused.
    pub async fn scan(&self) {
        self.send(LoaderCommand::Scan).await;
    }

    /// Allows plugins with these names to disappear. A missing plugin that makes its role refuse is then forgotten.
    pub async fn allow_remove(&self, names: Vec<String>) {
        self.send(|done| LoaderCommand::AllowRemove(names, done)).await;
    }

    /// Sets the pins and keys that files are checked against. Refused files are tried again; versions that serve go on.
    pub async fn set_trust(&self, config: &Plugins) {
        let trust = Trust::new(config);
        self.send(|done| LoaderCommand::Trust(trust, done)).await;
    }

    async fn send(&self, command: impl FnOnce(oneshot::Sender<()>) -> LoaderCommand) {
        let (done, ended) = oneshot::channel();
        // Without a directory, or while the node ends, there is no loader and nothing to do.
        if self.commands.send(command(done)).await.is_ok() {
            let _ = ended.await;
        }
    }
}

impl Tasks {
    /// Stops all tasks. No more files are loaded, and waiting events are delivered for at most five seconds.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(STOP_TIMEOUT, ended).await.is_err() {
            tracing::warn!("plugin events dropped: they were not delivered before the shutdown timeout");
            self.tasks.shutdown().await;
        }
    }
}

async fn run_until_stopped(mut stopped: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        _ = stopped.changed() => {}
    }
}

/// The loader's loop.
async fn run_loader(mut loader: Loader, mut watch: Watch, rescan: Duration, mut stopped: watch::Receiver<bool>) {
    let mut rescan = interval(rescan);
    rescan.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut readable = true;
    loop {
        let due = loader.due();
        let settled = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        let scanned = tokio::select! {
            _ = stopped.changed() => return,
            () = settled => loader.scan(Settling::Settle).await,
            () = watch.changed() => {
                let since = Instant::now();
                // A copy causes a change for every block: one scan covers all that arrive meanwhile.
                tokio::time::sleep(GATHER).await;
                loader.scan_since(Settling::Settle, since).await
            }
            _ = rescan.tick() => {
                watch.arm(loader.dir());
                loader.scan(Settling::Settle).await
            }
            input = loader.next_input() => match input {
                Some(LoaderInput::Command(command)) => loader.execute(command).await,
                Some(LoaderInput::RollbackRequest(request)) => {
                    loader.roll_back_if_on_probation(request).await;
                    continue;
                }
                None => return,
            },
        };
        if let (true, Err(error)) = (readable, &scanned) {
            tracing::error!(%error, dir = %loader.dir().display(), "plugin directory cannot be read: plugins stay unchanged");
        }
        readable = scanned.is_ok();
    }
}

#[cfg(test)]
impl WasmHost {
    /// Waits until every requested extra call has ended.
    pub(super) async fn wait_for_extra_calls(&self) {
        // On the single thread of tests, every spawned task has begun after this.
        tokio::task::yield_now().await;
        while !self.env.extra_calls.is_idle() {
            tokio::task::yield_now().await;
        }
    }

    /// Why a call had no answer, if one failed since the last call of this function.
    pub(super) fn take_last_failure(&self) -> Option<String> {
        let serving = self.serving.load();
        let mut versions = serving.status().into_iter().filter_map(|status| serving.live(&status.name));
        versions.find_map(|version| version.stats.take_last_failure()).map(|failure| failure.to_string())
    }
}

impl PluginHost for WasmHost {
    fn admit(&self, transport: Transport, claim: Claim) -> BoxFuture<'_, Result<Admission, Refusal>> {
        let plugins = self.serving.load_full();
        async move { auth::admit(&plugins, &transport, &claim).await }.boxed()
    }

    fn join(&self, request: JoinRequest) -> BoxFuture<'_, Access> {
        let plugins = self.serving.load();
        if plugins.access.is_empty() {
            return std::future::ready(Access::Abstain).boxed();
        }
        let plugins = Guard::into_inner(plugins);
        async move { access::join(&plugins, &request).await }.boxed()
    }

    fn judge<'a>(&'a self, batch: &'a mut [Envelope]) -> BoxFuture<'a, Vec<Judgement>> {
        let plugins = self.serving.load();
        if plugins.filters.is_empty() {
            // Avoids the large future of the chain.
            return std::future::ready(chain::pass_all(batch.len())).boxed();
        }
        let plugins = Guard::into_inner(plugins);
        async move { chain::judge(&plugins, batch).await }.boxed()
    }

    fn handle(&self, call: Call) -> BoxFuture<'_, Option<Answer>> {
        let plugins = self.serving.load();
        let served = plugins.handlers.get(&call.key);
        let owner = served.and_then(|served| served.choose(|| Some(share::caller(&call)))).cloned();
        async move { Some(handler::handle(&owner?, &call).await) }.boxed()
    }

    fn notify(&self, event: Event, hops: u8) {
        let plugins = self.serving.load();
        let has_receivers = if event.is_receipt() { plugins.has_receipts } else { !plugins.events.is_empty() };
        if has_receivers {
            self.events.put(event, hops);
        }
    }

    fn wants_receipts(&self) -> bool {
        self.serving.load().has_receipts
    }

    fn status(&self) -> Vec<Status> {
        self.serving.load().status()
    }

    fn execute(&self, name: &str, command: PluginCommand) -> BoxFuture<'_, Result<Status, PluginCommandFault>> {
        let (answer, answered) = oneshot::channel();
        let command = LoaderCommand::Operator(name.into(), command, answer);
        async move {
            let sent = self.commands.send(command).await;
            // Without a directory there is no plugin and no loader.
            sent.map_err(|_| {
                if self.serving.load().is_empty() {
                    PluginCommandFault::Unknown
                } else {
                    PluginCommandFault::ShuttingDown
                }
            })?;
            answered.await.unwrap_or(Err(PluginCommandFault::ShuttingDown))
        }
        .boxed()
    }

    fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self.env.fault().into_iter().collect();
        faults.extend(self.serving.load().faults());
        faults
    }
}
