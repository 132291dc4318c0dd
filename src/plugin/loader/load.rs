//! From the bytes of a file to a version that can serve: compile, inspect, link, canary, warm.
//!
//! The loader, `skylark check` and `skylark plugin check` all use these steps.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use metrics::gauge;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use wasmtime::Engine;
use wasmtime::component::{Component, Linker};

use super::cache::Cache;
use super::compile::{self, Compiler};
use super::inspect;
use super::trust::Trust;
use crate::clock;
use crate::config::{PluginCaps, Plugins};
use crate::plugin::calls::breaker::{self, Breaker};
use crate::plugin::calls::pool::Pool;
use crate::plugin::calls::version::extra_calls::ExtraCalls;
use crate::plugin::calls::version::stats::{LogLimiter, Stats};
use crate::plugin::calls::version::{RollbackSender, Version, Warmer};
use crate::plugin::fetch::Fetch;
use crate::plugin::guest::counters::Counters;
use crate::plugin::guest::engine;
use crate::plugin::guest::failure::Kind;
use crate::plugin::guest::files::PluginFiles;
use crate::plugin::guest::instance::{Blueprint, Indices, Instance};
use crate::plugin::guest::interface::ComponentInterface;
use crate::plugin::guest::limits::{Limits, LogRate};
use crate::plugin::guest::manifest::Manifest;
use crate::plugin::guest::state::{Context, Guest};
use crate::plugin::guest::ticker::Ticker;
use crate::plugin::guest::timers::Timers;
use crate::plugin::history::HistoryReader;
use crate::plugin::imports::{self, http};
use crate::plugin::time::Time;
use crate::plugin::{LoadError, Options, Role, Services, kv};
use crate::telemetry::names;

/// Most keys of one handler, and longest one in bytes.
const MAX_KEYS: usize = 256;
const MAX_KEY_BYTES: usize = 128;

/// State that all plugins of the process share.
pub(in crate::plugin) struct Env {
    base: EnvBase,
    trust: ArcSwap<Trust>,
    /// File of the loader's state that must survive a restart.
    pub(in crate::plugin) state_folder: Option<PathBuf>,
    slots: usize,
    breaker: breaker::Rules,
    pub(in crate::plugin) extra_calls: Arc<ExtraCalls>,
    kv: Arc<dyn kv::Store>,
    history: Option<Arc<dyn HistoryReader>>,
    time: Time,
    seed: Option<u64>,
    counters: Counters,
    pub(in crate::plugin) timers: Arc<Timers>,
    fetch: Option<Arc<dyn Fetch>>,
    pub(in crate::plugin) services: Arc<OnceLock<Arc<dyn Services>>>,
    input_log_limiters: Mutex<BTreeMap<Arc<str>, LogLimiter>>,
}

/// The part that an environment shares with those made of it.
#[derive(Clone)]
struct EnvBase {
    engine: Engine,
    linker: Linker<Guest>,
    compiler: Compiler,
    caps: PluginCaps,
    permits: Arc<Semaphore>,
    warmer: Warmer,
    rollbacks: RollbackSender,
    ticker: Arc<Ticker>,
}

/// The rules by which an environment differs from those made of it.
struct EnvRules {
    trust: Arc<Trust>,
    state_folder: Option<PathBuf>,
    slots: usize,
    breaker: breaker::Rules,
}

impl Env {
    pub(in crate::plugin) fn new(
        config: &Plugins,
        options: Options,
        warmer: Warmer,
        rollbacks: RollbackSender,
    ) -> Result<Self, LoadError> {
        let failed = |error: wasmtime::Error| LoadError::Engine(format!("{error:#}"));
        let engine = engine::build(config.instances, &config.caps).map_err(failed)?;
        Self::with_engine(engine, config, options, warmer, rollbacks)
    }

    /// Uses an engine that exists.
    pub(in crate::plugin) fn with_engine(
        engine: Engine,
        config: &Plugins,
        options: Options,
        warmer: Warmer,
        rollbacks: RollbackSender,
    ) -> Result<Self, LoadError> {
        let failed = |error: wasmtime::Error| LoadError::Engine(format!("{error:#}"));
        let linker = imports::linker(&engine).map_err(failed)?;
        let ticker = Ticker::start(engine::weak(&engine), config.ticker_lag, options.vitals.watch("plugin ticker"));
        let ticker = ticker.map_err(LoadError::Thread)?;
        let cache = open_cache(config, &engine);
        let state_folder = cache.as_ref().map(|_| config.cache.join("known"));
        let base = EnvBase {
            linker,
            compiler: Compiler::new(engine.clone(), cache, options.compile, config.compile.clone()),
            caps: config.caps.clone(),
            permits: Arc::new(Semaphore::new(config.instances as usize)),
            warmer,
            rollbacks,
            ticker: Arc::new(ticker),
            engine,
        };
        let rules = EnvRules {
            trust: Arc::new(Trust::new(config)),
            state_folder,
            slots: std::thread::available_parallelism().map_or(1, Into::into),
            breaker: breaker::Rules { failures: config.breaker.failures, rest: config.breaker.rest },
        };
        Ok(Self::assemble(base, rules, options))
    }

    /// The same environment without the state of earlier guests, for one instance at a time.
    pub(in crate::plugin) fn with_fresh_state(&self, options: Options) -> Self {
        let rules = EnvRules {
            trust: self.trust.load_full(),
            state_folder: None,
            slots: 1,
            // Only one caller calls here, and it must see each failure.
            breaker: breaker::Rules { rest: Duration::ZERO, ..self.breaker },
        };
        Self::assemble(self.base.clone(), rules, options)
    }

    /// Adds the state of guests, which is always new.
    fn assemble(base: EnvBase, rules: EnvRules, options: Options) -> Self {
        let EnvRules { trust, state_folder, slots, breaker } = rules;
        Self {
            base,
            trust: ArcSwap::new(trust),
            state_folder,
            slots,
            breaker,
            extra_calls: Arc::new(ExtraCalls::new(breaker.rest)),
            kv: options.kv,
            history: options.history,
            time: options.time,
            seed: options.seed,
            counters: Counters::default(),
            timers: Arc::default(),
            fetch: options.fetch,
            services: Arc::default(),
            input_log_limiters: Mutex::default(),
        }
    }

    /// The engine that compiles and runs the plugins.
    pub(in crate::plugin) fn engine(&self) -> &Engine {
        &self.base.engine
    }

    /// The operator's bounds for the limits of a manifest.
    pub(in crate::plugin) fn caps(&self) -> &PluginCaps {
        &self.base.caps
    }

    /// The limiter of log lines about invalid input of this plugin's callers, shared by all its versions.
    fn input_log_limiter(&self, plugin: &Arc<str>) -> LogLimiter {
        self.input_log_limiters.lock().entry(Arc::clone(plugin)).or_default().clone()
    }

    /// The node serves from now on: later compiles run at a lower priority.
    pub(in crate::plugin) fn serve(&self) {
        self.base.compiler.lower_priority();
    }

    /// Why the time limits of plugins do not hold, if so.
    pub(in crate::plugin) fn fault(&self) -> Option<String> {
        self.base.ticker.fault(Instant::now())
    }

    /// Sets the trust rules for all files from now on.
    pub(in crate::plugin) fn set_trust(&self, trust: Trust) {
        self.trust.store(Arc::new(trust));
    }
}

fn open_cache(config: &Plugins, engine: &Engine) -> Option<Cache> {
    if config.cache.as_os_str().is_empty() {
        return None;
    }
    let cache = Cache::open(&config.cache, compile::fingerprint(engine), config.cache_bytes as u64);
    cache
        .inspect_err(|error| tracing::warn!(%error, "plugin cache cannot be opened: compiled plugins are not kept"))
        .ok()
}

/// Why a file does not serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::plugin) struct LoadFault {
    /// Its roles, as far as they are known.
    pub(in crate::plugin) roles: Vec<Role>,
    pub(in crate::plugin) reasons: Vec<String>,
}

impl LoadFault {
    fn without_roles(reason: impl Into<String>) -> Self {
        Self { roles: Vec::new(), reasons: vec![reason.into()] }
    }

    pub(in crate::plugin) fn reason(&self) -> String {
        self.reasons.join("; ")
    }
}

/// Checks that the operator trusts the file. This must happen before anything is made of the file.
pub(in crate::plugin) fn check_trust(env: &Env, files: &PluginFiles, manifest: &Manifest) -> Result<(), LoadFault> {
    env.trust.load().check(files, manifest).map_err(|reasons| LoadFault { roles: Vec::new(), reasons })
}

/// Compiles the component if the cache does not have it.
pub(in crate::plugin) async fn compile(env: &Env, files: &PluginFiles) -> Result<Component, LoadFault> {
    inspect::check_magic(&files.bytes).map_err(LoadFault::without_roles)?;
    env.base
        .compiler
        .compile(Arc::clone(&files.bytes), Arc::clone(&files.id.hash))
        .await
        .map_err(LoadFault::without_roles)
}

/// Links, tries and warms a compiled file: the version can serve when this returns.
pub(in crate::plugin) async fn link(
    env: &Env,
    files: &PluginFiles,
    component: &Component,
    manifest: Manifest,
    number: u64,
) -> Result<Arc<Version>, LoadFault> {
    let interface = inspect::inspect(&env.base.engine, component, &files.plugin, &manifest)
        .map_err(|(roles, reasons)| LoadFault { roles, reasons })?;
    let roles = interface.roles.clone();
    let fault = |reason: String| LoadFault { roles: roles.clone(), reasons: vec![reason] };
    manifest.check_roles(&roles).map_err(|reason| fault(format!("{}.toml: {reason}", files.plugin)))?;
    let blueprint = blueprint(env, files, component, &manifest, &interface)
        .map_err(|error| fault(format!("it does not link: {error:#}")))?;
    let mut canary =
        Box::new(Instance::new(&blueprint).await.map_err(|failure| fault(format!("it does not start: {failure}")))?);
    let keys = if roles.contains(&Role::Handler) {
        let keys = canary.keys().await.map_err(|failure| fault(format!("keys: {failure}")))?;
        owned_keys(keys, &manifest).map_err(&fault)?
    } else {
        Vec::new()
    };
    let version = Version {
        name: Arc::clone(&files.plugin),
        number,
        files_id: files.id.clone(),
        size: files.bytes.len() as u64,
        since: clock::now_millis(),
        stats: Stats::new(&files.plugin, &roles, env.input_log_limiter(&files.plugin)),
        pool: Pool::new(env.slots.min(blueprint.context.limits.instances)),
        breaker: Breaker::new(env.breaker),
        extra_calls: Arc::clone(&env.extra_calls),
        previous: Mutex::default(),
        warmer: env.base.warmer.clone(),
        rollbacks: env.base.rollbacks.clone(),
        manifest,
        keys,
        blueprint,
        roles: interface.roles,
    };
    version.pool.put(canary);
    match version.warm().await {
        Err(failure) if failure.kind == Kind::Full => {
            tracing::warn!(plugin = %version.name, %failure, "plugin has fewer warm instances than worker threads");
        }
        warm => warm.map_err(|failure| fault(format!("it does not start a second time: {failure}")))?,
    }
    Ok(Arc::new(version))
}

fn blueprint(
    env: &Env,
    files: &PluginFiles,
    component: &Component,
    manifest: &Manifest,
    interface: &ComponentInterface,
) -> wasmtime::Result<Blueprint> {
    let pre = env.base.linker.instantiate_pre(component)?;
    let limits = Limits::new(&interface.roles, &manifest.limits, &env.base.caps, env.slots);
    Ok(Blueprint {
        own_permits: Arc::new(Semaphore::new(limits.instances)),
        exports: Indices::find(&pre, interface)?,
        pre,
        context: Arc::new(Context {
            plugin: Arc::clone(&files.plugin),
            settings: manifest.settings.clone(),
            log_rate: Arc::new(LogRate::new(limits.log_rate)),
            limits,
            kv: Arc::clone(&env.kv),
            history: env.history.clone(),
            counters: env.counters.of(&files.plugin),
            timers: Arc::clone(&env.timers),
            outgoing: manifest.http.clone(),
            fetch: env.fetch.clone(),
            requests: Semaphore::new(http::CONCURRENT_REQUESTS),
            services: Arc::clone(&env.services),
            time: env.time.clone(),
            seed: env.seed,
        }),
        instance_gauge: gauge!(names::PLUGIN_INSTANCES, "plugin" => files.plugin.to_string()),
        permits: Arc::clone(&env.base.permits),
        ticker: env.base.ticker.handle(),
    })
}

/// The keys that the plugin names, without those that the manifest's rules exclude.
fn owned_keys(mut keys: Vec<String>, manifest: &Manifest) -> Result<Vec<String>, String> {
    if keys.len() > MAX_KEYS {
        return Err(format!("keys: expected at most {MAX_KEYS}, got {}", keys.len()));
    }
    if let Some(key) = keys.iter().find(|key| key.is_empty() || key.len() > MAX_KEY_BYTES) {
        return Err(format!("keys: expected 1 to {MAX_KEY_BYTES} bytes, got {}", key.len()));
    }
    keys.retain(|key| manifest.rules.wants_key(key));
    keys.sort();
    keys.dedup();
    Ok(keys)
}
