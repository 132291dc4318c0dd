//! The plugin harness: calls one plugin without a node, for `skylark plugin test` and `plugin bench`.
//!
//! Everything between a call and its answer is the node's own code: the loader's steps, the chain, the commit. Only the
//! surroundings are given: a fixed clock, random numbers that repeat, a store, a network, a history and the users
//! online ([`users`]).

mod history;
mod network;
mod users;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use toml::Table;
use wasmtime::component::Component;

use super::calls::lease::InstanceLease;
use super::calls::snapshot::Snapshot;
use super::calls::version::Version;
use super::calls::{access, alarms, auth, chain, events, handler};
use super::guest::failure::Failure;
use super::guest::files::PluginFiles;
use super::guest::instance::Instance;
use super::guest::manifest::Manifest;
use super::history::HistoryReader;
use super::kv::{MemoryStore, Share, Store, Write};
use super::loader::disk::{self, Owners, RawFiles};
use super::loader::load::{self, Env};
use super::time::Time;
use super::{
    Access, Admission, Answer, Call, Claim, CompileIn, Effect, Event, JoinRequest, Judgement, LoadError, Options,
    Presence, Refusal, Role, Services, Transport,
};
use crate::config::Plugins;
use crate::id::Uid;
use crate::message::Envelope;
pub use history::{GivenHistory, GivenMessage};
use network::GivenNetwork;
pub use network::{Exchange, SentRequest};
use users::OnlineUsers;

/// A file that was read and compiled, and can be called any number of times.
pub struct PluginHarness {
    env: Env,
    files: PluginFiles,
    component: Result<Component, Vec<String>>,
    compiled_in: Duration,
}

/// Why the harness cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum HarnessError {
    /// The file cannot be read.
    #[error("{}: {error}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// The cause.
        error: String,
    },
    /// The file's name does not end with `.wasm`.
    #[error("{}: expected a file whose name ends with .wasm", .0.display())]
    Name(PathBuf),
    /// The engine or a thread cannot be created.
    #[error(transparent)]
    Engine(#[from] LoadError),
}

/// Surroundings of the plugin.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// Keys that replace those of the manifest beside the file.
    pub manifest: Table,
    /// Time of the fixed clock, since 1970.
    pub now: Duration,
    /// Seed of the random numbers.
    pub seed: u64,
    /// Keys and values of the plugin in the store.
    pub kv: Vec<(String, Vec<u8>)>,
    /// The users online, with their connections.
    pub online: Vec<(Uid, Presence)>,
    /// Answers of the network.
    pub http: Vec<Exchange>,
    /// Kept messages.
    pub history: GivenHistory,
}

/// A call without an answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {text}")]
pub struct CallFailure {
    /// `trap`, `cpu`, `wall`, `memory`, `bytes`, `answer`, `declared`, `kv`, `history`: the label in metrics.
    pub kind: &'static str,
    /// Description of the failure.
    pub text: String,
}

impl PluginHarness {
    /// Reads and compiles a file. A file that does not compile is refused by each [`PluginHarness::begin`].
    ///
    /// # Errors
    /// [`HarnessError`]: the file cannot be read, or the engine cannot be created.
    pub async fn open(file: &Path, config: &Plugins) -> Result<Self, HarnessError> {
        let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let name = file.file_stem().and_then(|name| name.to_str()).unwrap_or_default();
        if name.is_empty() || file.extension().is_none_or(|kind| kind != "wasm") {
            return Err(HarnessError::Name(file.to_owned()));
        }
        let unreadable = |error: String| HarnessError::Read { file: file.to_owned(), error };
        let RawFiles { wasm, manifest, .. } =
            disk::read(dir, name, Owners::Anyone).map_err(|error| unreadable(error.to_string()))?;
        let wasm = wasm.ok_or_else(|| unreadable("the file does not exist".to_owned()))?;
        // Compiles as the node does, with the same limits. A test binary is not `skylark`, so it compiles in its own
        // process.
        let compile = if cfg!(test) { CompileIn::ThisProcess } else { CompileIn::Child };
        let options = Options { compile, ..Options::default() };
        let env = Env::new(config, options, mpsc::channel(1).0, mpsc::channel(1).0)?;
        let files = PluginFiles::new(name.into(), wasm, manifest, None);
        let begun = Instant::now();
        let component = load::compile(&env, &files).await.map_err(|fault| fault.reasons);
        let compiled_in = begun.elapsed();
        Ok(Self { env, files, component, compiled_in })
    }

    /// Bytes of the file.
    #[must_use]
    pub fn size(&self) -> usize {
        self.files.bytes.len()
    }

    /// Time to compile the file, or to load it from the cache.
    #[must_use]
    pub fn compiled_in(&self) -> Duration {
        self.compiled_in
    }

    /// Loads the plugin as the node does, with fresh surroundings.
    ///
    /// # Errors
    /// Why the node would refuse it.
    pub async fn begin(&self, given: &Given) -> Result<LoadedPlugin, Vec<String>> {
        let component = self.component.as_ref().map_err(Vec::clone)?;
        let time = Time::fixed(given.now);
        let kv = Arc::new(MemoryStore::default().with_time(time.clone()));
        for (key, value) in &given.kv {
            put(&kv, &self.files.plugin, key, value).await.map_err(|fault| vec![fault])?;
        }
        let network = Arc::new(GivenNetwork::new(&given.http));
        let history = match &given.history {
            GivenHistory::Off => None,
            kept => Some(Arc::new(kept.clone()) as Arc<dyn HistoryReader>),
        };
        let options = Options {
            kv: Arc::clone(&kv) as _,
            history,
            fetch: Some(Arc::clone(&network) as _),
            time: time.clone(),
            seed: Some(given.seed),
            ..Options::default()
        };
        let env = self.env.with_fresh_state(options);
        let users = Arc::new(OnlineUsers::new(given.online.clone()));
        // The surroundings are new, so no services are set yet.
        let _ = env.services.set(Arc::clone(&users) as Arc<dyn Services>);
        let manifest = self.manifest(&given.manifest, &env)?;
        if !manifest.enabled {
            return Err(vec!["its manifest says enabled = false".to_owned()]);
        }
        let version = load::link(&env, &self.files, component, manifest, 1).await.map_err(|fault| fault.reasons)?;
        Ok(LoadedPlugin { snapshot: Snapshot::of_one(&version), version, users, kv, network, time, env })
    }

    fn manifest(&self, over: &Table, env: &Env) -> Result<Manifest, Vec<String>> {
        let named = |faults: Vec<String>| -> Vec<String> {
            faults.iter().map(|fault| format!("{}.toml: {fault}", self.files.plugin)).collect()
        };
        // Parsed as it was written, so that a fault names its line.
        let as_written = Manifest::parse(self.files.manifest(), env.caps()).map_err(named);
        if over.is_empty() {
            return as_written;
        }
        let Ok(mut table) = self.files.manifest().parse::<Table>() else { return as_written };
        table.extend(over.clone());
        Manifest::parse(&table.to_string(), env.caps()).map_err(named)
    }
}

/// Most timers that one `advance` delivers, so that a timer that sets itself again comes to an end.
const MOST_TIMERS: usize = 10_000;

async fn put(kv: &MemoryStore, plugin: &str, key: &str, value: &[u8]) -> Result<(), String> {
    let write = Write { value: Some(value.into()), ttl: None };
    let commit = super::kv::Commit { writes: [(key.to_owned(), write)].into(), ..Default::default() };
    kv.commit(plugin, commit, Share::default()).await.map_err(|error| format!("given kv: {error}"))
}

/// A loaded plugin with its surroundings. Each call finds the effects of the calls before it.
pub struct LoadedPlugin {
    version: Arc<Version>,
    snapshot: Snapshot,
    users: Arc<OnlineUsers>,
    kv: Arc<MemoryStore>,
    network: Arc<GivenNetwork>,
    time: Time,
    env: Env,
}

/// Result of a filter: its judgement, and its failure if it was asked and failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterResult {
    /// Judgement of the publish. If the call failed, the manifest decides.
    pub judgement: Judgement,
    /// True if the manifest's rules let the publish reach the plugin.
    pub asked: bool,
    /// Why there is no answer.
    pub failed: Option<CallFailure>,
}

impl LoadedPlugin {
    /// The plugin's roles.
    #[must_use]
    pub fn roles(&self) -> &[Role] {
        &self.version.roles
    }

    /// Asks the plugin to admit; the inner `None` is an abstention.
    ///
    /// # Errors
    /// The call failed: the node would refuse.
    pub async fn admit(
        &self,
        transport: &Transport,
        claim: &Claim,
    ) -> Result<Option<Result<Admission, Refusal>>, CallFailure> {
        Ok(auth::ask(&self.version, transport, claim).await?)
    }

    /// Sends one publish through the chain.
    pub async fn judge(&self, envelope: &mut Envelope) -> FilterResult {
        let before = self.version.stats.calls();
        let judged = chain::judge(&self.snapshot, std::slice::from_mut(envelope)).await;
        let judgement = judged.into_iter().next().unwrap_or(Judgement::Pass { replaced_by: Vec::new() });
        let failed = self.version.stats.take_last_failure().map(CallFailure::from);
        FilterResult { judgement, asked: self.version.stats.calls() > before, failed }
    }

    /// Sends a batch through the chain.
    pub async fn judge_all(&self, batch: &mut [Envelope]) -> Vec<Judgement> {
        chain::judge(&self.snapshot, batch).await
    }

    /// Asks the handler; `None` if it does not own the key.
    ///
    /// # Errors
    /// The call failed: the node would answer 503.
    pub async fn handle(&self, call: &Call) -> Result<Option<Answer>, CallFailure> {
        let served = self.snapshot.handlers.get(&call.key);
        let Some(owner) = served.and_then(|served| served.only()) else { return Ok(None) };
        let answer = handler::handle(owner, call).await;
        match self.version.stats.take_last_failure() {
            Some(failure) => Err(failure.into()),
            None => Ok(Some(answer)),
        }
    }

    /// Delivers an event to which `hops` calls of plugins led.
    ///
    /// # Errors
    /// The call failed: the node would log it.
    pub async fn deliver(&self, event: &Event, hops: u8) -> Result<(), CallFailure> {
        if event.is_receipt() && !self.version.has_receipts() {
            let text = "the plugin does not export receipts beside the role events".to_owned();
            return Err(CallFailure { kind: "receipts", text });
        }
        Ok(events::deliver(&self.version, event, hops).await?)
    }

    /// Asks the plugin about a join; `None` if the manifest's rules keep the request from it.
    ///
    /// # Errors
    /// The call failed: the node would answer 503.
    pub async fn join(&self, request: &JoinRequest) -> Result<Option<Access>, CallFailure> {
        if !access::wants(&self.version.manifest.rules, request) {
            return Ok(None);
        }
        Ok(Some(access::ask(&self.version, request).await?))
    }

    /// The keys that a handler owns.
    #[must_use]
    pub fn keys(&self) -> &[String] {
        &self.version.keys
    }

    /// The CPU time that a call in this role may take.
    #[must_use]
    pub fn cpu_budget(&self, role: Role) -> Duration {
        self.version.blueprint.context.limits.budget(Some(role)).cpu
    }

    /// Bytes of the warm instance, and its limit.
    ///
    /// # Errors
    /// No instance is warm, and none can be made.
    pub async fn memory(&self) -> Result<(usize, usize), CallFailure> {
        let mut lease = InstanceLease::take(&self.version).await?;
        let taken = lease.instance().memory();
        lease.return_to_pool();
        Ok((taken, self.version.blueprint.context.limits.memory))
    }

    /// Makes one more instance, as a call without a warm one does, and returns the time that it took.
    ///
    /// # Errors
    /// The instance does not start.
    pub async fn cold_start(&self) -> Result<Duration, CallFailure> {
        let begun = Instant::now();
        let instance = Instance::new(&self.version.blueprint).await?;
        let took = begun.elapsed();
        drop(instance);
        Ok(took)
    }

    /// Advances the clock. Each timer that comes due is delivered at its time, in order, and so are the timers that it
    /// sets. Returns the names of the delivered timers.
    ///
    /// # Errors
    /// A call failed, or the plugin exports no alarms: the node would log it. The clock stands at that time.
    pub async fn advance(&self, by: Duration) -> Result<Vec<String>, CallFailure> {
        let end = self.time.instant() + by;
        let mut delivered = Vec::new();
        while let Some(at) = self.env.timers.next().filter(|at| *at <= end) {
            self.time.advance(at.saturating_duration_since(self.time.instant()));
            let Some(due) = self.env.timers.take_due(at) else { break };
            if !self.version.blueprint.exports.has_alarms() {
                let text = format!("the timer {:?} is due, and the plugin does not export alarms", due.name);
                return Err(CallFailure { kind: "alarms", text });
            }
            alarms::deliver(&self.version, &due).await?;
            delivered.push(due.name);
            if delivered.len() > MOST_TIMERS {
                let text =
                    format!("more than {MOST_TIMERS} timers were delivered, the last one {:?}", delivered.last());
                return Err(CallFailure { kind: "alarms", text });
            }
        }
        self.time.advance(end.saturating_duration_since(self.time.instant()));
        Ok(delivered)
    }

    /// The timers that are set, by name, with the time until each is due.
    #[must_use]
    pub fn timers(&self) -> BTreeMap<String, Duration> {
        let (set, now) = (self.env.timers.timers_of(&self.version.name), self.time.instant());
        set.into_iter().map(|(name, due)| (name, due.saturating_duration_since(now))).collect()
    }

    /// Requests since the last call of this function.
    #[must_use]
    pub fn take_requests(&self) -> Vec<SentRequest> {
        self.network.take_asked()
    }

    /// Effects on other connections since the last call of this function.
    #[must_use]
    pub fn take_effects(&self) -> Vec<Effect> {
        self.users.take_effects()
    }

    /// The value of a key of the plugin.
    pub async fn value(&self, key: &str) -> Option<Arc<[u8]>> {
        // The memory store always answers.
        self.kv.get(&self.version.name, key).await.ok()?.value
    }
}

impl From<Failure> for CallFailure {
    fn from(failure: Failure) -> Self {
        Self { kind: failure.kind.as_str(), text: failure.to_string() }
    }
}
