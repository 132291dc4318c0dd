//! TLS on every kind of listener with certificates made for the test: every feature works over it.

mod clients;

use std::collections::HashSet;

use rustix::process::Signal;
use rustls::version::{TLS12, TLS13};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::client::{Client, Seen, within};
use crate::support::gateway::{Gateway, Setup};
use crate::support::tls::{Pair, Trust, put};
use crate::support::token::Claims;
use crate::support::wire::{Form, Frame};

/// The `tls` lines of the log that the tests wait for.
const TAKEN: &str = "certificate renewed";
const KEPT: &str = "certificate renewal failed: the previous certificate stays in use";

fn start() -> Gateway {
    Setup::default().all_devices().tls(Pair::new()).start()
}

/// Opens a TLS connection with a new client.
async fn secure(gateway: &Gateway, service: &str, trust: &Trust) -> std::io::Result<Option<Vec<u8>>> {
    let tcp = TcpStream::connect(gateway.address(service)).await.unwrap();
    let stream = trust.secure(tcp).await?;
    Ok(stream.get_ref().1.alpn_protocol().map(<[u8]>::to_vec))
}

#[tokio::test]
async fn clients_of_every_kind_get_messages_over_tls() {
    let mut gateway = start();
    for line in
        ["  ws       wss://", "  api      https://", "  cim      wss://", "  cim-tcp  tls://", "  metrics  https://"]
    {
        gateway.said(line).await;
    }
    let mut clients = Vec::new();
    for form in Form::ALL {
        clients.push(gateway.connect_as(Claims::of("a").device(form.subprotocol()), form).await.0);
    }
    let batch: Vec<_> = (0..40).map(|n| json!({"receiver": "a", "action": "chat", "title": n.to_string()})).collect();
    let mut http = gateway.http().await;
    http.post("/send/sendList", &json!(batch)).await.data();
    // Includes a message of several TLS records.
    let long = "好".repeat(15_000);
    http.post("/send", &json!({"receiver": "a", "action": "long", "title": long})).await.data();
    for client in &mut clients {
        for n in 0..40 {
            assert_eq!(client.message().await["title"], n.to_string(), "{:?}", client.form);
        }
        assert_eq!(client.message().await["title"].as_str().map(str::len), Some(long.len()), "{:?}", client.form);
        assert_eq!(client.ask("no_such_key", json!({})).await["code"], "404", "{:?}", client.form);
    }
    gateway.signal(Signal::TERM);
    for client in &mut clients {
        let expected = (client.form != Form::CimTcp).then(|| (4003, "restart".to_owned()));
        assert_eq!(client.closed().await, expected, "{:?}", client.form);
    }
    assert_eq!(gateway.exit().await.code(), Some(0), "{}", gateway.log());
}

#[tokio::test]
async fn versions_and_protocols_are_agreed_on() {
    let (pair, other) = (Pair::new(), Pair::new());
    let trusts = [pair.trust_with(&[&TLS12], &[]), pair.trust_with(&[&TLS13], &[])];
    let both = pair.trust_with(&[&TLS13], &["h2", "http/1.1"]);
    let h2 = pair.trust_with(&[&TLS13], &["h2"]);
    let gateway = Setup::default().tls(pair).start();
    for trust in &trusts {
        assert_eq!(secure(&gateway, "ws", trust).await.unwrap(), None);
    }
    assert_eq!(secure(&gateway, "api", &both).await.unwrap().as_deref(), Some(&b"http/1.1"[..]));
    assert!(secure(&gateway, "api", &h2).await.is_err(), "a client that offers only h2 was accepted");
    assert_eq!(secure(&gateway, "cim-tcp", &h2).await.unwrap(), None, "a TCP listener agreed on an HTTP version");
    assert!(secure(&gateway, "ws", &other.trust()).await.is_err(), "a client accepted another certificate");
    // With a session ticket of the first connection, and without.
    for trust in &trusts {
        assert_eq!(secure(&gateway, "ws", trust).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_new_certificate_serves_and_a_broken_one_changes_nothing() {
    let (first, second) = (Pair::new(), Pair::new());
    let (old, new) = (first.trust(), second.trust());
    let gateway = Setup::default().tls(first).start();
    let mut early = gateway.connect("early", Form::YunquePb).await;

    put(gateway.folder.path(), "key.pem", "this is no key");
    gateway.said(KEPT).await;
    secure(&gateway, "ws", &old).await.expect("the old certificate serves");
    put(gateway.folder.path(), "cert.pem", "nor is this a certificate");
    secure(&gateway, "cim-tcp", &old).await.expect("the old certificate serves");

    second.install(gateway.folder.path());
    gateway.said(TAKEN).await;
    // Each listener checks for itself, one after the other.
    within("the new certificate on the last listener", async {
        while secure(&gateway, "cim-tcp", &new).await.is_err() {}
    })
    .await;
    for service in ["ws", "cim", "cim-tcp"] {
        secure(&gateway, service, &new).await.expect("the new certificate serves");
        assert!(secure(&gateway, service, &old).await.is_err(), "{service} still shows the old certificate");
    }
    // An earlier connection stays open on the socket with the old certificate.
    assert_eq!(early.ask("no_such_key", json!({})).await["code"], "404");
}

#[test]
fn unusable_certificate_pair_fails_check_and_start() {
    let folder = Setup::default().tls(Pair::new()).prepare();
    put(folder.path(), "key.pem", "this is no key");
    let said = |command: &str| {
        let output = folder.command(command).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned()
    };
    let words = said("serve");
    assert!(
        words.contains("listeners: cannot use TLS on 127.0.0.1:0: expected a private key in PEM form in key.pem"),
        "{words}"
    );
    let words = said("check");
    for at in 0..3 {
        assert!(
            words.contains(&format!("listeners[{at}].tls: expected a private key in PEM form in key.pem")),
            "{words}"
        );
    }
}

#[tokio::test]
async fn client_without_tls_is_refused_at_once() {
    let gateway = start();
    for service in ["ws", "api", "cim", "cim-tcp"] {
        let mut tcp = TcpStream::connect(gateway.address(service)).await.unwrap();
        tcp.write_all(b"GET /ws HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        let mut answer = Vec::new();
        within("the close of the connection", tcp.read_to_end(&mut answer)).await.unwrap();
        assert_eq!(answer.first(), Some(&21), "{service}: the first byte is no TLS alert");
    }
    gateway.metrics_until(r#"skylark_refused_total{reason="tls"} 4"#).await;
}

#[tokio::test]
async fn a_slow_handshake_is_cut() {
    let limits = "limits:\n  connections_per_ip: 0\n  connects_per_ip: 0\n  handshake: 3s";
    let gateway = Setup::default().tls(Pair::new()).yaml(limits).start();
    // Silence, and the beginning of a ClientHello.
    for words in [&b""[..], b"\x16\x03\x01\x02\x00\x01\x00\x01"] {
        let mut tcp = TcpStream::connect(gateway.address("ws")).await.unwrap();
        tcp.write_all(words).await.unwrap();
        let mut answer = Vec::new();
        within("the close of the connection", tcp.read_to_end(&mut answer)).await.unwrap_or_default();
        assert_eq!(answer, b"");
    }
    gateway.metrics_until(r#"skylark_refused_total{reason="tls_time"} 2"#).await;
}

#[tokio::test]
async fn a_slow_consumer_gets_whole_frames_and_its_code() {
    let gateway = start();
    let mut deaf = gateway.connect("deaf", Form::YunquePb).await;
    let mut http = gateway.http().await;
    let filler = "x".repeat(9_000);
    let mut sent = 0;
    loop {
        let title = |n: usize| format!("{n} {filler}");
        let batch: Vec<_> =
            (sent..sent + 50).map(|n| json!({"receiver": "deaf", "action": "chat", "title": title(n)})).collect();
        let answer = within("the answer", http.post("/send/sendList", &json!(batch))).await.data();
        sent += 50;
        if answer["delivered"] != 50 {
            break;
        }
    }
    let mut next = 0;
    loop {
        match deaf.next().await {
            Seen::Frame(Frame::Message(message)) => {
                let title = message["title"].as_str().unwrap().split(' ').next().unwrap();
                assert_eq!(title, next.to_string(), "a message is missing or out of order");
                next += 1;
            }
            Seen::Closed(why) => {
                assert_eq!(why.expect("the node sends a close frame").0, 4008);
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    assert!(next > 0 && next < sent, "expected to receive a part of {sent} messages, got {next}");
}

/// User-space memory of the node with `count` more bound and idle connections.
async fn idle(gateway: &Gateway, count: usize, clients: &mut Vec<Client>) -> usize {
    let mut seen = HashSet::new();
    for n in 0..count {
        let uid = format!("{}-{n}", clients.len());
        assert!(seen.insert(uid.clone()));
        clients.push(gateway.connect(&uid, Form::YunquePb).await);
    }
    let statm = std::fs::read_to_string(format!("/proc/{}/statm", gateway.pid())).unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test]
async fn an_idle_connection_costs_little_more_than_a_plain_one() {
    const COUNT: usize = 400;
    let mut costs = Vec::new();
    for setup in [Setup::default(), Setup::default().tls(Pair::new())] {
        let gateway = setup.start();
        let mut clients = Vec::new();
        let before = idle(&gateway, 50, &mut clients).await;
        let after = idle(&gateway, COUNT, &mut clients).await;
        costs.push(after.saturating_sub(before) / COUNT);
    }
    println!("idle: {} bytes plain, {} bytes over TLS", costs[0], costs[1]);
    assert!(costs[1] < costs[0] + 12 * 1024, "{costs:?}");
}
