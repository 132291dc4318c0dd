//! 64-bit message ids of back ends: JSON clients get ids that JavaScript would round as text.

use std::process::Stdio;

use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::support::client::within;
use crate::support::gateway::Gateway;
use crate::support::token::Claims;
use crate::support::wire::Form;

/// 2^53 − 1, the largest integer that JavaScript represents exactly.
const SAFE: i64 = (1 << 53) - 1;

#[tokio::test]
async fn large_id_is_a_text_in_json_and_a_number_elsewhere() {
    let gateway = Gateway::start();
    let mut http = gateway.http().await;
    for form in Form::ALL {
        let mut client = gateway.connect(form.subprotocol(), form).await;
        for id in [1, SAFE, SAFE + 1, i64::MAX, -SAFE, i64::MIN] {
            let body = json!({"receiver": form.subprotocol(), "action": "chat", "id": id});
            let data = http.post("/send", &body).await.data();
            let is_safe = id.unsigned_abs() <= SAFE.unsigned_abs();
            assert_eq!(data["id"], if is_safe { json!(id) } else { json!(id.to_string()) });
            let expected = if is_safe || !form.is_json() { json!(id) } else { json!(id.to_string()) };
            assert_eq!(client.message().await["id"], expected, "{form:?}");
        }
        drop(client);
    }
    // As JavaScript back ends write the id.
    let data = http.post("/send", &json!({"receiver": "nobody", "id": i64::MAX.to_string()})).await.data();
    assert_eq!(data["id"], i64::MAX.to_string());
}

/// A client with Node.js' own WebSocket: prints a line when it is bound, then the id of each message.
const SCRIPT: &str = r#"
const socket = new WebSocket(process.argv[1], ["yunque.json"]);
socket.onmessage = ({ data }) => {
    const frame = JSON.parse(data);
    const body = frame.content ? JSON.parse(frame.content) : {};
    if (frame.type === 4) console.log("bound");
    if (frame.type === 2) console.log(String(body.id));
};
"#;

#[tokio::test]
async fn javascript_client_sees_every_digit_of_an_id() {
    let gateway = Gateway::start();
    let url = format!("ws://{}/ws?token={}", gateway.address("ws"), Claims::of("1074").mint());
    let mut command = Command::new("node");
    command.args(["--no-warnings", "--experimental-websocket", "-e", SCRIPT, &url]);
    let mut node =
        command.stdout(Stdio::piped()).kill_on_drop(true).spawn().expect("Node.js starts; tests/run requires it");
    let mut lines = BufReader::new(node.stdout.take().unwrap()).lines();
    let mut line =
        async || within("a line of the client", lines.next_line()).await.unwrap().expect("the client prints a line");
    assert_eq!(line().await, "bound");
    for id in [748, SAFE, SAFE + 2, i64::MAX, i64::MIN] {
        gateway.post("/send", json!({"receiver": "1074", "action": "chat", "id": id})).await.data();
        assert_eq!(line().await, id.to_string());
    }
}

#[tokio::test]
async fn byte_order_mark_before_a_body_is_passed_over() {
    let gateway = Gateway::start();
    let mut client = gateway.connect("1074", Form::YunquePb).await;
    let mut http = gateway.http().await;
    let kinds = ["application/json", "application/x-www-form-urlencoded"];
    for (kind, path, body) in kinds.into_iter().flat_map(|kind| {
        [
            (kind, "/send", json!({"receiver": "1074", "action": "chat"})),
            (kind, "/send/sendList", json!([{"receiver": "1074", "action": "chat"}])),
            (kind, "/send/room", json!({"room": "lobby", "message": {}})),
            (kind, "/publish", json!({"Uid": "1074", "msg": [{"action": "chat"}]})),
            (kind, "/kick", json!({"uid": "nobody"})),
        ]
    }) {
        let bytes = format!("\u{feff}{body}");
        http.request("POST", path, &[("content-type", kind)], bytes.as_bytes()).await.data();
    }
    assert_eq!(client.drain().await.len(), 6);
}
