//! Faults in the environment of a running node: its wall clock jumps, and its disk is full.

use std::collections::BTreeSet;

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::client::{Client, within};
use crate::support::gateway::weather::Weather;
use crate::support::gateway::{Gateway, Setup};
use crate::support::token::Claims;
use crate::support::wire::Form;

const HOUR: i64 = 3_600;
const GRANTS: &str = "grants = [\"directory\", \"outbox\", \"timers\", \"login\", \"kv\", \"counters\", \"http\"]";

/// Answers PINGs until two have arrived, as proof that the node's timers run.
async fn live_on(client: &mut Client) {
    for _ in 0..2 {
        client.ping().await;
        client.pong().await;
    }
}

async fn connection_of(gateway: &Gateway, uid: &str) -> u64 {
    let told = gateway.get(&format!("/connections?uid={uid}")).await.data();
    let cid = &told["items"][0]["cid"];
    cid.as_u64().or_else(|| cid.as_str()?.parse().ok()).unwrap_or_else(|| panic!("{told}"))
}

/// One hour forward and back: connections, heartbeats, timers and the lease use a clock that does not jump, and no id
/// is reused.
#[tokio::test]
async fn clock_that_jumps_an_hour_costs_no_connection_and_no_id() {
    let heartbeat = "heartbeat:\n  interval: 200ms\n  max_missed: 20";
    let folder = Setup::default().yaml(heartbeat).prepare();
    let (mut command, weather) = (folder.command("serve"), Weather::new(folder.path()));
    weather.over(&mut command, folder.path());
    let gateway = Gateway::run(folder, command, None);
    let mut here = gateway.connect("here", Form::YunquePb).await;
    let (mut messages, mut connections) = (BTreeSet::new(), BTreeSet::new());
    connections.insert(connection_of(&gateway, "here").await);
    for (round, offset) in [0, HOUR, 0, -HOUR, HOUR, -HOUR, 0].into_iter().enumerate() {
        weather.move_clock(offset);
        let fresh = format!("fresh{round}");
        let claims = Claims::of(&fresh).expires_in(offset + HOUR);
        let (mut late, reply) = gateway.connect_as(claims, Form::YunqueJson).await;
        assert_eq!(reply["code"], "200", "{offset} s: {reply}");
        assert!(
            connections.insert(connection_of(&gateway, &fresh).await),
            "{offset} s: the id of a connection was reused"
        );
        for receiver in ["here", &fresh] {
            let told = gateway.post("/send", json!({"receiver": receiver, "action": "chat"})).await.data();
            assert_eq!(told["delivered"], 1, "{offset} s: {told}");
        }
        for client in [&mut here, &mut late] {
            let message = client.message().await;
            assert!(
                messages.insert(message["id"].to_string()),
                "{offset} s: the id of a message was reused: {message}"
            );
        }
        live_on(&mut here).await;
        live_on(&mut late).await;
        assert_eq!(gateway.get("/health/ready").await.status, 200, "{offset} s");
        late.close().await;
    }
}

async fn add(client: &mut Client) -> Value {
    client.ask("probe_add", json!({"key": "sum", "amount": "1"})).await
}

/// Keys, compiled plugins and the log share one disk. Acknowledged writes are kept, writes that cannot be kept are
/// refused, and messages pass meanwhile.
#[tokio::test]
async fn full_disk_refuses_what_it_cannot_keep_and_nothing_else() {
    let plugins =
        "plugins:\n  dir: $PLUGINS\n  cache: ./disk/cache\n  settle: 50ms\n  rescan: 1s\n  kv: ./disk/kv.redb";
    let log = "log:\n  file: ./disk/node.log\n  rotation: never";
    let setup = Setup::default().plugin("probe").manifest("probe", GRANTS).yaml(plugins).yaml(log);
    let folder = setup.prepare();
    let disk = folder.path().join("disk");
    std::fs::create_dir(&disk).unwrap();
    let (mut command, weather) = (folder.command("serve"), Weather::new(folder.path()));
    weather.over(&mut command, &std::fs::canonicalize(&disk).unwrap());
    let mut gateway = Gateway::run(folder, command, None);
    let mut client = gateway.connect("1074", Form::YunqueJson).await;
    let mut kept = 0;
    for _ in 0..5 {
        assert_eq!(add(&mut client).await["code"], "200");
        kept += 1;
    }
    weather.fill_disk(true);
    let refused = within("the refusal", async {
        loop {
            let reply = add(&mut client).await;
            if reply["code"] != "200" {
                return reply;
            }
            kept += 1;
        }
    });
    assert_eq!(refused.await["code"], "503");
    for n in 0..20 {
        let told = gateway.post("/send", json!({"receiver": "1074", "action": n.to_string()})).await.data();
        assert_eq!(told["delivered"], 1);
        assert_eq!(client.message().await["action"], n.to_string());
    }
    // A plugin serves even if its compiled form cannot be stored.
    gateway.folder.put("stamp.wasm", &crate::support::gateway::component("stamp-v1"));
    gateway.plugin_until("stamp", |plugin| plugin["state"] == "live").await;
    weather.fill_disk(false);
    let taken = within("free space on the disk", async {
        loop {
            let reply = add(&mut client).await;
            if reply["code"] == "200" {
                return reply;
            }
        }
    });
    kept += 1;
    assert_eq!(
        taken.await["data"]["value"],
        kept.to_string(),
        "the store does not hold exactly the acknowledged writes"
    );
    gateway.signal(Signal::KILL);
    gateway.exit().await;
    let gateway = gateway.again();
    let mut client = gateway.connect("1074", Form::YunqueJson).await;
    assert_eq!(add(&mut client).await["data"]["value"], (kept + 1).to_string());
}
