//! Bad requests: the error names the field, the expected value and the actual one, and nothing of the request is
//! delivered.

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, Setup, skylark};
use crate::support::wire::Form;

/// Path, body, and the exact text of the error.
const BAD_BODIES: &[(&str, &str, &str)] = &[
    ("/send", r#"{"receiver":null}"#, "receiver: expected a non-empty string, got null"),
    ("/send", r#"{"receiver":""}"#, "receiver: expected a non-empty string, got \"\""),
    ("/send", "{}", "receiver: expected a non-empty string, got nothing"),
];

/// Path and body of bad requests, and the field that the error must name.
const NAMED: &[(&str, &str, &str)] = &[
    ("/send", r#"{"receiver":["1074"]}"#, "receiver"),
    ("/send", r#"{"receiver":"a,b"}"#, "receiver"),
    ("/send", r#"{"receiver":1.5}"#, "receiver"),
    ("/send", r#"{"receiver":"1074","id":"x"}"#, "id"),
    ("/send", r#"{"receiver":"1074","id":1e300}"#, "id"),
    ("/send", r#"{"receiver":"1074","extra":[]}"#, "extra"),
    ("/send", r#"{"receiver":"1074","title":{}}"#, "title"),
    ("/send/sendList", r#"{"receiver":"1074"}"#, ""),
    ("/send/sendList", "[]", ""),
    ("/send/sendList", r#"[{"receiver":"1074"},{"receiver":null}]"#, "[1].receiver"),
    ("/send/toUids", r#"{"uids":["1074"]}"#, "message"),
    ("/send/toUids", r#"{"message":{"action":"chat"}}"#, "uids"),
    ("/send/toUids", r#"{"message":{"action":"chat"},"uids":[]}"#, "uids"),
    ("/send/toUids", r#"{"message":{"action":"chat"},"uids":["1074",null]}"#, "uids[1]"),
    ("/send/room", r#"{"message":{"action":"chat"}}"#, "room"),
    ("/send/device", r#"{"message":{"action":"chat"},"uid":"1074"}"#, "device"),
    ("/send/connection", r#"{"message":{"action":"chat"},"cid":-1}"#, "cid"),
    ("/send/other", r#"{"message":{"action":"chat"}}"#, "uids"),
    ("/room/join", r#"{"uid":"1074"}"#, "room"),
    ("/room/join", r#"{"room":"lobby"}"#, "body"),
    ("/room/leave", r#"{"room":"lobby","cid":"x"}"#, "cid"),
    ("/kick", "{}", "body"),
];

#[tokio::test]
async fn each_bad_body_is_told_field_by_field_and_delivers_nothing() {
    let gateway = Gateway::start();
    let mut user = gateway.connect("1074", Form::YunquePb).await;
    let mut http = gateway.http().await;
    let json = [("content-type", "application/json")];
    for (path, body, words) in BAD_BODIES {
        let fault = http.request("POST", path, &json, body.as_bytes()).await.fault();
        assert_eq!(fault, (400, (*words).to_owned()), "{path} {body}");
    }
    for (path, body, field) in NAMED {
        let (status, words) = http.request("POST", path, &json, body.as_bytes()).await.fault();
        assert_eq!(status, 400, "{path} {body}: {words}");
        assert!(words.starts_with(field), "{path} {body}: {words}");
        assert!(words.contains("expected") && words.contains("got"), "{path} {body}: {words}");
    }
    assert_eq!(user.drain().await, Vec::<Value>::new());
}

#[tokio::test]
async fn body_that_is_no_json_is_refused() {
    let gateway = Gateway::start();
    let mut http = gateway.http().await;
    let deep = "[".repeat(32 * 1024);
    let deep_map = format!(r#"{{"receiver":"1","content":{{"a":{}{}}}}}"#, "[".repeat(200), "]".repeat(200));
    let bodies = ["", "{", "null", "\"x\"", "{\"receiver\":\"1\"}}", "\u{feff}nope", &deep, &deep_map];
    for body in bodies {
        let answer = http.request("POST", "/send", &[("content-type", "application/json")], body.as_bytes()).await;
        // Deep nesting may be rejected as too large.
        assert!([400, 413].contains(&answer.fault().0), "{:.40}: {}", body, answer.body);
    }
    let not_utf8 =
        http.request("POST", "/send", &[("content-type", "application/json")], b"{\"receiver\":\"\xff\"}").await;
    assert_eq!(not_utf8.fault().0, 400);
}

#[tokio::test]
async fn wrong_types_methods_sizes_and_paths_are_answered_the_same_way() {
    let gateway = Setup::default().yaml("limits:\n  body_bytes: 4096\n  batch: 2\n  uids: 2").start();
    let mut http = gateway.http().await;
    let body = br#"{"receiver":"1074","action":"chat"}"#;
    for (kind, status) in [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("application/json; charset=gbk", 415),
        ("text/plain", 415),
        ("application/xml", 415),
        ("multipart/form-data; boundary=x", 415),
    ] {
        let answer = http.request("POST", "/send", &[("content-type", kind)], body).await;
        assert_eq!(answer.status, status, "{kind}: {}", answer.body);
        assert_eq!(answer.json()["code"], status, "{kind}");
    }
    for (method, path, status, allow) in [
        ("GET", "/send", 405, Some("POST")),
        ("PUT", "/send/all", 405, Some("POST")),
        ("POST", "/getOnlineUser", 405, Some("GET, HEAD")),
        ("POST", "/nowhere", 404, None),
        ("GET", "/send/", 404, None),
        ("GET", "/login/getUserinfo", 404, None),
    ] {
        let answer = http.request(method, path, &[], b"").await;
        assert_eq!((answer.fault().0, answer.header("allow")), (status, allow), "{method} {path}: {}", answer.body);
    }
    let big = json!({"receiver": "1074", "title": "x".repeat(5000)});
    assert_eq!(http.post("/send", &big).await.fault().0, 413);
    let message = json!({"receiver": "1074", "action": "chat"});
    let many = json!([message, message, message]);
    let (status, words) = http.post("/send/sendList", &many).await.fault();
    assert!(status == 413 || status == 400, "{status}: {words}");
    let uids = json!({"message": message, "uids": ["1", "2", "3"]});
    let (status, words) = http.post("/send/toUids", &uids).await.fault();
    assert!(status == 413 || status == 400, "{status}: {words}");
}

#[tokio::test]
async fn keys_guard_the_api_by_scope() {
    let keys = "api:\n  keys:\n    - name: shop\n      key: shop-secret-0123456789abcdef\n      scopes: [push]\n    \
                - name: ops\n      key: ops-secret-0123456789abcdef\n      scopes: [read, manage]\n";
    let gateway = Setup::default().yaml(keys).start();
    let message = json!({"receiver": "1074", "action": "chat"});
    let mut http = gateway.http().await;
    assert_eq!(http.post("/send", &message).await.fault().0, 401);
    for (key, push, read, manage) in [
        ("shop-secret-0123456789abcdef", 200, 403, 403),
        ("ops-secret-0123456789abcdef", 403, 200, 200),
        ("shop-secret-0123456789abcdeF", 401, 401, 401),
        ("", 401, 401, 401),
    ] {
        for header in ["authorization", "x-api-key"] {
            let value = if header == "authorization" { format!("Bearer {key}") } else { key.to_owned() };
            http.headers = vec![(header, value)];
            assert_eq!(http.post("/send", &message).await.status, push, "{key}");
            assert_eq!(http.get("/getOnlineUser").await.status, read, "{key}");
            assert_eq!(http.post("/kick", &json!({"uid": "1"})).await.status, manage, "{key}");
        }
    }
    assert!(!gateway.log().contains("secret-0123"), "the log contains an API key");
}

#[test]
fn an_open_api_beyond_loopback_is_refused_at_the_start() {
    let folder = Setup::default().listeners(&["address: 0.0.0.0:0\nserves: [ws, api]"]).prepare();
    let output = folder.command("serve").output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{words}");
    assert!(words.contains("api.keys") && words.contains("insecure"), "{words}");
    let output = folder.command("check").output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(skylark().arg("no-such-command").output().unwrap().status.code(), Some(2));
}

#[tokio::test]
async fn insecure_api_starts_with_a_log_line() {
    let listeners = ["address: 0.0.0.0:0\nserves: [ws, api, metrics]"];
    let gateway = Setup::default().listeners(&listeners).yaml("api:\n  insecure: true").start();
    gateway.said("insecure").await;
}
