//! Shortage of file descriptors: clients are refused, while back ends, probes and scrapers are answered.

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::json;
use tokio::net::TcpStream;

use crate::support::client::{Client, Dial, within};
use crate::support::gateway::{Gateway, Setup};
use crate::support::http::Http;
use crate::support::token::Claims;
use crate::support::wire::Form;

/// The timeouts for silent connections are longer than the test.
const PATIENT: &str = "limits:\n  connections_per_ip: 0\n  connects_per_ip: 0\n  handshake: 5m\n  first_frame: 5m";

/// Number of descriptors in use, as `/proc` reports it.
fn in_use(gateway: &Gateway) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", gateway.pid())).unwrap().count()
}

fn soft_limit(gateway: &Gateway) -> u64 {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", gateway.pid())).unwrap();
    let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
    line.split_whitespace().nth(3).unwrap().parse().unwrap()
}

/// Sends a request on a new connection; `None` if the node closes it.
async fn try_get(gateway: &Gateway, path: &str) -> Option<u16> {
    let mut http = Http::connect(gateway.address("api")).await;
    Some(http.attempt("GET", path, &[("connection", "close")], b"").await.ok()?.status)
}

#[tokio::test]
async fn thousand_arrivals_at_256_descriptors_leave_api_health_and_metrics_answering() {
    let gateway = Setup::default().yaml(PATIENT).descriptors(256).start();
    let mut here = gateway.connect("1074", Form::YunquePb).await;
    let mut http = gateway.http().await;
    let mut crowd = Vec::new();
    for n in 0..1_000 {
        let service = if n % 2 == 0 { "cim" } else { "cim-tcp" };
        crowd.push(TcpStream::connect(gateway.address(service)).await.unwrap());
    }
    gateway.said("too few file descriptors are left").await;
    let used = in_use(&gateway);
    assert!(used <= 240, "expected at most 240 of 256 descriptors in use, got {used}");
    // The connected client is served, by requests on open and on new connections.
    for (n, http) in [&mut http, &mut gateway.http().await].into_iter().enumerate() {
        let told = http.post("/send", &json!({"receiver": "1074", "action": format!("crowded{n}")})).await.data();
        assert_eq!(told["delivered"], 1);
        assert_eq!(here.message().await["action"], format!("crowded{n}"));
    }
    for path in ["/health/live", "/health/ready"] {
        assert_eq!(gateway.get(path).await.status, 200, "{path}");
    }
    let metrics = gateway.get("/metrics").await.body;
    assert!(metrics.contains(r#"skylark_refused_total{reason="descriptors"}"#), "{metrics}");
    let dial = Dial::path(format!("/ws?token={}", Claims::of("late").mint()));
    let told = Client::dial(gateway.address("ws"), Form::YunquePb, dial).await.err().expect("the connect is refused");
    assert!(told.0 == 503 && told.1.contains("no file descriptor"), "{told:?}");
    // Silent connections on the listener for clients and requests cannot keep the remaining descriptors.
    for _ in 0..200 {
        crowd.push(TcpStream::connect(gateway.address("ws")).await.unwrap());
    }
    let answered = async { while try_get(&gateway, "/health/live").await != Some(200) {} };
    within("the answer beside silent connections", answered).await;
    drop(crowd);
    let welcome = async {
        loop {
            let dial = Dial::path(format!("/ws?token={}", Claims::of("late").mint()));
            if let Ok(client) = Client::dial(gateway.address("ws"), Form::YunquePb, dial).await {
                return client;
            }
        }
    };
    let mut late = within("a free descriptor for a client", welcome).await;
    assert_eq!(late.reply().await["code"], "200");
    let lines = gateway.log().matches("too few file descriptors are left").count();
    assert!(lines < 20, "the same line was logged {lines} times");
}

/// The operator lowers the limit of a running process: its listeners wait and then continue.
#[tokio::test]
async fn listener_outlives_a_process_without_descriptors() {
    let gateway = Setup::default().yaml(PATIENT).start();
    let mut here = gateway.connect("1074", Form::YunquePb).await;
    let mut http = gateway.http().await;
    http.post("/send", &json!({"receiver": "1074", "action": "early"})).await.data();
    assert_eq!(here.message().await["action"], "early");
    let pid = Pid::from_raw(gateway.pid().cast_signed());
    let limit = |current| Rlimit { current: Some(current), maximum: Some(1_000) };
    prlimit(pid, Resource::Nofile, limit(3)).unwrap();
    let waiting = TcpStream::connect(gateway.address("cim")).await.unwrap();
    gateway.said("Too many open files").await;
    http.post("/send", &json!({"receiver": "1074", "action": "meanwhile"})).await.data();
    assert_eq!(here.message().await["action"], "meanwhile");
    prlimit(pid, Resource::Nofile, limit(1_000)).unwrap();
    let mut late = gateway.connect("late", Form::CimPb).await;
    http.post("/send", &json!({"receiver": "late", "action": "welcome"})).await.data();
    assert_eq!(late.message().await["action"], "welcome");
    drop(waiting);
    let lines = gateway.log().matches("Too many open files").count();
    assert!(lines < 20, "the same line was logged {lines} times");
}

#[tokio::test]
async fn soft_limit_is_raised_to_the_hard_one_and_too_few_are_told() {
    let few = "limits:\n  connections: 100000000";
    let gateway = Setup::default().yaml(few).soft_descriptors(128).start();
    assert!(soft_limit(&gateway) > 128);
    gateway.said("file descriptor limit raised").await;
    gateway.said("fewer than limits.connections (100000000): raise nofile to 100000576").await;
    let told = gateway.folder.command("check").output().unwrap();
    let printed = String::from_utf8_lossy(&told.stdout);
    assert!(told.status.success(), "{printed}");
    let warning = printed.lines().find(|line| line.starts_with("warning: file descriptors: a limit of "));
    assert!(warning.is_some_and(|line| line.contains("limits.connections (100000000)")), "{printed}");
}
