//! The command line: the output and exit code of each command.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::client::{Client, Dial};
use crate::support::gateway::{Folder, Gateway, Setup, skylark};
use crate::support::wire::Form;

fn run(command: &mut Command) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = command.output().unwrap();
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// Runs a command that must succeed.
#[track_caller]
fn good(command: &mut Command) -> String {
    let (code, out, err) = run(command);
    assert_eq!(code, Some(0), "{out}{err}");
    out
}

fn folder(yaml: &str) -> Folder {
    Setup::default().yaml(yaml).prepare()
}

#[test]
fn wrong_usage_exits_with_2() {
    for arguments in
        [&["no-such-command"][..], &[], &["push", "--user", "1"], &["connect"], &["token"], &["serve", "--listen", "x"]]
    {
        let (code, _, err) = run(skylark().args(arguments));
        assert_eq!(code, Some(2), "{arguments:?}: {err}");
    }
    for shell in ["bash", "zsh", "fish"] {
        assert!(good(skylark().args(["completions", shell])).contains("skylark"));
    }
    assert!(good(skylark().arg("--version")).starts_with("skylark "));
}

#[test]
fn check_tells_all_faults_at_once_with_file_line_and_nearest_name() {
    let folder = folder("heartbeet:\n  interval: 25s\nqueue:\n  bytes: many\n  mailbx: 3");
    let (code, out, err) = run(&mut folder.command("check"));
    let told = out + &err;
    assert_eq!(code, Some(1), "{told}");
    for words in ["skylark.yaml:", "heartbeet", "heartbeat", "queue.bytes", "mailbx", "mailbox"] {
        assert!(told.contains(words), "expected {words:?} in:\n{told}");
    }
    // A node refuses to start with this file and reports the same reason.
    let (code, out, err) = run(&mut folder.command("serve"));
    assert!(code == Some(1) && (out + &err).contains("mailbox"));
}

#[test]
fn check_looks_at_every_plugin() {
    let folder = folder("");
    good(&mut folder.command("check"));
    folder.put("broken.wasm", b"\0asm\x0d\0\x01\0 half a compo");
    folder.put("lonely.toml", b"no_such_key = 1\n");
    folder.put("token-auth.toml", b"[settings\n");
    let (code, out, err) = run(&mut folder.command("check"));
    let told = out + &err;
    assert_eq!(code, Some(1), "{told}");
    assert!(told.contains("broken") && told.contains("token-auth"), "{told}");
}

#[test]
fn config_shows_values_and_sources_and_masks_secrets() {
    let folder = folder("api:\n  keys:\n    - name: shop\n      key: shop-secret-0123456789abcdef");
    let out = good(folder.command("config").env("SKYLARK__LIMITS__BATCH", "7"));
    assert!(!out.contains("shop-secret"), "{out}");
    let line = |key: &str| {
        out.lines().find(|l| l.starts_with(key)).unwrap_or_else(|| panic!("expected a line of {key} in:\n{out}"))
    };
    assert!(line("limits.batch").contains('7') && line("limits.batch").contains("SKYLARK__LIMITS__BATCH"));
    assert!(line("clients.publish").contains("true") && line("clients.publish").contains("skylark.yaml:"));
    assert!(line("limits.uids").contains("default"));
    let (code, _, err) = run(folder.command("config").env("SKYLARK__LIMITS__BATSH", "7"));
    assert!(code == Some(1) && err.contains("SKYLARK__LIMITS__BATSH"), "{err}");
}

#[tokio::test]
async fn a_minted_token_gets_in() {
    let gateway = Gateway::start();
    let arguments = ["1074", "--device", "d-1", "--rooms", "a,b", "--ttl", "1h"];
    let token = good(gateway.folder.command("token").args(arguments));
    let token = token.trim();
    let body = token.split('.').nth(1).unwrap();
    let claims: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(body).unwrap()).unwrap();
    assert!(claims.to_string().contains("1074"), "{claims}");
    let dial = Dial::path("/ws").header("authorization", format!("Bearer {token}"));
    let mut client = Client::dial(gateway.address("ws"), Form::YunquePb, dial).await.unwrap();
    assert_eq!(client.reply().await["data"]["uid"], "1074");
    let row = gateway.get("/connections").await.data()["items"][0].clone();
    assert_eq!((&row["device"], &row["rooms"]), (&json!("d-1"), &json!(["a", "b"])), "{row}");
}

#[tokio::test]
async fn push_reaches_each_kind_of_target() {
    let gateway = Gateway::start();
    let (mut client, bind) = gateway
        .connect_as(crate::support::token::Claims::of("a").device("d").rooms(&["lobby"]), Form::YunqueJson)
        .await;
    let url = format!("http://{}", gateway.address("api"));
    let cid = bind["data"]["cid"].as_str().unwrap();
    for target in [
        &["--user", "a"][..],
        &["--users", "a,gone"],
        &["--room", "lobby"],
        &["--device", "a/d"],
        &["--connection", cid],
        &["--all"],
    ] {
        let message = r#"{"action":"chat","content":{"text":"hi"}}"#;
        let out = good(gateway.folder.command("push").args(["--url", &url]).args(target).arg(message));
        let answer: Value = serde_json::from_str(&out).unwrap();
        assert_eq!(answer["data"]["delivered"], 1, "{target:?}: {answer}");
        assert_eq!(client.message().await["content"]["text"], "hi");
    }
    let mut command = gateway.folder.command("push");
    let mut child =
        command.args(["--url", &url, "--user", "a", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(br#"{"action":"from standard input"}"#).unwrap();
    assert!(child.wait_with_output().unwrap().status.success());
    assert_eq!(client.message().await["action"], "from standard input");
    let (code, _, err) = run(gateway.folder.command("push").args(["--url", &url, "--user", "a", r#"{"id":"x"}"#]));
    assert!(code == Some(1) && err.contains("id: expected"), "{err}");
    let (code, _, err) = run(gateway.folder.command("push").args(["--url", "http://127.0.0.1:1", "--user", "a", "{}"]));
    assert!(code == Some(1) && err.contains("127.0.0.1:1"), "{err}");
}

#[tokio::test]
async fn connect_prints_frames_and_sends_what_is_typed() {
    let gateway = Gateway::start();
    let url = format!("ws://{}/ws", gateway.address("ws"));
    for dialect in ["yunque.pb", "yunque.json", "cim.pb", "cim.json"] {
        let mut command = gateway.folder.command("connect");
        command
            .args(["--uid", "typist", "--dialect", dialect, "--url", &url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut keyboard = child.stdin.take().unwrap();
        let screen = BufReader::new(child.stdout.take().unwrap());
        let mut lines = screen.lines().map(|line| serde_json::from_str::<Value>(&line.unwrap()).unwrap());
        let bind = lines.next().unwrap();
        assert_eq!((&bind["reply"]["key"], &bind["reply"]["code"]), (&json!("client_bind"), &json!("200")), "{bind}");
        keyboard.write_all(b"room_join {\"room\":\"lobby\"}\n").unwrap();
        assert_eq!(lines.next().unwrap()["reply"]["key"], "room_join");
        let body = json!({"message": {"action": "chat", "content": {"text": "hi"}}, "room": "lobby"});
        gateway.post("/send/room", body).await.data();
        let message = lines.next().unwrap()["message"].clone();
        assert!(message["action"] == "chat" && message["content"].to_string().contains("hi"), "{dialect}: {message}");
        gateway.post("/kick", json!({"uid": "typist", "reason": "enough"})).await.data();
        let last = lines.last().unwrap();
        assert_eq!((&last["type"], &last["code"]), (&json!("closed"), &json!(4503)), "{last}");
        assert_eq!(child.wait().unwrap().code(), Some(1));
    }
}

#[tokio::test]
async fn history_prints_a_line_for_each_kept_message() {
    let gateway = Gateway::start();
    let url = format!("http://{}", gateway.address("api"));
    let mut http = gateway.http().await;
    for _ in 0..150 {
        http.post("/send/room", &json!({"message": {"action": "chat"}, "room": "lobby"})).await.data();
    }
    let history = |arguments: &[&str]| {
        let (code, out, err) = run(gateway.folder.command("history").args(["r:lobby", "--url", &url]).args(arguments));
        assert_eq!(code, Some(0), "{err}");
        assert!(err.starts_with("r:lobby is at ") && err.contains(":150:"), "{err}");
        let lines = out.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.map(|message| message["offset"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(history(&[]), (1..=100).collect::<Vec<_>>());
    assert_eq!(history(&["--limit", "130"]), (1..=130).collect::<Vec<_>>(), "two pages");
    assert_eq!(history(&["--limit", "130", "--reverse"]), (21..=150).rev().collect::<Vec<_>>());
    assert_eq!(history(&["--limit", "999"]).len(), 150);
    assert!(history(&["--limit", "0"]).is_empty());
    let (code, _, err) = run(gateway.folder.command("history").args(["lobby", "--url", &url]));
    assert!(code == Some(2) && err.contains("expected u:UID, r:ROOM or all"), "{err}");

    let gateway = Setup::default().yaml("history: {kind: off}").start();
    let url = format!("http://{}", gateway.address("api"));
    let (code, _, err) = run(gateway.folder.command("history").args(["all", "--url", &url]));
    assert!(code == Some(1) && err.contains("501") && err.contains("history.kind"), "{err}");
}

/// A running `skylark connect`.
struct Terminal {
    child: Child,
    keyboard: ChildStdin,
    screen: Lines<BufReader<ChildStdout>>,
}

impl Terminal {
    fn open(command: &mut Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let screen = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { keyboard: child.stdin.take().unwrap(), child, screen }
    }

    fn line(&mut self) -> Value {
        serde_json::from_str(&self.screen.next().unwrap().unwrap()).unwrap()
    }

    /// Reads a REPLY and returns the elements of its answer to the resume.
    fn resumed(&mut self) -> Value {
        let reply = self.line()["reply"].take();
        assert_eq!(reply["code"], "200", "{reply}");
        serde_json::from_str(reply["data"]["resume"].as_str().unwrap()).unwrap()
    }

    /// Ends it with SIGTERM, which closes the connection.
    fn end(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        assert_eq!(self.child.wait().unwrap().code(), Some(0));
        assert!(self.screen.next().is_none(), "nothing was left to read");
    }
}

#[tokio::test]
async fn connect_with_a_resume_file_prints_each_message_once() {
    let gateway = Setup::default().yaml("clients:\n  open_rooms: ['*']").start();
    let url = format!("ws://{}/ws", gateway.address("ws"));
    let mut http = gateway.http().await;
    for dialect in ["yunque.pb", "yunque.json", "cim.pb", "cim.json"] {
        let (file, room) = (format!("{dialect}.positions"), format!("room of {dialect}"));
        let mut command = gateway.folder.command("connect");
        command.args(["--uid", dialect, "--dialect", dialect, "--url", &url, "--resume", &file]);
        let to_user = |action: &str| json!({"receiver": dialect, "action": action});
        let to_room = |action: &str| json!({"message": {"action": action}, "room": room});
        let join = format!("room_join {}\n", json!({"room": room}));

        let mut terminal = Terminal::open(&mut command);
        let answer = terminal.resumed();
        assert_eq!((&answer[0][0], &answer[0][1], &answer[1][0]), (&json!("u"), &json!(true), &json!("all")));
        terminal.keyboard.write_all(join.as_bytes()).unwrap();
        assert_eq!(terminal.resumed()[0][0], format!("r:{room}"));
        http.post("/send", &to_user("seen")).await.data();
        assert_eq!(terminal.line()["message"]["action"], "seen");
        http.post("/send/room", &to_room("seen in room")).await.data();
        assert_eq!(terminal.line()["message"]["action"], "seen in room");
        terminal.end();
        let kept: Value = serde_json::from_slice(&std::fs::read(gateway.folder.path().join(&file)).unwrap()).unwrap();
        let row = kept["streams"].as_array().unwrap().iter().find(|row| row[0] == format!("r:{room}")).unwrap();
        assert_eq!((&row[2], kept["cid"].is_string()), (&json!(1), true), "{kept}");

        http.post("/send", &to_user("missed")).await.data();
        http.post("/send/room", &to_room("missed in room")).await.data();
        let mut terminal = Terminal::open(&mut command);
        let answer = terminal.resumed();
        assert_eq!((&answer[0][1], &answer[0][5]), (&json!(true), &json!(1)), "{answer}");
        assert_eq!(terminal.line()["message"]["action"], "missed");
        terminal.keyboard.write_all(join.as_bytes()).unwrap();
        let answer = terminal.resumed();
        assert_eq!((&answer[0][1], &answer[0][5]), (&json!(true), &json!(1)), "{answer}");
        assert_eq!(terminal.line()["message"]["action"], "missed in room");
        http.post("/send", &to_user("live")).await.data();
        assert_eq!(terminal.line()["message"]["action"], "live");
        terminal.end();
    }
}

#[tokio::test]
async fn plugins_are_listed_and_checked() {
    let gateway = Setup::default().plugin("word-filter").start();
    let url = format!("http://{}", gateway.address("api"));
    let out = good(gateway.folder.command("plugin").args(["list", "--url", &url]));
    assert!(out.contains("token-auth") && out.contains("word-filter") && out.contains("live"), "{out}");
    let file = gateway.folder.plugins().join("word-filter.wasm");
    good(gateway.folder.command("plugin").arg("check").arg(&file));
    gateway.folder.put("bad.wasm", b"not a component");
    let (code, out, err) =
        run(gateway.folder.command("plugin").arg("check").arg(gateway.folder.plugins().join("bad.wasm")));
    assert!(code == Some(1) && !(out + &err).is_empty());
}
