//! The built node as a process on free ports, with its own plugin directory.
//!
//! The addresses come from the lines that `serve` prints. The process is killed at the end of the test in every case.

pub mod cluster;
mod setup;
pub mod weather;

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::client::{Client, Dial, Pipe, within};
use super::http::{Http, Response};
use super::tls::Trust;
use super::token;
use super::wire::Form;
pub use setup::{Folder, Setup, built, component, samples, skylark};

/// Compiling every sample with a cold cache may take long on a busy machine.
const START: Duration = Duration::from_secs(120);

/// A running node.
pub struct Gateway {
    pub folder: Folder,
    child: Child,
    addresses: HashMap<String, SocketAddr>,
    /// The certificate that the node's clients trust, if the node uses TLS.
    trust: Option<Trust>,
    said: watch::Sender<String>,
}

impl Gateway {
    pub fn start() -> Self {
        Setup::default().start()
    }

    /// Runs this command in its folder and waits until it reports ready.
    pub fn run(folder: Folder, command: Command, trust: Option<Trust>) -> Self {
        let (mut gateway, heard) = Self::begin(folder, command, trust);
        gateway.learn(&heard);
        gateway
    }

    /// Runs this command without waiting. The node has no address yet, and the receiver gets its output.
    pub fn begin(folder: Folder, mut command: Command, trust: Option<Trust>) -> (Self, mpsc::Receiver<String>) {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let said = watch::Sender::new(String::new());
        let (lines, heard) = mpsc::sync_channel(64);
        listen(child.stdout.take().unwrap(), said.clone(), Some(lines));
        listen(child.stderr.take().unwrap(), said.clone(), None);
        (Self { folder, child, addresses: HashMap::new(), trust, said }, heard)
    }

    /// Reads the output of `serve` until it reports ready.
    fn learn(&mut self, heard: &mpsc::Receiver<String>) {
        let deadline = Instant::now() + START;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = match heard.recv_timeout(left) {
                Ok(line) => line,
                Err(error) => panic!("the node did not become ready: {error}\n{}", self.log()),
            };
            if let Some((service, address)) = address(&line) {
                self.addresses.entry(service).or_insert(address);
            }
            if line.trim() == "ready" {
                return;
            }
        }
    }

    /// The first address that serves `service`.
    pub fn address(&self, service: &str) -> SocketAddr {
        match self.addresses.get(service) {
            Some(address) => *address,
            None => panic!("no listener {service} among {:?}", self.addresses),
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Connects to the listener of `service`, over TLS if the node uses it.
    pub async fn pipe(&self, service: &str) -> Pipe {
        let tcp = within("a TCP connection", TcpStream::connect(self.address(service))).await.unwrap();
        match &self.trust {
            Some(trust) => Box::new(trust.secure(tcp).await.unwrap()),
            None => Box::new(tcp),
        }
    }

    pub async fn http(&self) -> Http {
        Http::over(self.pipe("api").await, self.address("api"))
    }

    /// Sends one request on a new connection.
    pub async fn post(&self, path: &str, body: Value) -> Response {
        self.http().await.post(path, &body).await
    }

    pub async fn get(&self, path: &str) -> Response {
        self.http().await.get(path).await
    }

    /// Connects `uid` with its token and reads the bind reply.
    pub async fn connect(&self, uid: &str, form: Form) -> Client {
        self.connect_as(token::Claims::of(uid), form).await.0
    }

    /// Connects with these claims and returns the bind reply too. A cim connection binds by frame, the others by query.
    pub async fn connect_as(&self, claims: token::Claims, form: Form) -> (Client, Value) {
        let token = claims.mint();
        if form.is_cim() {
            let mut client = self.dial_cim(form).await;
            let reply = client.ask("client_bind", serde_json::json!({"token": token, "channel": "web"})).await;
            assert_eq!(reply["code"], "200", "{reply}");
            return (client, reply);
        }
        let dial = Dial::path(format!("/ws?token={token}")).subprotocol(form.subprotocol());
        let pipe = self.pipe("ws").await;
        let mut client = Client::dial_over(pipe, self.address("ws"), form, dial).await.expect("the upgrade succeeds");
        let reply = client.reply().await;
        assert_eq!((&reply["key"], &reply["code"]), (&"client_bind".into(), &"200".into()), "{reply}");
        (client, reply)
    }

    /// Opens an unbound connection to a cim listener.
    pub async fn dial_cim(&self, form: Form) -> Client {
        if form == Form::CimTcp {
            return Client::tcp_over(self.pipe("cim-tcp").await);
        }
        let pipe = self.pipe("cim").await;
        Client::dial_over(pipe, self.address("cim"), form, Dial::path("/")).await.expect("the upgrade succeeds")
    }

    /// Polls `/plugins` until `wanted` accepts the plugin.
    pub async fn plugin_until(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let mut http = self.http().await;
        let ask = async {
            loop {
                let plugins = http.get("/plugins").await.data();
                let found = plugins["items"].as_array().unwrap().iter().find(|p| p["name"] == name);
                if let Some(plugin) = found.filter(|p| wanted(p)) {
                    return plugin.clone();
                }
                tokio::task::yield_now().await;
            }
        };
        within(&format!("a change of {name}"), ask).await
    }

    /// Polls `/metrics` until it contains `line`. A connection may close a moment before it is counted.
    pub async fn metrics_until(&self, line: &str) {
        let mut http = self.http().await;
        let poll = async {
            while !http.get("/metrics").await.body.contains(line) {
                tokio::task::yield_now().await;
            }
        };
        within(&format!("the metric {line}"), poll).await;
    }

    pub fn signal(&self, signal: Signal) {
        send_signal(self.pid(), signal);
    }

    /// Waits for the process to exit and returns its status.
    pub async fn exit(&mut self) -> ExitStatus {
        self.ended().await;
        self.child.wait().unwrap()
    }

    /// Waits until the process has exited. Its status can still be read.
    pub async fn ended(&self) {
        let pid = self.pid();
        // `wait` blocks, so it runs on its own thread with its own time limit.
        let (done, over) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let pid = Pid::from_raw(pid.cast_signed()).unwrap();
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            let _ = waitid(WaitId::Pid(pid), options);
            let _ = done.send(());
        });
        within("the exit of the node", over).await.unwrap();
    }

    /// Starts the same node again in its folder and on new ports, after this one has exited.
    pub fn again(&self) -> Self {
        self.again_as(self.folder.program())
    }

    /// Starts the same node again with another build of the command.
    pub fn again_as(&self, program: &Path) -> Self {
        let folder = self.folder.for_program(program);
        let command = folder.command("serve");
        Self::run(folder, command, self.trust.clone())
    }

    /// Waits until the node has printed or logged a line that contains `words`.
    pub async fn said(&self, words: &str) {
        self.said_one_of(&[words], super::client::PATIENCE).await;
    }

    /// Waits for one of several texts with another time limit.
    pub async fn said_one_of(&self, words: &[&str], patience: Duration) {
        let mut news = self.said.subscribe();
        let heard = news.wait_for(|said| words.iter().any(|words| said.contains(words)));
        if tokio::time::timeout(patience, heard).await.is_err() {
            panic!("the node logged none of {words:?}");
        }
    }

    /// Everything that the node has printed and logged so far.
    pub fn log(&self) -> String {
        self.said.borrow().clone()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the node ---\n{}---", self.log());
        }
    }
}

/// `  ws      ws://127.0.0.1:8080/ws` → its service and address.
fn address(line: &str) -> Option<(String, SocketAddr)> {
    let mut words = line.split_whitespace();
    let service = words.next()?;
    let (_, rest) = words.next()?.split_once("://")?;
    let address = rest.split('/').next()?.parse().ok()?;
    Some((service.to_owned(), address))
}

fn listen(stream: impl Read + Send + 'static, said: watch::Sender<String>, lines: Option<mpsc::SyncSender<String>>) {
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            said.send_modify(|text| {
                text.push_str(&line);
                text.push('\n');
            });
            if let Some(lines) = &lines {
                // No receiver is left once the node is ready.
                let _ = lines.try_send(line);
            }
        }
    });
}

/// Sends a signal to a child. After SIGSTOP, each thread of the child has stopped when this returns.
pub fn send_signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    kill_process(pid, signal).unwrap();
    if signal == Signal::STOP {
        waitid(WaitId::Pid(pid), WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT).unwrap();
    }
}
