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
use crate::plugin::calls::version::opinions::SecondOpinions;
use crate::plugin::calls::version::stats::{Stats, Told};
use crate::plugin::calls::version::{Alarm, Version, Warmer};
use crate::plugin::fetch::Fetch;
use crate::plugin::guest::anatomy::Anatomy;
use crate::plugin::guest::counters::Counters;
use crate::plugin::guest::engine;
use crate::plugin::guest::failure::Kind;
use crate::plugin::guest::files::Source;
use crate::plugin::guest::instance::{Blueprint, Indices, Instance};
use crate::plugin::guest::limits::{Limits, Rate};
use crate::plugin::guest::manifest::Manifest;
use crate::plugin::guest::state::{Context, Guest};
use crate::plugin::guest::ticker::Ticker;
use crate::plugin::guest::timers::Timers;
use crate::plugin::imports::{self, http};
use crate::plugin::time::Time;
use crate::plugin::{LoadError, Options, Role, Services, kv};
use crate::telemetry::names;

/// Most keys of one handler, and longest one in bytes.
const MAX_KEYS: usize = 256;
const MAX_KEY_BYTES: usize = 128;

/// State that all plugins of the process share.
pub(in crate::plugin) struct Env {
    pub(in crate::plugin) engine: Engine,
    linker: Linker<Guest>,
    compiler: Compiler,
    pub(in crate::plugin) caps: PluginCaps,
    trust: ArcSwap<Trust>,
    /// File of the loader's state that must survive a restart.
    pub(in crate::plugin) memory: Option<PathBuf>,
    kv: Arc<dyn kv::Store>,
    time: Time,
    seed: Option<u64>,
    counters: Counters,
    pub(in crate::plugin) timers: Arc<Timers>,
    fetch: Option<Arc<dyn Fetch>>,
    pub(in crate::plugin) services: Arc<OnceLock<Arc<dyn Services>>>,
    permits: Arc<Semaphore>,
    slots: usize,
    breaker: breaker::Rules,
    pub(in crate::plugin) opinions: Arc<SecondOpinions>,
    told: Mutex<BTreeMap<Arc<str>, Told>>,
    warmer: Warmer,
    alarm: Alarm,
    ticker: Arc<Ticker>,
}

impl Env {
    pub(in crate::plugin) fn new(
        config: &Plugins,
        options: Options,
        warmer: Warmer,
        alarm: Alarm,
    ) -> Result<Self, LoadError> {
        let failed = |error: wasmtime::Error| LoadError::Engine(format!("{error:#}"));
        let engine = engine::build(config.instances, &config.caps).map_err(failed)?;
        Self::over(engine, config, options, warmer, alarm)
    }

    /// Uses an engine that exists.
    pub(in crate::plugin) fn over(
        engine: Engine,
        config: &Plugins,
        options: Options,
        warmer: Warmer,
        alarm: Alarm,
    ) -> Result<Self, LoadError> {
        let failed = |error: wasmtime::Error| LoadError::Engine(format!("{error:#}"));
        let linker = imports::linker(&engine).map_err(failed)?;
        let ticker = Ticker::start(engine::weak(&engine), config.ticker_lag, options.vitals.watch("plugin ticker"));
        let ticker = ticker.map_err(LoadError::Thread)?;
        let cache = open_cache(config, &engine);
        let memory = cache.as_ref().map(|_| config.cache.join("known"));
        Ok(Self {
            linker,
            compiler: Compiler::new(engine.clone(), cache, options.compile, config.compile.clone()),
            caps: config.caps.clone(),
            trust: ArcSwap::from_pointee(Trust::new(config)),
            memory,
            kv: options.kv,
            time: options.time,
            seed: options.seed,
            counters: Counters::default(),
            timers: Arc::default(),
            fetch: options.fetch,
            services: Arc::default(),
            permits: Arc::new(Semaphore::new(config.instances as usize)),
            slots: std::thread::available_parallelism().map_or(1, Into::into),
            breaker: breaker::Rules { failures: config.breaker.failures, rest: config.breaker.rest },
            opinions: Arc::new(SecondOpinions::new(config.breaker.rest)),
            told: Mutex::default(),
            warmer,
            alarm,
            ticker: Arc::new(ticker),
            engine,
        })
    }

    /// When a line about this plugin's callers was logged, over all its versions.
    fn told(&self, plugin: &Arc<str>) -> Told {
        self.told.lock().entry(Arc::clone(plugin)).or_default().clone()
    }

    /// The node serves from now on: compiles give way to it.
    pub(in crate::plugin) fn serve(&self) {
        self.compiler.give_way();
    }

    /// Why the time limits of plugins do not hold, if so.
    pub(in crate::plugin) fn fault(&self) -> Option<String> {
        self.ticker.fault(Instant::now())
    }

    /// Sets the trust rules for all files from now on.
    pub(in crate::plugin) fn set_trust(&self, trust: Trust) {
        self.trust.store(Arc::new(trust));
    }

    /// The same machinery with an environment that no earlier guest has touched, for one instance at a time.
    pub(in crate::plugin) fn afresh(&self, options: Options) -> Self {
        Self {
            engine: self.engine.clone(),
            linker: self.linker.clone(),
            compiler: self.compiler.clone(),
            caps: self.caps.clone(),
            trust: ArcSwap::new(self.trust.load_full()),
            memory: None,
            kv: options.kv,
            time: options.time,
            seed: options.seed,
            counters: Counters::default(),
            timers: Arc::default(),
            fetch: options.fetch,
            services: Arc::default(),
            permits: Arc::clone(&self.permits),
            slots: 1,
            // Only one caller calls here, and it must see each failure.
            breaker: breaker::Rules { rest: Duration::ZERO, ..self.breaker },
            opinions: Arc::new(SecondOpinions::new(Duration::ZERO)),
            told: Mutex::default(),
            warmer: self.warmer.clone(),
            alarm: self.alarm.clone(),
            ticker: Arc::clone(&self.ticker),
        }
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
pub(in crate::plugin) struct Fault {
    /// Its roles, as far as they are known.
    pub(in crate::plugin) roles: Vec<Role>,
    pub(in crate::plugin) reasons: Vec<String>,
}

impl Fault {
    fn early(reason: impl Into<String>) -> Self {
        Self { roles: Vec::new(), reasons: vec![reason.into()] }
    }

    pub(in crate::plugin) fn reason(&self) -> String {
        self.reasons.join("; ")
    }
}

/// Checks that the operator trusts the file. This must happen before anything is made of the file.
pub(in crate::plugin) fn trust(env: &Env, source: &Source, manifest: &Manifest) -> Result<(), Fault> {
    env.trust.load().judge(source, manifest).map_err(|reasons| Fault { roles: Vec::new(), reasons })
}

/// Compiles the component if the cache does not have it.
pub(in crate::plugin) async fn compile(env: &Env, source: &Source) -> Result<Component, Fault> {
    inspect::check_magic(&source.bytes).map_err(Fault::early)?;
    env.compiler.compile(Arc::clone(&source.bytes), Arc::clone(&source.mark.hash)).await.map_err(Fault::early)
}

/// Links, tries and warms a compiled file: the version can serve when this returns.
pub(in crate::plugin) async fn link(
    env: &Env,
    source: &Source,
    component: &Component,
    manifest: Manifest,
    number: u64,
) -> Result<Arc<Version>, Fault> {
    let anatomy = inspect::inspect(&env.engine, component, &source.plugin, &manifest)
        .map_err(|(roles, reasons)| Fault { roles, reasons })?;
    let roles = anatomy.roles.clone();
    let fault = |reason: String| Fault { roles: roles.clone(), reasons: vec![reason] };
    manifest.expects(&roles).map_err(|reason| fault(format!("{}.toml: {reason}", source.plugin)))?;
    let blueprint = blueprint(env, source, component, &manifest, &anatomy)
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
        name: Arc::clone(&source.plugin),
        number,
        mark: source.mark.clone(),
        size: source.bytes.len() as u64,
        since: clock::now_millis(),
        stats: Stats::new(&source.plugin, &roles, env.told(&source.plugin)),
        pool: Pool::new(env.slots.min(blueprint.context.limits.instances)),
        breaker: Breaker::new(env.breaker),
        opinions: Arc::clone(&env.opinions),
        previous: Mutex::default(),
        warmer: env.warmer.clone(),
        alarm: env.alarm.clone(),
        manifest,
        keys,
        blueprint,
        roles: anatomy.roles,
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
    source: &Source,
    component: &Component,
    manifest: &Manifest,
    anatomy: &Anatomy,
) -> wasmtime::Result<Blueprint> {
    let pre = env.linker.instantiate_pre(component)?;
    let limits = Limits::new(&anatomy.roles, &manifest.limits, &env.caps, env.slots);
    Ok(Blueprint {
        own_permits: Arc::new(Semaphore::new(limits.instances)),
        exports: Indices::find(&pre, anatomy)?,
        pre,
        context: Arc::new(Context {
            plugin: Arc::clone(&source.plugin),
            settings: manifest.settings.clone(),
            log_rate: Arc::new(Rate::new(limits.log_rate)),
            limits,
            kv: Arc::clone(&env.kv),
            counters: env.counters.of(&source.plugin),
            timers: Arc::clone(&env.timers),
            outgoing: manifest.http.clone(),
            fetch: env.fetch.clone(),
            requests: Semaphore::new(http::UNDER_WAY),
            services: Arc::clone(&env.services),
            time: env.time.clone(),
            seed: env.seed,
        }),
        living: gauge!(names::PLUGIN_INSTANCES, "plugin" => source.plugin.to_string()),
        permits: Arc::clone(&env.permits),
        beat: env.ticker.beat(),
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
