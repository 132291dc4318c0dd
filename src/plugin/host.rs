//! The plugin host: loads what lies in the directory, serves calls from the set of the moment, and keeps that set fresh.
//!
//! Knows the node only as [`Services`], which it is given once the node stands.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

pub use super::compile::{ChildLimits, CompileIn, compile_stdin};
use super::events::{self, Queue};
use super::fetch::Fetch;
use super::kv::{MemoryStore, Store};
use super::load::Env;
use super::reload::{Command, Loader, News, Patience, Told};
use super::snapshot::Snapshot;
pub use super::time::Time;
use super::trust::Trust;
use super::version::warm_up;
use super::watch::Watch;
use super::{
    Access, Admission, Answer, Call, Claim, Event, JoinRequest, Judgement, PluginHost, Refusal, Services, Status,
    Transport, Word, WordFault, access, auth, chain, handler, share, timers,
};
use crate::config::Plugins;
use crate::message::Envelope;
use crate::vital::Vitals;

/// Why there is no plugin host.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The directory cannot be read.
    #[error("plugins.dir: {}: {error}", path.display())]
    Dir {
        /// Which one.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// wasmtime cannot be set up on this machine.
    #[error("no plugin engine: {0}")]
    Engine(String),
    /// The system gives no thread.
    #[error("no thread for plugins: {0}")]
    Thread(std::io::Error),
}

/// What the configuration file does not say.
pub struct Options {
    /// Where plugins keep their small state.
    pub kv: Arc<dyn Store>,
    /// The network of plugins; none = they reach nobody.
    pub fetch: Option<Arc<dyn Fetch>>,
    /// What guests take for the time.
    pub time: Time,
    /// Where plugins are compiled.
    pub compile: CompileIn,
    /// What makes their random numbers the same ones each time; none = the system's.
    pub seed: Option<u64>,
    /// Where the host registers its tasks and threads.
    pub vitals: Vitals,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kv: Arc::new(MemoryStore::default()),
            fetch: None,
            time: Time::default(),
            compile: CompileIn::default(),
            seed: None,
            vitals: Vitals::default(),
        }
    }
}

/// The plugins of this node, in wasmtime.
pub struct WasmHost {
    serving: Arc<ArcSwap<Snapshot>>,
    env: Arc<Env>,
    events: Queue,
    commands: mpsc::Sender<Command>,
}

/// What runs beside the calls; the composition root owns it.
pub struct Tasks {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// Requests for warm instances, and commands, that may wait.
const WAITING: usize = 256;
/// After the first news of the directory more are gathered for so long.
const GATHER: Duration = Duration::from_millis(20);
/// Events that wait when the node ends are told for so long.
const LAST_WORDS: Duration = Duration::from_secs(5);

impl WasmHost {
    /// Loads everything that lies in `config.dir` now. A file that does not load stops nobody: it is logged and shown.
    /// Metrics count from here on, so the recorder must be installed before.
    ///
    /// # Errors
    /// The directory cannot be read, or there can be no engine or thread.
    pub async fn load(config: &Plugins, options: Options) -> Result<(Self, Tasks), LoadError> {
        let (warmer, asked) = mpsc::channel(WAITING);
        let (alarm, opened) = mpsc::channel(WAITING);
        let vitals = options.vitals.clone();
        let env = Arc::new(Env::new(config, options, warmer, alarm)?);
        let serving = Arc::<ArcSwap<Snapshot>>::default();
        let mut tasks = JoinSet::new();
        let (stop, stopped) = watch::channel(false);
        let (commands, told) = mpsc::channel(WAITING);
        if !config.dir.as_os_str().is_empty() {
            let mut loader = Loader::new(config, Arc::clone(&env), Arc::clone(&serving), News::new(told, opened));
            let mut watch = Watch::new();
            watch.arm(loader.dir());
            loader.look(Patience::Now).await.map_err(|error| LoadError::Dir { path: config.dir.clone(), error })?;
            tasks.spawn(vitals.run("plugin watcher", keep_fresh(loader, watch, config.rescan, stopped.clone())));
        }
        let (queue, events) = Queue::new();
        let told = events::tell(Arc::clone(&serving), events, stopped.clone());
        tasks.spawn(vitals.run("plugin events", told));
        let rung = timers::ring(Arc::clone(&env.timers), Arc::clone(&serving), stopped.clone());
        tasks.spawn(vitals.run("plugin timers", rung));
        tasks.spawn(vitals.run("plugin instances", until(stopped, warm_up(asked))));
        Ok((Self { serving, env, events: queue, commands }, Tasks { stop, tasks }))
    }

    /// Gives plugins the node; only the first call counts. Before it nobody is online and effects go nowhere.
    pub fn set_services(&self, services: Arc<dyn Services>) {
        if self.env.services.set(services).is_err() {
            tracing::warn!("plugins have their services already");
        }
    }

    /// Looks at the directory now and takes files as they are; ends when all that was found serves or is refused.
    pub async fn look(&self) {
        self.tell(Command::Look).await;
    }

    /// From now on plugins with these names may disappear; those that have, and whose role refuses, are forgotten.
    pub async fn allow_remove(&self, names: Vec<String>) {
        self.tell(|done| Command::AllowRemove(names, done)).await;
    }

    /// From now on files are judged by these pins and keys; what was refused is tried again, what serves goes on.
    pub async fn set_trust(&self, config: &Plugins) {
        let trust = Trust::new(config);
        self.tell(|done| Command::Trust(trust, done)).await;
    }

    async fn tell(&self, command: impl FnOnce(oneshot::Sender<()>) -> Command) {
        let (done, ended) = oneshot::channel();
        // Without a directory, or while the node ends, nobody listens, and there is nothing to do.
        if self.commands.send(command(done)).await.is_ok() {
            let _ = ended.await;
        }
    }
}

impl Tasks {
    /// Ends all of it: no file is loaded any more, and events that wait are told, for at most five seconds.
    pub async fn stop(mut self) {
        let _ = self.stop.send(true);
        let ended = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(LAST_WORDS, ended).await.is_err() {
            tracing::warn!("plugins did not hear of the last events in time");
            self.tasks.shutdown().await;
        }
    }
}

async fn until(mut stopped: watch::Receiver<bool>, work: impl Future<Output = ()>) {
    tokio::select! {
        () = work => {}
        _ = stopped.changed() => {}
    }
}

/// The loader's loop.
async fn keep_fresh(mut loader: Loader, mut watch: Watch, rescan: Duration, mut stopped: watch::Receiver<bool>) {
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
        let looked = tokio::select! {
            _ = stopped.changed() => return,
            () = settled => loader.look(Patience::Settle).await,
            () = watch.changed() => {
                let since = Instant::now();
                // A copy tells of every block: one look serves all that it tells meanwhile.
                tokio::time::sleep(GATHER).await;
                loader.look_since(Patience::Settle, since).await
            }
            _ = rescan.tick() => {
                watch.arm(loader.dir());
                loader.look(Patience::Settle).await
            }
            told = loader.told() => match told {
                Some(Told::Command(command)) => loader.obey(command).await,
                Some(Told::Condemned(condemned)) => {
                    loader.condemned(condemned).await;
                    continue;
                }
                None => return,
            },
        };
        if let (true, Err(error)) = (readable, &looked) {
            tracing::error!(%error, dir = %loader.dir().display(), "the plugin directory cannot be read: plugins stay as they are");
        }
        readable = looked.is_ok();
    }
}

#[cfg(test)]
impl WasmHost {
    /// Waits until every second opinion that was asked for is given.
    pub(super) async fn opinions_given(&self) {
        // On the tests' one thread what was spawned has begun after this.
        tokio::task::yield_now().await;
        while !self.env.opinions.is_idle() {
            tokio::task::yield_now().await;
        }
    }

    /// Why a call had no answer, if one had none since the last look.
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
            // Without the chain's large future.
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
        if !self.serving.load().events.is_empty() {
            self.events.put(event, hops);
        }
    }

    fn status(&self) -> Vec<Status> {
        self.serving.load().status()
    }

    fn obey(&self, name: &str, word: Word) -> BoxFuture<'_, Result<Status, WordFault>> {
        let (answer, answered) = oneshot::channel();
        let command = Command::Word(name.into(), word, answer);
        async move {
            let told = self.commands.send(command).await;
            // Without a directory there is no plugin, and nobody listens.
            told.map_err(|_| if self.serving.load().is_empty() { WordFault::Unknown } else { WordFault::Ending })?;
            answered.await.unwrap_or(Err(WordFault::Ending))
        }
        .boxed()
    }

    fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self.env.fault().into_iter().collect();
        faults.extend(self.serving.load().faults());
        faults
    }
}
