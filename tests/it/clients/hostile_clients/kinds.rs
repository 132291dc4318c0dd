//! The kinds of hostile clients, and the node for each of them.

use std::fs;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

use super::blames_nobody;
use crate::support::client::{Client, Dial, within};
use crate::support::gateway::weather::Weather;
use crate::support::gateway::{Folder, Gateway, Setup, samples};
use crate::support::token::Claims;
use crate::support::wire::Form;

/// Minimum number of attempts during a flow; fewer would test nothing.
const TRIES: usize = 12;
/// Time between two word lists.
const LIST_PACE: Duration = Duration::from_millis(200);
/// NFKC expands this character to 18.
const LIGATURE: &str = "\u{fdfa}";
const GRANTS: &str = "grants = [\"directory\", \"outbox\", \"timers\", \"login\", \"kv\", \"counters\", \"http\"]";

/// The attack of a client.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum AttackKind {
    /// Redials with a valid token that has an invalid name as its `sub`.
    Name,
    /// Publishes 60 kB of U+FDFA.
    Expansion,
    /// The same while the operator changes the word list.
    Probation,
    /// Calls a handler that reads a store on a full disk.
    Store,
    /// Publishes messages that make a fail-closed filter trap.
    Source,
}

impl AttackKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Name => "a token with an invalid name in `sub`",
            Self::Expansion => "60 kB of U+FDFA",
            Self::Probation => "60 kB of U+FDFA during a probation",
            Self::Store => "the store is unavailable",
            Self::Source => "a filter fails for one source",
        }
    }
}

/// A node, and the parts of its environment that an attack changes.
pub struct Stage {
    kind: AttackKind,
    pub gateway: Gateway,
    weather: Weather,
}

impl Stage {
    pub fn new(kind: AttackKind) -> Self {
        let plugins = "plugins:\n  dir: $PLUGINS\n  cache: $CACHE\n  settle: 20ms\n  rescan: 1s\n  kv: ./disk/kv.redb";
        let setup = Setup::default().plugin("word-filter").plugin("probe").manifest("probe", GRANTS).yaml(plugins);
        let setup = if kind == AttackKind::Source { setup.plugin("fault-filter") } else { setup };
        let folder = setup.prepare();
        let disk = folder.path().join("disk");
        fs::create_dir(&disk).unwrap();
        let (mut command, weather) = (folder.command("serve"), Weather::new(folder.path()));
        weather.over(&mut command, &fs::canonicalize(&disk).unwrap());
        Self { kind, gateway: Gateway::run(folder, command, None), weather }
    }

    /// Checks that the client's actions opened no circuit and rolled nothing back.
    pub async fn holds(&self) {
        blames_nobody(&self.gateway).await;
    }
}

/// Attempts of the hostile client, and the end of its task.
type Tries = watch::Sender<usize>;

/// Clients and an operator who do nothing hostile. They are active with the attack and without it.
pub struct Others {
    stop: watch::Sender<bool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Others {
    pub fn begin(stage: &Stage) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut tasks = Vec::new();
        if stage.kind != AttackKind::Store {
            tasks.push(tokio::spawn(newcomers(stage.gateway.address("ws"), stopped.clone())));
        }
        if stage.kind == AttackKind::Probation {
            tasks.push(tokio::spawn(new_lists(stage.gateway.folder.clone(), stopped)));
        }
        Self { stop, tasks }
    }

    pub async fn end(self) {
        self.stop.send_replace(true);
        for task in self.tasks {
            task.await.expect("no other client is refused");
        }
    }
}

/// A hostile client at work.
pub struct Attack<'a> {
    stage: &'a Stage,
    stop: watch::Sender<bool>,
    tries: watch::Receiver<usize>,
    task: JoinHandle<()>,
}

impl<'a> Attack<'a> {
    pub fn begin(stage: &'a Stage) -> Self {
        let (stop, stopped) = watch::channel(false);
        let (tries, count) = watch::channel(0);
        if stage.kind == AttackKind::Store {
            stage.weather.fill_disk(true);
        }
        let task = tokio::spawn(attack(stage.kind, stage.gateway.address("ws"), tries, stopped));
        Self { stage, stop, tries: count, task }
    }

    /// Ends the attack after enough attempts, and returns their number.
    pub async fn end(mut self) -> usize {
        // An error means that the task has ended; waiting for it below tells why.
        let _ = within("tries of the hostile client", self.tries.wait_for(|tries| *tries >= TRIES)).await;
        self.stop.send_replace(true);
        self.task.await.expect("the hostile client runs to its end");
        if self.stage.kind == AttackKind::Store {
            self.stage.weather.fill_disk(false);
            let mut client = connect(self.stage.gateway.address("ws"), "later").await;
            within("the store", async { while add(&mut client).await["code"] != "200" {} }).await;
        }
        *self.tries.borrow()
    }
}

async fn dial(ws: SocketAddr, uid: &str) -> (Client, Value) {
    let dial = Dial::path("/ws").header("authorization", format!("Bearer {}", Claims::of(uid).mint()));
    let dial = dial.subprotocol(Form::YunqueJson.subprotocol());
    let mut client = Client::dial(ws, Form::YunqueJson, dial).await.expect("the upgrade succeeds");
    let reply = client.reply().await;
    (client, reply)
}

async fn connect(ws: SocketAddr, uid: &str) -> Client {
    let (client, reply) = dial(ws, uid).await;
    assert_eq!(reply["code"], "200", "{uid} is refused: {reply}");
    client
}

async fn add(client: &mut Client) -> Value {
    client.ask("probe_add", json!({"key": "sum", "amount": "1"})).await
}

/// Other clients connect one after the other, and each is admitted.
async fn newcomers(ws: SocketAddr, stopped: watch::Receiver<bool>) {
    for number in 0.. {
        connect(ws, &format!("newcomer{}", number % 100)).await.close().await;
        if *stopped.borrow() {
            return;
        }
    }
}

async fn attack(kind: AttackKind, ws: SocketAddr, tries: Tries, stopped: watch::Receiver<bool>) {
    if kind == AttackKind::Name {
        return bad_names(ws, &tries, &stopped).await;
    }
    let mut client = connect(ws, "hostile").await;
    let request = request(kind, &client);
    while !*stopped.borrow() {
        client.raw(request.clone()).await;
        let reply = client.reply().await;
        match kind {
            AttackKind::Source => assert_eq!(reply["code"], "503", "{reply}"),
            AttackKind::Store => assert!(["200", "503"].iter().any(|code| reply["code"] == *code), "{reply}"),
            _ => assert_ne!(reply["code"], "500", "{reply}"),
        }
        tries.send_modify(|tries| *tries += 1);
    }
}

/// The request that the client repeats. It is encoded once, because the test shares its cores with the node.
fn request(kind: AttackKind, client: &Client) -> Message {
    match kind {
        AttackKind::Store => client.encode("probe_add", &json!({"key": "sum", "amount": "1"})),
        AttackKind::Source => client.encode("message", &json!({"to": "user:nobody", "action": "trap"})),
        _ => {
            let content = json!({"text": LIGATURE.repeat(20_000)}).to_string();
            client.encode("message", &json!({"to": "user:nobody", "content": content}))
        }
    }
}

/// Each client gets an error that names the wrong field. On a handshake every refusal has the code 401
/// (docs/reference/protocol.md).
async fn bad_names(ws: SocketAddr, tries: &Tries, stopped: &watch::Receiver<bool>) {
    let long = "x".repeat(129);
    for name in ["Last, First", &long].into_iter().cycle() {
        let (_client, reply) = dial(ws, name).await;
        let words = reply["message"].as_str().unwrap_or_default();
        assert!(reply["code"] == "401" && words.starts_with("uid: expected "), "{reply}");
        tries.send_modify(|tries| *tries += 1);
        if *stopped.borrow() {
            return;
        }
    }
}

/// Installs new word lists one after the other, so that one is always on probation.
async fn new_lists(folder: Folder, stopped: watch::Receiver<bool>) {
    let list = fs::read_to_string(samples().join("word-filter.toml")).unwrap();
    let mut pace = tokio::time::interval(LIST_PACE);
    for number in 0.. {
        pace.tick().await;
        if *stopped.borrow() {
            return;
        }
        let new = list.replace("\"gossip\"", &format!("\"gossip\", \"rumour{number}\""));
        folder.put("word-filter.toml", new.as_bytes());
    }
}
