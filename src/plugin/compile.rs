//! Compiles plugins off the hot path: one at a time, through the cache, by a child process that may take only so much.
//!
//! What a guest can do to a compiler (run it out of memory, keep it busy, crash it) happens to the child ([`child`]), and is a
//! refusal with its reason. Knows no plugin but its bytes.

mod child;

use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::sync::Arc;

use tokio::sync::Semaphore;
use wasmtime::Engine;
use wasmtime::component::Component;

pub use child::{ChildLimits, compile_stdin};

use super::cache::{self, Cache};
use super::draft::Draft;
use super::{digest, inspect};
use crate::config::CompileLimits;

const CRASHED: &str = "the compiler crashed on this file";

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
        let (draft, sum) = self.code(&bytes).await?;
        let inner = Arc::clone(&self.0);
        aside(move || inner.keep(&hash, &sum, draft)).await
    }

    /// The code of `bytes`, and what it adds up to. A full disk is no reason to refuse a plugin: then it lies in memory.
    async fn code(&self, bytes: &Arc<[u8]>) -> Result<(Draft, String), String> {
        let draft = self.0.draft()?;
        match self.write(bytes, draft).await {
            Ok(written) => Ok(written),
            Err(Fault::Unwritten(words)) => {
                tracing::warn!(error = words, "a compiled plugin was not kept");
                let draft = in_memory()?;
                self.write(bytes, draft).await.map_err(Fault::words)
            }
            Err(fault) => Err(fault.words()),
        }
    }

    async fn write(&self, bytes: &Arc<[u8]>, draft: Draft) -> Result<(Draft, String), Fault> {
        let sum = match self.0.place {
            CompileIn::Child => child::compile(bytes, &self.0.limits, self.0.fingerprint, draft.file()).await?,
            CompileIn::ThisProcess => {
                let (inner, bytes, mut file) = (Arc::clone(&self.0), Arc::clone(bytes), draft.file().try_clone()?);
                let written = tokio::task::spawn_blocking(move || compile_to(&inner.engine, &bytes, &mut file)).await;
                written.unwrap_or_else(|_| Err(Fault::Refused(CRASHED.to_owned())))?
            }
        };
        Ok((draft, sum))
    }
}

impl Inner {
    fn cached(&self, hash: &str) -> Option<Component> {
        self.cache.as_ref()?.load(&self.engine, hash)
    }

    /// Where code is written: where it can stay, or else in memory.
    fn draft(&self) -> Result<Draft, String> {
        let Some(cache) = &self.cache else { return in_memory() };
        cache.draft().or_else(|error| {
            tracing::warn!(%error, "a compiled plugin is not kept");
            in_memory()
        })
    }

    /// Mapped code can be given back to the system and read again, unless it lies in memory alone.
    fn keep(&self, hash: &str, sum: &str, draft: Draft) -> Result<Component, String> {
        let component = cache::mapped(&self.engine, draft.file())
            .map_err(|error| format!("its compiled form cannot be loaded: {error:#}"))?;
        if let Some(cache) = self.cache.as_ref().filter(|_| !draft.is_in_memory()) {
            cache.adopt(hash, sum, draft);
        }
        Ok(component)
    }
}

/// Why there is no code.
#[derive(Debug, PartialEq, Eq)]
enum Fault {
    /// The file is to blame.
    Refused(String),
    /// The place for the code is.
    Unwritten(String),
}

impl Fault {
    fn words(self) -> String {
        let (Self::Refused(words) | Self::Unwritten(words)) = self;
        words
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        Self::Unwritten(format!("its code was not written: {error}"))
    }
}

fn in_memory() -> Result<Draft, String> {
    Draft::in_memory().map_err(|error| format!("no room for its code: {error}"))
}

/// Compiles `bytes` to `out`; tells what the code adds up to.
fn compile_to(engine: &Engine, bytes: &[u8], out: &mut impl Write) -> Result<String, Fault> {
    let code = engine.precompile_component(bytes).map_err(|error| Fault::Refused(inspect::compile_fault(&error)))?;
    out.write_all(&code)?;
    Ok(digest::of(&code))
}

/// Tells engines apart whose compiled code is not each other's.
pub(super) fn fingerprint(engine: &Engine) -> u64 {
    let mut hasher = DefaultHasher::new();
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

/// Does what takes long on a thread of its own.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(CRASHED.to_owned()))
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

    #[tokio::test]
    async fn where_nothing_can_be_written_code_lies_in_memory() {
        let dir = tempfile::tempdir().unwrap();
        let engine = engine::for_compiling().unwrap();
        let bytes = wat::parse_str("(component)").unwrap();
        let full = compile_to(&engine, &bytes, &mut [0_u8; 8].as_mut_slice());
        assert!(matches!(full, Err(Fault::Unwritten(_))), "a full disk is not the file's fault");
        let cache = Cache::open(&dir.path().join("c"), fingerprint(&engine), 1 << 20).unwrap();
        std::fs::remove_dir(dir.path().join("c")).unwrap();
        let compiler = Compiler::new(engine, Some(cache), CompileIn::ThisProcess, CompileLimits::default());
        assert!(compiler.compile(bytes.into(), "a".into()).await.is_ok());
    }
}
