//! A server under test: a child process that is asked only for its address and killed at the end.

pub(super) mod allocations;
pub(super) mod engine;
pub(super) mod meter;
pub(super) mod proc;
pub(super) mod tls;

use std::cell::RefCell;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use skylark::cli::token;
use skylark::id::{Room, Uid};

use crate::load::generator::{Dial, FirstRequest};
use crate::load::websocket;
use crate::load::wire::{Wire, uid};
use crate::peer::Peer;
use crate::reference::Reference;
use engine::Engine;
use proc::{Cpu, Memory};
use tls::Trust;

/// One column of a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Contender {
    /// Name in the table.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Node(Node),
    /// Two nodes over Redis: receivers connect to the first, publishers to the second.
    Pair(Node),
    Reference(Reference),
    /// A server that is already running.
    Peer(&'static Peer),
}

/// A node with the token plugin and these options.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Node {
    /// Additional components of `plugins/testing/dist` in its plugin directory.
    pub(super) components: &'static [&'static str],
    /// Additional sections of its configuration.
    pub(super) config: &'static str,
    /// True if its receivers use TLS; publishers never do.
    pub(super) tls: bool,
    /// True if it counts allocations, at a small cost.
    pub(super) counts_allocations: bool,
}

impl Node {
    pub(super) const PLAIN: Self = Self { components: &[], config: "", tls: false, counts_allocations: false };

    pub(super) const fn with(components: &'static [&'static str]) -> Self {
        Self { components, ..Self::PLAIN }
    }
}

/// The node with its defaults.
pub(super) const SKYLARK: Contender = Contender { name: "skylark", kind: Kind::Node(Node::PLAIN) };
/// The node with one filter that allows every message.
pub(super) const FILTERED: Contender = Contender { name: "no-op filter", kind: Kind::Node(Node::with(&["noop"])) };
/// One write per delivery, in a loop on one thread: the physical limit.
pub(super) const RAW: Contender = Contender { name: "raw", kind: Kind::Reference(Reference::RawWrite) };
/// One write per connection and request.
pub(super) const COALESCING: Contender =
    Contender { name: "raw coalescing", kind: Kind::Reference(Reference::RawCoalesce) };
/// The naive implementation.
pub(super) const NAIVE: Contender = Contender { name: "naive", kind: Kind::Reference(Reference::Naive) };

/// Environment of the subjects: a directory of this run, and the plugins of this tree.
#[derive(Debug)]
pub(super) struct Workspace {
    dir: PathBuf,
    plugins: PathBuf,
    guests: PathBuf,
    program: PathBuf,
}

impl Workspace {
    /// `plugins` contains `dist` and `testing/dist`; `guests` contains the components that are not committed.
    pub(super) fn new(plugins: &Path, guests: &Path) -> anyhow::Result<Self> {
        for needed in ["dist/token-auth.wasm", "dist/token-auth.toml", "testing/dist/noop.wasm"] {
            let path = plugins.join(needed);
            if !path.is_file() {
                bail!("expected {} (start in the source tree, or give --plugins DIR)", path.display());
            }
        }
        let dir = std::env::temp_dir().join(format!("skylark-bench-{}", std::process::id()));
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        let plugins = plugins.canonicalize()?;
        Ok(Self { dir, plugins, guests: guests.to_owned(), program: std::env::current_exe()? })
    }

    /// Directory of the sample plugins.
    pub(super) fn dist(&self) -> PathBuf {
        self.plugins.join("dist")
    }

    /// Plugin directory of the last started node; of two nodes, that of the first.
    pub(super) fn plugin_dir(&self) -> PathBuf {
        self.plugin_dir_of(1)
    }

    fn plugin_dir_of(&self, number: u16) -> PathBuf {
        self.dir.join(format!("plugins-{number}"))
    }

    /// The component of a test guest.
    ///
    /// # Errors
    /// The file is missing. The message tells how to build it.
    pub(super) fn component(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folders = [self.plugins.join("testing/dist"), self.guests.clone()];
        let file = folders.iter().map(|folder| folder.join(format!("{name}.wasm"))).find(|file| file.is_file());
        file.with_context(|| {
            let (own, lang) = (self.guests.display(), name.rsplit('-').next().unwrap_or_default());
            format!("there is no {name}.wasm in {own}: build it by `plugins/testing/languages {own} {lang}`, or name its folder with --guests")
        })
    }

    /// Starts a server and waits until it accepts connections.
    pub(super) fn start(&self, contender: Contender) -> anyhow::Result<Subject> {
        let name = contender.name;
        match contender.kind {
            Kind::Node(node) => self.start_node(name, node, 1, ""),
            Kind::Pair(node) => {
                let engine = Engine::start(&self.dir).context("the Redis between two nodes")?;
                let mut gateway = self.start_node(name, node, 1, &engine.section())?;
                let intake = self.start_node(name, node, 2, &engine.section())?;
                gateway.publish = intake.publish;
                gateway.partner = Some(Box::new(intake));
                gateway.engine = Some(engine);
                Ok(gateway)
            }
            Kind::Reference(reference) => {
                let mut command = self.child("reference");
                command.arg(reference.name());
                self.launch(name, command, Wire::Push, false)
            }
            Kind::Peer(peer) => Subject::of(peer),
        }
    }

    /// Starts the node with this number and additional configuration sections.
    fn start_node(&self, name: &str, node: Node, number: u16, sections: &str) -> anyhow::Result<Subject> {
        let mut command = self.child("node");
        if node.counts_allocations {
            command.arg("--count-allocations").stdin(Stdio::piped());
        }
        command.arg("--").arg("--config").arg(self.prepare(node, number, sections)?).arg("serve");
        self.launch(name, command, Wire::Http, node.tls)
    }

    /// Output of the last started server, to explain a failed measurement.
    pub(super) fn log_tail(&self) -> String {
        fs::read_to_string(self.log()).unwrap_or_default().trim_end().to_owned()
    }

    fn log(&self) -> PathBuf {
        self.dir.join("stderr.log")
    }

    /// This program with another command, as a child process that ends with its parent.
    fn child(&self, part: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.arg(part).stdin(Stdio::null());
        command
    }

    fn launch(&self, name: &str, mut command: Command, wire: Wire, is_tls: bool) -> anyhow::Result<Subject> {
        let log = self.log();
        command.stdout(Stdio::piped()).stderr(fs::File::create(&log)?);
        let mut child = command.spawn().context("cannot start the server under test")?;
        let stdout = BufReader::new(child.stdout.take().expect("the output is piped"));
        let counter = child.stdin.take();
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut subject = Subject::at(nowhere, nowhere, Process::Own(child), wire);
        subject.is_tls = is_tls;
        let mut lines = stdout.lines();
        while let Some(line) = lines.next().transpose()? {
            subject.address = address(&line, &["ready ", "ws "]).unwrap_or(subject.address);
            subject.publish = address(&line, &["ready ", "api "]).unwrap_or(subject.publish);
            if line.starts_with("ready") {
                subject.counter = counter.map(|ask| RefCell::new(Counter { ask, answers: lines }));
                return Ok(subject);
            }
        }
        bail!("{name} did not start: {}", fs::read_to_string(&log)?.trim_end());
    }

    /// Writes a configuration with its plugin directory. The cache of compiled plugins is shared by the whole run.
    fn prepare(&self, node: Node, number: u16, sections: &str) -> anyhow::Result<PathBuf> {
        let (dir, cache) = (self.plugin_dir_of(number), self.dir.join("cache"));
        // Also forget the guarding plugins of the previous contender: the node would refuse messages because they are
        // missing.
        for former in [dir.clone(), cache.join("known")] {
            if former.exists() {
                fs::remove_dir_all(former)?;
            }
        }
        fs::create_dir(&dir)?;
        for file in ["token-auth.wasm", "token-auth.toml"] {
            fs::copy(self.plugins.join("dist").join(file), dir.join(file))?;
        }
        for (number, component) in node.components.iter().enumerate() {
            let source = self.component(component)?;
            let to = dir.join(format!("{component}-{number}.wasm"));
            fs::copy(&source, &to).with_context(|| format!("cannot copy {}", source.display()))?;
            let manifest = source.with_extension("toml");
            if manifest.is_file() {
                fs::copy(manifest, to.with_extension("toml"))?;
            }
        }
        let config = self.dir.join(format!("skylark-{number}.yaml"));
        let text = format!(
            "node:\n  id: n{number}\n  number: {number}\n  state: {}\nlisteners:\n{}limits:\n  connections_per_ip: 0\n  connects_per_ip: 0\n\
             plugins:\n  dir: {}\n  cache: {}\nlog:\n  level: warn\n{}{}{sections}",
            self.dir.join(format!("state-{number}")).display(),
            self.listeners(node)?,
            dir.display(),
            cache.display(),
            if node.config.contains("history:") { "" } else { "history:\n  kind: off\n" },
            node.config
        );
        fs::write(&config, text)?;
        Ok(config)
    }

    /// One listener for all, or one with TLS for receivers and one without for publishers.
    fn listeners(&self, node: Node) -> anyhow::Result<String> {
        const LISTENER: &str = "  - address: 127.0.0.1:0\n    serves:";
        if !node.tls {
            return Ok(format!("{LISTENER} [ws, api, metrics]\n"));
        }
        let (cert, key) = (self.dir.join("cert.pem"), self.dir.join("key.pem"));
        fs::write(&cert, tls::CERT)?;
        fs::write(&key, tls::KEY)?;
        let files = format!("    tls:\n      cert: {}\n      key: {}\n", cert.display(), key.display());
        Ok(format!("{LISTENER} [ws]\n{files}{LISTENER} [api, metrics]\n"))
    }

    /// The connection plan of `count` receivers, each a separate user in the rooms given by `rooms`.
    pub(super) fn dial(
        &self,
        subject: &Subject,
        count: u32,
        dialects: &[&str],
        rooms: impl Fn(u32) -> Vec<String>,
    ) -> anyhow::Result<Dial> {
        let dist = self.plugins.join("dist");
        let request = |number: u32| -> anyhow::Result<FirstRequest> {
            match subject.wire {
                Wire::Http => {}
                Wire::Push => return Ok(websocket::upgrade("localhost", &format!("/?n={number}"), None).into()),
                Wire::Peer(peer) => return Ok(peer.client(number, rooms(number)).first_request()),
            }
            let rooms: Vec<Room> = rooms(number).into_iter().map(|room| room.parse()).collect::<Result<_, _>>()?;
            let token = token::mint(&dist, &uid(number).parse::<Uid>()?, None, &rooms, Duration::from_secs(3600))?;
            let dialect = dialects[number as usize % dialects.len()];
            Ok(websocket::upgrade("localhost", &format!("/ws?token={token}"), Some(dialect)).into())
        };
        let requests = (0..count).map(request).collect::<anyhow::Result<_>>()?;
        let trust = subject.is_tls.then(Trust::new).transpose()?;
        Ok(Dial { address: subject.address, trust, requests, awaits_bind: subject.wire == Wire::Http })
    }
}

impl Drop for Workspace {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A running server.
#[derive(Debug)]
pub(super) struct Subject {
    process: Process,
    /// Address for receivers.
    address: SocketAddr,
    is_tls: bool,
    /// Address and protocol for publishers.
    pub(super) publish: SocketAddr,
    pub(super) wire: Wire,
    counter: Option<RefCell<Counter>>,
    /// A second node that shares the work.
    partner: Option<Box<Subject>>,
    /// The engine between the two nodes.
    engine: Option<Engine>,
}

#[derive(Debug)]
enum Process {
    Own(Child),
    /// An external process. Without its id there are no figures of its CPU and memory.
    Foreign(Option<u32>),
}

/// A child that reports its number of allocations.
#[derive(Debug)]
struct Counter {
    ask: ChildStdin,
    answers: std::io::Lines<BufReader<ChildStdout>>,
}

impl Subject {
    fn at(address: SocketAddr, publish: SocketAddr, process: Process, wire: Wire) -> Self {
        Self { process, address, publish, is_tls: false, wire, counter: None, partner: None, engine: None }
    }

    fn of(peer: &'static Peer) -> anyhow::Result<Self> {
        let process = Process::Foreign(peer.begin()?);
        Ok(Self::at(peer.address, peer.api, process, Wire::Peer(peer)))
    }

    /// CPU time, including the partner's; zero if it is unknown.
    ///
    /// # Errors
    /// The process is gone.
    pub(super) fn cpu(&self) -> anyhow::Result<Cpu> {
        let own = match &self.process {
            Process::Own(child) => Cpu::of(child.id())?,
            Process::Foreign(pid) => pid.map_or_else(|| Ok(Cpu::default()), Cpu::of_family)?,
        };
        Ok(match &self.partner {
            Some(partner) => own.and(partner.cpu()?),
            None => own,
        })
    }

    /// Memory, including the partner's; zero if it is unknown.
    ///
    /// # Errors
    /// The process is gone.
    pub(super) fn memory(&self) -> anyhow::Result<Memory> {
        let own = match &self.process {
            Process::Own(child) => proc::memory(child.id())?,
            Process::Foreign(pid) => pid.map_or_else(|| Ok(Memory::default()), proc::memory_of_family)?,
        };
        let Some(partner) = &self.partner else { return Ok(own) };
        let other = partner.memory()?;
        Ok(Memory { resident: own.resident + other.resident, anonymous: own.anonymous + other.anonymous })
    }

    /// The engine between its nodes.
    pub(super) fn engine(&self) -> Option<&Engine> {
        self.engine.as_ref()
    }

    /// Allocations since the start; `None` if they are not counted.
    ///
    /// # Errors
    /// The process is gone.
    pub(super) fn allocations(&self) -> anyhow::Result<Option<u64>> {
        let Some(counter) = &self.counter else { return Ok(None) };
        let Counter { ask, answers } = &mut *counter.borrow_mut();
        ask.write_all(b"\n").context("the server does not accept requests")?;
        for line in answers {
            if let Some(number) = line?.strip_prefix(allocations::ANSWER) {
                return Ok(Some(number.parse()?));
            }
        }
        bail!("the server does not report its allocations")
    }
}

impl Drop for Subject {
    fn drop(&mut self) {
        if let Process::Own(child) = &mut self.process {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Parses the address from a line that starts with one of `starts`. A node prints `  ws  ws://ADDRESS/ws …`, a
/// reference server prints `ready ADDRESS`.
fn address(line: &str, starts: &[&str]) -> Option<SocketAddr> {
    let rest = starts.iter().find_map(|start| line.trim_start().strip_prefix(start))?.trim_start();
    let address = rest.split_once("://").map_or(rest, |(_, address)| address);
    address.split(['/', ' ']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::address;

    #[test]
    fn both_kinds_of_server_tell_their_addresses() {
        let expected = "127.0.0.1:4711".parse().ok();
        assert_eq!(address("ready 127.0.0.1:4711", &["ready ", "ws "]), expected);
        assert_eq!(address("  ws       ws://127.0.0.1:4711/ws   connect here", &["ready ", "ws "]), expected);
        assert_eq!(address("  ws       wss://127.0.0.1:4711/ws", &["ready ", "ws "]), expected);
        assert_eq!(address("  api      http://127.0.0.1:4711/send", &["ready ", "api "]), expected);
        assert_eq!(address("  api      http://127.0.0.1:4711/send", &["ready ", "ws "]), None);
        assert_eq!(address("ready", &["ready "]), None);
    }
}
