//! Plugins that trap, loop, exhaust memory, recurse and flood the log, in each role: bounded time, the declared answer,
//! and undisturbed service.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::client::{Client, Dial};
use crate::support::gateway::{Gateway, Setup};
use crate::support::wire::Form;

const FAULTS: [&str; 5] = ["trap", "spin", "hog", "overflow", "flood"];
/// No call may block its caller longer. The longest wall limit of a role is 5 s, and the machine may be ten times too
/// slow.
const BOUND: Duration = Duration::from_secs(60);

/// The tests' auth plugin uses the token as the user's name.
async fn connect(gateway: &Gateway, token: &str) -> Client {
    let dial = Dial::path("/ws").header("authorization", format!("Bearer {token}"));
    Client::dial(gateway.address("ws"), Form::YunquePb, dial).await.expect("the upgrade succeeds")
}

async fn bound(gateway: &Gateway, token: &str) -> Client {
    let mut client = connect(gateway, token).await;
    let reply = client.reply().await;
    assert_eq!((&reply["key"], &reply["code"]), (&json!("client_bind"), &json!("200")), "{token}: {reply}");
    client
}

fn setup() -> Setup {
    Setup::default().no_plugins().plugin("fault-auth")
}

#[track_caller]
fn in_time(start: Instant, fault: &str) {
    assert!(start.elapsed() < BOUND, "{fault} took {:?}", start.elapsed());
}

/// A plugin failure appears in the operator's status.
async fn counted(gateway: &Gateway, plugin: &str) {
    gateway.plugin_until(plugin, |p| p["failures"].as_u64() > Some(0)).await;
}

#[tokio::test]
async fn an_auth_plugin_that_fails_refuses() {
    for fault in FAULTS {
        let gateway = setup().start();
        let mut here = bound(&gateway, "here").await;
        let start = Instant::now();
        let mut client = connect(&gateway, fault).await;
        let reply = client.reply().await;
        in_time(start, fault);
        assert_eq!(reply["key"], "client_handshake", "{fault}: {reply}");
        assert_ne!(reply["code"], "200", "{fault}: {reply}");
        assert!(client.closed().await.is_some());
        bound(&gateway, "next").await;
        gateway.post("/send", json!({"receiver": "here", "action": "chat"})).await.data();
        assert_eq!(here.message().await["action"], "chat", "{fault}");
        counted(&gateway, "fault-auth").await;
    }
}

#[tokio::test]
async fn a_filter_that_fails_answers_503() {
    for fault in FAULTS {
        let gateway = setup().plugin("fault-filter").start();
        let mut here = bound(&gateway, "here").await;
        let start = Instant::now();
        let (status, words) = gateway.post("/send", json!({"receiver": "here", "action": fault})).await.fault();
        in_time(start, fault);
        assert!(status == 503 && words.contains("plugin fault-filter could not judge the message"), "{fault}: {words}");
        let data = gateway.post("/send", json!({"receiver": "here", "action": "chat"})).await.data();
        assert_eq!(data["delivered"], 1, "{fault}: {data}");
        let seen: Vec<_> = here.drain().await.iter().map(|m| m["action"].clone()).collect();
        assert_eq!(seen, ["chat"], "{fault}");
        counted(&gateway, "fault-filter").await;
    }
}

#[tokio::test]
async fn a_filter_may_fail_open_if_its_manifest_says_so() {
    let gateway = setup().plugin("fault-filter").manifest("fault-filter", "on_failure = \"allow\"\n").start();
    let mut here = bound(&gateway, "here").await;
    let data = gateway.post("/send", json!({"receiver": "here", "action": "trap"})).await.data();
    assert_eq!(data["delivered"], 1, "{data}");
    assert_eq!(here.message().await["action"], "trap");
}

#[tokio::test]
async fn a_handler_that_fails_answers_503_and_leaves_nothing_behind() {
    let grants = "grants = [\"outbox\", \"kv\", \"directory\"]\n";
    for fault in FAULTS {
        let gateway = setup().plugin("fault-handler").manifest("fault-handler", grants).start();
        let mut caller = bound(&gateway, "caller").await;
        let mut other = bound(&gateway, "other").await;
        let start = Instant::now();
        let effects = json!({"push": "other", "join": "lobby", "set": "half"});
        let reply = caller.ask(&format!("fault_{fault}"), effects.clone()).await;
        in_time(start, fault);
        assert_eq!(reply["code"], "503", "{fault}: {reply}");
        assert_eq!(other.drain().await.len(), 0, "{fault}: a failed call sent a message");
        assert_eq!(gateway.get("/rooms").await.data()["items"], json!([]), "{fault}");
        let value = caller.ask("fault_none", json!({"get": "1"})).await;
        assert_eq!((&value["code"], &value["data"]["value"]), (&json!("200"), &json!("")), "{fault}: {value}");
        let whole = caller.ask("fault_none", effects).await;
        assert_eq!(whole["code"], "200", "{fault}: {whole}");
        assert_eq!(other.drain().await.len(), 1, "{fault}");
    }
}

#[tokio::test]
async fn an_events_plugin_that_fails_disturbs_nobody() {
    for fault in FAULTS {
        let gateway = setup().plugin("fault-events").manifest("fault-events", "grants = [\"outbox\"]\n").start();
        let mut here = bound(&gateway, "here").await;
        let start = Instant::now();
        // The user's name is the fault that its `online` event triggers; the token must not be one.
        let _bad = bound(&gateway, &format!("{fault}@device")).await;
        gateway.post("/send", json!({"receiver": "here", "action": "chat"})).await.data();
        assert_eq!(here.message().await["action"], "chat", "{fault}");
        counted(&gateway, "fault-events").await;
        in_time(start, fault);
    }
}

#[tokio::test]
async fn spinning_calls_at_once_do_not_starve_others() {
    let gateway = setup().plugin("fault-filter").start();
    let mut here = bound(&gateway, "here").await;
    let start = Instant::now();
    let bad = (0..8).map(|_| gateway.post("/send", json!({"receiver": "here", "action": "spin"})));
    let answers = futures_util::future::join_all(bad).await;
    assert!(answers.iter().all(|a| a.fault().0 == 503));
    in_time(start, "eight loops at once");
    let fresh = bound(&gateway, "fresh").await;
    drop(fresh);
    assert_eq!(here.drain().await.len(), 0);
}
