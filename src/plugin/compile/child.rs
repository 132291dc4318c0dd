//! The child process that compiles one plugin: `skylark compile-plugin`, bytes in by standard input, code out by standard
//! output, the reason of a refusal by standard error. It bounds itself before it reads; the parent watches the clock.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, setrlimit};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::time::timeout;
use wasmtime::Engine;

use super::super::engine;
use super::fingerprint;
use crate::config::CompileLimits;

/// The command's name.
const COMMAND: &str = "compile-plugin";
/// Exit code of a file that does not compile, with the reason on standard error.
const REFUSED: i32 = 3;
const LOWEST_PRIORITY: i32 = 19;
/// Most bytes of standard error that are read, and of it that are told.
const MAX_WORDS: u64 = 16 << 10;
const MAX_TOLD_CHARS: usize = 2_000;
/// After the polite signal at the end of its CPU time the child gets so many seconds, then it is killed.
const LAST_SECONDS: u64 = 2;

/// What the child may take, as the parent tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChildLimits {
    /// Bytes of data.
    pub memory: u64,
    /// Seconds of CPU time.
    pub cpu: u64,
    /// The fingerprint of the engine that will run the code.
    pub engine: u64,
}

/// The child's part: compiles standard input to standard output. Returns the exit code.
///
/// # Errors
/// The system does not set the bounds, or a pipe broke.
pub fn compile_stdin(limits: ChildLimits) -> std::io::Result<i32> {
    bound(limits)?;
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes)?;
    let compiled = match engine::for_compiling() {
        Ok(engine) => compile_for(limits.engine, &engine, &bytes),
        Err(error) => Err(format!("{error:#}")),
    };
    match compiled {
        Ok(code) => {
            let mut out = std::io::stdout().lock();
            out.write_all(&code)?;
            out.flush()?;
            Ok(0)
        }
        Err(reason) => {
            let reason: String = reason.chars().take(MAX_TOLD_CHARS).collect();
            std::io::stderr().lock().write_all(reason.as_bytes())?;
            Ok(REFUSED)
        }
    }
}

fn compile_for(expected: u64, engine: &Engine, bytes: &[u8]) -> Result<Vec<u8>, String> {
    if fingerprint(engine) != expected {
        return Err("the compiler and the node are not of one build".to_owned());
    }
    super::compile(engine, bytes)
}

/// Data, since address space says nothing of memory; no core file of a guest's making.
fn bound(limits: ChildLimits) -> std::io::Result<()> {
    let at_most = |most: u64, more: u64| Rlimit { current: Some(most), maximum: Some(most.saturating_add(more)) };
    setrlimit(Resource::Core, at_most(0, 0))?;
    setrlimit(Resource::Data, at_most(limits.memory, 0))?;
    setrlimit(Resource::Cpu, at_most(limits.cpu, LAST_SECONDS))?;
    // Without it compiling is merely more noticeable.
    let _ = rustix::process::nice(LOWEST_PRIORITY);
    Ok(())
}

/// The parent's part: has a child compile `bytes`.
///
/// # Errors
/// Why it does not compile, or which bound the child ran into.
pub(super) async fn compile(bytes: &[u8], limits: &CompileLimits, engine: u64) -> Result<Vec<u8>, String> {
    let cpu = limits.cpu.as_secs().max(1);
    let mut command = Command::new(program()?);
    command
        .arg(COMMAND)
        .args(["--memory", &limits.memory.to_string(), "--cpu", &cpu.to_string(), "--engine", &engine.to_string()])
        .env_clear()
        // The program's allocator reserves a GiB at a time, and takes whole pages of it of up to 4 MiB: as data only what is in use of
        // them is to count.
        .env("MIMALLOC_ARENA_EAGER_COMMIT", "0")
        .env("MIMALLOC_PAGE_COMMIT_ON_DEMAND", "1")
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().map_err(|error| format!("no compiler process: {error}"))?;
    let (mut stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let feed = async {
        if let Some(mut stdin) = stdin.take() {
            // A child that died tells more by how it did.
            let _ = stdin.write_all(bytes).await;
        }
    };
    let ended = async {
        let (code, words, ()) = tokio::join!(read(stdout, limits.memory as u64), read(stderr, MAX_WORDS), feed);
        (code, words, child.wait().await)
    };
    let Ok((code, words, status)) = timeout(limits.wall, ended).await else {
        return Err(format!("compiling it took more than {:?} (plugins.compile.wall)", limits.wall));
    };
    let status = status.map_err(|error| format!("the compiler process is lost: {error}"))?;
    if status.success() { Ok(code) } else { Err(why(status, &String::from_utf8_lossy(&words), limits)) }
}

/// Also when the file has been replaced or removed since it was started.
fn program() -> Result<PathBuf, String> {
    let file = std::env::current_exe().map_err(|error| format!("no compiler process: {error}"))?;
    // By its name where that still is the running one: a tool that runs the node, as valgrind does, is not its program.
    Ok(if file.exists() { file } else { PathBuf::from("/proc/self/exe") })
}

/// What comes, up to `most`; more is cut, and breaks the pipe for who writes it.
async fn read(pipe: Option<impl AsyncRead + Unpin>, most: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // A pipe that breaks ends like one that was closed: the exit status tells.
        let _ = pipe.take(most).read_to_end(&mut bytes).await;
    }
    bytes
}

fn why(status: ExitStatus, words: &str, limits: &CompileLimits) -> String {
    // The allocator's last words, the system's, and those of who asked politely.
    let out_of_memory =
        ["memory allocation of", "Cannot allocate memory", "out of memory"].iter().any(|say| words.contains(say));
    let told: String = words.trim().chars().take(MAX_TOLD_CHARS).collect();
    let is = |signal: Signal| status.signal() == Some(signal.as_raw());
    if out_of_memory {
        let most = limits.memory >> 20;
        return format!("compiling it took more than {most}MiB of memory (plugins.compile.memory)");
    }
    if status.code() == Some(REFUSED) {
        return told;
    }
    if is(Signal::XCPU) || is(Signal::KILL) {
        let cpu = Duration::from_secs(limits.cpu.as_secs().max(1));
        return format!("compiling it took more than {cpu:?} of CPU time (plugins.compile.cpu)");
    }
    format!("the compiler crashed on this file ({status}): {told}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_of_the_child_has_its_reason() {
        let limits = CompileLimits { memory: 64 << 20, cpu: Duration::from_secs(7), ..CompileLimits::default() };
        let told = |status: i32, words: &str| why(ExitStatus::from_raw(status), words, &limits);
        let signal = |signal: Signal| signal.as_raw();
        assert_eq!(told(REFUSED << 8, " not WebAssembly\n"), "not WebAssembly");
        let memory = "compiling it took more than 64MiB of memory (plugins.compile.memory)";
        assert_eq!(told(signal(Signal::ABORT), "memory allocation of 8 bytes failed"), memory);
        for killed in [Signal::XCPU, Signal::KILL] {
            let cpu = "compiling it took more than 7s of CPU time (plugins.compile.cpu)";
            assert_eq!(told(signal(killed), ""), cpu);
        }
        for (status, words) in
            [(signal(Signal::SEGV), ""), (signal(Signal::ABORT), "stack overflow"), (101 << 8, "panicked")]
        {
            let crash = told(status, words);
            assert!(crash.starts_with("the compiler crashed on this file (") && crash.ends_with(words), "{crash}");
        }
        assert!(told(1 << 8, &"x".repeat(1 << 20)).len() < 2 * MAX_TOLD_CHARS);
    }
}
