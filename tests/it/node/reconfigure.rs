//! SIGHUP: the effective configuration is checked as a whole, a failed reload changes nothing, and the log file is
//! reopened.

use rustix::process::Signal;
use serde_json::json;

use crate::support::client::within;
use crate::support::gateway::{Gateway, Setup};
use crate::support::tls::Pair;
use crate::support::wire::Form;

const KEPT: &str = "reload failed: the configuration is unchanged";

fn rewrite(gateway: &Gateway, from: &str, to: &str) {
    let text = std::fs::read_to_string(gateway.folder.config()).unwrap();
    assert!(text.contains(from), "{text}");
    std::fs::write(gateway.folder.config(), text.replace(from, to)).unwrap();
}

/// Sends SIGHUP and waits until the log contains `words` once more.
async fn hang_up(gateway: &Gateway, words: &str) {
    let before = gateway.log().matches(words).count();
    gateway.signal(Signal::HUP);
    let heard = async {
        while gateway.log().matches(words).count() == before {
            tokio::task::yield_now().await;
        }
    };
    within(words, heard).await;
}

#[tokio::test]
async fn a_reload_does_not_open_the_api_of_a_listener_that_waits_for_a_restart() {
    let keys = "api:\n  keys:\n    - name: shop\n      key: shop-secret-0123456789abcdef\n";
    let open = "address: 0.0.0.0:0\nserves: [ws, api, metrics]";
    let gateway = Setup::default().listeners(&[open]).yaml(keys).start();
    let message = json!({"receiver": "1074", "action": "chat"});
    assert_eq!(gateway.post("/send", message.clone()).await.status, 401);
    // Valid by itself, because loopback needs no key. The new address takes effect after a restart, and so do the keys.
    rewrite(&gateway, keys, "");
    rewrite(&gateway, "0.0.0.0:0", "127.0.0.1:0");
    hang_up(&gateway, KEPT).await;
    assert_eq!(gateway.post("/send", message).await.status, 401);
    gateway.said("until a restart the node keeps the old listeners[0].address").await;
}

#[tokio::test]
async fn a_reload_with_an_unreadable_certificate_changes_nothing() {
    let gateway = Setup::default().tls(Pair::new()).yaml("limits:\n  batch: 2\n").start();
    let three = json!([{"receiver": "1"}, {"receiver": "1"}, {"receiver": "1"}]);
    assert_ne!(gateway.post("/send/sendList", three.clone()).await.status, 200);
    rewrite(&gateway, "batch: 2", "batch: 3");
    let key = gateway.folder.path().join("key.pem");
    let pem = std::fs::read(&key).unwrap();
    std::fs::write(&key, "no key\n").unwrap();
    hang_up(&gateway, KEPT).await;
    assert_ne!(gateway.post("/send/sendList", three.clone()).await.status, 200, "a rejected file changed a limit");
    std::fs::write(&key, pem).unwrap();
    hang_up(&gateway, "configuration reloaded").await;
    assert_eq!(gateway.post("/send/sendList", three).await.status, 200);
}

#[tokio::test]
async fn sighup_opens_the_log_file_again_even_with_a_broken_configuration() {
    let gateway = Setup::default().yaml("log:\n  file: node.log\n  rotation: never\n").start();
    let (file, moved) = (gateway.folder.path().join("node.log"), gateway.folder.path().join("node.log.1"));
    std::fs::rename(&file, &moved).unwrap();
    std::fs::write(gateway.folder.config(), "clients:\n  publsh: true\n").unwrap();
    hang_up(&gateway, KEPT).await;
    let written = async {
        while !std::fs::read_to_string(&file).is_ok_and(|text| text.contains(KEPT)) {
            tokio::task::yield_now().await;
        }
    };
    within("the line in the new file", written).await;
    assert!(!std::fs::read_to_string(&moved).unwrap().contains(KEPT));
}

#[tokio::test]
async fn a_key_that_manages_rooms_does_not_command_plugins() {
    let key = |name: &str, scopes: &str| {
        format!("    - {{name: {name}, key: {name}-secret-0123456789, scopes: [{scopes}]}}\n")
    };
    let keys = format!("api:\n  keys:\n{}{}", key("rooms", "read, manage"), key("deploy", "plugins"));
    let gateway = Setup::default().yaml(&keys).start();
    gateway.said("has `manage` without `plugins`").await;
    let mut http = gateway.http().await;
    for (name, status) in [("rooms", 403), ("deploy", 200)] {
        http.headers = vec![("x-api-key", format!("{name}-secret-0123456789"))];
        for word in ["disable", "enable", "reload"] {
            let answer = http.post(&format!("/plugins/token-auth/{word}"), &json!({})).await;
            assert_eq!(answer.status, status, "{name} {word}: {}", answer.body);
        }
        let answer = http.post("/plugins/token-auth/rollback", &json!({})).await;
        assert_eq!(answer.status == 403, status == 403, "{}", answer.body);
    }
    // The command line reports the missing scope, from the node's response or from the configuration.
    let url = format!("http://{}", gateway.address("api"));
    let tell = |key: &[&str]| {
        let mut command = gateway.folder.command("plugin");
        let output = command.args(["disable", "token-auth", "--url", &url]).args(key).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, words) = tell(&["--key", "rooms-secret-0123456789"]);
    assert!(
        code == Some(1) && words.contains("expected the scope plugins, got \"rooms\" with read, manage"),
        "{words}"
    );
    rewrite(&gateway, &key("deploy", "plugins"), "");
    let (code, words) = tell(&[]);
    assert!(
        code == Some(1) && words.contains("expected a key of api.keys with the scope plugins, got none"),
        "{words}"
    );
}

/// Replies to such keys fit in no TCP frame. This is logged at debug level only.
#[tokio::test]
async fn a_client_cannot_fill_the_log() {
    let gateway = Setup::default().yaml("log:\n  level: debug\n").start();
    let mut client = gateway.dial_cim(Form::CimTcp).await;
    let before = gateway.log().len();
    for _ in 0..100 {
        client.sent(&"\u{1b}".repeat(65_490), json!({})).await;
    }
    assert_eq!(client.ask("no_such_key", json!({})).await["code"], "404");
    let log = gateway.log();
    let told: Vec<&str> = log.lines().filter(|line| line.contains("does not fit a frame")).collect();
    assert!((1..50).contains(&told.len()), "expected 1 to 49 lines, got {}", told.len());
    for line in &told {
        assert!(line.contains("\"level\":\"DEBUG\"") && line.len() < 2_000, "{line}");
        assert!(!line.contains('\u{1b}') && !line.contains("\\u001b"), "{line}");
    }
    assert!(log.len() - before < 100_000, "the log grew by {} bytes", log.len() - before);
}
