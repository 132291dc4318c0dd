//! A Redis of one test, with its own free port and directory: started, killed, frozen and restarted.
//!
//! A Redis that cannot be started fails the test. It ends with the test in every case.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::process::Signal;

use super::resp::Resp;
use crate::support::dice::Dice;
use crate::support::gateway::send_signal;

/// Longest wait for a start.
const START: Duration = Duration::from_secs(100);
/// Ports outside the ephemeral range: a free one stays free while a server is down.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

pub struct Redis {
    dir: tempfile::TempDir,
    address: SocketAddr,
    arguments: Vec<String>,
    child: Mutex<Child>,
}

impl Redis {
    /// Starts a Redis without persistence.
    pub fn start() -> Self {
        Self::with(&["--save", "", "--appendonly", "no"])
    }

    /// Starts a Redis that appends its commands to a file and syncs the file every second.
    pub fn keeping() -> Self {
        Self::with(&["--save", "", "--appendonly", "yes", "--appendfsync", "everysec"])
    }

    /// Starts a Redis with these arguments.
    pub fn with(arguments: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let address = free_address();
        let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let child = Mutex::new(run(&dir, address, &arguments));
        Self { dir, address, arguments, child }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn url(&self) -> String {
        format!("redis://{}", self.address)
    }

    pub fn pid(&self) -> u32 {
        self.child.lock().id()
    }

    /// The configuration section that makes this Redis the bus of a node.
    pub fn bus(&self) -> String {
        bus_at(self.address)
    }

    /// Opens a connection.
    pub async fn line(&self) -> Resp {
        Resp::connect(self.address).await.unwrap()
    }

    /// Kills the server with SIGKILL.
    pub fn kill(&self) {
        let mut child = self.child.lock();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Freezes the server with SIGSTOP: it accepts connections and does not answer.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Resumes the server with SIGCONT.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// Restarts the server with its persisted data, after a kill.
    pub fn restart(&self) {
        *self.child.lock() = run(&self.dir, self.address, &self.arguments);
    }

    /// Restarts the server without data, after a kill.
    pub fn restart_empty(&self) {
        for entry in std::fs::read_dir(self.dir.path()).unwrap() {
            let path = entry.unwrap().path();
            let gone = if path.is_dir() { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
            gone.unwrap();
        }
        self.restart();
    }

    fn signal(&self, signal: Signal) {
        send_signal(self.pid(), signal);
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let child = self.child.get_mut();
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The minimal rights of a Redis user, from the block below this mark of a document.
pub fn documented_rights(document: &str, mark: &str) -> String {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(document)).unwrap();
    let begin = format!("<!-- rights: {mark} -->\n```text\n");
    let (_, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{document} has no block of rights for {mark}"));
    let block = rest.split("\n```").next().unwrap();
    block.split_once(">PASSWORD").map_or(block, |(_, rights)| rights).trim().to_owned()
}

/// The configuration section that makes the Redis at this address the bus of a node.
pub fn bus_at(address: SocketAddr) -> String {
    format!("bus:\n  kind: redis\n  redis:\n    url: redis://{address}")
}

fn run(dir: &tempfile::TempDir, address: SocketAddr, arguments: &[String]) -> Child {
    let mut command = Command::new("redis-server");
    command.args(["--bind", "127.0.0.1", "--port", &address.port().to_string(), "--dir"]).arg(dir.path());
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().expect("redis-server starts; tests/run install installs it");
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let (ready, is_ready) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        // Reads to the end: a full pipe would block the server.
        for line in lines.map_while(Result::ok) {
            if line.contains("Ready to accept connections") {
                let _ = ready.try_send(());
            }
        }
    });
    assert!(is_ready.recv_timeout(START).is_ok(), "redis-server did not start: {:?}", child.try_wait());
    child
}

/// An unused address of this machine.
pub fn free_address() -> SocketAddr {
    let mut dice =
        Dice(u64::from(std::process::id()) << 32 | u64::from(std::time::UNIX_EPOCH.elapsed().unwrap().subsec_nanos()));
    let ports = std::iter::repeat_with(|| PORTS.start + u16::try_from(dice.roll(PORTS.len())).unwrap());
    let mut addresses = ports.take(100).map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    addresses.find(|address| TcpListener::bind(address).is_ok()).expect("one of 100 ports is free")
}
