//! Hostile plugins: a running node gets each of them, and a steady flow through another plugin must lose no message
//! meanwhile. The outcome, its time and the flow's p99 are printed as a table: `cargo test --test it hostile_plugins --
//! --nocapture --test-threads 1`. Figures fail no test here, because a busy machine is not a fault of the node; only a
//! message beyond every budget does.

mod calls;
mod files;
mod flow;
mod rust;
mod wat;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::support::client::{Client, Dial};
use crate::support::gateway::{Gateway, Setup};
use crate::support::http::Response;
use crate::support::wire::Form;
use flow::{Flow, Passed, between, p99};

/// Longest time of a message of the flow: more than all default budgets together plus the delay of a busy machine.
const BOUND: Duration = Duration::from_secs(60);
/// The compiler runs at the lowest priority, so a large file takes long on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);
/// Messages of the flow before the first case.
const BEFORE: usize = 750;

/// The flow's own filter has generous limits: load on the machine must not make it fail.
const STEADY: &str = "[match]\nactions = [\"flow\"]\n[limits]\ncpu = \"1s\"\nwall = \"30s\"\n";

/// One hostile plugin.
struct Case {
    name: &'static str,
    file: fn() -> Vec<u8>,
    manifest: &'static str,
    expected: Expected,
}

/// The expected reaction of the node.
#[derive(Clone, Copy)]
enum Expected {
    /// The file is refused for this reason.
    Refused(&'static str),
    /// It serves; a publish that it judges is rejected for this reason.
    Rejects(&'static str),
    /// It serves; a publish that it judges passes.
    Passes,
    /// It serves; a client that it judges is refused for this reason.
    Bars(&'static str),
    /// It serves; a call of its key is answered with this code and text.
    Answers(&'static str, &'static str),
    /// It serves; a call of this key is answered with this code and text.
    AnswersTo(&'static str, &'static str, &'static str),
    /// It serves; an event delivered to it fails without other effects.
    FailsAlone,
    /// It serves; it receives at most this many events in a row.
    Hears(u64),
}

/// One row of the table.
struct Row {
    name: &'static str,
    outcome: String,
    begin: Instant,
    end: Instant,
}

/// A node with a running flow.
struct Stage {
    gateway: Gateway,
    caller: Client,
    rows: Vec<Row>,
}

async fn connect(ws: SocketAddr, token: &str) -> (Client, Value) {
    let dial = Dial::path("/ws").header("authorization", format!("Bearer {token}"));
    let mut client = Client::dial(ws, Form::YunquePb, dial).await.expect("the upgrade succeeds");
    let reply = client.reply().await;
    (client, reply)
}

impl Stage {
    async fn new() -> Self {
        // The tests' auth plugin uses the token as the user's name.
        let gateway = Setup::default()
            .no_plugins()
            .plugin("fault-auth")
            .plugin("stamp-v1")
            .manifest("stamp-v1", STEADY)
            .yaml("plugins:\n  dir: \"$PLUGINS\"\n  settle: 10ms\n  rescan: 1s")
            .start();
        let (caller, _) = connect(gateway.address("ws"), "caller").await;
        Self { gateway, caller, rows: Vec::new() }
    }

    async fn meet(&mut self, case: &Case) {
        let (folder, name) = (&self.gateway.folder, case.name);
        let wasm = tokio::task::spawn_blocking(case.file).await.unwrap();
        folder.lay(&format!("{name}.wasm"), &wasm);
        drop(wasm);
        folder.put(&format!("{name}.toml"), case.manifest.as_bytes());
        let begin = Instant::now();
        folder.move_in(&format!("{name}.wasm"));
        let status = self.settled(name).await;
        let refused = status["rejected"]["reason"].as_str().unwrap_or_default().to_owned();
        let outcome = match case.expected {
            Expected::Refused(words) => {
                assert!(refused.contains(words), "{}: expected {words:?} in the reason, got {refused:?}", case.name);
                format!("refused: {refused}")
            }
            _ => {
                assert_eq!(refused, "", "{}", case.name);
                self.stir(case).await
            }
        };
        let end = Instant::now();
        self.put_away(case).await;
        self.rows.push(Row { name: case.name, outcome, begin, end });
    }

    /// Waits until the file serves or is refused. Reads the log first, because status requests would delay the flow.
    async fn settled(&self, name: &str) -> Value {
        let [live, refused] =
            ["goes live", "is refused"].map(|ended| format!(r#""message":"plugin {ended}","plugin":"{name}""#));
        self.gateway.said_one_of(&[&live, &refused], PATIENCE).await;
        self.gateway.plugin_until(name, |plugin| plugin["state"] == "live" || plugin["rejected"].is_object()).await
    }

    async fn put_away(&self, case: &Case) {
        if let Expected::Refused(_) = case.expected {
            for kind in ["toml", "wasm"] {
                std::fs::remove_file(self.gateway.folder.plugins().join(format!("{}.{kind}", case.name))).unwrap();
            }
        } else {
            self.gateway.folder.put(&format!("{}.toml", case.name), b"enabled = false");
            self.gateway.plugin_until(case.name, |p| p["state"] == "disabled").await;
        }
    }

    /// Triggers the hostile action of a plugin that serves.
    async fn stir(&mut self, case: &Case) -> String {
        let name = case.name;
        match case.expected {
            Expected::Refused(_) => unreachable!("a refused file is never called"),
            Expected::Rejects(words) => {
                let (status, told) = self.publish().await.fault();
                assert!(
                    status == 503 && told.contains(&format!("plugin {name} could not judge the message")),
                    "{name}: {told}"
                );
                self.logged(name, words).await;
                format!("publish not judged: {words}")
            }
            Expected::Passes => {
                let data = self.publish().await.data();
                assert!(data["rejected"].is_null(), "{name}: {data}");
                "publish passes".to_owned()
            }
            Expected::Bars(words) => {
                let (mut client, reply) = connect(self.gateway.address("ws"), "late").await;
                assert!(reply["key"] == "client_handshake" && reply["code"] != "200", "{name}: {reply}");
                self.logged(name, words).await;
                assert!(client.closed().await.is_some());
                format!("client refused: {words}")
            }
            Expected::Answers(code, words) => self.answers(name, "hostile", code, words).await,
            Expected::AnswersTo(key, code, words) => self.answers(name, key, code, words).await,
            Expected::FailsAlone => {
                let (client, reply) = connect(self.gateway.address("ws"), "guest").await;
                assert_eq!(reply["code"], "200", "{name}: {reply}");
                drop(client);
                self.gateway.plugin_until(name, |p| p["failures"].as_u64() > Some(0)).await;
                "counted and logged; no caller waits".to_owned()
            }
            Expected::Hears(most) => self.hears(name, most).await,
        }
    }

    async fn answers(&mut self, name: &str, key: &str, code: &str, words: &str) -> String {
        let reply = self.caller.ask(key, json!({})).await;
        let message = reply["message"].as_str().unwrap_or_default().to_owned();
        assert_eq!(reply["code"], code, "{name}: {reply}");
        if !message.contains(words) {
            self.logged(name, words).await;
        }
        format!("reply {code}: {words}")
    }

    /// Waits until the log reports the failure of a call; callers get a fixed text.
    async fn logged(&self, name: &str, words: &str) {
        let plugin = format!(r#""plugin":"{name}""#);
        let is_told = || {
            let log = self.gateway.log();
            let mut failures = log.lines().filter(|line| line.contains("plugin call failed") && line.contains(&plugin));
            failures.any(|line| line.contains(words))
        };
        crate::support::client::within(words, async {
            while !is_told() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    async fn publish(&self) -> Response {
        self.gateway.post("/send", json!({"receiver": "nobody", "action": "hostile"})).await
    }

    /// Triggers one join event and all events that follow from it.
    async fn hears(&mut self, name: &str, most: u64) -> String {
        let joined = json!({"uid": "caller", "room": "lobby"});
        self.gateway.post("/room/join", joined).await.data();
        let calls = |plugin: &Value| plugin["calls"].as_u64().unwrap();
        self.gateway.plugin_until(name, |p| calls(p) >= most).await;
        // A following event would be on its way by the time that another event has been delivered.
        let (client, _) = connect(self.gateway.address("ws"), "guest").await;
        drop(client);
        let plugin = self.gateway.plugin_until(name, |p| calls(p) >= most + 2).await;
        assert_eq!(calls(&plugin), most + 2, "{name}: expected two more calls, online and offline of the other user");
        format!("ends after {most} events")
    }

    /// Times of messages before the first plugin, and during the cases.
    fn split(&self, passed: &[Passed]) -> (Vec<Duration>, Vec<Duration>) {
        let calm = self.rows.first().map_or_else(Instant::now, |row| row.begin);
        let before = passed.iter().filter(|p| p.sent + p.took < calm).map(|p| p.took).collect();
        (before, self.rows.iter().flat_map(|row| between(passed, row.begin, row.end)).collect())
    }

    fn print(&self, passed: &[Passed]) {
        let (before, during) = self.split(passed);
        println!("\n| plugin | what the node does | took | p99 of the flow: {} before |", ms(p99(before.clone())));
        println!("|---|---|---|---|");
        for row in &self.rows {
            let slow = p99(between(passed, row.begin, row.end));
            println!("| {} | {} | {} | {} |", row.name, row.outcome, ms(row.end - row.begin), ms(slow));
        }
        println!("\n{} messages passed, none was lost; {}", passed.len(), compared(before.clone(), during.clone()));
        let mut all = ALL.lock();
        all.0.extend(before);
        all.1.extend(during);
        println!("all parts so far: {}", compared(all.0.clone(), all.1.clone()));
    }
}

/// Times of all parts in this process, divided as in [`Stage::split`]: one part alone has few messages.
static ALL: Mutex<(Vec<Duration>, Vec<Duration>)> = Mutex::new((Vec::new(), Vec::new()));

fn compared(before: Vec<Duration>, during: Vec<Duration>) -> String {
    let (messages, before, during) = (during.len(), p99(before), p99(during));
    let times = during.as_secs_f64() / before.as_secs_f64();
    format!("p99 {} before, {} of {messages} meanwhile: {times:.1} times as long", ms(before), ms(during))
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1e3)
}

/// Gives each of these plugins to one node.
async fn play(cases: &[Case]) {
    let mut stage = Stage::new().await;
    let mut flow = Flow::start(&stage.gateway);
    flow.has_passed(BEFORE).await;
    for case in cases {
        stage.meet(case).await;
    }
    let passed = flow.stop();
    stage.print(&passed);
    let slowest = passed.iter().map(|p| p.took).max().unwrap();
    assert!(slowest < BOUND, "the slowest message of the flow took {slowest:?}");
}
