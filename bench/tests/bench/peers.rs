//! `skylark bench --peer`: the bench's own load generator drives a server that was started separately.
//!
//! The peer is a node with cim listeners, over both transports: no foreign software is needed.

use std::path::Path;
use std::process::Output;

use serde_json::Value;

use crate::support::gateway::{Setup, skylark};
use crate::support::token;

#[test]
fn the_bench_drives_a_running_server_that_speaks_cim() {
    let node = Setup::default().start();
    let secret = String::from_utf8(token::dev_key()).unwrap();
    let api = node.address("api");
    let peer = |scheme: &str, service: &str| {
        let (address, pid) = (node.address(service), node.pid());
        format!("cim={scheme}://{address},api=http://{api},push=skylark,secret={secret},pid={pid},name={service}")
    };
    let json = node.folder.path().join("bench.json");
    let Output { status, stdout, stderr } = skylark()
        .args(["bench", "--quick", "--cell", "fan-out-1k", "--connections", "200", "--peer", &peer("ws", "cim")])
        .args(["--peer", &peer("tcp", "cim-tcp"), "--json"])
        .arg(&json)
        .arg("--plugins")
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins"))
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
fn a_peer_that_cannot_be_asked_is_told() {
    for (peer, words) in [
        ("mqtt=ws://127.0.0.1:1", "no peer is of the kind \"mqtt\""),
        ("centrifugo=ws://127.0.0.1:1,secret=s", "expected key="),
    ] {
        let output = skylark().args(["bench", "--peer", peer]).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && told.contains(words), "{told}");
    }
}
