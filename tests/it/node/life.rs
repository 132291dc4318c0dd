//! End and reconfiguration of a node: drain on SIGTERM, reload on SIGHUP.

use rustix::process::Signal;
use serde_json::json;
use tokio::net::TcpListener;

use crate::plugins::compile::bomb;
use crate::support::client::within;
use crate::support::gateway::{Gateway, Setup};
use crate::support::wire::Form;

#[tokio::test]
async fn sigterm_drains_and_tells_clients_to_come_back() {
    let mut gateway = Gateway::start();
    let mut clients = Vec::new();
    for form in Form::ALL {
        clients.push(gateway.connect(&format!("{form:?}"), form).await);
    }
    // Messages accepted before the signal are sent before the end.
    gateway.post("/send/all", json!({"action": "last"})).await.data();
    gateway.signal(Signal::TERM);
    for client in &mut clients {
        assert_eq!(client.message().await["action"], "last", "{:?}", client.form);
        let expected = (client.form != Form::CimTcp).then(|| (4003, "restart".to_owned()));
        assert_eq!(client.closed().await, expected, "{:?}", client.form);
    }
    let status = gateway.exit().await;
    assert_eq!(status.code(), Some(0), "{}", gateway.log());
}

#[tokio::test]
async fn readiness_is_red_while_the_drain_waits() {
    let mut gateway = Setup::default().yaml("drain:\n  wait: 6s\n  step_percent: 100\n  grace: 10s").start();
    let mut http = gateway.http().await;
    assert_eq!(http.get("/health/ready").await.status, 200);
    gateway.signal(Signal::TERM);
    while http.get("/health/ready").await.status == 200 {}
    assert_eq!(http.get("/health/live").await.status, 200);
    assert_eq!(gateway.exit().await.code(), Some(0), "{}", gateway.log());
}

#[tokio::test]
async fn a_connection_that_does_not_read_cannot_hold_the_drain() {
    let mut gateway = Setup::default().yaml("drain:\n  wait: 0s\n  step_percent: 100\n  grace: 2s").start();
    let _deaf = gateway.connect("deaf", Form::YunquePb).await;
    let _half_open = tokio::net::TcpStream::connect(gateway.address("ws")).await.unwrap();
    gateway.signal(Signal::TERM);
    assert_eq!(gateway.exit().await.code(), Some(0), "{}", gateway.log());
}

/// One client never reads its 1 MB backlog: the drain is bounded, and the other clients receive their messages.
#[tokio::test]
async fn a_slow_consumer_costs_the_drain_no_more_than_its_grace() {
    let drain = "drain:\n  wait: 0s\n  step_percent: 100\n  grace: 2s\nqueue:\n  bytes: 16777216\n";
    let mut gateway = Setup::default().yaml(drain).start();
    let _deaf = gateway.connect("deaf", Form::YunquePb).await;
    let mut here = gateway.connect("here", Form::YunquePb).await;
    let text = "x".repeat(60_000);
    let mut http = gateway.http().await;
    // More than the kernel's buffers hold.
    for _ in 0..200 {
        let body = json!({"receiver": "deaf", "action": "chat", "content": {"text": text}});
        assert_eq!(http.post("/send", &body).await.data()["delivered"], 1);
    }
    http.post("/send", &json!({"receiver": "here", "action": "last"})).await.data();
    gateway.signal(Signal::TERM);
    assert_eq!(here.message().await["action"], "last");
    assert_eq!(here.closed().await, Some((4003, "restart".to_owned())));
    let start = std::time::Instant::now();
    assert_eq!(gateway.exit().await.code(), Some(0), "{}", gateway.log());
    assert!(start.elapsed() < std::time::Duration::from_secs(60), "the drain took {:?}", start.elapsed());
}

#[tokio::test]
async fn a_second_signal_ends_at_once() {
    let mut gateway = Setup::default().yaml("drain:\n  wait: 5m\n  step_percent: 100\n  grace: 10m").start();
    let _client = gateway.connect("here", Form::YunquePb).await;
    gateway.signal(Signal::TERM);
    gateway.said("draining").await;
    gateway.signal(Signal::HUP);
    gateway.signal(Signal::INT);
    assert_eq!(gateway.exit().await.code(), Some(130), "{}", gateway.log());
}

/// A plugin that takes a minute to compile: the node is far from ready.
#[tokio::test]
async fn sigterm_ends_a_node_that_compiles_and_its_compiler() {
    let compile = "plugins:\n  dir: $PLUGINS\n  compile: {cpu: 1m, wall: 5m, memory: 4GiB}";
    let folder = Setup::default().yaml(compile).prepare();
    folder.put("bomb.wasm", &bomb());
    let (mut node, _printed) = Gateway::begin(folder.clone(), folder.command("serve"), None);
    let compiler = within("the compiler process", async {
        loop {
            if let Some(child) = children(node.pid()).first() {
                return *child;
            }
            tokio::task::yield_now().await;
        }
    });
    let compiler = compiler.await;
    node.signal(Signal::TERM);
    assert_eq!(node.exit().await.code(), Some(0), "{}", node.log());
    assert!(node.log().contains("stop signal received before the node was ready"), "{}", node.log());
    within("the exit of the compiler process", async { while is_running(compiler) {} }).await;
}

/// The engine accepts the connection and does not answer.
#[tokio::test]
async fn sigint_ends_a_node_that_waits_for_its_engine() {
    let engine = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bus = format!("bus:\n  kind: redis\n  redis: {{url: \"redis://{}\"}}", engine.local_addr().unwrap());
    let folder = Setup::default().yaml(&bus).prepare();
    let (mut node, _printed) = Gateway::begin(folder.clone(), folder.command("serve"), None);
    let _silent = within("the connect of the node", engine.accept()).await.unwrap();
    node.signal(Signal::INT);
    assert_eq!(node.exit().await.code(), Some(0), "{}", node.log());
    assert!(node.log().contains("stop signal received before the node was ready"), "{}", node.log());
}

/// The running child processes of a process.
fn children(parent: u32) -> Vec<u32> {
    let all = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    all.filter(|pid| stat(*pid).is_some_and(|stat| stat.1 == parent)).collect()
}

fn is_running(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

/// State and parent of a process, from the fields after its name in parentheses.
fn stat(pid: u32) -> Option<(char, u32)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = text.rsplit_once(')')?.1.split_whitespace();
    Some((words.next()?.chars().next()?, words.next()?.parse().ok()?))
}

#[tokio::test]
async fn sighup_applies_live_keys_and_reports_the_others() {
    let gateway = Setup::default().yaml("clients:\n  publish: false").start();
    let mut a = gateway.connect("a", Form::YunquePb).await;
    let say = json!({"to": "user:a", "content": "hi"});
    assert_eq!(a.ask("message", say.clone()).await["code"], "403");
    let text = std::fs::read_to_string(gateway.folder.config()).unwrap();
    let changed = text.replace("publish: false", "publish: true") + "\nqueue:\n  mailbox: 17\n";
    std::fs::write(gateway.folder.config(), changed).unwrap();
    gateway.signal(Signal::HUP);
    while a.ask("message", say.clone()).await["code"] == "403" {}
    gateway.said("queue.mailbox").await;
    // A broken file changes nothing, and the log names the reason.
    std::fs::write(gateway.folder.config(), "clients:\n  publsh: true\n").unwrap();
    gateway.signal(Signal::HUP);
    gateway.said("publish").await;
    assert_eq!(a.ask("message", say).await["code"], "200");
}
