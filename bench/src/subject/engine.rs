//! The Redis between two nodes under test: a child process on a free port, queried for its usage, killed at the end.
//! Without `redis-server` on the machine the run is invalid.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};

use super::meter::EngineCost;
use super::proc::Cpu;
use crate::results::stats::float;

/// A running Redis without persistence.
#[derive(Debug)]
pub(crate) struct Engine {
    child: Child,
    address: SocketAddr,
}

/// Usage since the start.
#[derive(Debug)]
pub(crate) struct Usage {
    cpu: Cpu,
    reads: u64,
    commands: u64,
}

const PROGRAM: &str = "redis-server";
const ENGINE_TIMEOUT: Duration = Duration::from_secs(10);

impl Engine {
    /// # Errors
    /// `redis-server` is missing or does not start.
    pub(crate) fn start(dir: &Path) -> anyhow::Result<Self> {
        // The port was free a moment ago. If another process takes it meanwhile, the start fails visibly.
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["program", PROGRAM, "--", "--bind", "127.0.0.1", "--port"]);
        command.arg(address.port().to_string()).args(["--save", "", "--appendonly", "no", "--dir"]).arg(dir);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().expect("the output is piped");
        let mut engine = Self { child, address };
        for line in BufReader::new(stdout).lines() {
            if line?.contains("Ready to accept connections") {
                return Ok(engine);
            }
        }
        let mut why = String::new();
        engine.child.stderr.take().expect("the output is piped").read_to_string(&mut why)?;
        bail!("expected {PROGRAM} (apt install redis-server), got: {}", why.trim_end())
    }

    /// The configuration section that selects this Redis as the bus.
    pub(crate) fn section(&self) -> String {
        format!("bus:\n  kind: redis\n  redis:\n    url: redis://{}\n", self.address)
    }

    /// # Errors
    /// The process is gone.
    pub(crate) fn usage(&self) -> anyhow::Result<Usage> {
        let text = self.ask("INFO stats")?;
        let field = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok());
            value.with_context(|| format!("the INFO of Redis has no {name}"))
        };
        let (reads, commands) = (field("total_reads_processed")?, field("total_commands_processed")?);
        Ok(Usage { cpu: Cpu::of(self.child.id())?, reads, commands })
    }

    fn ask(&self, command: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.address, ENGINE_TIMEOUT)?;
        stream.set_read_timeout(Some(ENGINE_TIMEOUT))?;
        write!(stream, "{command}\r\nQUIT\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Usage {
    /// The difference to `earlier`. It includes the queries themselves: one round trip each.
    pub(crate) fn since(&self, earlier: &Self) -> EngineCost {
        let cpu = self.cpu.since(&earlier.cpu);
        EngineCost {
            cpu: (cpu.user + cpu.system).as_secs_f64(),
            round_trips: float(self.reads - earlier.reads),
            commands: float(self.commands - earlier.commands),
        }
    }
}
