//! The child process that compiles one plugin: `skylark compile-plugin`.
//!
//! It reads the plugin from standard input and writes the code to standard output, which is the file that the node
//! maps. Standard error carries the digest of the code, or the reason of a refusal.
//!
//! The child sets its own limits before it reads. The parent only watches the clock. All slow work happens in the
//! child, and [`super::priority`] sets its priority.

use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use wasmtime::Engine;

use super::priority::{Priority, starves};
use super::{CompileFault, compile_to, fingerprint};
use crate::config::CompileLimits;
use crate::plugin::guest::engine;

/// Name of the command.
const COMMAND: &str = "compile-plugin";
/// Exit code of a file that does not compile, with the reason on standard error.
const REFUSED: i32 = 3;
/// Exit code if the code could not be written, with the error on standard error.
const UNWRITTEN: i32 = 4;
/// Most bytes of standard error that are read. At most [`MAX_TOLD_CHARS`] characters of them are reported.
const MAX_WORDS: u64 = 16 << 10;
const MAX_TOLD_CHARS: usize = 2_000;
/// Seconds between the signal at the end of the CPU time and the kill.
const KILL_AFTER: u64 = 2;

/// Limits of the child, as the parent passes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChildLimits {
    /// Bytes of data.
    pub memory: u64,
    /// Seconds of CPU time.
    pub cpu: u64,
    /// The fingerprint of the engine that will run the code.
    pub engine: u64,
}

/// The child's part: compiles standard input to standard output and returns the exit code.
///
/// # Errors
/// The system does not set the limits, or a pipe broke.
pub fn compile_stdin(limits: ChildLimits) -> io::Result<i32> {
    set_limits(limits)?;
    let mut bytes = Vec::new();
    io::stdin().lock().read_to_end(&mut bytes)?;
    let mut out = io::stdout().lock();
    let compiled = match engine::for_compiling() {
        Ok(engine) => compile_for(limits.engine, &engine, &bytes, &mut out),
        Err(error) => Err(CompileFault::Refused(format!("{error:#}"))),
    };
    let (code, text) = match compiled {
        Ok(sum) => (0, sum),
        Err(CompileFault::Refused(text)) => (REFUSED, text),
        Err(CompileFault::Unwritten(text)) => (UNWRITTEN, text),
    };
    let text: String = text.chars().take(MAX_TOLD_CHARS).collect();
    io::stderr().lock().write_all(text.as_bytes())?;
    Ok(code)
}

fn compile_for(
    expected: u64,
    engine: &Engine,
    bytes: &[u8],
    out: &mut (impl Write + AsFd),
) -> Result<String, CompileFault> {
    if fingerprint(engine) != expected {
        return Err(CompileFault::Refused("the compiler process and the node are different builds".to_owned()));
    }
    let sum = compile_to(engine, bytes, out)?;
    out.flush()?;
    // The node syncs the file too, and sees the errors. This sync does the slow part in the idle child.
    let _ = rustix::fs::fsync(out);
    Ok(sum)
}

/// Limits data, since address space says nothing about memory. A guest must not be able to cause a core file.
fn set_limits(limits: ChildLimits) -> io::Result<()> {
    let at_most = |most: u64, more: u64| Rlimit { current: Some(most), maximum: Some(most.saturating_add(more)) };
    setrlimit(Resource::Core, at_most(0, 0))?;
    setrlimit(Resource::Data, at_most(limits.memory, 0))?;
    setrlimit(Resource::Fsize, at_most(limits.memory, 0))?;
    setrlimit(Resource::Cpu, at_most(limits.cpu, KILL_AFTER))?;
    Ok(())
}

/// The parent's part: has a child compile `bytes` to `out` and returns the digest of the code. With `idle_only` the
/// child runs only on otherwise idle cores. If they give it no CPU time, a second child compiles at low priority.
///
/// # Errors
/// Why it does not compile, or the limit that the child reached.
pub(super) async fn compile(
    bytes: &[u8],
    limits: &CompileLimits,
    engine: u64,
    out: &File,
    idle_only: bool,
) -> Result<String, CompileFault> {
    if !idle_only {
        return run(start(limits, engine, out, Priority::Normal).await?, bytes, limits).await;
    }
    let child = start(limits, engine, out, Priority::Idle).await?;
    let process = child.id();
    tokio::select! {
        compiled = run(child, bytes, limits) => return compiled,
        () = starves(process.unwrap_or_default()) => {}
    }
    tracing::info!("no idle core to compile a plugin: compiling it again at low priority");
    (&mut &*out).seek(SeekFrom::Start(0))?;
    out.set_len(0)?;
    run(start(limits, engine, out, Priority::Low).await?, bytes, limits).await
}

/// Feeds a child and waits for its end, for at most `limits.wall`. The child ends with the returned future.
async fn run(child: Child, bytes: &[u8], limits: &CompileLimits) -> Result<String, CompileFault> {
    let Ok((text, status)) = timeout(limits.wall, feed_and_wait(child, bytes)).await else {
        return Err(CompileFault::Refused(format!(
            "compiling it took more than {:?} (plugins.compile.wall)",
            limits.wall
        )));
    };
    let status = status
        .map_err(|error| CompileFault::Refused(format!("the exit of the compiler process cannot be read: {error}")))?;
    read_exit(status, String::from_utf8_lossy(&text).trim(), limits)
}

async fn start(limits: &CompileLimits, engine: u64, out: &File, priority: Priority) -> Result<Child, CompileFault> {
    let child = spawn(limits, engine, out)
        .await
        .map_err(|error| CompileFault::Refused(format!("the compiler process cannot be started: {error}")))?;
    child.id().into_iter().for_each(|process| priority.set(process));
    Ok(child)
}

async fn spawn(limits: &CompileLimits, engine: u64, out: &File) -> io::Result<Child> {
    let cpu = limits.cpu.as_secs().max(1);
    let mut command = Command::new(program()?);
    command
        .arg(COMMAND)
        .args(["--memory", &limits.memory.to_string(), "--cpu", &cpu.to_string(), "--engine", &engine.to_string()])
        .env_clear()
        // The allocator reserves a GiB at a time, and uses pages of up to 4 MiB whole. With these settings only the
        // memory in use counts as data.
        .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
        .env("MIMALLOC_PAGE_COMMIT_ON_DEMAND", "1")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::from(out.try_clone()?))
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    // The spawning thread blocks until the program is loaded, so it must not be a worker thread.
    tokio::task::spawn_blocking(move || command.spawn()).await.map_err(io::Error::other)?
}

/// Sends the bytes to the child, and waits for its standard error and its exit.
async fn feed_and_wait(mut child: Child, bytes: &[u8]) -> (Vec<u8>, io::Result<ExitStatus>) {
    let (stdin, stderr) = (child.stdin.take(), child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin {
            // A write error is ignored, because the exit status of the child shows the cause.
            let _ = stdin.write_all(bytes).await;
        }
    };
    let (text, ()) = tokio::join!(read(stderr), feed);
    (text, child.wait().await)
}

/// Path of the running program, even after its file was replaced or removed.
fn program() -> io::Result<PathBuf> {
    let file = std::env::current_exe()?;
    // The file name is preferred while it exists: under a tool such as valgrind, `/proc/self/exe` is the tool.
    Ok(if file.exists() { file } else { PathBuf::from("/proc/self/exe") })
}

/// Reads standard error up to [`MAX_WORDS`] bytes. The rest is cut, and the child's pipe breaks.
async fn read(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // A broken pipe is treated like a closed one: the exit status shows the cause.
        let _ = pipe.take(MAX_WORDS).read_to_end(&mut bytes).await;
    }
    bytes
}

fn read_exit(status: ExitStatus, text: &str, limits: &CompileLimits) -> Result<String, CompileFault> {
    match status.code() {
        // The allocator may have printed warnings before the digest.
        Some(0) => Ok(text.lines().last().unwrap_or_default().to_owned()),
        Some(UNWRITTEN) => Err(CompileFault::Unwritten(text.to_owned())),
        _ => Err(CompileFault::Refused(refusal_text(status, text, limits))),
    }
}

fn refusal_text(status: ExitStatus, text: &str, limits: &CompileLimits) -> String {
    // Messages of the allocator, of the system, and of code that handles failed allocations.
    let out_of_memory =
        ["memory allocation of", "Cannot allocate memory", "out of memory"].iter().any(|say| text.contains(say));
    let shown: String = text.chars().take(MAX_TOLD_CHARS).collect();
    let is = |signal: Signal| status.signal() == Some(signal.as_raw());
    if out_of_memory || is(Signal::XFSZ) {
        let most = limits.memory >> 20;
        return format!("compiling it took more than {most}MiB of memory (plugins.compile.memory)");
    }
    if status.code() == Some(REFUSED) {
        return shown;
    }
    if is(Signal::XCPU) || is(Signal::KILL) {
        let cpu = Duration::from_secs(limits.cpu.as_secs().max(1));
        return format!("compiling it took more than {cpu:?} of CPU time (plugins.compile.cpu)");
    }
    format!("the compiler crashed on this file ({status}): {shown}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_exit_of_the_compiler_child_has_its_reason() {
        let limits = CompileLimits { memory: 64 << 20, cpu: Duration::from_secs(7), ..CompileLimits::default() };
        let end = |status: i32, text: &str| read_exit(ExitStatus::from_raw(status), text, &limits);
        let told = |status: i32, text: &str| match end(status, text) {
            Err(CompileFault::Refused(text)) => text,
            other => panic!("{other:?}"),
        };
        let signal = |signal: Signal| signal.as_raw();
        assert_eq!(told(REFUSED << 8, "not WebAssembly"), "not WebAssembly");
        assert_eq!(end(UNWRITTEN << 8, "disk full"), Err(CompileFault::Unwritten("disk full".to_owned())));
        assert_eq!(end(0, "a warning\n0123").unwrap(), "0123");
        let memory = "compiling it took more than 64MiB of memory (plugins.compile.memory)";
        assert_eq!(told(signal(Signal::ABORT), "memory allocation of 8 bytes failed"), memory);
        assert_eq!(told(signal(Signal::XFSZ), ""), memory);
        for killed in [Signal::XCPU, Signal::KILL] {
            let cpu = "compiling it took more than 7s of CPU time (plugins.compile.cpu)";
            assert_eq!(told(signal(killed), ""), cpu);
        }
        for (status, text) in
            [(signal(Signal::SEGV), ""), (signal(Signal::ABORT), "stack overflow"), (101 << 8, "panicked")]
        {
            let crash = told(status, text);
            assert!(crash.starts_with("the compiler crashed on this file (") && crash.ends_with(text), "{crash}");
        }
        assert!(told(1 << 8, &"x".repeat(1 << 20)).len() < 2 * MAX_TOLD_CHARS);
    }
}
