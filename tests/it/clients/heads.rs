//! Request heads, byte by byte: framing that two servers could parse differently, hosts, handshakes, and clients that
//! do not read their responses.

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::{Client, Dial, within};
use crate::support::gateway::{Gateway, Setup};
use crate::support::tls::Pair;
use crate::support::token::Claims;
use crate::support::wire::Form;

/// Handshake fields other than Host, Connection and Upgrade.
const KEY: &str = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Writes `bytes` and returns everything that the node sends before it closes the connection.
async fn exchange(gateway: &Gateway, service: &str, bytes: &[u8]) -> String {
    let mut stream = gateway.pipe(service).await;
    // The node may close the connection during the write.
    let _ = stream.write_all(bytes).await;
    let mut said = Vec::new();
    let _ = within("the node to close the connection", stream.read_to_end(&mut said)).await;
    String::from_utf8_lossy(&said).into_owned()
}

/// Writes `bytes` and returns the first line of the response.
async fn status(gateway: &Gateway, service: &str, bytes: &[u8]) -> String {
    let mut stream = gateway.pipe(service).await;
    stream.write_all(bytes).await.unwrap();
    let mut said = Vec::new();
    while !said.contains(&b'\n') {
        let read = within("the status line", stream.read_buf(&mut said)).await.unwrap();
        assert_ne!(read, 0, "the connection closed without an answer");
    }
    String::from_utf8_lossy(&said).lines().next().unwrap().to_owned()
}

/// Fields and a body that must be rejected, each with its fault.
fn ambiguous() -> Vec<(&'static str, String)> {
    let host = "Host: localhost\r\n";
    let chunks = "5\r\nhello\r\n0\r\n\r\n";
    vec![
        ("length and chunks", format!("{host}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")),
        ("chunks and length", format!("{host}Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n{chunks}")),
        ("two lengths", format!("{host}Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!")),
        ("two equal lengths", format!("{host}Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello")),
        ("a list of lengths", format!("{host}Content-Length: 5, 5\r\n\r\nhello")),
        ("a signed length", format!("{host}Content-Length: +5\r\n\r\nhello")),
        ("two codings", format!("{host}Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}")),
        ("an unknown coding", format!("{host}Transfer-Encoding: gzip, chunked\r\n\r\n{chunks}")),
        ("coding that is not last", format!("{host}Transfer-Encoding: chunked, identity\r\n\r\n{chunks}")),
        ("no host", "\r\n".to_owned()),
        ("two hosts", format!("{host}{host}\r\n")),
        ("two different hosts", format!("{host}Host: evil.example\r\n\r\n")),
        ("an empty host", "Host:\r\n\r\n".to_owned()),
        ("a host with an odd port", "Host: 127.0.0.1:1.evil.example\r\n\r\n".to_owned()),
        ("an address with a name behind", "Host: [::1]evil.example:1\r\n\r\n".to_owned()),
        ("a host with a user", "Host: evil.example@localhost\r\n\r\n".to_owned()),
        ("a bare line feed", format!("{host}X: y\n\r\n")),
        ("a bare line feed at the end", format!("{host}\n")),
        ("a bare carriage return", format!("{host}X: y\rZ: a\r\n\r\n")),
        ("a folded line", format!("{host}X: y\r\n z\r\n\r\n")),
        ("a folded host", "Host: localhost\r\n .evil.example\r\n\r\n".to_owned()),
        ("a blank before the colon", format!("{host}X : y\r\n\r\n")),
        ("a line without a colon", format!("{host}nonsense\r\n\r\n")),
    ]
}

#[tokio::test]
async fn ambiguous_request_gets_400_and_the_connection_ends_on_every_listener() {
    let gateway = Gateway::start();
    let mut user = gateway.connect("1074", Form::YunquePb).await;
    let body = r#"{"receiver":"1074","action":"smuggled"}"#;
    let inner = format!("POST /send HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    for (wrong, rest) in ambiguous() {
        for (service, line) in [
            ("api", "GET /health/live HTTP/1.1\r\n"),
            ("api", "POST /send HTTP/1.1\r\n"),
            ("cim", "GET / HTTP/1.1\r\n"),
            ("ws", &format!("GET /ws HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{KEY}")),
            ("cim", &format!("GET / HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{KEY}")),
        ] {
            let said = exchange(&gateway, service, format!("{line}{rest}{inner}").as_bytes()).await;
            assert!(said.starts_with("HTTP/1.1 400 "), "{wrong} at {service}, {line}: {said}");
            assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "{wrong} at {service}, {line}: {said}");
        }
    }
    for size in ["x", "-1", "+1", "0x1", "fffffffffffffffff", "", "1 1"] {
        let chunked = "POST /send HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n";
        let said = exchange(&gateway, "api", format!("{chunked}{size}\r\n{{\r\n0\r\n\r\n{inner}").as_bytes()).await;
        assert!(said.starts_with("HTTP/1.1 400 "), "size {size:?}: {said}");
        assert_eq!(said.matches("HTTP/1.1 ").count(), 1, "size {size:?}: {said}");
    }
    assert_eq!(user.drain().await, Vec::<serde_json::Value>::new());
}

#[tokio::test]
async fn requests_in_a_row_are_answered_until_one_is_ambiguous() {
    let gateway = Gateway::start();
    let good = "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let chunked = "POST /send HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n\
                   2;x=y\r\n{}\r\n0\r\nTrailer: z\r\n\r\n";
    let said = exchange(&gateway, "api", format!("{good}{chunked}{good}{good}\n{good}").as_bytes()).await;
    let answers: Vec<&str> = said.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
    assert_eq!(answers, ["200", "400", "200", "200", "400"], "{said}");
}

#[tokio::test]
async fn target_in_absolute_form_must_agree_with_host() {
    let gateway = Gateway::start();
    let ask = |target: &str, host: &str| format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    for (target, host, expected) in [
        ("http://localhost/health/live", "localhost", "HTTP/1.1 200 "),
        ("http://localhost:80/health/live", "LOCALHOST", "HTTP/1.1 200 "),
        ("http://localhost/health/live", "evil.example", "HTTP/1.1 400 "),
        ("http://evil.example/health/live", "localhost", "HTTP/1.1 400 "),
        ("http://localhost:1/health/live", "localhost", "HTTP/1.1 400 "),
    ] {
        let said = exchange(&gateway, "api", ask(target, host).as_bytes()).await;
        assert!(said.starts_with(expected), "{target} with {host}: {said}");
    }
}

#[tokio::test]
async fn page_of_an_odd_origin_cannot_push_to_an_open_api() {
    let gateway = Gateway::start();
    for origin in ["http://127.0.0.1:1.evil.example", "http://[::1]evil.example:1", "http://localhost@evil.example"] {
        let request = format!(
            "POST /send HTTP/1.1\r\nHost: localhost\r\nOrigin: {origin}\r\nConnection: close\r\nContent-Length: 2\r\n\r\n{{}}"
        );
        let said = exchange(&gateway, "api", request.as_bytes()).await;
        assert!(said.starts_with("HTTP/1.1 403 "), "{origin}: {said}");
    }
}

#[tokio::test]
async fn handshake_with_lists_over_several_lines_is_upgraded() {
    let gateway = Gateway::start();
    for lines in [
        "Connection: keep-alive\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n",
        "Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: WebSocket\r\n",
        "connection:upgrade\r\nUPGRADE:websocket\r\n",
        "Connection: ,keep-alive ,\tUPGRADE,,\r\nUpgrade: , websocket ,\r\n",
    ] {
        for (service, path) in [("ws", "/ws"), ("cim", "/")] {
            let ask = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{lines}{KEY}\r\n");
            let said = status(&gateway, service, ask.as_bytes()).await;
            assert!(said.starts_with("HTTP/1.1 101 "), "{lines:?} at {service}: {said}");
        }
    }
}

#[tokio::test]
async fn bytes_behind_a_handshake_that_is_refused_are_no_request() {
    let gateway = Gateway::start();
    let next = "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for (service, path, expected) in [("api", "/nowhere", "404"), ("ws", "/ws", "426")] {
        let ask =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n");
        let said = exchange(&gateway, service, format!("{next}{ask}{next}").as_bytes()).await;
        let answers: Vec<&str> = said.split("HTTP/1.1 ").skip(1).map(|answer| &answer[..3]).collect();
        assert_eq!(answers, ["200", expected], "{said}");
    }
}

#[tokio::test]
async fn cookie_of_a_page_at_plain_http_is_refused_over_tls() {
    let gateway = Setup::default().tls(Pair::new()).start();
    let address = gateway.address("ws");
    let dial = |origin: String| {
        let cookie = format!("token={}", Claims::of("1074").mint());
        Dial::path("/ws").header("cookie", cookie).header("origin", origin)
    };
    let plain = dial(format!("http://{address}"));
    let refused = Client::dial_over(gateway.pipe("ws").await, address, Form::YunquePb, plain).await;
    assert_eq!(refused.err().map(|(status, _)| status), Some(403));
    let secure = dial(format!("https://{address}"));
    let mut client = Client::dial_over(gateway.pipe("ws").await, address, Form::YunquePb, secure).await.unwrap();
    assert_eq!(client.reply().await["code"], "200");
}

#[tokio::test]
async fn cookie_counts_for_no_page_where_every_page_may_connect() {
    let gateway = Setup::default().listeners(&["serves: [ws, api]\norigins: ['*']"]).start();
    let token = Claims::of("1074").mint();
    let dial = Dial::path("/ws").header("cookie", format!("token={token}")).header("origin", "https://evil.example");
    let dial = dial.subprotocol("yunque.json");
    let mut client = Client::dial(gateway.address("ws"), Form::YunqueJson, dial).await.unwrap();
    assert_eq!(
        client.ask("room_join", json!({"room": "lobby"})).await["code"],
        "401",
        "the refused cookie bound a user"
    );
    assert_eq!(client.ask("client_bind", json!({"token": token})).await["code"], "200");
}

#[tokio::test]
async fn client_that_takes_no_answer_is_cut() {
    let gateway = Setup::default().yaml("queue:\n  write_timeout: 500ms").start();
    let mut stream = TcpStream::connect(gateway.address("api")).await.unwrap();
    let asks = "GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n".repeat(100);
    let unread = async { while stream.write_all(asks.as_bytes()).await.is_ok() {} };
    within("the close of a connection that does not read", unread).await;
}

#[tokio::test]
async fn idle_connection_lives_as_long_as_configured() {
    let gateway = Setup::default().yaml("limits:\n  keep_alive: 300ms\n  handshake: 10m").start();
    let ask = "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let said = exchange(&gateway, "api", ask.as_bytes()).await;
    assert!(said.starts_with("HTTP/1.1 200 "), "{said}");
}

#[tokio::test]
async fn head_that_trickles_on_a_kept_connection_has_the_bound_of_the_first() {
    let gateway = Setup::default().yaml("limits:\n  keep_alive: 10m\n  handshake: 500ms").start();
    let ask = "GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\nGET /health/live HTTP/1.1\r\n";
    let said = exchange(&gateway, "api", ask.as_bytes()).await;
    assert_eq!(said.matches("HTTP/1.1 200 ").count(), 1, "{said}");
}

#[tokio::test]
async fn compression_that_a_client_offers_is_not_negotiated() {
    let gateway = Gateway::start();
    let mut stream = gateway.pipe("ws").await;
    let offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits";
    let ask = format!(
        "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{offer}\r\n{KEY}\r\n"
    );
    // A frame with the compression bit (RSV1) set.
    stream.write_all(&[ask.as_bytes(), &[0xc2, 0x80, 0, 0, 0, 0]].concat()).await.unwrap();
    let mut said = Vec::new();
    let _ = within("the close of the connection", stream.read_to_end(&mut said)).await;
    let words = String::from_utf8_lossy(&said);
    assert!(words.starts_with("HTTP/1.1 101 ") && !words.to_lowercase().contains("extensions"), "{words}");
    assert!(said.windows(4).any(|bytes| matches!(bytes, [0x88, _, 0x03, 0xea])), "no close frame with 1002: {said:?}");
}
