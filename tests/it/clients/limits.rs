//! Limits on clients: connections and connects per address, trickling heads, bodies and frames, and slow readers.

use std::net::SocketAddr;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::{Client, Dial, within};
use crate::support::gateway::{Gateway, Setup};
use crate::support::token::Claims;
use crate::support::wire::Form;

const UPGRADE: &str = "GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                       Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// Writes `first`, then `more` repeatedly until the node closes the connection; returns the node's output.
async fn trickle(address: SocketAddr, first: &[u8], more: &[u8]) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(first).await.unwrap();
    let (mut reading, mut writing) = stream.split();
    let mut said = Vec::new();
    let write = async {
        let mut beat = tokio::time::interval(std::time::Duration::from_millis(50));
        loop {
            beat.tick().await;
            if more.is_empty() || writing.write_all(more).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        _ = within("the close of a trickling connection", reading.read_to_end(&mut said)) => {}
        () = write => {}
    }
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test]
async fn trickling_client_is_closed_in_time() {
    let limits = "limits:\n  connections_per_ip: 0\n  connects_per_ip: 0\n  handshake: 3s\n  first_frame: 3s\n  \
                  message_timeout: 3s";
    let gateway = Setup::default().yaml(limits).start();
    let (ws, cim, tcp) = (gateway.address("ws"), gateway.address("cim"), gateway.address("cim-tcp"));
    let head = b"GET /rooms HTTP/1.1\r\nHost: localhost\r\n".as_slice();
    let body = b"POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{".as_slice();
    let chunks = b"POST /send HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n".as_slice();
    // A masked frame of 1 000 bytes.
    let frame = [UPGRADE.as_bytes(), &[0x82, 0xfe, 3, 0xe8, 0, 0, 0, 0, 3]].concat();
    let rows = [
        ("a head", ws, head, b"x: y\r\n".as_slice(), ""),
        ("silence", ws, b"", b"", ""),
        ("silence where cim is served", cim, b"", b"", ""),
        ("a body", ws, body, b" ", "HTTP/1.1 408 "),
        ("chunks", ws, chunks, b"1\r\n \r\n", "HTTP/1.1 408 "),
        ("no first frame", cim, UPGRADE.as_bytes(), b"", "frame not finished in time"),
        ("a frame", cim, frame.as_slice(), b"x", "frame not finished in time"),
        ("half a head of TCP", tcp, b"\x03\x05", b"", ""),
        ("a body of TCP", tcp, b"\x03\xff\xff", b"x", ""),
    ];
    let all = rows.map(|(what, address, first, more, told)| async move {
        let said = trickle(address, first, more).await;
        assert!(said.contains(told), "{what}: {said:?}");
    });
    futures_util::future::join_all(all).await;
}

#[tokio::test]
async fn connection_beyond_the_limit_of_an_address_is_refused() {
    let gateway = Setup::default().yaml("limits:\n  connections_per_ip: 4\n  connects_per_ip: 0").start();
    let mut clients = vec![gateway.connect("a", Form::YunquePb).await, gateway.connect("b", Form::YunqueJson).await];
    clients.push(gateway.connect("c", Form::CimPb).await);
    clients.push(gateway.connect("d", Form::CimTcp).await);
    for service in ["ws", "cim", "cim-tcp"] {
        let said = trickle(gateway.address(service), b"", b"").await;
        assert_eq!(said, "", "{service}: a connection above the limit got an answer");
    }
    for client in clients {
        client.close().await;
    }
    let again = async {
        loop {
            let mut stream = TcpStream::connect(gateway.address("ws")).await.unwrap();
            let request = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
            let mut said = String::new();
            let asked = stream.write_all(request).await.is_ok() && stream.read_to_string(&mut said).await.is_ok();
            if asked && said.starts_with("HTTP/1.1 200 ") {
                return;
            }
        }
    };
    within("free connection permits", again).await;
}

#[tokio::test]
async fn connects_beyond_the_rate_of_an_address_are_refused() {
    let gateway = Setup::default().yaml("limits:\n  connections_per_ip: 0\n  connects_per_ip: 1").start();
    // Ten connects are allowed at once. Pushes do not count as connects: a back end may send any number.
    let dials = (0..40).map(|_| async {
        let dial = Dial::path(format!("/ws?token={}", Claims::of("a").mint()));
        let dialled = Client::dial(gateway.address("ws"), Form::YunquePb, dial).await;
        gateway.post("/send", json!({"receiver": "a", "action": "chat"})).await.data();
        dialled.err()
    });
    let told = futures_util::future::join_all(dials).await;
    let (status, words) = told.into_iter().flatten().next().expect("one of forty simultaneous connects is refused");
    assert!(status == 429 && words.contains("too many connection attempts"), "{status}: {words}");
    let said = trickle(gateway.address("cim"), UPGRADE.as_bytes(), b"").await;
    assert_eq!(said, "", "a listener for clients answered a refused connection");
}

/// Only one of the two lengths counts, and bytes after the body are not parsed as a request.
#[tokio::test]
async fn request_with_two_body_lengths_smuggles_nothing() {
    let gateway = Gateway::start();
    let mut user = gateway.connect("1074", Form::YunquePb).await;
    let body = r#"{"receiver":"1074","action":"smuggled"}"#;
    let inner = format!("POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    for lengths in [
        format!("Content-Length: {}\r\nTransfer-Encoding: chunked", inner.len() + 5),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {}", inner.len() + 5),
        "Content-Length: 5\r\nContent-Length: 6".to_owned(),
        "Transfer-Encoding: chunked, identity".to_owned(),
    ] {
        let request = format!("GET /rooms HTTP/1.1\r\nHost: localhost\r\n{lengths}\r\n\r\n0\r\n\r\n{inner}");
        let said = trickle(gateway.address("api"), request.as_bytes(), b"").await;
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{lengths}: {said}");
    }
    assert_eq!(user.drain().await, Vec::<serde_json::Value>::new());
}

async fn connections(gateway: &Gateway) -> usize {
    gateway.get("/connections").await.data()["items"].as_array().unwrap().len()
}

#[tokio::test]
async fn client_that_does_not_read_is_closed_without_delaying_others() {
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
    within("the close of the slow consumer", flood).await;
    // At last the client reads complete frames in order, and the close reason if its socket could still carry it.
    let closed = slow.closed().await;
    assert!(closed.is_none_or(|(code, _)| code == 4008), "another close code than 4008 after {sent} messages");
    let metrics = gateway.get("/metrics").await.body;
    assert!(
        metrics.contains("skylark_closed_total{code=\"4008\"} 1"),
        "skylark_closed_total does not count the slow consumer: {metrics}"
    );
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
async fn bad_and_oversized_heads_are_refused() {
    let gateway = Gateway::start();
    let many = (0..200).fold(String::new(), |head, n| format!("{head}x-{n}: 1\r\n"));
    for head in [
        format!("GET /health/live HTTP/1.1\r\nhost: localhost\r\n{many}\r\n"),
        format!("GET /health/live HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(64 << 10)),
        "GET /health/live HTTP/1.1\r\nhost : localhost\r\n\r\n".to_owned(),
        "nonsense\r\n\r\n".to_owned(),
    ] {
        let mut stream = TcpStream::connect(gateway.address("api")).await.unwrap();
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = within("the close of the connection", stream.read_to_end(&mut answer)).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(!answer.starts_with("HTTP/1.1 200"), "{head:.80}: {answer}");
    }
    assert_eq!(gateway.get("/health/live").await.status, 200);
}
