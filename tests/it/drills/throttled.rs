//! Samples on a quarter of a core, beside two spinning threads: no call may fail because the machine is slow.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{JoinHandle, spawn};
use std::time::Duration;

use rustix::fd::OwnedFd;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::Value;

use crate::support::gateway::skylark;
use crate::support::ledger::drill::pick;

/// The kernel's period for a CPU quota, and below it the share of a quarter of a core.
const PERIOD: Duration = Duration::from_millis(100);
const RUN: Duration = Duration::from_millis(25);

/// Calls of each sample in each of its roles.
fn calls() -> usize {
    pick(2_000, 100_000)
}

/// The committed samples, and those built by `plugins/build`.
fn samples() -> Vec<PathBuf> {
    let plugins = Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins");
    let committed = ["token-auth", "video-call", "word-filter"].map(|name| plugins.join(format!("dist/{name}.wasm")));
    let built =
        ["audit", "jwks-auth", "qr-login", "spam-score"].map(|name| plugins.join(format!("{name}/{name}.wasm")));
    committed.into_iter().chain(built.into_iter().filter(|path| path.exists())).collect()
}

#[test]
fn no_call_of_a_sample_fails_on_a_quarter_of_a_core() {
    let _hogs = Hogs::start(2);
    for sample in samples() {
        let calls = calls();
        let mut bench = skylark();
        bench.args(["plugin", "bench", "--json", "--calls", &calls.to_string()]).arg(&sample);
        let child = bench.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let quota = Quota::on(&child);
        let output = child.wait_with_output().unwrap();
        let how = quota.how();
        // A bench with its p99 over the budget exits with an error; on a quarter of a core this is allowed. A failed
        // call ends the bench earlier.
        let told: Result<Value, _> = serde_json::from_slice(&output.stdout);
        let Ok(told) = told else {
            panic!("{}: a call failed: {}", sample.display(), String::from_utf8_lossy(&output.stderr));
        };
        for role in told["roles"].as_array().unwrap() {
            assert_eq!(role["calls"], calls, "{role}");
            let name = sample.file_stem().unwrap().to_string_lossy();
            println!("| {name} | {} | {calls} | 0 | {how} |", role["role"].as_str().unwrap());
        }
    }
}

/// Spinning threads.
struct Hogs {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Hogs {
    fn start(count: usize) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let hog = |_| {
            let over = Arc::clone(&over);
            spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            })
        };
        Self { threads: (0..count).map(hog).collect(), over }
    }
}

impl Drop for Hogs {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.threads.drain(..).for_each(|thread| thread.join().unwrap());
    }
}

/// Limits one process to a quarter of a core. Uses a control group where this process may create one, else signals that
/// stop the process for 75 ms of each 100 ms.
enum Quota {
    Group(PathBuf),
    Signals { over: Option<Sender<()>>, thread: Option<JoinHandle<()>> },
}

impl Quota {
    fn on(child: &Child) -> Self {
        group(child.id()).map_or_else(|| Self::by_signals(child), Self::Group)
    }

    fn by_signals(child: &Child) -> Self {
        // A descriptor, because the number of an exited process may soon be reused.
        let process = pidfd_open(Pid::from_child(child), PidfdFlags::empty()).unwrap();
        let (over, told) = channel();
        Self::Signals { over: Some(over), thread: Some(spawn(move || stop_and_go(&process, &told))) }
    }

    fn how(&self) -> &'static str {
        match self {
            Self::Group(_) => "control group",
            Self::Signals { .. } => "signals",
        }
    }
}

impl Drop for Quota {
    fn drop(&mut self) {
        match self {
            // The process has exited, so the group is empty.
            Self::Group(path) => fs::remove_dir(path).unwrap(),
            Self::Signals { over, thread } => {
                over.take();
                thread.take().map(JoinHandle::join);
            }
        }
    }
}

/// Creates a control group of either version with a quarter of a core; `None` where that is not allowed.
fn group(pid: u32) -> Option<PathBuf> {
    let micros = |time: Duration| time.as_micros().to_string();
    let old = [("cpu.cfs_period_us", micros(PERIOD)), ("cpu.cfs_quota_us", micros(RUN))];
    let new = [("cpu.max", format!("{} {}", micros(RUN), micros(PERIOD)))];
    for (root, files) in [("/sys/fs/cgroup/cpu", &old[..]), ("/sys/fs/cgroup", &new[..])] {
        let path = Path::new(root).join(format!("skylark-test-{pid}"));
        if fs::create_dir(&path).is_err() {
            continue;
        }
        let limited =
            files.iter().all(|(file, text)| path.join(file).exists() && fs::write(path.join(file), text).is_ok());
        if limited && fs::write(path.join("cgroup.procs"), pid.to_string()).is_ok() {
            return Some(path);
        }
        fs::remove_dir(&path).unwrap();
    }
    None
}

/// Ends when the other side of the channel is dropped.
fn stop_and_go(process: &OwnedFd, over: &Receiver<()>) {
    let mut is_over = false;
    while !is_over {
        for (signal, time) in [(Signal::STOP, PERIOD - RUN), (Signal::CONT, RUN)] {
            // An exited process takes no signal.
            let _ = pidfd_send_signal(process, signal);
            is_over |= over.recv_timeout(time) == Err(std::sync::mpsc::RecvTimeoutError::Disconnected);
        }
    }
}
