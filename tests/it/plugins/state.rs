//! Persistent keys of plugins end to end: they survive the node if the operator enables it, and a broken file prevents
//! the start.

use rustix::process::Signal;
use serde_json::json;

use crate::support::client::Client;
use crate::support::gateway::{Folder, Gateway, Setup};
use crate::support::wire::Form;

const GRANTS: &str = "grants = [\"directory\", \"outbox\", \"timers\", \"login\", \"kv\", \"counters\", \"http\"]";

fn prepare(kv: &str) -> Folder {
    let plugins = format!("plugins:\n  dir: $PLUGINS\n  cache: $CACHE\n  settle: 50ms\n  rescan: 1s\n  kv: {kv}");
    Setup::default().plugin("probe").manifest("probe", GRANTS).yaml(&plugins).prepare()
}

fn serve(folder: Folder) -> Gateway {
    let command = folder.command("serve");
    Gateway::run(folder, command, None)
}

async fn add(client: &mut Client, amount: i64) -> String {
    let reply = client.ask("probe_add", json!({"key": "sum", "amount": amount.to_string()})).await;
    reply["data"]["value"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned()
}

/// An answered write is durable: the node gets no chance to write anything more.
#[tokio::test]
async fn acknowledged_plugin_key_survives_kill_of_the_node() {
    let mut gateway = serve(prepare("./kv.redb"));
    for expected in ["5", "10", "15"] {
        let mut client = gateway.connect("1074", Form::YunqueJson).await;
        assert_eq!(add(&mut client, 5).await, expected);
        gateway.signal(Signal::KILL);
        gateway.exit().await;
        gateway = gateway.again();
    }
    let mut client = gateway.connect("1074", Form::YunqueJson).await;
    assert_eq!(add(&mut client, 0).await, "15");
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exit().await.code(), Some(0), "{}", gateway.log());
    let gateway = gateway.again();
    let mut client = gateway.connect("1074", Form::YunqueJson).await;
    assert_eq!(add(&mut client, 0).await, "15");
}

#[tokio::test]
async fn plugin_keys_in_memory_end_with_the_node() {
    let mut gateway = serve(prepare("memory"));
    let mut client = gateway.connect("1074", Form::YunqueJson).await;
    assert_eq!(add(&mut client, 5).await, "5");
    gateway.signal(Signal::KILL);
    gateway.exit().await;
    let gateway = gateway.again();
    let mut client = gateway.connect("1074", Form::YunqueJson).await;
    assert_eq!(add(&mut client, 1).await, "1");
}

#[test]
fn invalid_store_file_fails_the_start_and_is_not_changed() {
    for (kv, words) in [
        ("./kv.redb", "expected a key-value store of plugins, got"),
        ("./none/kv.redb", "none/kv.redb: No such file"),
        ("kv.redb", "expected `memory`, or a path with a slash such as ./state/kv.redb, got \"kv.redb\""),
    ] {
        let folder = prepare(kv);
        std::fs::write(folder.path().join("kv.redb"), "an older thing").unwrap();
        let ended = folder.command("serve").output().unwrap();
        let told = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(!ended.status.success() && told.contains("plugins.kv") && told.contains(words), "{kv}: {told}");
        assert_eq!(std::fs::read(folder.path().join("kv.redb")).unwrap(), b"an older thing");
    }
}
