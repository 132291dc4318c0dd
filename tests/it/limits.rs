//! Bounds that protect the many from the few: slow readers, silent callers, too many from one address.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::{Client, Dial, within};
use crate::support::gateway::{Gateway, Setup};
use crate::support::token::Claims;
use crate::support::wire::Form;

async fn connections(gateway: &Gateway) -> usize {
    gateway.get("/connections").await.data()["items"].as_array().unwrap().len()
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_holds_nobody_up() {
    let gateway = Setup::default().yaml("queue:\n  bytes: 256KiB\n  write_timeout: 2s").start();
    let mut slow = gateway.connect("slow", Form::YunquePb).await;
    let mut quick = gateway.connect("quick", Form::YunquePb).await;
    let body = json!({"action": "chat", "content": {"text": "x".repeat(60_000)}});
    let mut http = gateway.http().await;
    let mut sent = 0;
    let flood = async {
        while connections(&gateway).await == 2 {
            let data = http.post("/send/all", &body).await.data();
            sent += 1;
            assert!(data["delivered"].as_u64() >= Some(1), "{data}");
            assert_eq!(quick.message().await["action"], "chat");
        }
    };
    within("the end of the slow one", flood).await;
    // What it reads at last is whole frames in order, and why it ended, if its socket still could carry that.
    let closed = slow.closed().await;
    assert!(closed.is_none_or(|(code, _)| code == 4008), "after {sent} messages");
    let metrics = gateway.get("/metrics").await.body;
    assert!(metrics.contains("skylark_closed_total{code=\"4008\"} 1"), "its end is counted: {metrics}");
}

#[tokio::test]
async fn who_says_nothing_is_let_go() {
    let gateway = Setup::default()
        .yaml("limits:\n  handshake: 1s\n  first_frame: 1s\n  unbound: 1s\n  unbound_max: 1s\n  message_timeout: 1s")
        .start();
    for (service, head) in [
        ("ws", ""),
        ("ws", "GET /ws HTTP/1.1\r\nhost: x\r\n"),
        ("cim", "GET / HT"),
        ("cim-tcp", ""),
        ("cim-tcp", "\x03\x10"),
    ] {
        let mut stream = TcpStream::connect(gateway.address(service)).await.unwrap();
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let _ = within(&format!("the end of a silent {service}"), stream.read_to_end(&mut rest)).await;
    }
    let mut silent = gateway.dial_cim(Form::CimPb).await;
    let closed = silent.closed().await;
    assert!(closed.is_none_or(|(code, _)| code == 4005), "nothing is said before the first frame but the end");
}

#[tokio::test]
async fn one_address_holds_only_so_many_connections() {
    let limits = "limits:\n  connections_per_ip: 3\n  connects_per_ip: 0";
    let gateway = Setup::default().yaml(limits).start();
    let mut held = Vec::new();
    for n in 0..3 {
        held.push(gateway.connect(&format!("u{n}"), Form::CimTcp).await);
    }
    let token = Claims::of("late").mint();
    let mut stream = TcpStream::connect(gateway.address("cim-tcp")).await.unwrap();
    let mut said = Vec::new();
    let _ = within("a refusal", stream.read_to_end(&mut said)).await;
    assert!(!String::from_utf8_lossy(&said).contains("200"));
    held.pop().unwrap().close().await;
    // Its place is free once the node has seen the end.
    let again = async {
        loop {
            let stream = TcpStream::connect(gateway.address("ws")).await.unwrap();
            drop(stream);
            let dial = Dial::path(format!("/ws?token={token}"));
            if let Some(client) = try_dial(&gateway, dial).await {
                return client;
            }
        }
    };
    within("a free place", again).await;
}

/// A connection, or nothing where the node is full.
async fn try_dial(gateway: &Gateway, dial: Dial) -> Option<Client> {
    let address = gateway.address("ws");
    let dialled = tokio::spawn(async move { Client::dial(address, Form::YunquePb, dial).await }).await;
    let mut client = dialled.ok()?.ok()?;
    match client.next().await {
        crate::support::client::Seen::Frame(_) => Some(client),
        crate::support::client::Seen::Closed(_) => None,
    }
}

#[tokio::test]
async fn a_token_in_the_query_can_be_switched_off() {
    let gateway = Setup::default().listeners(&["serves: [ws, api]\nquery_token: false"]).start();
    let token = Claims::of("1074").mint();
    let refused = Client::dial(gateway.address("ws"), Form::YunquePb, Dial::path(format!("/ws?token={token}"))).await;
    match refused {
        Err((status, words)) => assert!((400..500).contains(&status) && !words.contains(&token), "{status} {words}"),
        Ok(mut client) => assert!(client.close_code().await >= 4500),
    }
    let dial = Dial::path("/ws").header("authorization", format!("Bearer {token}"));
    let mut client = Client::dial(gateway.address("ws"), Form::YunquePb, dial).await.unwrap();
    assert_eq!(client.reply().await["code"], "200");
}

#[tokio::test]
async fn smuggled_and_oversized_heads_are_refused() {
    let gateway = Gateway::start();
    let many = (0..200).fold(String::new(), |head, n| format!("{head}x-{n}: 1\r\n"));
    for head in [
        "POST /send HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n{}".to_owned(),
        format!("GET /health/live HTTP/1.1\r\nhost: x\r\n{many}\r\n"),
        format!("GET /health/live HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(64 << 10)),
        "GET /health/live HTTP/1.1\r\nhost : x\r\n\r\n".to_owned(),
        "nonsense\r\n\r\n".to_owned(),
    ] {
        let mut stream = TcpStream::connect(gateway.address("api")).await.unwrap();
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = within("an end", stream.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(!answer.starts_with("HTTP/1.1 200"), "{head:.80}: {answer}");
    }
    assert_eq!(gateway.get("/health/live").await.status, 200);
}
