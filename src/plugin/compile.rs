//! Compiles plugins off the hot path: one at a time, on one thread of the lowest priority, through the cache.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use tokio::sync::oneshot;
use wasmtime::Engine;
use wasmtime::component::Component;

use super::cache::Cache;
use super::inspect;

/// Jobs that may wait; each caller waits for its own, so more would have to come from as many callers.
const JOBS: usize = 16;
const LOWEST_PRIORITY: i32 = 19;

/// The compiling thread; ends when this is dropped and its last job is done.
#[derive(Debug, Clone)]
pub(super) struct Compiler {
    jobs: SyncSender<Job>,
}

struct Job {
    bytes: Arc<[u8]>,
    hash: Arc<str>,
    done: oneshot::Sender<Result<Component, String>>,
}

impl Compiler {
    /// Starts the thread.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(engine: Engine, cache: Option<Cache>) -> std::io::Result<Self> {
        let (jobs, waiting) = sync_channel(JOBS);
        let thread = std::thread::Builder::new().name("plugin-compile".into());
        thread.spawn(move || run(&engine, cache.as_ref(), &waiting))?;
        Ok(Self { jobs })
    }

    /// The compiled form of `bytes`, whose hash is `hash`.
    ///
    /// # Errors
    /// Why it does not compile.
    pub(super) async fn compile(&self, bytes: Arc<[u8]>, hash: Arc<str>) -> Result<Component, String> {
        let (done, result) = oneshot::channel();
        self.jobs.try_send(Job { bytes, hash, done }).map_err(|_| "too many plugins wait for the compiler")?;
        result.await.unwrap_or_else(|_| Err("the compiler crashed on this file".to_owned()))
    }
}

fn run(engine: &Engine, cache: Option<&Cache>, waiting: &Receiver<Job>) {
    // On Linux this is the priority of the calling thread alone. Without it compiling is merely more noticeable.
    let _ = rustix::process::setpriority_process(None, LOWEST_PRIORITY);
    while let Ok(job) = waiting.recv() {
        let compile = || compile(engine, cache, &job.bytes, &job.hash);
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(compile));
        let result = result.unwrap_or_else(|_| Err("the compiler crashed on this file".to_owned()));
        // A caller that went away needs no answer.
        let _ = job.done.send(result);
    }
}

fn compile(engine: &Engine, cache: Option<&Cache>, bytes: &[u8], hash: &str) -> Result<Component, String> {
    if let Some(component) = cache.and_then(|cache| cache.load(engine, hash)) {
        return Ok(component);
    }
    let component = Component::from_binary(engine, bytes).map_err(|error| inspect::compile_fault(&error))?;
    if let Some(cache) = cache {
        cache.store(hash, &component);
    }
    Ok(component)
}
