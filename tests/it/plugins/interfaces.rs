//! The interfaces of plugins end to end: the test plugin `probe` calls them as its client requests.

use std::net::SocketAddr;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::gateway::{Gateway, Setup};
use crate::support::token::Claims;
use crate::support::wire::Form;

const GRANTS: &str = "grants = [\"directory\", \"outbox\", \"timers\", \"login\", \"kv\", \"counters\", \"http\"]";

/// A message to a user without a connection goes to the user `pager`, by way of the history.
#[tokio::test]
async fn plugin_reads_the_kept_message_that_its_receipt_names() {
    let grants = "grants = [\"history\", \"outbox\"]";
    let gateway = Setup::default().plugin("pager").manifest("pager", grants).start();
    let plugin = gateway.plugin_until("pager", |plugin| plugin["state"] == "live").await;
    assert_eq!(plugin["roles"], json!(["events", "receipts"]), "{plugin}");
    let mut pager = gateway.connect("pager", Form::YunqueJson).await;
    let said = pager.ask("message", json!({"to": "user:1074", "content": "anybody there?"})).await;
    assert_eq!(said["data"]["delivered"], "0", "{said}");
    let page = pager.message().await;
    let told = (&page["action"], &page["sender"], &page["content"]["text"]);
    assert_eq!(told, (&json!("page"), &json!("1074"), &json!("anybody there?")), "{page}");

    // A user who is online lacks nothing, and a client that comes back is told, too.
    let mut user = gateway.connect("1074", Form::YunqueJson).await;
    let said = pager.ask("message", json!({"to": "user:1074", "content": "hello"})).await;
    assert_eq!((&said["data"]["delivered"], &user.message().await["content"]["text"]), (&json!("1"), &json!("hello")));
    let said = pager.ask("message", json!({"to": "user:1076", "content": "and you?"})).await;
    assert_eq!(said["data"]["delivered"], "0", "{said}");
    assert_eq!(pager.message().await["sender"], "1076", "the message to 1074 was delivered");
    let mut back = gateway.dial_cim(Form::CimJson).await;
    let resume = json!([["u", "k3v9x0ab", 1, 7]]).to_string();
    let bind = json!({"token": Claims::of("1074").mint(), "channel": "web", "resume": resume});
    back.sent("client_bind", bind).await;
    assert_eq!(back.reply().await["code"], "200");
    let resumed = pager.message().await;
    let told = (&resumed["action"], &resumed["content"]["text"]);
    assert_eq!(told, (&json!("resumed"), &json!("u:1074 false Some(0)")), "{resumed}");
}

/// A web server: answers `/moved` with a redirect, `/silent` not at all, and any other path with `hello`.
async fn web() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut tcp, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut head = Vec::new();
                while tcp.read_buf(&mut head).await.is_ok_and(|read| read > 0) {
                    let path = String::from_utf8_lossy(&head).split(' ').nth(1).unwrap_or_default().to_owned();
                    let answer = match path.as_str() {
                        "/moved" => "HTTP/1.1 301 Moved\r\nlocation: /\r\ncontent-length: 0\r\n\r\n",
                        "/silent" => continue,
                        _ => "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
                    };
                    head.clear();
                    tcp.write_all(answer.as_bytes()).await.unwrap();
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn plugin_http_request_beyond_its_allow_list_is_refused() {
    let web = web().await;
    let manifest = format!("{GRANTS}\n[http]\nallow = [\"http://{web}\"]\nprivate = [\"127.0.0.1\"]");
    let gateway = Setup::default().plugin("probe").manifest("probe", &manifest).start();
    let mut client = gateway.connect("1074", Form::YunqueJson).await;
    let answer = client.ask("probe_http", json!({"url": format!("http://{web}/x")})).await;
    assert_eq!((&answer["data"]["status"], &answer["data"]["value"]), (&json!("200"), &json!("hello")), "{answer}");
    let moved = client.ask("probe_http", json!({"url": format!("http://{web}/moved")})).await;
    assert_eq!((&moved["data"]["status"], &moved["data"]["location"]), (&json!("301"), &json!("/")), "{moved}");
    let late = client.ask("probe_http", json!({"url": format!("http://{web}/silent"), "timeout": "50"})).await;
    assert!(late["message"].as_str().unwrap().contains("Timeout"), "{late}");
    let other = client.ask("probe_http", json!({"url": "https://example.com/"})).await;
    let why = other["message"].as_str().unwrap();
    assert!(why.contains("[http]: allow = ["), "{why}");
    let smuggled = client.ask("probe_http", json!({"url": format!("http://{web}/"), "header": "Host"})).await;
    assert!(smuggled["message"].as_str().unwrap().contains("is set by the host"), "{smuggled}");

    let public_only = format!("{GRANTS}\n[http]\nallow = [\"http://{web}\"]");
    gateway.folder.put("probe.toml", public_only.as_bytes());
    gateway.plugin_until("probe", |plugin| plugin["version"] == 2).await;
    let private = client.ask("probe_http", json!({"url": format!("http://{web}/x")})).await;
    assert!(private["message"].as_str().unwrap().contains("private = [\\\"127.0.0.1\\\"]"), "{private}");
}

fn start() -> Gateway {
    Setup::default().plugin("probe").manifest("probe", GRANTS).start()
}

#[tokio::test]
async fn plugin_login_binds_a_waiting_connection() {
    let gateway = start();
    let mut desk = gateway.dial_cim(Form::CimJson).await;
    let mut phone = gateway.connect("1074", Form::YunquePb).await;
    let waiting = desk.ask("probe_me", json!({})).await;
    assert_eq!((&waiting["code"], &waiting["data"]["uid"]), (&json!("200"), &json!("")), "{waiting}");
    let cid = waiting["data"]["value"].clone();
    let login = json!({"cid": cid, "uid": "1074", "device": "desk", "channel": "web", "room": "lobby"});
    assert_eq!(phone.ask("probe_login", login).await["code"], "200");

    let told = desk.reply().await;
    assert_eq!(
        (&told["key"], &told["code"], &told["data"]["uid"]),
        (&json!("client_bind"), &json!("200"), &json!("1074"))
    );
    assert_eq!(told["data"]["cid"], cid);
    assert_eq!(desk.ask("probe_me", json!({})).await["data"]["uid"], "1074");
    let known = phone.ask("probe_directory", json!({"uid": "1074"})).await;
    assert_eq!((&known["data"]["devices"], &known["data"]["rooms"]), (&json!("desk"), &json!("lobby")), "{known}");

    // The connection acts as that user, in that room, and receives that user's messages.
    let said = desk.ask("message", json!({"to": "room:lobby", "content": "hi"})).await;
    assert_eq!(said["code"], "200", "{said}");
    let pushed = phone.ask("message", json!({"to": "user:1074", "content": "to myself"})).await;
    assert_eq!(pushed["data"]["delivered"], "1", "{pushed}");
    let message = desk.message().await;
    assert_eq!(message["sender"], "1074", "{message}");

    // The next device of that kind replaces it.
    let mut other = gateway.dial_cim(Form::CimPb).await;
    let cid = other.ask("probe_me", json!({})).await["data"]["value"].clone();
    let login = json!({"cid": cid, "uid": "1074", "device": "laptop", "channel": "mac"});
    assert_eq!(phone.ask("probe_login", login).await["code"], "200");
    assert_eq!(desk.message().await["action"], "999");
    assert_eq!(desk.close_code().await, 4502);
    assert_eq!(other.reply().await["key"], "client_bind");
}

#[tokio::test]
async fn plugin_login_moves_a_guest_to_its_user_and_out_of_its_rooms() {
    let gateway = start();
    let mut guest = gateway.connect("guest-1", Form::YunqueJson).await;
    guest.ask("room_join", json!({"room": "visitors"})).await;
    let cid = guest.ask("probe_me", json!({})).await["data"]["value"].clone();
    guest.sent("probe_login", json!({"cid": cid, "uid": "1074", "room": "members"})).await;
    let (first, second) = (guest.reply().await, guest.reply().await);
    assert_eq!((&first["key"], &second["key"]), (&json!("client_bind"), &json!("probe_login")), "{first} {second}");
    let nobody = guest.ask("probe_directory", json!({"uid": "guest-1"})).await;
    assert_eq!(nobody["data"]["rooms"], "", "{nobody}");
    let member = guest.ask("probe_directory", json!({"uid": "1074"})).await;
    assert_eq!(member["data"]["rooms"], "members", "{member}");
    let refused = guest.ask("message", json!({"to": "room:visitors", "content": "hi"})).await;
    assert_eq!(refused["code"], "403", "{refused}");
    let gone = guest.ask("probe_login", json!({"cid": "4503599627370496", "uid": "1"})).await;
    assert!(gone["message"].as_str().unwrap().contains("Gone"), "{gone}");
}
