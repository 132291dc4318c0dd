//! `--peer`: the load generator drives a server that was started separately.
//!
//! The peer is a node with cim listeners, over both transports: no foreign software is needed.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader};
use std::process::{Child, Output, Stdio};

use serde_json::Value;

use super::{bench, plugins};

#[test]
fn the_bench_drives_a_running_server_that_speaks_cim() {
    let node = Node::start();
    let (api, secret, pid) = (node.address("api"), &node.secret, node.child.id());
    let peer = |scheme: &str, service: &str| {
        let address = node.address(service);
        format!("cim={scheme}://{address},api=http://{api},push=skylark,secret={secret},pid={pid},name={service}")
    };
    let json = node.dir.path().join("bench.json");
    let Output { status, stdout, stderr } = bench()
        .args(["--quick", "--cell", "fan-out-1k", "--connections", "200", "--peer", &peer("ws", "cim")])
        .args(["--peer", &peer("tcp", "cim-tcp"), "--json"])
        .arg(&json)
        .arg("--plugins")
        .arg(plugins())
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&stdout).into_owned() + &String::from_utf8_lossy(&stderr);
    assert_eq!(status.code(), Some(0), "{told}");

    let results: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!(results["invalid"], Value::Array(Vec::new()));
    for name in ["cim", "cim-tcp"] {
        let rows: Vec<&Value> =
            results["cells"].as_array().unwrap().iter().filter(|row| row["contender"] == name).collect();
        let lines: Vec<&str> = rows.iter().map(|row| row["line"].as_str().unwrap()).collect();
        assert_eq!(lines, ["one at a time", "burst of 16"], "{told}");
        for row in rows {
            // Its process id gives its CPU time.
            assert!(row["per_second"]["median"].as_f64() > Some(0.0), "{row}");
            assert!(row["per_cpu_second"]["median"].as_f64() > Some(0.0), "{row}");
        }
    }
}

#[test]
fn invalid_peer_option_exits_with_1_and_its_reason() {
    for (peer, words) in [
        ("mqtt=ws://127.0.0.1:1", "unknown kind of peer \"mqtt\""),
        ("centrifugo=ws://127.0.0.1:1,secret=s", "expected key="),
    ] {
        let output = bench().args(["--peer", peer]).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && told.contains(words), "{told}");
    }
}

/// A running node with the token plugin; the bench itself runs it. Killed at the end of the test.
struct Node {
    child: Child,
    dir: tempfile::TempDir,
    /// Addresses by service.
    addresses: HashMap<String, String>,
    /// Key of its tokens.
    secret: String,
}

impl Node {
    /// Starts it on free ports and waits until it reports ready.
    fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("plugins");
        std::fs::create_dir(&own).unwrap();
        for file in ["token-auth.wasm", "token-auth.toml"] {
            std::fs::copy(plugins().join("dist").join(file), own.join(file)).unwrap();
        }
        let listener = |services: &str| format!("  - address: 127.0.0.1:0\n    serves: [{services}]\n");
        let config = format!(
            "node:\n  id: n1\n  state: {:?}\nlisteners:\n{}{}{}limits:\n  connections_per_ip: 0\n  connects_per_ip: 0\n\
             plugins:\n  dir: {own:?}\n  cache: {:?}\n",
            dir.path().join("state"),
            listener("ws, api, metrics"),
            listener("cim"),
            listener("cim-tcp"),
            dir.path().join("cache"),
        );
        let file = dir.path().join("skylark.yaml");
        std::fs::write(&file, config).unwrap();
        let mut child =
            bench().args(["node", "--", "--config"]).arg(file).arg("serve").stdout(Stdio::piped()).spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut node = Self { child, dir, addresses: HashMap::new(), secret: secret() };
        for line in output.lines().map(Result::unwrap) {
            if line.trim() == "ready" {
                return node;
            }
            node.addresses.extend(address(&line));
        }
        panic!("the node did not become ready");
    }

    fn address(&self, service: &str) -> &str {
        &self.addresses[service]
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `  ws      ws://127.0.0.1:8080/ws` → its service and address.
fn address(line: &str) -> Option<(String, String)> {
    let (service, url) = line.trim().split_once(' ')?;
    let (_, rest) = url.trim().split_once("://")?;
    Some((service.to_owned(), rest.split(['/', ' ']).next()?.to_owned()))
}

/// The first key of the sample manifest.
fn secret() -> String {
    let manifest: toml::Table =
        std::fs::read_to_string(plugins().join("dist/token-auth.toml")).unwrap().parse().unwrap();
    manifest["settings"]["keys"][0]["secret"].as_str().unwrap().to_owned()
}
