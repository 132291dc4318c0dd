//! Compiles plugins off the hot path: one at a time, through the cache, in a child process with limits.
//!
//! A plugin that exhausts, stalls or crashes the compiler harms only the child ([`child`]) and is refused with a
//! reason. Knows only the bytes of a plugin.

mod child;
mod priority;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Semaphore;
use wasmtime::Engine;
use wasmtime::component::Component;

pub use child::{ChildLimits, compile_stdin};

use super::cache::{self, Cache};
use super::draft::Draft;
use super::inspect;
use crate::config::CompileLimits;
use crate::plugin::{CompileIn, digest};

const CRASHED: &str = "the compiler crashed on this file";

/// The compiler of one engine. Cheap to clone; all clones together compile one plugin at a time.
#[derive(Clone)]
pub(in crate::plugin) struct Compiler(Arc<CompilerInner>);

struct CompilerInner {
    engine: Engine,
    fingerprint: u64,
    compile_in: CompileIn,
    limits: CompileLimits,
    cache: Option<Cache>,
    permit: Semaphore,
    /// True once the node serves. Until then it has nothing to protect from a compile, and a busy machine must not
    /// delay its start.
    low_priority: AtomicBool,
}

impl Compiler {
    pub(in crate::plugin) fn new(
        engine: Engine,
        cache: Option<Cache>,
        compile_in: CompileIn,
        limits: CompileLimits,
    ) -> Self {
        let fingerprint = fingerprint(&engine);
        let (permit, low_priority) = (Semaphore::new(1), AtomicBool::new(false));
        Self(Arc::new(CompilerInner { engine, fingerprint, compile_in, limits, cache, permit, low_priority }))
    }

    /// Makes later compiles run only on otherwise idle cores, because the node serves from now on.
    pub(in crate::plugin) fn lower_priority(&self) {
        self.0.low_priority.store(true, Ordering::Relaxed);
    }

    /// The compiled form of `bytes`; `hash` is their hash.
    ///
    /// # Errors
    /// Why it does not compile.
    pub(in crate::plugin) async fn compile(&self, bytes: Arc<[u8]>, hash: Arc<str>) -> Result<Component, String> {
        let (inner, key) = (Arc::clone(&self.0), Arc::clone(&hash));
        if let Some(component) = on_blocking_thread(move || Ok(inner.cached(&key))).await? {
            return Ok(component);
        }
        let _permit = self.0.permit.acquire().await.map_err(|_| "the node is shutting down")?;
        let (draft, sum) = self.code(&bytes).await?;
        let inner = Arc::clone(&self.0);
        on_blocking_thread(move || inner.map_and_cache(&hash, &sum, draft)).await
    }

    /// The code of `bytes` and its digest. If the code cannot be written to disk, it is kept in memory: a full disk
    /// refuses no plugin.
    async fn code(&self, bytes: &Arc<[u8]>) -> Result<(Draft, String), String> {
        let draft = self.0.draft()?;
        match self.write(bytes, draft).await {
            Ok(written) => Ok(written),
            Err(CompileFault::Unwritten(text)) => {
                tracing::warn!(error = text, "compiled plugin not added to the cache");
                let draft = in_memory()?;
                self.write(bytes, draft).await.map_err(CompileFault::text)
            }
            Err(fault) => Err(fault.text()),
        }
    }

    async fn write(&self, bytes: &Arc<[u8]>, draft: Draft) -> Result<(Draft, String), CompileFault> {
        let sum = match self.0.compile_in {
            CompileIn::Child => {
                let low_priority = self.0.low_priority.load(Ordering::Relaxed);
                child::compile(bytes, &self.0.limits, self.0.fingerprint, draft.file(), low_priority).await?
            }
            CompileIn::ThisProcess => {
                let (inner, bytes, mut file) = (Arc::clone(&self.0), Arc::clone(bytes), draft.file().try_clone()?);
                let written = tokio::task::spawn_blocking(move || compile_to(&inner.engine, &bytes, &mut file)).await;
                written.unwrap_or_else(|_| Err(CompileFault::Refused(CRASHED.to_owned())))?
            }
        };
        Ok((draft, sum))
    }
}

impl CompilerInner {
    fn cached(&self, hash: &str) -> Option<Component> {
        self.cache.as_ref()?.load(&self.engine, hash)
    }

    /// Target for the code: the cache if it can be written, else memory.
    fn draft(&self) -> Result<Draft, String> {
        let Some(cache) = &self.cache else { return in_memory() };
        cache.draft().or_else(|error| {
            tracing::warn!(%error, "compiled plugin not added to the cache");
            in_memory()
        })
    }

    /// Maps the code and adds it to the cache. The system can reclaim mapped code and read it again, unless it is only
    /// in memory.
    fn map_and_cache(&self, hash: &str, sum: &str, draft: Draft) -> Result<Component, String> {
        let component = cache::mapped(&self.engine, draft.file())
            .map_err(|error| format!("its compiled form cannot be loaded: {error:#}"))?;
        if let Some(cache) = self.cache.as_ref().filter(|_| !draft.is_in_memory()) {
            cache.insert(hash, sum, draft);
        }
        Ok(component)
    }
}

/// Why there is no code.
#[derive(Debug, PartialEq, Eq)]
enum CompileFault {
    /// The plugin file is to blame.
    Refused(String),
    /// The code could not be written.
    Unwritten(String),
}

impl CompileFault {
    fn text(self) -> String {
        let (Self::Refused(text) | Self::Unwritten(text)) = self;
        text
    }
}

impl From<std::io::Error> for CompileFault {
    fn from(error: std::io::Error) -> Self {
        Self::Unwritten(format!("its compiled code cannot be written: {error}"))
    }
}

fn in_memory() -> Result<Draft, String> {
    Draft::in_memory().map_err(|error| format!("there is no memory for its compiled code: {error}"))
}

/// Compiles `bytes` to `out` and returns the digest of the code.
fn compile_to(engine: &Engine, bytes: &[u8], out: &mut impl Write) -> Result<String, CompileFault> {
    let code =
        engine.precompile_component(bytes).map_err(|error| CompileFault::Refused(inspect::compile_fault(&error)))?;
    out.write_all(&code)?;
    Ok(digest::of(&code))
}

/// Fingerprint of an engine. It differs between engines that cannot run each other's compiled code.
pub(in crate::plugin) fn fingerprint(engine: &Engine) -> u64 {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

/// Runs slow work on a blocking thread.
async fn on_blocking_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(CRASHED.to_owned()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::plugin::guest::engine;

    #[tokio::test(start_paused = true)]
    async fn compiles_run_one_at_a_time_and_cached_plugins_do_not_wait() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine::for_compiling().unwrap();
        let cache = Cache::open(&dir.path().join("c"), fingerprint(&engine), 1 << 20).unwrap();
        let compiler = Compiler::new(engine, Some(cache), CompileIn::ThisProcess, CompileLimits::default());
        let bytes: Arc<[u8]> = wat::parse_str("(component)").unwrap().into();
        let compile = |hash: &str| compiler.compile(Arc::clone(&bytes), hash.into());
        let permit = compiler.0.permit.acquire().await.unwrap();
        assert!(timeout(Duration::from_secs(60), compile("a")).await.is_err(), "another one compiles");
        drop(permit);
        assert!(compile("a").await.is_ok());
        let _permit = compiler.0.permit.acquire().await.unwrap();
        assert!(compile("a").await.is_ok(), "from the cache");
        assert!(timeout(Duration::from_secs(60), compile("b")).await.is_err());
    }

    #[tokio::test]
    async fn code_stays_in_memory_when_the_cache_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine::for_compiling().unwrap();
        let bytes = wat::parse_str("(component)").unwrap();
        let full = compile_to(&engine, &bytes, &mut [0_u8; 8].as_mut_slice());
        assert!(matches!(full, Err(CompileFault::Unwritten(_))), "a full disk is not the file's fault");
        let cache = Cache::open(&dir.path().join("c"), fingerprint(&engine), 1 << 20).unwrap();
        std::fs::remove_dir(dir.path().join("c")).unwrap();
        let compiler = Compiler::new(engine, Some(cache), CompileIn::ThisProcess, CompileLimits::default());
        assert!(compiler.compile(bytes.into(), "a".into()).await.is_ok());
    }
}
