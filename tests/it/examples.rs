//! The examples of `config/examples`, `examples/cluster` and compose.yaml: each is read by the node, and what can run here
//! runs.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::client::{Client, Dial};
use crate::support::gateway::skylark;
use crate::support::http::Http;
use crate::support::redis::free_address;
use crate::support::token::Claims;
use crate::support::wire::Form;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What stands in the environment of a node of the examples.
const PLACES: [(&str, &str); 6] = [
    ("NODE", "n1"),
    ("NUMBER", "1"),
    ("LISTEN", "127.0.0.1:0"),
    ("ADDRESS", "ws://localhost/ws"),
    ("REDIS", "redis://localhost"),
    ("API_KEY", "a key of the examples"),
];

#[test]
fn every_example_of_a_configuration_is_one() {
    let mut count = 0;
    for entry in std::fs::read_dir(root().join("config/examples")).unwrap() {
        let path = entry.unwrap().path();
        let output = skylark().arg("config").arg("--config").arg(&path).envs(PLACES).output().unwrap();
        assert!(output.status.success(), "{}: {}", path.display(), String::from_utf8_lossy(&output.stderr));
        count += 1;
    }
    assert!(count > 0);
}

/// It cannot be run here: at least it names files that are there, and sets what they ask for.
#[test]
fn compose_sets_what_the_example_asks_for() {
    let compose = std::fs::read_to_string(root().join("compose.yaml")).unwrap();
    for path in ["config/examples/cluster.yaml", "plugins/dist"] {
        assert!(compose.contains(path) && root().join(path).exists(), "{path}");
    }
    let example = std::fs::read_to_string(root().join("config/examples/cluster.yaml")).unwrap();
    for (name, _) in PLACES {
        let is_asked_for = example.contains(&format!("${{{name}}}")) || example.contains(&format!("env: {name}"));
        assert!(is_asked_for && compose.contains(&format!("{name}: ")), "{name}");
    }
}

/// `examples/cluster/up`: three nodes come up, a push to one reaches a client of another, and all of it ends.
#[tokio::test]
async fn the_cluster_of_plain_processes_comes_up_and_goes_down() {
    let [redis, first, second, third] = [(); 4].map(|()| free_address());
    let ports = [first, second, third].map(|address| address.port().to_string()).join(" ");
    let mut up = Command::new(root().join("examples/cluster/up"))
        .env("SKYLARK", env!("CARGO_BIN_EXE_skylark"))
        .env("PORTS", ports)
        .env("REDIS_PORT", redis.port().to_string())
        .env("API_KEY", PLACES[5].1)
        .env("SKYLARK__PLUGINS__CACHE", Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled"))
        .env("SKYLARK__DRAIN__WAIT", "0s")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(up.stdout.take().unwrap()).lines().map_while(Result::ok);
    let said: Vec<String> = lines.take_while(|line| line != "ready").collect();
    assert_eq!(said.iter().filter(|line| line.contains("push to")).count(), 3, "{said:?}");

    let dial = Dial::path(format!("/ws?token={}", Claims::of("1074").mint()));
    let mut client = Client::dial(first, Form::YunquePb, dial).await.unwrap();
    assert_eq!(client.reply().await["data"]["sid"], "n1");
    let mut http = Http::connect(third).await;
    http.headers.push(("x-api-key", PLACES[5].1.to_owned()));
    http.post("/send", &json!({"receiver": "1074", "action": "across"})).await.data();
    assert_eq!(client.message().await["action"], "across");

    let pid = rustix::process::Pid::from_raw(up.id().cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(up.wait().unwrap().success());
    assert_eq!(client.close_code().await, 4003);
    for address in [redis, first, second, third] {
        assert!(std::net::TcpListener::bind(address).is_ok(), "something is still at {address}");
    }
}
