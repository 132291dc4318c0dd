//! Compiles plugins off the hot path: one at a time, through the cache, by a child process that may take only so much.
//!
//! What a guest can do to a compiler (run it out of memory, keep it busy, crash it) happens to the child ([`child`]), and is a
//! refusal with its reason. Knows no plugin but its bytes.

mod child;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use tokio::sync::Semaphore;
use wasmtime::Engine;
use wasmtime::component::Component;

pub use child::{ChildLimits, compile_stdin};

use super::cache::Cache;
use super::inspect;
use crate::config::CompileLimits;

/// Where plugins are compiled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CompileIn {
    /// In this process, without bounds: for commands of an author, and for programs that are not `skylark`.
    #[default]
    ThisProcess,
    /// In a child process of this binary, which must be `skylark`, within `plugins.compile`.
    Child,
}

/// The compiler of one engine. Cheap to clone: all clones take turns.
#[derive(Clone)]
pub(super) struct Compiler(Arc<Inner>);

struct Inner {
    engine: Engine,
    fingerprint: u64,
    place: CompileIn,
    limits: CompileLimits,
    cache: Option<Cache>,
    turn: Semaphore,
}

impl Compiler {
    pub(super) fn new(engine: Engine, cache: Option<Cache>, place: CompileIn, limits: CompileLimits) -> Self {
        let fingerprint = fingerprint(&engine);
        Self(Arc::new(Inner { engine, fingerprint, place, limits, cache, turn: Semaphore::new(1) }))
    }

    /// The compiled form of `bytes`, whose hash is `hash`.
    ///
    /// # Errors
    /// Why it does not compile.
    pub(super) async fn compile(&self, bytes: Arc<[u8]>, hash: Arc<str>) -> Result<Component, String> {
        let (inner, key) = (Arc::clone(&self.0), Arc::clone(&hash));
        if let Some(component) = aside(move || Ok(inner.cached(&key))).await? {
            return Ok(component);
        }
        let _turn = self.0.turn.acquire().await.map_err(|_| "the node is ending")?;
        let inner = Arc::clone(&self.0);
        let code = match self.0.place {
            CompileIn::Child => child::compile(&bytes, &self.0.limits, self.0.fingerprint).await?,
            CompileIn::ThisProcess => aside(move || compile(&inner.engine, &bytes)).await?,
        };
        let inner = Arc::clone(&self.0);
        aside(move || inner.keep(&hash, &code)).await
    }
}

impl Inner {
    fn cached(&self, hash: &str) -> Option<Component> {
        self.cache.as_ref()?.load(&self.engine, hash)
    }

    /// Through the cache where there is one: mapped code can be given back to the system and read again.
    #[allow(unsafe_code)]
    fn keep(&self, hash: &str, code: &[u8]) -> Result<Component, String> {
        let kept = self.cache.as_ref().and_then(|cache| cache.store(&self.engine, hash, code));
        if let Some(component) = kept {
            return Ok(component);
        }
        // SAFETY: the bytes are the output of this program's own compiler, in this process or in its child, for an engine
        // with the same fingerprint, and went through nobody's hands but a pipe's.
        let component = unsafe { Component::deserialize(&self.engine, code) };
        component.map_err(|error| format!("its compiled form cannot be loaded: {error:#}"))
    }
}

/// Tells engines apart whose compiled code is not each other's.
pub(super) fn fingerprint(engine: &Engine) -> u64 {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

fn compile(engine: &Engine, bytes: &[u8]) -> Result<Vec<u8>, String> {
    engine.precompile_component(bytes).map_err(|error| inspect::compile_fault(&error))
}

/// Does what takes long on a thread of its own.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err("the compiler crashed on this file".to_owned()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::super::engine;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn plugins_compile_one_after_the_other_and_known_ones_wait_for_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine::for_compiling().unwrap();
        let cache = Cache::open(&dir.path().join("c"), fingerprint(&engine), 1 << 20).unwrap();
        let compiler = Compiler::new(engine, Some(cache), CompileIn::ThisProcess, CompileLimits::default());
        let bytes: Arc<[u8]> = wat::parse_str("(component)").unwrap().into();
        let compile = |hash: &str| compiler.compile(Arc::clone(&bytes), hash.into());
        let turn = compiler.0.turn.acquire().await.unwrap();
        assert!(timeout(Duration::from_secs(60), compile("a")).await.is_err(), "another one compiles");
        drop(turn);
        assert!(compile("a").await.is_ok());
        let _turn = compiler.0.turn.acquire().await.unwrap();
        assert!(compile("a").await.is_ok(), "from the cache");
        assert!(timeout(Duration::from_secs(60), compile("b")).await.is_err());
    }
}
