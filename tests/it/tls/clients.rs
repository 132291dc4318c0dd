//! The client commands over TLS: the certificates they accept, and their errors for others.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};

use crate::support::client::within;
use crate::support::gateway::{Gateway, Setup};
use crate::support::tls::{Pair, put};
use crate::support::wire::Form;

fn start() -> Gateway {
    Setup::default().tls(Pair::new()).start()
}

/// A command with the URL of the listener for `service`, under the name in the certificate.
fn at(gateway: &Gateway, command: &str, scheme: &str, service: &str) -> Command {
    let port = gateway.address(service).port();
    let path = if service == "ws" { "/ws" } else { "" };
    let mut command = gateway.folder.command(command);
    command.args(["--url", &format!("{scheme}://localhost:{port}{path}")]);
    // The environment of the test run may set a bundle.
    command.env_remove("SSL_CERT_FILE");
    command
}

/// Standard error of a command that must fail.
#[track_caller]
fn refused(command: &mut Command) -> String {
    let Output { status, stderr, .. } = command.output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{said}");
    said
}

#[tokio::test]
async fn push_accepts_only_the_configured_certificates() {
    let gateway = start();
    let mut client = gateway.connect("a", Form::YunqueJson).await;
    let push = |more: &[&str]| {
        let mut command = at(&gateway, "push", "https", "api");
        command.args(["--user", "a", "--text", "hi"]).args(more);
        command
    };
    for trust in [&["--ca", "cert.pem"][..], &["--insecure"]] {
        let output = push(trust).output().unwrap();
        let answer: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
        assert_eq!(answer["data"]["delivered"], 1, "{trust:?}: {answer}");
        assert_eq!(client.message().await["content"]["text"], "hi");
    }

    let (system, other) = (gateway.folder.path().join("system.pem"), gateway.folder.path().join("other"));
    std::fs::copy(gateway.folder.path().join("cert.pem"), &system).unwrap();
    assert!(
        push(&[]).env("SSL_CERT_FILE", &system).output().unwrap().status.success(),
        "the certificates of the system were not accepted"
    );

    std::fs::create_dir(&other).unwrap();
    Pair::new().install(&other);
    put(gateway.folder.path(), "none.pem", "no certificate");
    for (trust, words) in [
        (&["--ca", "other/cert.pem"][..], "trusted: the certificates in other/cert.pem"),
        (&["--ca", "gone.pem"], "expected certificates in PEM form in gone.pem"),
        (&["--ca", "none.pem"], "expected certificates in PEM form in none.pem"),
    ] {
        let said = refused(&mut push(trust));
        assert!(said.contains(words), "{trust:?}: {said}");
    }
    let said = refused(push(&[]).env("SSL_CERT_FILE", other.join("cert.pem")));
    assert!(said.contains("the TLS handshake with localhost") && said.contains("--ca names others"), "{said}");
    assert!(said.contains("because: "), "the cause of rustls is missing: {said}");
    // The certificate is for another name.
    let url = format!("https://{}", gateway.address("api"));
    let said = refused(gateway.folder.command("push").args(["--url", &url, "--ca", "cert.pem", "--user", "a", "{}"]));
    assert!(said.contains("not valid for name"), "{said}");
    let conflict = push(&["--ca", "cert.pem", "--insecure"]).output().unwrap();
    assert_eq!(conflict.status.code(), Some(2));
}

#[tokio::test]
async fn connect_and_plugin_commands_use_tls() {
    let gateway = start();
    let url = format!("https://localhost:{}", gateway.address("api").port());
    let output = gateway.folder.command("plugin").args(["list", "--url", &url, "--ca", "cert.pem"]).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("token-auth"), "{output:?}");

    let said = refused(at(&gateway, "connect", "wss", "ws").args(["--uid", "typist"]));
    assert!(said.contains("the TLS handshake with localhost"), "{said}");
    let said = refused(at(&gateway, "connect", "https", "ws").args(["--uid", "typist"]));
    assert!(said.contains("begins with ws:// or wss://"), "{said}");

    let mut command = at(&gateway, "connect", "wss", "ws");
    command.args(["--uid", "typist", "--ca", "cert.pem"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut line = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(line()["reply"]["key"], "client_bind");
    gateway.post("/send", json!({"receiver": "typist", "action": "chat", "title": "over TLS"})).await.data();
    assert_eq!(line()["message"]["title"], "over TLS");
    gateway.post("/kick", json!({"uid": "typist"})).await.data();
    assert_eq!(line()["type"], "message", "the message of the kick is missing");
    assert_eq!(line()["code"], 4503);
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

#[tokio::test]
async fn handshakes_count_as_connects_where_back_ends_push_too() {
    let limits = "limits:\n  connections_per_ip: 0\n  connects_per_ip: 1";
    let pair = Pair::new();
    let trust = pair.trust();
    let gateway = Setup::default().listeners(&["serves: [ws, api, metrics]"]).yaml(limits).tls(pair).start();
    let mut http = gateway.http().await;
    // The burst is ten, and one of it is used. A client over TLS counts once, not as a handshake and as an upgrade.
    let mut clients = Vec::new();
    for n in 0..9 {
        clients.push(gateway.connect(&format!("u{n}"), Form::YunquePb).await);
    }
    let mut refused = 0;
    for _ in 0..30 {
        let tcp = within("the socket", tokio::net::TcpStream::connect(gateway.address("api"))).await.unwrap();
        refused += usize::from(trust.secure(tcp).await.is_err());
    }
    // One more per second is allowed.
    assert!(refused >= 20, "expected at least 20 of 30 refused handshakes, got {refused}");
    let metrics = http.get("/metrics").await.body;
    assert!(metrics.contains(&format!(r#"skylark_refused_total{{reason="rate"}} {refused}"#)), "{metrics}");
}
