//! The journal of the history: a restart loses nothing, a full disk refuses, and a folder belongs to one node.

use std::fs::{DirBuilder, Permissions, set_permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::client::{Client, within};
use crate::support::gateway::weather::Weather;
use crate::support::gateway::{Folder, Gateway, Setup};
use crate::support::http::Response;
use crate::support::token::Claims;
use crate::support::wire::Form;

/// A folder whose node keeps a journal.
fn folder(more: &str) -> Folder {
    let folder = Setup::default().yaml(&format!("history:\n  journal: {{dir: ./journal{more}")).prepare();
    DirBuilder::new().mode(0o700).create(folder.path().join("journal")).unwrap();
    folder
}

fn start(folder: Folder) -> Gateway {
    let command = folder.command("serve");
    Gateway::run(folder, command, None)
}

/// Binds `uid` and returns the elements of the answer to its `resume`.
async fn bind(gateway: &Gateway, uid: &str, resume: &Value) -> (Client, Vec<Value>) {
    let mut client = gateway.dial_cim(Form::CimJson).await;
    let data = json!({"token": Claims::of(uid).mint(), "channel": "web", "resume": resume.to_string()});
    let reply = client.ask("client_bind", data).await;
    assert_eq!(reply["code"], "200", "{reply}");
    let elements = serde_json::from_str(reply["data"]["resume"].as_str().unwrap()).unwrap();
    (client, elements)
}

/// Position in an element of the answer, as an element of `resume`.
fn told(element: &Value) -> Value {
    json!([element[0], element[2], element[3], element[4]])
}

async fn push(gateway: &Gateway, uid: &str, action: &str) -> Response {
    gateway.post("/send", json!({"receiver": uid, "action": action})).await
}

async fn kill(gateway: &mut Gateway) -> Gateway {
    gateway.signal(Signal::KILL);
    gateway.exit().await;
    gateway.again()
}

#[tokio::test]
async fn client_resumes_over_the_kill_of_its_node() {
    for fsync in ["always", "100ms", "os"] {
        let mut gateway = start(folder(&format!(", fsync: {fsync}}}")));
        let (client, elements) = bind(&gateway, "a", &json!([])).await;
        let mut position = told(&elements[0]);
        client.close().await;
        for round in 0..2 {
            for action in ["one", "two"] {
                push(&gateway, "a", action).await.data();
            }
            gateway = kill(&mut gateway).await;
            let (mut client, elements) = bind(&gateway, "a", &json!([position])).await;
            assert_eq!((&elements[0][1], &elements[0][5]), (&json!(true), &json!(2)), "{fsync} {round}: {elements:?}");
            for action in ["one", "two"] {
                assert_eq!(client.message().await["action"], action, "{fsync} {round}");
            }
            push(&gateway, "a", "live").await.data();
            let live = client.message().await;
            assert_eq!((&live["action"], &live["offset"]), (&json!("live"), &json!(3 * (round + 1))), "{live}");
            position = json!(["u", live["epoch"], live["offset"], live["id"]]);
            client.close().await;
        }
    }
}

#[tokio::test]
async fn forgotten_stream_stays_forgotten_after_a_drain_and_after_a_kill() {
    let mut gateway = start(folder("}"));
    push(&gateway, "a", "kept").await.data();
    push(&gateway, "b", "forgotten").await.data();
    gateway.post("/history/forget", json!({"stream": "u:b"})).await.data();
    let read = async |gateway: &Gateway, uid: &str| {
        let page = gateway.get(&format!("/history?stream=u:{uid}")).await.data();
        page["messages"].as_array().unwrap_or_else(|| panic!("{page}")).len()
    };
    for signal in [Signal::KILL, Signal::TERM] {
        gateway.signal(signal);
        gateway.exit().await;
        gateway = gateway.again();
        assert_eq!((read(&gateway, "a").await, read(&gateway, "b").await), (1, 0));
    }
}

/// Fills the disk under the journal once the node runs.
fn start_on_a_disk(more: &str) -> (Gateway, Weather) {
    let folder = folder(more);
    let (mut command, weather) = (folder.command("serve"), Weather::new(folder.path()));
    let disk = std::fs::canonicalize(folder.path().join("journal")).unwrap();
    weather.over(&mut command, &disk);
    (Gateway::run(folder, command, None), weather)
}

#[tokio::test]
async fn full_disk_under_the_journal_refuses_kept_messages_until_it_has_space() {
    let (mut gateway, weather) = start_on_a_disk("}");
    let (mut client, elements) = bind(&gateway, "a", &json!([])).await;
    push(&gateway, "a", "before").await.data();
    assert_eq!(client.message().await["action"], "before");
    weather.fill_disk(true);
    for _ in 0..3 {
        assert_eq!(push(&gateway, "a", "refused").await.status, 503);
    }
    assert_eq!(gateway.post("/history/forget", json!({"stream": "u:a"})).await.status, 503);
    gateway.said("the history's journal failed").await;
    gateway.metrics_until("skylark_history_journal_failures_total 1").await;
    gateway.metrics_until("skylark_history_unkept_total{end=\"refused\"} 3").await;
    let ready = gateway.get("/health/ready").await;
    assert!(ready.status == 503 && ready.body.contains("the journal of the history"), "{}", ready.body);
    weather.fill_disk(false);
    within("space on the disk", async { while push(&gateway, "a", "after").await.status != 200 {} }).await;
    assert_eq!(client.message().await["action"], "after");
    assert_eq!(gateway.get("/health/ready").await.status, 200);
    gateway = kill(&mut gateway).await;
    let (mut client, elements) = bind(&gateway, "a", &json!([told(&elements[0])])).await;
    assert_eq!((&elements[0][1], &elements[0][5]), (&json!(true), &json!(2)), "{elements:?}");
    for action in ["before", "after"] {
        assert_eq!(client.message().await["action"], action);
    }
}

#[tokio::test]
async fn full_disk_delivers_live_and_tells_clients_that_come_back() {
    let (gateway, weather) = start_on_a_disk("}\n  on_failure: deliver");
    let (mut live, _) = bind(&gateway, "a", &json!([])).await;
    let (away, elements) = bind(&gateway, "b", &json!([])).await;
    away.close().await;
    weather.fill_disk(true);
    for uid in ["a", "b"] {
        let told = push(&gateway, uid, "live").await.data();
        assert_eq!((&told["kept"], told.get("positions")), (&json!(false), None), "{told}");
    }
    let message = live.message().await;
    assert_eq!((&message["action"], message.get("offset")), (&json!("live"), None), "{message}");
    gateway.metrics_until("skylark_history_unkept_total{end=\"delivered\"} 2").await;
    assert_eq!(gateway.get("/health/ready").await.status, 200, "clients are served");
    weather.fill_disk(false);
    within("space on the disk", async { while push(&gateway, "a", "kept").await.data().get("kept").is_some() {} })
        .await;
    let (_back, elements) = bind(&gateway, "b", &json!([told(&elements[0])])).await;
    assert_eq!((&elements[0][1], &elements[0][6]), (&json!(false), &json!("epoch")), "{elements:?}");
}

fn run(folder: &Folder, command: &str) -> (Option<i32>, String) {
    let output = folder.command(command).output().unwrap();
    let words = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8_lossy(&words).into_owned())
}

#[test]
fn folder_of_the_journal_must_exist_and_be_closed_to_others() {
    let folder = folder("}");
    let dir = folder.path().join("journal");
    let (code, words) = run(&folder, "check");
    assert_eq!(code, Some(0), "{words}");
    set_permissions(&dir, Permissions::from_mode(0o777)).unwrap();
    for command in ["check", "serve"] {
        let (code, words) = run(&folder, command);
        assert!(code == Some(1) && words.contains("history.journal") && words.contains("chmod go-w"), "{words}");
    }
    std::fs::remove_dir(&dir).unwrap();
    for command in ["check", "serve"] {
        let (code, words) = run(&folder, command);
        assert!(code == Some(1) && words.contains("./journal: No such file or directory"), "{words}");
    }
}

#[tokio::test]
async fn second_node_does_not_start_in_the_same_folder() {
    let gateway = start(folder("}"));
    let (code, words) = run(&gateway.folder, "serve");
    assert!(code == Some(1) && words.contains("another process uses the folder"), "{words}");
    push(&gateway, "a", "still").await.data();
}
