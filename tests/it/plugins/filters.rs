//! Filters as an operator uses them: settings are edited, and files are added, broken and removed while the node runs.

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup, component};
use crate::support::wire::Form;

/// Pushes a text. Returns the text that the receiver got, if any, and the response to the back end.
async fn push(gateway: &Gateway, client: &mut Client, text: &str) -> (Option<String>, Value) {
    let body = json!({"receiver": "1074", "action": "chat", "content": {"text": text}});
    let data = gateway.post("/send", body).await.json()["data"].clone();
    let seen = client.drain().await.pop().map(|m| m["content"]["text"].as_str().unwrap().to_owned());
    (seen, data)
}

fn manifest(mode: &str, words: &str) -> String {
    format!("[settings]\nmode = \"{mode}\"\nwords = [{words}]\n")
}

#[tokio::test]
async fn an_edit_of_the_settings_shows_in_the_next_message() {
    let gateway =
        Setup::default().plugin("word-filter").manifest("word-filter", &manifest("mask", "\"nothing\"")).start();
    let mut client = gateway.connect("1074", Form::YunqueJson).await;
    assert_eq!(push(&gateway, &mut client, "好吗").await.0.as_deref(), Some("好吗"));
    let mut version = 1;
    for (mode, seen, told) in
        [("mask", Some("**"), "replaced"), ("reject", None, "rejected"), ("drop", None, "dropped")]
    {
        gateway.folder.put("word-filter.toml", manifest(mode, "\"好吗\"").as_bytes());
        let status = gateway.plugin_until("word-filter", |p| p["version"].as_u64() > Some(version)).await;
        version = status["version"].as_u64().unwrap();
        let (text, data) = push(&gateway, &mut client, "好吗").await;
        assert_eq!(text.as_deref(), seen, "{mode}: {data}");
        assert!(data.get(told).is_some(), "{mode}: {data}");
        let (harmless, _) = push(&gateway, &mut client, "fine").await;
        assert_eq!(harmless.as_deref(), Some("fine"), "{mode}");
    }
}

#[tokio::test]
async fn a_broken_edit_leaves_the_last_good_one_serving() {
    let gateway = Setup::default().plugin("word-filter").manifest("word-filter", &manifest("mask", "\"bad\"")).start();
    let mut client = gateway.connect("1074", Form::YunqueJson).await;
    for broken in ["[settings", "no_such_key = 1\n", "[settings]\nmode = \"shout\"\nwords = []\n"] {
        gateway.folder.put("word-filter.toml", broken.as_bytes());
        let told = gateway.plugin_until("word-filter", |p| p["rejected"].is_object()).await;
        assert_eq!(told["state"], "live", "{told}");
        assert!(!told["rejected"]["reason"].as_str().unwrap().is_empty());
        assert_eq!(push(&gateway, &mut client, "a bad word").await.0.as_deref(), Some("a *** word"));
        gateway.folder.put("word-filter.toml", manifest("mask", "\"bad\"").as_bytes());
        gateway.plugin_until("word-filter", |p| p["rejected"].is_null()).await;
    }
}

#[tokio::test]
async fn deleting_a_fail_closed_filter_does_not_open_the_gate() {
    let gateway = Setup::default().plugin("word-filter").manifest("word-filter", &manifest("mask", "\"bad\"")).start();
    let mut client = gateway.connect("1074", Form::YunqueJson).await;
    std::fs::remove_file(gateway.folder.plugins().join("word-filter.wasm")).unwrap();
    gateway.plugin_until("word-filter", |p| p["state"] == "missing").await;
    let body = json!({"receiver": "1074", "action": "chat", "content": {"text": "bad"}});
    let (status, words) = gateway.post("/send", body).await.fault();
    assert!(status == 503 && words.contains("plugin word-filter could not judge the message"), "{words}");
    assert_eq!(client.drain().await, Vec::<Value>::new());
    let ready = gateway.get("/health/ready").await;
    assert!(ready.status == 503 && ready.body.contains("word-filter"), "{}", ready.body);
    gateway.folder.put("word-filter.wasm", &component("word-filter"));
    gateway.plugin_until("word-filter", |p| p["state"] == "live").await;
    assert_eq!(push(&gateway, &mut client, "bad").await.0.as_deref(), Some("***"));
    assert_eq!(gateway.get("/health/ready").await.status, 200);
}

#[tokio::test]
async fn deleting_the_auth_plugin_does_not_open_the_gate_either() {
    let gateway = Gateway::start();
    let mut here = gateway.connect("1074", Form::YunqueJson).await;
    std::fs::remove_file(gateway.folder.plugins().join("token-auth.wasm")).unwrap();
    gateway.plugin_until("token-auth", |p| p["state"] == "missing").await;
    let mut late = gateway.dial_cim(Form::CimPb).await;
    let token = crate::support::token::Claims::of("late").mint();
    late.sent("client_bind", json!({"token": token})).await;
    assert_eq!(late.reply().await["key"], "client_handshake");
    // Connected clients stay connected.
    assert_eq!(push(&gateway, &mut here, "still").await.0.as_deref(), Some("still"));
}

#[tokio::test]
async fn a_filter_judges_every_ingress_once() {
    let gateway = Setup::default().plugin("stamp-v1").start();
    let mut a = gateway.connect("1074", Form::YunqueJson).await;
    let mut b = gateway.connect("b", Form::CimJson).await;
    gateway.post("/send/all", json!({"action": "chat"})).await.data();
    assert_eq!(a.message().await["extra"]["version"], "v1");
    assert!(b.message().await["extra"].as_str().unwrap().contains("v1"));
    b.ask("message", json!({"to": "user:1074", "content": "hi"})).await;
    assert_eq!(a.message().await["extra"]["version"], "v1");
    let calls = gateway.plugin_until("stamp-v1", |p| p["calls"].as_u64() >= Some(2)).await;
    assert!(calls["calls"].as_u64().unwrap() <= 3, "the filter was called for each receiver: {calls}");
}

#[tokio::test]
async fn every_ingress_passes_the_word_filter() {
    let gateway = Setup::default()
        .plugin("word-filter")
        .manifest("word-filter", &manifest("mask", "\"gossip\", \"fault_none\""))
        .plugin("fault-handler")
        .manifest("fault-handler", "grants = [\"outbox\", \"kv\", \"directory\"]\n")
        .start();
    let mut a = gateway.connect("1074", Form::YunqueJson).await;
    let mut b = gateway.connect("b", Form::CimPb).await;
    let message = json!({"receiver": "1074", "action": "chat", "content": {"text": "gossip!"}});
    let ways = [
        ("/send", message.clone()),
        ("/send/all", message.clone()),
        ("/send/sendList", json!([message])),
        ("/send/toUids", json!({"message": message, "uids": ["1074"]})),
        ("/send/other", json!({"message": message, "uids": ["b"]})),
        ("/publish", json!({"act": "SENDUID", "Uid": "1074", "msg": [message]})),
    ];
    for (path, body) in ways {
        gateway.post(path, body).await.data();
        assert_eq!(a.message().await["content"]["text"], "******!", "{path}");
    }
    let reply = b.ask("message", json!({"to": "user:1074", "content": "gossip?"})).await;
    assert_eq!(reply["code"], "200", "{reply}");
    assert_eq!(a.message().await["content"]["text"], "******?");
    // Messages pushed by a plugin are filtered too; this one has the name of the key as its text.
    let reply = b.ask("fault_none", json!({"push": "1074"})).await;
    assert_eq!(reply["code"], "200", "{reply}");
    assert_eq!(a.message().await["content"]["text"], "**********");
}

#[tokio::test]
async fn reply_to_a_client_has_the_result_of_the_filter() {
    let gateway =
        Setup::default().plugin("word-filter").manifest("word-filter", &manifest("reject", "\"bad\"")).start();
    let mut a = gateway.connect("a", Form::CimJson).await;
    let mut b = gateway.connect("b", Form::YunquePb).await;
    let reply = a.ask("message", json!({"to": "user:b", "content": "bad"})).await;
    assert_eq!((&reply["code"], &reply["message"]), (&json!("403"), &json!("the message contains a forbidden word")));
    assert_eq!(b.drain().await, Vec::<Value>::new());
}

#[tokio::test]
async fn new_file_is_loaded_and_can_be_disabled_while_the_node_runs() {
    let gateway = Gateway::start();
    let mut client = gateway.connect("1074", Form::YunqueJson).await;
    gateway.folder.put("stamp.wasm", &component("stamp-v2"));
    gateway.plugin_until("stamp", |p| p["state"] == "live").await;
    gateway.post("/send", json!({"receiver": "1074", "action": "chat"})).await.data();
    assert_eq!(client.message().await["extra"]["version"], "v2");
    gateway.folder.put("stamp.toml", b"enabled = false\n");
    gateway.plugin_until("stamp", |p| p["state"] == "disabled").await;
    gateway.post("/send", json!({"receiver": "1074", "action": "chat"})).await.data();
    assert_eq!(client.message().await.get("extra"), None);
}
