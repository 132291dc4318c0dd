//! Commands without a node: parsing, requests, tokens, and the client side of the protocol against the golden frames.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::CommandFactory as _;
use serde_json::{Value, json};

use super::dial::Trust;
use super::wire::{Dialect, Payload};
use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("skylark").chain(line.split_whitespace()))
}

fn usage(line: &str) -> String {
    let error = parse(line).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{line}");
    error.to_string()
}

#[test]
fn the_command_line_is_sound_and_options_work_behind_commands() {
    Cli::command().debug_assert();
    let cli = parse("config --set --config x.yaml --env dev").unwrap();
    assert_eq!(cli.source.config.unwrap().to_str(), Some("x.yaml"));
    assert_eq!(cli.source.env.as_deref(), Some("dev"));
    assert!(parse("--env dev serve --listen 127.0.0.1:0 --plugins dir").is_ok());
}

/// The rows of `docs/reference/cli.md` are the commands, and the options of each row exist.
#[test]
fn every_command_stands_in_the_reference() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference/cli.md")).unwrap();
    let mut told: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (command, cells) in page.lines().filter_map(|line| line.strip_prefix("| `skylark ")?.split_once("` |")) {
        told.insert(command, cells.split('`').filter_map(|text| text.strip_prefix("--")).collect());
    }
    let root = Cli::command();
    let mut known: BTreeMap<String, &clap::Command> = BTreeMap::new();
    for command in root.get_subcommands().filter(|command| !command.is_hide_set()) {
        if command.has_subcommands() {
            let inner = command.get_subcommands();
            known.extend(inner.map(|own| (format!("{} {}", command.get_name(), own.get_name()), own)));
        } else {
            known.insert(command.get_name().to_owned(), command);
        }
    }
    let names: Vec<&str> = known.keys().map(String::as_str).collect();
    assert_eq!(told.keys().copied().collect::<Vec<&str>>(), names, "docs/reference/cli.md and src/cli.rs differ");
    for (name, command) in &known {
        for option in &told[name.as_str()] {
            let exists = command.get_arguments().any(|argument| argument.get_long() == Some(*option));
            assert!(exists, "docs/reference/cli.md: skylark {name} has no --{option}");
        }
    }
}

#[test]
fn invalid_command_line_exits_with_2() {
    assert!(usage("serve --env ../etc").contains("expected letters, digits"));
    assert!(usage("push {}").contains("--user"));
    assert!(usage("push --user 1 --all {}").contains("cannot be used with"));
    assert!(usage("push --user 1").contains("--text"));
    assert!(usage("push --device 1074 {}").contains("UID/DEVICE"));
    assert!(usage("push --connection 0 {}").contains("number of a connection"));
    assert!(usage("token a,b").contains("expected no comma"));
    assert!(usage("connect").contains("--uid"));
    assert!(usage("connect --uid 1 --dialect yunque").contains("yunque.pb"));
    usage("plugin");
    usage("");
}

#[test]
fn push_command_builds_the_request_of_its_target() {
    let request = |line: &str| {
        let Command::Push(push) = parse(&format!("push {line} --text hi")).unwrap().command else { panic!("no push") };
        let (path, body) = push.request(push.message().unwrap());
        format!("{path} {body}")
    };
    let message = r#"{"action":"chat","content":{"text":"hi"}}"#;
    assert_eq!(request("--user 1"), r#"/send {"action":"chat","content":{"text":"hi"},"receiver":"1"}"#);
    assert_eq!(request("--users 1,2"), format!(r#"/send/toUids {{"message":{message},"uids":["1","2"]}}"#));
    assert_eq!(request("--room r"), format!(r#"/send/room {{"message":{message},"room":"r"}}"#));
    assert_eq!(request("--device 1/a/b"), format!(r#"/send/device {{"device":"a/b","message":{message},"uid":"1"}}"#));
    assert_eq!(request("--connection 7"), format!(r#"/send/connection {{"cid":7,"message":{message}}}"#));
    assert_eq!(request("--all"), format!("/send/all {message}"));
    assert_eq!(request("--all-but 1"), format!(r#"/send/other {{"message":{message},"uids":["1"]}}"#));
}

#[test]
fn a_token_carries_its_claims_and_the_first_keys_signature() {
    let dir = tempfile::tempdir().unwrap();
    let manifest = "[settings]\naudience = \"us\"\nissuer = \"\"\n[[settings.keys]]\nid = \"k1\"\nsecret = \"s1\"\n[[settings.keys]]\nid = \"k2\"\nsecret = \"s2\"\n";
    std::fs::write(dir.path().join("token-auth.toml"), manifest).unwrap();
    let (uid, device, room) = ("1074".parse().unwrap(), "d1".parse().unwrap(), "lobby".parse().unwrap());
    let ttl = std::time::Duration::from_secs(60);
    let token = token::mint(dir.path(), &uid, Some(&device), &[room], ttl).unwrap();
    let parts: Vec<&str> = token.split('.').collect();
    let json = |part: &str| -> Value { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap() };
    assert_eq!(json(parts[0]), json!({ "alg": "HS256", "typ": "JWT", "kid": "k1" }));
    let claims = json(parts[1]);
    assert_eq!(
        (&claims["sub"], &claims["device"], &claims["rooms"]),
        (&json!("1074"), &json!("d1"), &json!(["lobby"]))
    );
    assert_eq!((&claims["aud"], claims.get("iss")), (&json!("us"), None));
    let left = claims["exp"].as_u64().unwrap() - std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!((59..=60).contains(&left), "{left}");

    let nowhere = token::mint(std::path::Path::new(""), &uid, None, &[], ttl).unwrap_err();
    assert!(nowhere.to_string().contains("plugins.dir"), "{nowhere}");
    std::fs::write(dir.path().join("token-auth.toml"), "[settings]\n").unwrap();
    let keyless = token::mint(dir.path(), &uid, None, &[], ttl).unwrap_err();
    assert!(format!("{keyless:#}").contains("expected [[settings.keys]]"), "{keyless:#}");
}

#[test]
fn a_token_that_is_over_at_once_is_not_minted() {
    for ttl in ["0s", "1ms", "soon", "-1h"] {
        let told = Cli::try_parse_from(["skylark", "token", "a", &format!("--ttl={ttl}")]).unwrap_err().to_string();
        assert!(told.contains("expected a duration of a second or more"), "{told}");
    }
}

/// The example of RFC 7515 appendix A.1. Its header and claims differ from ours; the signature algorithm is the same.
#[test]
fn the_signature_is_the_one_of_the_rfc() {
    let key = URL_SAFE_NO_PAD
        .decode("AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow")
        .unwrap();
    let signed = "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    assert_eq!(token::signature(&key, signed), "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
}

#[test]
fn lines_typed_become_send_bodies() {
    let line = |text: &str| connect::parse_line(text).unwrap();
    assert_eq!(line("  "), None);
    assert_eq!(line("ping_me"), Some(("ping_me".to_owned(), BTreeMap::new())));
    let (key, data) = line(r#"room_join {"room":"a b","n":1,"deep":{"x":[1]}}"#).unwrap();
    assert_eq!(key, "room_join");
    assert_eq!(data["room"], "a b");
    assert_eq!((data["n"].as_str(), data["deep"].as_str()), ("1", r#"{"x":[1]}"#));
    assert!(connect::parse_line("key [1]").is_err());
    assert!(connect::parse_line("key {").is_err());
}

#[test]
fn the_golden_frames_are_read_and_written() {
    let vectors: Value = serde_json::from_str(include_str!("../../tests/vectors/frames.json")).unwrap();
    let mut read = 0;
    for frame in vectors["frames"].as_array().unwrap() {
        let dialect = match frame["dialect"].as_str() {
            Some("cim") => Dialect::CimPb,
            _ => Dialect::YunquePb,
        };
        let Some(bytes) = frame["websocket_hex"].as_str().map(hex) else { continue };
        let Some(kind) = frame["type"].as_u64() else { continue };
        let payload = Payload::Binary(bytes.into());
        match kind {
            0 => assert_eq!(dialect.pong(), payload),
            1 => assert_eq!(shown(dialect, &payload), json!({ "type": "ping" })),
            2 => assert_eq!(shown(dialect, &payload)["message"], frame["message"], "{}", frame["name"]),
            3 => {
                let body = &frame["send_body"];
                let data = serde_json::from_value(body["data"].clone()).unwrap_or_default();
                let written =
                    dialect.sent(body["key"].as_str().unwrap(), body["timestamp"].as_i64().unwrap_or(0), data);
                if frame["decode_only"] != true {
                    assert_eq!(written, payload, "{}", frame["name"]);
                }
            }
            4 => assert_eq!(shown(dialect, &payload)["reply"], frame["reply"], "{}", frame["name"]),
            other => panic!("{other}"),
        }
        read += 1;
    }
    assert!(read >= 8, "{read}");
}

/// The line that `connect` prints.
fn shown(dialect: Dialect, payload: &Payload) -> Value {
    serde_json::from_str(&dialect.read(payload).unwrap().to_string()).unwrap()
}

#[test]
fn json_frames_hold_their_body_as_text() {
    let text = |value: Value| Payload::Text(value.to_string());
    let frame = Dialect::CimJson.read(&text(json!({ "type": 2, "content": r#"{"id":1,"content":"hi"}"# }))).unwrap();
    assert_eq!(frame.to_string(), r#"{"type":"message","message":{"id":1,"content":"hi"}}"#);
    let frame = Dialect::CimJson.read(&text(json!({ "type": 4, "content": "{\"key\":\n\"k\"}" }))).unwrap();
    assert_eq!(frame.to_string(), r#"{"type":"reply","reply":{"key":"k"}}"#);
    assert_eq!(shown(Dialect::YunqueJson, &text(json!({ "type": 1 })))["type"], "ping");
    let sent = Dialect::YunqueJson.sent("k", 5, BTreeMap::from([("a".to_owned(), "b".to_owned())]));
    assert_eq!(sent, text(json!({ "type": 3, "content": r#"{"data":{"a":"b"},"key":"k","timestamp":5}"# })));
    assert!(Dialect::CimJson.read(&text(json!({ "type": 3 }))).is_err());
    assert!(Dialect::YunquePb.read(&Payload::Binary(Vec::new().into())).is_err());
}

#[test]
fn the_table_shows_a_canary_and_a_refused_file_behind_their_lines() {
    let items = [
        json!({ "name": "token-auth", "state": "live", "version": 2, "roles": ["auth"], "calls": 7, "failures": 0, "p50": 12.34, "p99": 100.0, "circuit": "closed", "rejected": null,
                "canary": { "version": 3, "share": "5%" } }),
        json!({ "name": "w", "state": "live", "version": 1, "roles": ["filter", "events"], "calls": 0, "failures": 1,
                "rejected": { "hash": "", "reason": "not a component" } }),
    ];
    assert_eq!(
        plugin::table(&items),
        [
            "NAME        STATE  VERSION  ROLES          CALLS  FAILURES  P50     P99      CIRCUIT",
            "token-auth  live   2        auth           7      0         12.3µs  100.0µs  closed  version 3 serves 5% of the senders",
            "w           live   1        filter,events  0      1         -       -        -  newest file refused: not a component",
        ]
    );
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

/// A node that answers one request with these bytes. Also returns the request that it received.
async fn node(answer: &'static str) -> (http::Node, tokio::task::JoinHandle<String>) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let node = http::Node::new(
        &format!("http://{}/", listener.local_addr().unwrap()),
        Some("canary".to_owned()),
        Trust::default(),
    );
    let asked = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut asked = vec![0; 4096];
        let read = stream.read(&mut asked).await.unwrap();
        stream.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&asked[..read]).into_owned()
    });
    (node, asked)
}

#[tokio::test]
async fn request_to_a_node_returns_its_answer_or_a_readable_error() {
    let (ok, asked) = node("HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\n{\"code\":200}").await;
    assert_eq!(ok.request(hyper::Method::POST, "/send", Some(&json!({}))).await.unwrap(), r#"{"code":200}"#);
    let asked = asked.await.unwrap();
    assert!(asked.starts_with("POST /send HTTP/1.1\r\n") && asked.contains("authorization: Bearer canary"), "{asked}");

    let (refused, _) = node("HTTP/1.1 403 Forbidden\r\ncontent-length: 16\r\n\r\n{\"message\":\"no\"}").await;
    let error = refused.request(hyper::Method::GET, "/plugins", None).await.unwrap_err();
    assert_eq!(error.to_string(), "the node answered 403: no");
    let (other, _) = node("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi").await;
    let error = other.request(hyper::Method::GET, "/", None).await.unwrap_err();
    assert_eq!(error.to_string(), "expected JSON from the node, got 200 OK \"hi\"");
    let (gone, _) = node("").await;
    assert!(gone.request(hyper::Method::GET, "/", None).await.is_err());
    let wrong = http::Node::new("ftp://127.0.0.1:1", None, Trust::default());
    let wrong = wrong.request(hyper::Method::GET, "/", None).await.unwrap_err();
    assert_eq!(wrong.to_string(), "expected a URL that begins with http:// or https://, got ftp://127.0.0.1:1/");
}
