//! Secrets: no log line and no metric shows one, in any place where a client or back end may put it, even at `trace`.

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::support::client::{Client, Dial, Seen};
use crate::support::gateway::{Gateway, Setup};
use crate::support::token::Claims;
use crate::support::wire::{Form, Frame};

const KEY: &str = "secret-canary-0123456789abcdef";
/// Stands in the place of a token; no plugin admits it.
const BAD: &str = "secret-canary-no-token";

fn start(folder: &str) -> Gateway {
    let log = format!("log:\n  level: trace\n  file: {folder}/node.log\n  rotation: never\n");
    let keys = format!("api:\n  keys:\n    - name: shop\n      key: {KEY}\n");
    Setup::default().plugin("word-filter").plugin("video-call").yaml(&(log + &keys)).start()
}

/// Every place of a handshake that may hold a token.
fn dials(gateway: &Gateway, token: &str) -> Vec<Dial> {
    let origin = format!("http://{}", gateway.address("ws"));
    vec![
        Dial::path(format!("/ws?token={token}&device=d")),
        Dial::path("/ws").header("authorization", format!("Bearer {token}")),
        Dial::path("/ws").header("cookie", format!("token={token}")).header("origin", origin),
        Dial::path("/ws").subprotocol("yunque.json").subprotocol(format!("bearer.{token}")),
        // Refused before the token is read.
        Dial::path(format!("/ws?token={token}&dialect=morse")),
        Dial::path("/ws").header("cookie", format!("token={token}")).header("origin", "https://evil.example"),
        Dial::path("/ws").subprotocol("morse").subprotocol(format!("bearer.{token}")),
        Dial::path(format!("/nowhere?token={token}")),
    ]
}

async fn present(gateway: &Gateway, token: &str) {
    for dial in dials(gateway, token) {
        let form = if dial.subprotocols.is_empty() { Form::YunquePb } else { Form::YunqueJson };
        if let Ok(client) = Client::dial(gateway.address("ws"), form, dial).await {
            client.close().await;
        }
    }
    for form in Form::ALL {
        for data in [json!({"token": token}), json!({"uid": token}), json!({"token": token, "deviceId": "a,b"})] {
            let mut client = unbound(gateway, form).await;
            client.sent("client_bind", data).await;
            assert!(matches!(client.next().await, Seen::Frame(Frame::Reply(_))), "{form:?}");
            // A refused client may be closed by now; its frames are lost then.
            client.sent("client_refresh", json!({"token": token})).await;
            client.close().await;
        }
    }
}

async fn unbound(gateway: &Gateway, form: Form) -> Client {
    if form.is_cim() {
        return gateway.dial_cim(form).await;
    }
    let dial = Dial::path("/ws").subprotocol(form.subprotocol());
    Client::dial(gateway.address("ws"), form, dial).await.expect("the upgrade succeeds")
}

/// Frames that are malformed at the position of the token.
async fn garble(gateway: &Gateway) {
    let texts = [
        format!(r#"{{"type":3,"content":"{{\"key\":\"client_bind\",\"data\":\"{BAD}\"}}"}}"#),
        format!(r#"{{"type":3,"content":"{{\"key\":\"client_bind\",\"data\":{{\"token\":\"{BAD}\",\"token\":1}}}}"}}"#),
        format!(r#"{{"type":3,"content":"{BAD}"}}"#),
        format!(r#"{{"type":"{BAD}"}}"#),
        BAD.to_owned(),
    ];
    for text in texts {
        let mut client = unbound(gateway, Form::YunqueJson).await;
        client.raw(Message::text(text)).await;
        assert_eq!(client.close_code().await, 4500);
    }
    let mut client = unbound(gateway, Form::YunquePb).await;
    client.raw(Message::binary([b"\x03\x0a\x7f", BAD.as_bytes()].concat())).await;
    assert_eq!(client.close_code().await, 4500);
}

async fn push(gateway: &Gateway) {
    let mut http = gateway.http().await;
    let body: Value = json!({"receiver": "1074", "action": "chat"});
    for (header, key, status) in [
        ("authorization", format!("Bearer {KEY}"), 200),
        ("x-api-key", KEY.to_owned(), 200),
        ("authorization", format!("Bearer {BAD}-as-a-key"), 401),
        ("authorization", format!("Basic {BAD}"), 401),
        ("x-api-key", format!("{KEY}-and-more"), 401),
    ] {
        http.headers = vec![(header, key)];
        assert_eq!(http.post("/send", &body).await.status, status, "{header}");
    }
    http.headers.clear();
    assert_eq!(http.get(&format!("/rooms?key={BAD}")).await.status, 401);
    http.headers = vec![("x-api-key", KEY.to_owned())];
    assert_eq!(http.get(&format!("/rooms?key={BAD}")).await.status, 400);
}

#[tokio::test]
async fn secrets_appear_in_no_log_and_no_metric() {
    let folder = tempfile::tempdir().unwrap();
    let mut gateway = start(folder.path().to_str().unwrap());
    let token = Claims::of("1074").mint();
    let signature = token.rsplit('.').next().unwrap().to_owned();
    present(&gateway, &token).await;
    present(&gateway, BAD).await;
    garble(&gateway).await;
    push(&gateway).await;
    let metrics = gateway.get("/metrics").await;
    assert_eq!(metrics.status, 200, "{}", metrics.body);
    gateway.signal(rustix::process::Signal::TERM);
    assert_eq!(gateway.exit().await.code(), Some(0));
    let file = std::fs::read_to_string(folder.path().join("node.log")).unwrap();
    assert!(file.contains("\"TRACE\"") && file.contains("drained"), "the log file is not complete at level trace");
    for (place, text) in [("the log", &gateway.log()), ("the log file", &file), ("the metrics", &metrics.body)] {
        for secret in [signature.as_str(), "secret-canary"] {
            let line = text.lines().find(|line| line.contains(secret));
            assert_eq!(line, None, "{place} contains {secret}");
        }
    }
}

#[tokio::test]
async fn no_metric_has_a_user_a_room_or_a_device_in_its_labels() {
    let gateway = Setup::default().plugin("word-filter").yaml("clients:\n  publish: true").start();
    let claims = Claims::of("kestrel-user").device("kestrel-device").rooms(&["kestrel-room"]);
    let (mut client, _) = gateway.connect_as(claims, Form::YunquePb).await;
    client.ask("message", json!({"to": "room:kestrel-room", "action": "kestrel-action"})).await;
    client.ask("kestrel-key", json!({})).await;
    for body in [json!({"receiver": "kestrel-user", "action": "kestrel-action"}), json!({"receiver": "kestrel-off"})] {
        gateway.post("/send", body).await.data();
    }
    gateway.get("/kestrel-path").await.fault();
    let page = gateway.get("/metrics").await.body;
    assert!(page.contains("skylark_") && !page.contains("kestrel"), "{page}");
}
