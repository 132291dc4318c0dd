//! A bad version goes back by itself, and what the operator says takes effect: by the API, by the command line, in the log.

use std::process::Command;

use serde_json::{Value, json};

use crate::support::client::{Client, Dial};
use crate::support::gateway::{Gateway, Setup, component};
use crate::support::token;
use crate::support::wire::Form;

async fn push(gateway: &Gateway, action: &str) -> Value {
    gateway.post("/send", json!({"receiver": "a", "action": action})).await.data()
}

#[tokio::test]
async fn a_version_that_traps_is_rolled_back_and_shown() {
    let gateway = Setup::default().plugin_as("gate", "stamp-v1").start();
    let mut client = gateway.connect("a", Form::YunqueJson).await;
    let good = gateway.plugin_until("gate", |_| true).await;
    gateway.folder.put("gate.wasm", &component("fault-filter"));
    let new = gateway.plugin_until("gate", |gate| gate["version"] == 2).await;
    assert_eq!((&new["probation"], &new["previous"]), (&json!(true), &good["hash"]), "{new}");
    for _ in 0..10 {
        assert_eq!(push(&gateway, "trap").await["rejected"]["code"], "503");
    }
    let back = gateway.plugin_until("gate", |gate| gate["version"] == 1).await;
    assert_eq!((&back["hash"], &back["state"]), (&good["hash"], &json!("live")), "{back}");
    assert_eq!(back["rejected"]["hash"], new["hash"], "{back}");
    assert!(back["rejected"]["reason"].as_str().unwrap().starts_with("rolled back: its circuit opened after 10 calls"));
    assert_eq!(push(&gateway, "chat").await["delivered"], 1);
    assert_eq!(client.message().await["extra"]["version"], "v1");
    gateway.said("plugin is rolled back").await;
    let metrics = gateway.get("/metrics").await.body;
    for line in [
        r#"skylark_plugin_reloads_total{plugin="gate",outcome="rolled_back"} 1"#,
        r#"skylark_plugin_circuits_opened_total{plugin="gate"} 1"#,
        r#"skylark_plugin_version{plugin="gate"} 1"#,
        r#"skylark_plugin_circuit_open{plugin="gate"} 0"#,
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
}

fn say(gateway: &Gateway, arguments: &[&str]) -> (bool, String) {
    let url = format!("http://{}", gateway.address("api"));
    let mut command: Command = gateway.folder.command("plugin");
    let output = command.args(arguments).args(["--url", &url]).output().unwrap();
    let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
    (output.status.success(), told)
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
        assert!(log.contains(words), "{words} is not in\n{log}");
    }
}

/// Without the only auth plugin nobody gets in, and the node is not ready.
#[tokio::test]
async fn disabling_the_only_auth_plugin_shuts_the_door() {
    let gateway = Gateway::start();
    gateway.post("/plugins/token-auth/disable", json!({})).await.data();
    assert_eq!(gateway.get("/health/ready").await.status, 503);
    let dial = Dial::path(format!("/ws?token={}", token::Claims::of("a").mint()));
    let mut client = Client::dial(gateway.address("ws"), Form::YunquePb, dial).await.expect("an upgrade");
    assert_eq!(client.reply().await["code"], "503");
    gateway.post("/plugins/token-auth/enable", json!({})).await.data();
    assert_eq!(gateway.get("/health/ready").await.status, 200);
    gateway.connect("a", Form::YunqueJson).await;
}
