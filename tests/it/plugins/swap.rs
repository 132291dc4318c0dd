//! Automatic rollback of a bad version, and operator commands through the API, the command line, and in the log.

use std::process::Command;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::client::{Client, Dial};
use crate::support::gateway::{Gateway, Setup, component};
use crate::support::token;
use crate::support::wire::Form;

async fn push(gateway: &Gateway, action: &str) -> Value {
    gateway.post("/send", json!({"receiver": "a", "action": action})).await.data()
}

/// Pushes messages that the version cannot judge until the previous one serves again. One source is enough, because the
/// version has never answered.
async fn traps_until_back(gateway: &Gateway) -> Value {
    loop {
        let gate = gateway.plugin_until("gate", |_| true).await;
        if gate["version"] == 1 {
            return gate;
        }
        let status = gateway.post("/send", json!({"receiver": "a", "action": "chat"})).await.status;
        assert!(status == 503 || status == 200, "{status}");
    }
}

const QUICK: &str =
    "plugins:\n  dir: $PLUGINS\n  cache: compiled\n  settle: 50ms\n  rescan: 1s\n  breaker: {rest: 1ms}";

#[tokio::test]
async fn a_version_that_traps_is_rolled_back_and_shown() {
    let gateway = Setup::default().plugin_as("gate", "stamp-v1").yaml(QUICK).start();
    let mut client = gateway.connect("a", Form::YunqueJson).await;
    let good = gateway.plugin_until("gate", |_| true).await;
    // The manifest first: the old file is refused with it, so no other combination serves.
    gateway.folder.put("gate.toml", b"[settings]\nalways = \"trap\"\n");
    gateway.folder.put("gate.wasm", &component("fault-filter"));
    let new = gateway.plugin_until("gate", |gate| gate["version"] == 2).await;
    assert_eq!((&new["probation"], &new["previous"]), (&json!(true), &good["hash"]), "{new}");
    let back = traps_until_back(&gateway).await;
    assert_eq!((&back["hash"], &back["state"]), (&good["hash"], &json!("live")), "{back}");
    assert_eq!(back["rejected"]["hash"], new["hash"], "{back}");
    assert!(back["rejected"]["reason"].as_str().unwrap().starts_with("rolled back: it failed on probation"));
    assert_eq!(push(&gateway, "chat").await["delivered"], 1);
    assert_eq!(client.message().await["extra"]["version"], "v1");
    gateway.said("plugin is rolled back").await;
    // Each change of the live version is one log line with the new and the previous hash.
    let hash = |plugin: &Value| plugin["hash"].as_str().unwrap().to_owned();
    for (words, now, before) in
        [("plugin goes live", hash(&new), hash(&good)), ("plugin is rolled back", hash(&good), hash(&new))]
    {
        let log = gateway.log();
        let lines: Vec<&str> =
            log.lines().filter(|line| line.contains(words) && line.contains(r#""before""#)).collect();
        let hashes = [format!(r#""hash":"{now}""#), format!(r#""before":"{before}""#)];
        assert!(lines.len() == 1 && hashes.iter().all(|hash| lines[0].contains(hash)), "{words}: {lines:?}");
    }
    let metrics = gateway.get("/metrics").await.body;
    for line in [
        r#"skylark_plugin_reloads_total{plugin="gate",outcome="rolled_back"} 1"#,
        r#"skylark_plugin_version{plugin="gate"} 1"#,
        r#"skylark_plugin_circuit_open{plugin="gate"} 0"#,
    ] {
        assert!(metrics.contains(line), "expected {line} in:\n{metrics}");
    }
}

/// The bad file is still in the directory: a killed node must not try it again after its restart.
#[tokio::test]
async fn a_rollback_outlives_a_node_that_is_killed() {
    let mut gateway = Setup::default().plugin_as("gate", "stamp-v1").yaml(QUICK).start();
    let good = gateway.plugin_until("gate", |_| true).await;
    // The manifest first: the old file is refused with it, so no other combination serves.
    gateway.folder.put("gate.toml", b"[settings]\nalways = \"trap\"\n");
    gateway.folder.put("gate.wasm", &component("fault-filter"));
    let bad = gateway.plugin_until("gate", |gate| gate["version"] == 2).await;
    let back = traps_until_back(&gateway).await;
    for _ in 0..2 {
        gateway.signal(Signal::KILL);
        gateway.exit().await;
        gateway = gateway.again();
        let mut client = gateway.connect("a", Form::YunqueJson).await;
        let now = gateway.plugin_until("gate", |_| true).await;
        for field in ["state", "version", "hash", "roles", "probation", "rejected"] {
            assert_eq!(now[field], back[field], "{field}: {now}");
        }
        assert_eq!((&now["lost"], &now["circuit"]), (&Value::Null, &json!("closed")), "{now}");
        let told = push(&gateway, "chat").await;
        assert_eq!(told["delivered"], 1, "{told}");
        assert_eq!(client.message().await["extra"]["version"], "v1");
        gateway.said("plugin stays rolled back").await;
    }
    let (done, told) = say(&gateway, &["reload", "gate"]);
    assert!(done, "{told}");
    let tried = gateway.plugin_until("gate", |_| true).await;
    assert_eq!((&tried["hash"], &tried["previous"], &tried["rejected"]), (&bad["hash"], &good["hash"], &Value::Null));
}

/// The kept state is gone: the file is tried as at any start, and the operator is told.
#[tokio::test]
async fn a_rollback_that_cannot_outlive_the_node_is_told() {
    let yaml = "plugins:\n  dir: $PLUGINS\n  cache: compiled\n  settle: 50ms\n  rescan: 1s";
    let mut gateway = Setup::default().plugin_as("gate", "stamp-v1").yaml(yaml).start();
    gateway.folder.put("gate.wasm", &component("stamp-v2"));
    gateway.plugin_until("gate", |gate| gate["version"] == 2).await;
    let (done, told) = say(&gateway, &["rollback", "gate"]);
    assert!(done && told.contains("newest file refused: rolled back by the operator"), "{told}");
    gateway.signal(Signal::KILL);
    gateway.exit().await;
    std::fs::remove_dir_all(gateway.folder.path().join("compiled/known")).unwrap();
    gateway = gateway.again();
    let gate = gateway.plugin_until("gate", |_| true).await;
    assert_eq!(
        (&gate["state"], &gate["rejected"], &gate["lost"]),
        (&json!("live"), &Value::Null, &Value::Null),
        "{gate}"
    );

    let (done, told) = say(&gateway, &["list"]);
    assert!(done && !told.contains("is lost"), "the plugin is still reported as lost: {told}");
    gateway.folder.put("gate.wasm", &component("stamp-v1"));
    gateway.plugin_until("gate", |gate| gate["version"] == 2).await;
    say(&gateway, &["rollback", "gate"]);
    gateway.signal(Signal::KILL);
    gateway.exit().await;
    let known =
        std::fs::read_dir(gateway.folder.path().join("compiled/known")).unwrap().map(|entry| entry.unwrap().path());
    known.filter(|path| path.is_dir()).for_each(|folder| std::fs::remove_dir_all(folder).unwrap());
    gateway = gateway.again();
    let (done, told) = say(&gateway, &["list"]);
    assert!(
        done && told.contains("the version restored by the rollback is lost: its kept file cannot be read"),
        "{told}"
    );
    gateway.said("the file that was rolled back is tried again").await;
}

fn say(gateway: &Gateway, arguments: &[&str]) -> (bool, String) {
    let url = format!("http://{}", gateway.address("api"));
    let mut command: Command = gateway.folder.command("plugin");
    let output = command.args(arguments).args(["--url", &url]).output().unwrap();
    let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.success(), told)
}

#[tokio::test]
async fn a_refused_file_is_counted_told_and_changes_nothing() {
    let gateway = Setup::default().plugin_as("gate", "stamp-v1").start();
    let good = gateway.plugin_until("gate", |_| true).await;
    gateway.folder.put("gate.wasm", b"garbage");
    let gate = gateway.plugin_until("gate", |gate| gate["rejected"].is_object()).await;
    assert_eq!((&gate["state"], &gate["hash"]), (&json!("live"), &good["hash"]));
    gateway.said("plugin is refused").await;
    let refused = gate["rejected"]["hash"].as_str().unwrap();
    let log = gateway.log();
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("plugin is refused")).collect();
    assert!(
        lines.len() == 1 && lines[0].contains(refused) && lines[0].contains(good["hash"].as_str().unwrap()),
        "{lines:?}"
    );
    let metrics = gateway.get("/metrics").await.body;
    let line = r#"skylark_plugin_reloads_total{plugin="gate",outcome="rejected"} 1"#;
    assert!(metrics.contains(line), "expected {line} in:\n{metrics}");
}

#[tokio::test]
async fn the_operator_disables_enables_reloads_and_goes_back() {
    let gateway = Setup::default().plugin_as("gate", "stamp-v1").start();
    let mut client = gateway.connect("a", Form::YunqueJson).await;
    for (word, shown) in [("disable", "disabled"), ("enable", "live"), ("reload", "live"), ("rollback", "live")] {
        let (done, told) = say(&gateway, &[word, "gate"]);
        assert!(done && told.contains("gate") && told.contains(shown), "{word}: {told}");
        assert_eq!(push(&gateway, "chat").await["delivered"], 1);
        let version = client.message().await["extra"]["version"].clone();
        assert_eq!(version, if word == "disable" { Value::Null } else { json!("v1") }, "{word}");
    }
    let (done, told) = say(&gateway, &["rollback", "gate"]);
    assert!(!done && told.contains("409") && told.contains("no earlier version"), "{told}");
    let (done, told) = say(&gateway, &["enable", "nobody"]);
    assert!(!done && told.contains("404"), "{told}");
    let log = gateway.log();
    for words in ["plugin is disabled by the operator", "plugin is enabled by the operator", "plugin is rolled back"] {
        assert!(log.contains(words), "expected {words} in:\n{log}");
    }
}

/// Without the only auth plugin no client is admitted, and the node is not ready.
#[tokio::test]
async fn disabling_the_only_auth_plugin_refuses_all_clients() {
    let gateway = Gateway::start();
    gateway.post("/plugins/token-auth/disable", json!({})).await.data();
    assert_eq!(gateway.get("/health/ready").await.status, 503);
    let dial = Dial::path(format!("/ws?token={}", token::Claims::of("a").mint()));
    let mut client = Client::dial(gateway.address("ws"), Form::YunquePb, dial).await.expect("the upgrade succeeds");
    assert_eq!(client.reply().await["code"], "503");
    gateway.post("/plugins/token-auth/enable", json!({})).await.data();
    assert_eq!(gateway.get("/health/ready").await.status, 200);
    gateway.connect("a", Form::YunqueJson).await;
}
