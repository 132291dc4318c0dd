//! Documents keep their promises: each command in README.md and docs/http-api.md is run as it stands.
//!
//! Two things differ from a reader's desk: `cargo run --release --` is the binary that is built already, and the fixed
//! ports are free ones, set by the variables that an operator would use.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use crate::support::terminals::{Desk, blocks};

/// The addresses of `config/skylark-dev.yaml`, in the order of its listeners.
const DEV: [&str; 3] = ["127.0.0.1:8080", "127.0.0.1:34567", "127.0.0.1:23456"];

/// `cargo run --release -- …` and `skylark …` are the built binary; what `curl` prints ends its line; the command that runs
/// the tests must merely exist.
const PRELUDE: &str = r#"set -e
cargo() { [ "$1 $2 $3" = "run --release --" ] || return 9; shift 3; "$BUILT" "$@"; }
skylark() { "$BUILT" "$@"; }
curl() { command curl "$@" && echo; }
tests/run() { test -x "$ROOT/tests/run"; }
"#;

/// Plays `first`, then the document; terminals that are `open_ended` may still run something at its end.
fn play(document: &str, first: &str, standard: Option<&str>, open_ended: &[&str]) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    for part in ["config", "plugins/dist"] {
        copy(&root.join(part), &folder.path().join(part));
    }
    let ports = free();
    let mut variables = vec![
        ("BUILT".to_owned(), env!("CARGO_BIN_EXE_skylark").to_owned()),
        ("ROOT".to_owned(), root.to_str().unwrap().to_owned()),
        ("SKYLARK__PLUGINS__CACHE".to_owned(), format!("{}/compiled", env!("CARGO_TARGET_TMPDIR"))),
    ];
    let mut text = std::fs::read_to_string(root.join(document)).unwrap();
    for (at, port) in ports.iter().enumerate() {
        variables.push((format!("SKYLARK__LISTENERS__{at}__ADDRESS"), port.to_string()));
        text = text.replace(DEV[at], &port.to_string());
    }
    let played = blocks(&text, standard);
    assert!(played.iter().any(|b| b.kind == "sh"), "{document} has no command");
    let mut desk = Desk::new(folder.path(), PRELUDE, &variables);
    for block in blocks(first, None).iter().chain(&played) {
        desk.play(block);
    }
    desk.finish(open_ended);
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

/// Three addresses that were free a moment ago.
fn free() -> Vec<SocketAddr> {
    let held: Vec<TcpListener> = DEV.iter().map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    held.iter().map(|listener| listener.local_addr().unwrap()).collect()
}

#[test]
fn the_readme_is_true() {
    play("README.md", "", None, &["1", "2"]);
}

#[test]
fn the_reference_of_the_push_api_is_true() {
    let serve = "<!-- terminal 1 -->\n```sh\ncargo run --release -- serve --env dev\n```\n";
    let ready = "<!-- terminal 1 -->\n```text\nready\n```\n";
    play("docs/http-api.md", &format!("{serve}{ready}"), Some("2"), &["1"]);
}
