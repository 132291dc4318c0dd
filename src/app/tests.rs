//! A whole node in which a task panics. It runs in a child process, which is another run of this test binary.

use std::env;
use std::io::{BufRead, BufReader, Read, Write, stdin};
use std::net::{SocketAddr, TcpStream};
use std::panic::resume_unwind;
use std::process::{Command, Stdio, exit};

use tokio::runtime::Runtime;

use super::*;
use crate::config::Loader;

/// Variable with the child's configuration. Its presence marks the process as the child.
const CHILD: &str = "NODE_WITH_A_TASK_THAT_PANICS";
const CONFIG: &str = "listeners:\n  - address: 127.0.0.1:0\n    serves: [ws, api, metrics]\nplugins:\n  dir: ''\n\
                      log:\n  format: json\ndrain:\n  wait: 3s\n  grace: 5s\n";

/// Runs a node with a task that panics when standard input ends.
fn child(config: &str) -> ! {
    let loaded = Loader::isolated(Some(config.into()), None, &[]).load().unwrap();
    let vitals = Vitals::default();
    let doomed = vitals.run("doomed", async {
        let end = tokio::task::spawn_blocking(|| stdin().read_to_end(&mut Vec::new())).await;
        resume_unwind(Box::new(end));
    });
    let ended = Runtime::new().unwrap().block_on(async {
        tokio::spawn(doomed);
        run_with(loaded, vitals).await.unwrap()
    });
    assert!(matches!(&ended, End::Failed(failure) if failure.panicked), "{ended:?}");
    exit(ended.exit_code().into());
}

fn ready(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn task_that_panics_turns_readiness_red_and_the_node_drains_and_exits_70() {
    if let Ok(config) = env::var(CHILD) {
        child(&config);
    }
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("skylark.yaml");
    std::fs::write(&config, CONFIG).unwrap();
    let name = concat!("app::tests::", "task_that_panics_turns_readiness_red_and_the_node_drains_and_exits_70");
    let mut node = Command::new(env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, &config)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(node.stdout.take().unwrap()).lines().map(Result::unwrap);
    let line = said.find(|line| line.contains("/send ")).expect("the line of the API");
    let address = line.split_once("://").unwrap().1.split('/').next().unwrap().parse().unwrap();
    said.find(|line| line == "ready").unwrap();
    let fault = r#"task \"doomed\" panicked"#;
    assert!(!ready(address).contains(fault));
    drop(node.stdin.take());
    let is_red = |answer: &str| answer.starts_with("HTTP/1.1 503 ") && answer.contains(fault);
    while !is_red(&ready(address)) {}
    let ended = node.wait_with_output().unwrap();
    let log = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(70), "{log}");
    assert!(log.contains(r#""task":"doomed""#) && log.contains("\"drained\""), "{log}");
}
